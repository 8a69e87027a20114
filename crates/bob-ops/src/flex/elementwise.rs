//! One pass over all values, on all cores and in vectors.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::filled;
use super::isa::vectorized;
use super::{dense, tensor, values};

/// Values a task takes at a time: large against the cost of a task, small against a cache.
pub(super) const CHUNK: usize = 1 << 14;

/// `f` of every value; in place where nobody else has the tensor.
pub(crate) fn map(x: FlexTensor, f: impl Fn(f32) -> f32 + Sync) -> FlexTensor {
    let mut x = owned(x);
    match x.try_storage_mut::<f32>() {
        Some(values) => {
            values.par_chunks_mut(CHUNK).for_each(|chunk| {
                vectorized(
                    #[inline(always)]
                    || {
                        for x in chunk.iter_mut() {
                            *x = f(*x);
                        }
                    },
                );
            });
            x
        }
        None => {
            let from = values(&x);
            let out = filled(from.len(), |out| {
                out.par_chunks_mut(CHUNK)
                    .zip(from.par_chunks(CHUNK))
                    .for_each(|(out, from)| {
                        vectorized(
                            #[inline(always)]
                            || {
                                for (out, x) in out.iter_mut().zip(from) {
                                    *out = f(*x);
                                }
                            },
                        );
                    });
            });
            tensor(out, x.shape())
        }
    }
}

/// `f` of every pair of values; in place of the first where nobody else has it.
pub(crate) fn zip(mut x: FlexTensor, y: &FlexTensor, f: impl Fn(f32, f32) -> f32 + Sync) -> FlexTensor {
    update(&mut x, y, f);
    x
}

/// Every value of the first becomes `f` of the pair; in a new tensor where somebody else has it.
pub(crate) fn update(x: &mut FlexTensor, y: &FlexTensor, f: impl Fn(f32, f32) -> f32 + Sync) {
    if !is_whole(x) {
        *x = dense(x);
    }
    let y = dense(y);
    let other = values(&y);
    match x.try_storage_mut::<f32>() {
        Some(values) => {
            values
                .par_chunks_mut(CHUNK)
                .zip(other.par_chunks(CHUNK))
                .for_each(|(chunk, other)| {
                    vectorized(
                        #[inline(always)]
                        || {
                            for (x, y) in chunk.iter_mut().zip(other) {
                                *x = f(*x, *y);
                            }
                        },
                    );
                });
        }
        None => {
            let from = values(x);
            let out = filled(from.len(), |out| {
                out.par_chunks_mut(CHUNK)
                    .zip(from.par_chunks(CHUNK))
                    .zip(other.par_chunks(CHUNK))
                    .for_each(|((out, x), y)| {
                        vectorized(
                            #[inline(always)]
                            || {
                                for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
                                    *out = f(*x, *y);
                                }
                            },
                        );
                    });
            });
            *x = tensor(out, x.shape());
        }
    }
}

/// Every value of `x` times that of `y`, on this thread.
pub(crate) fn multiply_by(x: &mut [f32], y: &[f32]) {
    vectorized(
        #[inline(always)]
        || {
            for (x, y) in x.iter_mut().zip(y) {
                *x *= y;
            }
        },
    );
}

/// Whether the values lie side by side with nothing around them.
fn is_whole(x: &FlexTensor) -> bool {
    x.is_contiguous() && x.layout().start_offset() == 0 && x.storage::<f32>().len() == x.shape().num_elements()
}

/// The tensor with its values side by side, and this the only handle to them where it was the only one.
pub(super) fn owned(x: FlexTensor) -> FlexTensor {
    // `dense` gives a second handle to the same values.
    if is_whole(&x) { x } else { dense(&x) }
}
