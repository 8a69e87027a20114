//! Softmax cross-entropy and its gradient in one pass over the logits.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::filled;
use super::isa::vectorized;
use super::math::{exp, max, sum};
use super::{dense, tensor, values};

/// The mean loss, `[1]`, and its gradient by the logits.
pub(crate) fn loss_and_gradient(logits: &FlexTensor, targets: &FlexTensor) -> (FlexTensor, FlexTensor) {
    let [batch, classes] = logits.shape().dims();
    let [logits, targets] = [logits, targets].map(dense);
    let mut losses = Vec::new();
    let grads = filled(batch * classes, |grads| {
        losses = grads
            .par_chunks_mut(classes.max(1))
            .zip(values(&logits).par_chunks(classes.max(1)))
            .zip(values(&targets).par_chunks(classes.max(1)))
            .map(|((grad, logits), targets)| {
                vectorized(
                    #[inline(always)]
                    || {
                        let (grad, logits, targets) = (&mut grad[..classes], &logits[..classes], &targets[..classes]);
                        let largest = max(logits);
                        for c in 0..classes {
                            grad[c] = exp(logits[c] - largest);
                        }
                        let total = sum([&*grad], |[x]| x);
                        let weight = sum([targets], |[x]| x);
                        let log_total = largest + total.ln();
                        let loss = sum([targets, logits], |[target, logit]| target * (log_total - logit));
                        let (factor, mean) = (weight / total, 1.0 / batch as f32);
                        for c in 0..classes {
                            grad[c] = (grad[c] * factor - targets[c]) * mean;
                        }
                        loss
                    },
                )
            })
            .collect::<Vec<f32>>();
    });
    let loss = losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / batch as f64;
    (tensor(vec![loss as f32], [1]), tensor(grads, [batch, classes]))
}
