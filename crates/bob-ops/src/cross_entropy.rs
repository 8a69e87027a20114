//! The loss of classification.

#[cfg(feature = "flex")]
use burn::backend::TensorMetadata;
#[cfg(feature = "flex")]
use burn::backend::flex::FlexTensor;
use burn::tensor::{Tensor, activation};

#[cfg(feature = "flex")]
use crate::flex::{cross_entropy as kernels, elementwise::zip};
#[cfg(feature = "flex")]
use crate::operation::FlexBackward;
use crate::operation::{Operation, apply, has_kernels};

/// Softmax cross-entropy of logits against a distribution over the classes, the mean over the batch.
///
/// With smoothing `s` the targets become `t · (1 - s) + s / classes` (Szegedy et al., arXiv:1512.00567). Targets carry
/// no gradient.
///
/// # Shapes
///   - logits, targets: `[batch, classes]`; the targets of a row add up to one
///   - output: `[1]`
///
/// # Panics
/// Where the shapes differ or `smoothing` is not within `0..=1`.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<2>, smoothing: f64) -> Tensor<1> {
    let [batch, classes] = logits.dims();
    assert_eq!(
        targets.dims(),
        [batch, classes],
        "cross_entropy: targets for logits of {:?}",
        logits.dims()
    );
    assert!(
        (0.0..=1.0).contains(&smoothing),
        "cross_entropy: smoothing {smoothing} is not within 0..=1"
    );
    // A leaf stays one when it is detached.
    let targets = targets.detach().set_require_grad(false);
    let targets = if smoothing > 0.0 {
        targets * (1.0 - smoothing) + smoothing / classes as f64
    } else {
        targets
    };
    if !has_kernels(&logits.device(), logits.dtype()) {
        return reference(logits, targets);
    }
    apply(CrossEntropy, vec![logits.into_dispatch(), targets.into_dispatch()])
}

/// The same composed of burn's own operations, without smoothing.
pub(crate) fn reference(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let [batch, _] = logits.dims();
    -(activation::log_softmax(logits, 1) * targets).sum() / batch as f64
}

/// Inputs: logits, targets.
#[derive(Clone, Debug)]
struct CrossEntropy;

impl Operation for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn reads(&self, _index: usize) -> bool {
        false
    }

    #[cfg(feature = "flex")]
    fn flex(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let (loss, grad) = kernels::loss_and_gradient(&inputs[0], &inputs[1]);
        (loss, if keep { vec![grad] } else { Vec::new() })
    }

    #[cfg(feature = "flex")]
    fn flex_backward(&self, mut pass: FlexBackward) -> Vec<Option<FlexTensor>> {
        let grad = pass.kept.remove(0);
        let factor = pass.grad.storage::<f32>()[pass.grad.layout().start_offset()];
        debug_assert_eq!(pass.grad.shape().num_elements(), 1);
        vec![Some(zip(grad.clone(), &grad, |grad, _| grad * factor)), None]
    }

    #[cfg(feature = "tch")]
    fn aten(&self, inputs: &[tch::Tensor]) -> tch::Tensor {
        let batch = inputs[0].size()[0] as f64;
        let losses = -(inputs[0].log_softmax(1, None) * &inputs[1]);
        (losses.sum(None) / batch).reshape([1])
    }
}
