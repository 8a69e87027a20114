//! Pools and gates, channels last, a line of pixels at a time.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::filled;
use super::conv::geometry;
use super::isa::vectorized;
use super::{dense, tensor, values};
use crate::Conv2dOptions;

pub(crate) fn max_pool(x: &FlexTensor, kernel: [usize; 2], options: &Conv2dOptions) -> FlexTensor {
    let [batch, height, width, channels] = x.shape().dims();
    let geometry = geometry(batch, [height, width], kernel, options);
    let [output_height, output_width] = geometry.output;
    let x = dense(x);
    let from = values(&x);
    let taps = geometry.taps();
    let out = filled(geometry.outputs() * channels, |out| {
        let line = (output_width * channels).max(1);
        out.par_chunks_mut(line).enumerate().for_each(|(line, out)| {
            let (image, oy) = (line / output_height, line % output_height);
            vectorized(
                #[inline(always)]
                || {
                    out.fill(f32::NEG_INFINITY);
                    for (ox, out) in out.chunks_exact_mut(channels).enumerate() {
                        for [i, j] in &taps {
                            let Some([y, x]) = geometry.pixel([oy, ox], [*i, *j]) else {
                                continue;
                            };
                            let start = ((image * height + y) * width + x) * channels;
                            for (out, x) in out.iter_mut().zip(&from[start..start + channels]) {
                                // What is not a number wins, as in PyTorch.
                                *out = if *x <= *out || out.is_nan() { *out } else { *x };
                            }
                        }
                    }
                },
            );
        });
    });
    tensor(out, [batch, output_height, output_width, channels])
}

/// The gradient goes to the first pixel of the window that has the largest value.
pub(crate) fn max_pool_backward(
    x: &FlexTensor,
    output: &FlexTensor,
    grad: &FlexTensor,
    kernel: [usize; 2],
    options: &Conv2dOptions,
) -> FlexTensor {
    let shape @ [batch, height, width, channels] = x.shape().dims();
    let geometry = geometry(batch, [height, width], kernel, options);
    let [output_height, output_width] = geometry.output;
    let [x, output, grad] = [x, output, grad].map(dense);
    let (from, largest, grad) = (values(&x), values(&output), values(&grad));
    let taps = geometry.taps();
    let out = filled(from.len(), |out| {
        let image_len = (height * width * channels).max(1);
        out.par_chunks_mut(image_len).enumerate().for_each(|(image, out)| {
            out.fill(0.0);
            let mut left = vec![0.0; channels];
            for oy in 0..output_height {
                for ox in 0..output_width {
                    let at = ((image * output_height + oy) * output_width + ox) * channels;
                    left.copy_from_slice(&grad[at..at + channels]);
                    let largest = &largest[at..at + channels];
                    for tap in &taps {
                        let Some([y, x]) = geometry.pixel([oy, ox], *tap) else {
                            continue;
                        };
                        let start = (y * width + x) * channels;
                        let from = &from[image * image_len + start..][..channels];
                        let out = &mut out[start..start + channels];
                        vectorized(
                            #[inline(always)]
                            || {
                                let (left, largest) = (&mut left[..channels], &largest[..channels]);
                                for c in 0..channels {
                                    let share = if from[c] == largest[c] { left[c] } else { 0.0 };
                                    out[c] += share;
                                    left[c] -= share;
                                }
                            },
                        );
                    }
                }
            }
        });
    });
    tensor(out, shape)
}

pub(crate) fn mean_pool(x: &FlexTensor) -> FlexTensor {
    let [batch, tokens, channels] = x.shape().dims();
    let x = dense(x);
    // Nothing has no mean.
    let mut sums = vec![if tokens == 0 { f32::NAN } else { 0.0 }; batch * channels];
    sums.par_chunks_mut(channels.max(1))
        .zip(values(&x).par_chunks((tokens * channels).max(1)))
        .for_each(|(sums, x)| {
            sum_rows(sums, x);
            sums.iter_mut().for_each(|sum| *sum /= tokens as f32);
        });
    tensor(sums, [batch, channels])
}

pub(crate) fn mean_pool_backward(shape: [usize; 3], grad: &FlexTensor) -> FlexTensor {
    let [batch, tokens, channels] = shape;
    let grad = dense(grad);
    let out = filled(batch * tokens * channels, |out| {
        out.par_chunks_mut((tokens * channels).max(1))
            .zip(values(&grad).par_chunks(channels.max(1)))
            .for_each(|(out, grad)| {
                let share: Vec<f32> = grad.iter().map(|grad| grad / tokens as f32).collect();
                out.chunks_exact_mut(channels)
                    .for_each(|out| out.copy_from_slice(&share));
            });
    });
    tensor(out, shape)
}

/// Every channel times its gate.
pub(crate) fn gate(x: &FlexTensor, gate: &FlexTensor) -> FlexTensor {
    let shape @ [_, tokens, channels] = x.shape().dims::<3>();
    let [x, gate] = [x, gate].map(dense);
    let [entry, rows, channels] = [tokens * channels, ROWS * channels, channels].map(|values| values.max(1));
    let out = filled(values(&x).len(), |out| {
        out.par_chunks_mut(entry)
            .zip(values(&x).par_chunks(entry))
            .zip(values(&gate).par_chunks(channels))
            .for_each(|((out, x), gate)| {
                out.par_chunks_mut(rows).zip(x.par_chunks(rows)).for_each(|(out, x)| {
                    vectorized(
                        #[inline(always)]
                        || {
                            for (out, x) in out.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                                for ((out, x), gate) in out.iter_mut().zip(x).zip(gate) {
                                    *out = x * gate;
                                }
                            }
                        },
                    );
                });
            });
    });
    tensor(out, shape)
}

/// The sum over the tokens of `x · y`, `[batch, channels]`.
pub(crate) fn sum_of_products(x: &FlexTensor, y: &FlexTensor) -> FlexTensor {
    let [batch, tokens, channels] = x.shape().dims();
    let [x, y] = [x, y].map(dense);
    let [entry, rows] = [tokens * channels, ROWS * channels].map(|values| values.max(1));
    let mut sums = vec![0.0; batch * channels];
    sums.par_chunks_mut(channels.max(1))
        .zip(values(&x).par_chunks(entry))
        .zip(values(&y).par_chunks(entry))
        .for_each(|((sums, x), y)| {
            // Some rows at a time, so that long sums stay exact.
            let sum = |(x, y): (&[f32], &[f32])| {
                let mut part = vec![0.0; channels];
                vectorized(
                    #[inline(always)]
                    || {
                        for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact(channels)) {
                            for ((part, x), y) in part.iter_mut().zip(x).zip(y) {
                                *part += x * y;
                            }
                        }
                    },
                );
                part
            };
            let parts: Vec<Vec<f32>> = x.par_chunks(rows).zip(y.par_chunks(rows)).map(sum).collect();
            for part in &parts {
                super::sums::add_bias(sums, Some(part));
            }
        });
    tensor(sums, [batch, channels])
}

/// Rows that are summed before their sum is added to the others.
const ROWS: usize = 64;

fn sum_rows(sums: &mut [f32], x: &[f32]) {
    let channels = sums.len();
    for rows in x.chunks(ROWS * channels) {
        let mut part = vec![0.0; channels];
        vectorized(
            #[inline(always)]
            || {
                for row in rows.chunks_exact(channels) {
                    super::sums::add_bias(&mut part, Some(row));
                }
            },
        );
        super::sums::add_bias(sums, Some(&part));
    }
}
