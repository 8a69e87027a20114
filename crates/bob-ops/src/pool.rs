//! Pooling and gating of maps with channels last.

#[cfg(feature = "flex")]
use burn::backend::TensorMetadata;
#[cfg(feature = "flex")]
use burn::backend::flex::FlexTensor;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Tensor, module};

use crate::Conv2dOptions;
#[cfg(feature = "flex")]
use crate::flex::pool as kernels;
#[cfg(feature = "flex")]
use crate::operation::FlexBackward;
use crate::operation::{Operation, apply, has_kernels};

/// The largest value under every place of a square window; padding never wins.
///
/// # Shapes
///   - x: `[batch, height, width, channels]`
///   - output: `[batch, output_height, output_width, channels]`
///
/// # Panics
/// Where the window is larger than the padded map, the padding more than half the window, or the stride zero.
pub fn max_pool2d(x: Tensor<4>, kernel: usize, stride: usize, padding: usize) -> Tensor<4> {
    assert!(
        padding <= kernel / 2,
        "max_pool2d: a padding of {padding} for a window of {kernel}"
    );
    let operation = MaxPool {
        kernel,
        stride,
        padding,
    };
    let [_, height, width, _] = x.dims();
    operation
        .options()
        .output_of("max_pool2d", [height, width], [kernel; 2]);
    if !has_kernels(&x.device(), x.dtype()) {
        return operation.reference(x);
    }
    apply(operation, vec![x.into_dispatch()])
}

/// The window of a max pool.
#[derive(Clone, Debug)]
pub(crate) struct MaxPool {
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

impl MaxPool {
    fn options(&self) -> Conv2dOptions {
        Conv2dOptions {
            stride: [self.stride; 2],
            padding: [[self.padding; 2]; 2],
            ..Conv2dOptions::default()
        }
    }

    /// The same by burn's own.
    pub(crate) fn reference(&self, x: Tensor<4>) -> Tensor<4> {
        let options = MaxPoolOptions {
            kernel_size: [self.kernel; 2],
            stride: [self.stride; 2],
            padding: [(self.padding, self.padding); 2],
            dilation: [1, 1],
            ceil_mode: false,
        };
        module::max_pool2d(x.permute([0, 3, 1, 2]), options).permute([0, 2, 3, 1])
    }
}

impl Operation for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn reads(&self, _index: usize) -> bool {
        true
    }

    #[cfg(feature = "flex")]
    fn flex(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let output = kernels::max_pool(&inputs[0], [self.kernel; 2], &self.options());
        let kept = if keep { vec![output.clone()] } else { Vec::new() };
        (output, kept)
    }

    #[cfg(feature = "flex")]
    fn flex_backward(&self, pass: FlexBackward) -> Vec<Option<FlexTensor>> {
        let grad = kernels::max_pool_backward(
            pass.input(0),
            &pass.kept[0],
            &pass.grad,
            [self.kernel; 2],
            &self.options(),
        );
        vec![Some(grad)]
    }

    #[cfg(feature = "tch")]
    fn aten(&self, inputs: &[tch::Tensor]) -> tch::Tensor {
        let [kernel, stride, padding] = [self.kernel, self.stride, self.padding].map(|size| [size as i64; 2]);
        inputs[0]
            .permute([0, 3, 1, 2])
            .max_pool2d(kernel, stride, padding, [1, 1], false)
            .permute([0, 2, 3, 1])
    }
}

/// The mean over all tokens, or all pixels of a map that is flattened to tokens.
///
/// # Shapes
///   - x: `[batch, tokens, channels]`
///   - output: `[batch, channels]`
pub fn mean_pool(x: Tensor<3>) -> Tensor<2> {
    if !has_kernels(&x.device(), x.dtype()) {
        return x.mean_dim(1).squeeze_dim(1);
    }
    apply(MeanPool, vec![x.into_dispatch()])
}

#[derive(Clone, Debug)]
struct MeanPool;

impl Operation for MeanPool {
    fn name(&self) -> &'static str {
        "mean_pool"
    }

    // Only its shape is read, and a handle to it costs nothing that the layer before does not keep.
    fn reads(&self, _index: usize) -> bool {
        true
    }

    #[cfg(feature = "flex")]
    fn flex(&self, inputs: Vec<FlexTensor>, _keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        (kernels::mean_pool(&inputs[0]), Vec::new())
    }

    #[cfg(feature = "flex")]
    fn flex_backward(&self, pass: FlexBackward) -> Vec<Option<FlexTensor>> {
        vec![Some(kernels::mean_pool_backward(
            pass.input(0).shape().dims(),
            &pass.grad,
        ))]
    }

    #[cfg(feature = "tch")]
    fn aten(&self, inputs: &[tch::Tensor]) -> tch::Tensor {
        inputs[0].mean_dim([1_i64].as_slice(), false, None)
    }
}

/// Every channel of every entry times its gate, as squeeze-and-excitation does (Hu et al., arXiv:1709.01507); also a
/// matrix whose columns have each a scale.
///
/// # Shapes
///   - x, output: `[batch, tokens, channels]`
///   - gate: `[batch, channels]`
///
/// # Panics
/// Where the shapes do not fit.
pub fn gate_channels(x: Tensor<3>, gate: Tensor<2>) -> Tensor<3> {
    let [batch, _, channels] = x.dims();
    assert_eq!(gate.dims(), [batch, channels], "gate_channels: x has {:?}", x.dims());
    if !has_kernels(&x.device(), x.dtype()) {
        return x * gate.unsqueeze_dim(1);
    }
    apply(Gate, vec![x.into_dispatch(), gate.into_dispatch()])
}

#[derive(Clone, Debug)]
struct Gate;

impl Operation for Gate {
    fn name(&self) -> &'static str {
        "gate_channels"
    }

    fn reads(&self, _index: usize) -> bool {
        true
    }

    #[cfg(feature = "flex")]
    fn flex(&self, inputs: Vec<FlexTensor>, _keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        (kernels::gate(&inputs[0], &inputs[1]), Vec::new())
    }

    #[cfg(feature = "flex")]
    fn flex_backward(&self, pass: FlexBackward) -> Vec<Option<FlexTensor>> {
        let (x, gate) = (pass.input(0), pass.input(1));
        let x_grad = pass.wanted[0].then(|| kernels::gate(&pass.grad, gate));
        let gate_grad = pass.wanted[1].then(|| kernels::sum_of_products(x, &pass.grad));
        vec![x_grad, gate_grad]
    }

    #[cfg(feature = "tch")]
    fn aten(&self, inputs: &[tch::Tensor]) -> tch::Tensor {
        &inputs[0] * inputs[1].unsqueeze(1)
    }
}
