//! One step of AdamW in one pass.

use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::elementwise::{CHUNK, owned};
use super::isa::vectorized;
use super::{dense, values};
use crate::adamw::Factors;

/// Parameter, mean and mean of squares after a step; in place where nobody else has them.
pub(crate) fn step(
    factors: Factors,
    tensor: FlexTensor,
    grad: &FlexTensor,
    moment_1: FlexTensor,
    moment_2: FlexTensor,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    let grad = dense(grad);
    let [mut tensor, mut moment_1, mut moment_2] = [tensor, moment_1, moment_2].map(owned);
    // Copies what is shared.
    tensor
        .storage_mut::<f32>()
        .par_chunks_mut(CHUNK)
        .zip(moment_1.storage_mut::<f32>().par_chunks_mut(CHUNK))
        .zip(moment_2.storage_mut::<f32>().par_chunks_mut(CHUNK))
        .zip(values(&grad).par_chunks(CHUNK))
        .for_each(|(((tensor, moment_1), moment_2), grad)| {
            vectorized(
                #[inline(always)]
                || {
                    let all = tensor
                        .iter_mut()
                        .zip(moment_1.iter_mut())
                        .zip(moment_2.iter_mut())
                        .zip(grad);
                    for (((tensor, moment_1), moment_2), grad) in all {
                        *moment_1 = *moment_1 * factors.beta_1 + grad * (1.0 - factors.beta_1);
                        *moment_2 = *moment_2 * factors.beta_2 + grad * grad * (1.0 - factors.beta_2);
                        let root = moment_2.sqrt() / factors.root + factors.epsilon;
                        *tensor = *tensor * factors.keep - factors.step * *moment_1 / root;
                    }
                },
            );
        });
    (tensor, moment_1, moment_2)
}
