//! Batch norm and layer norm: statistics of chunks of rows in their order, and one pass for each map.

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::filled;
use super::isa::vectorized;
use super::math::sum;
use super::sums::add_bias;
use super::{dense, tensor, values};
use crate::Activation;
use crate::activation::each;

/// Rows of a task: a number of its own, so that sums do not depend on the threads.
const ROWS: usize = 128;

/// Mean and biased variance of every channel of `[..., channels]`, as `[2, channels]`.
pub(crate) fn moments(x: &FlexTensor) -> FlexTensor {
    let channels = last(x);
    let x = dense(x);
    let x = values(&x);
    // Mean and squared deviations of each chunk, then of all by Chan's update.
    let parts: Vec<(usize, Vec<f32>, Vec<f32>)> = x
        .par_chunks((ROWS * channels).max(1))
        .map(|rows| {
            let count = rows.len() / channels;
            let (mut mean, mut squares) = (vec![0.0; channels], vec![0.0; channels]);
            vectorized(
                #[inline(always)]
                || {
                    rows.chunks_exact(channels)
                        .for_each(|row| add_bias(&mut mean, Some(row)));
                    mean.iter_mut().for_each(|mean| *mean /= count as f32);
                    for row in rows.chunks_exact(channels) {
                        for ((square, x), mean) in squares.iter_mut().zip(row).zip(&mean) {
                            *square += (x - mean) * (x - mean);
                        }
                    }
                },
            );
            (count, mean, squares)
        })
        .collect();
    let (mut seen, mut mean, mut squares) = (0.0, vec![0.0; channels], vec![0.0; channels]);
    for (count, part_mean, part_squares) in parts {
        let count = count as f64;
        let all = seen + count;
        for c in 0..channels {
            let delta = f64::from(part_mean[c]) - mean[c];
            mean[c] += delta * count / all;
            squares[c] += f64::from(part_squares[c]) + delta * delta * seen * count / all;
        }
        seen = all;
    }
    let variance = squares.iter().map(|squares| (squares / seen) as f32);
    let found: Vec<f32> = mean.iter().map(|mean| *mean as f32).chain(variance).collect();
    tensor(found, [2, channels])
}

/// `x * scale + shift` per channel: batch norm once the moments are known.
pub(crate) struct ChannelMap {
    mean: Vec<f32>,
    inverse: Vec<f32>,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl ChannelMap {
    pub(crate) fn new(moments: &FlexTensor, gamma: &FlexTensor, beta: &FlexTensor, epsilon: f64) -> Self {
        let [moments, gamma, beta] = [moments, gamma, beta].map(dense);
        let (mean, variance) = values(&moments).split_at(values(&gamma).len());
        let inverse: Vec<f32> = variance
            .iter()
            .map(|variance| (1.0 / (f64::from(*variance) + epsilon).sqrt()) as f32)
            .collect();
        let scale: Vec<f32> = inverse
            .iter()
            .zip(values(&gamma))
            .map(|(inverse, gamma)| inverse * gamma)
            .collect();
        let shift = values(&beta)
            .iter()
            .zip(mean)
            .zip(&scale)
            .map(|((beta, mean), scale)| beta - mean * scale)
            .collect();
        Self {
            mean: mean.to_vec(),
            inverse,
            scale,
            shift,
        }
    }
}

pub(crate) fn scale_and_shift(x: FlexTensor, map: &ChannelMap, activation: Option<Activation>) -> FlexTensor {
    match activation {
        None => affine(&x, map, |x| x),
        Some(activation) => each!(activation, A => affine(&x, map, |x| A.of(x))),
    }
}

fn affine(x: &FlexTensor, map: &ChannelMap, f: impl Fn(f32) -> f32 + Sync) -> FlexTensor {
    let channels = last(x);
    let x = dense(x);
    let from = values(&x);
    let out = filled(from.len(), |out| {
        let chunk = (ROWS * channels).max(1);
        out.par_chunks_mut(chunk)
            .zip(from.par_chunks(chunk))
            .for_each(|(out, from)| {
                vectorized(
                    #[inline(always)]
                    || {
                        for (out, from) in out.chunks_exact_mut(channels).zip(from.chunks_exact(channels)) {
                            let rows = out.iter_mut().zip(from).zip(&map.scale).zip(&map.shift);
                            rows.for_each(|(((out, x), scale), shift)| *out = f(x * scale + shift));
                        }
                    },
                );
            });
    });
    tensor(out, x.shape())
}

/// Gradients of x, gamma and beta.
pub(crate) fn batch_norm_backward(
    x: &FlexTensor,
    grad: FlexTensor,
    map: &ChannelMap,
    activation: Option<Activation>,
) -> [FlexTensor; 3] {
    match activation {
        None => differentiate(x, &grad, map, |_| 1.0),
        Some(activation) => each!(activation, A => differentiate(x, &grad, map, |y| A.slope(y))),
    }
}

/// `slope` is the derivative of the activation at the normalised value.
fn differentiate(
    x: &FlexTensor,
    grad: &FlexTensor,
    map: &ChannelMap,
    slope: impl Fn(f32) -> f32 + Sync,
) -> [FlexTensor; 3] {
    let channels = last(x);
    let [x, grad] = [x, grad].map(dense);
    let chunk = (ROWS * channels).max(1);
    let ChannelMap {
        mean,
        inverse,
        scale,
        shift,
    } = map;
    let parts: Vec<[Vec<f32>; 2]> = values(&x)
        .par_chunks(chunk)
        .zip(values(&grad).par_chunks(chunk))
        .map(|(x, grad)| {
            let (mut gamma, mut beta) = (vec![0.0; channels], vec![0.0; channels]);
            vectorized(
                #[inline(always)]
                || {
                    for (x, grad) in x.chunks_exact(channels).zip(grad.chunks_exact(channels)) {
                        // One length for all, so that the loop needs no bounds.
                        let (x, grad) = (&x[..channels], &grad[..channels]);
                        let (mean, scale, shift) = (&mean[..channels], &scale[..channels], &shift[..channels]);
                        let (gamma, beta) = (&mut gamma[..channels], &mut beta[..channels]);
                        for c in 0..channels {
                            let grad = grad[c] * slope(x[c] * scale[c] + shift[c]);
                            gamma[c] += grad * (x[c] - mean[c]);
                            beta[c] += grad;
                        }
                    }
                },
            );
            [gamma, beta]
        })
        .collect();
    let (mut gamma, mut beta) = (vec![0.0_f64; channels], vec![0.0_f64; channels]);
    for [part_gamma, part_beta] in parts {
        for c in 0..channels {
            gamma[c] += f64::from(part_gamma[c] * inverse[c]);
            beta[c] += f64::from(part_beta[c]);
        }
    }
    let count = (values(&x).len() / channels.max(1)) as f64;
    // dx = scale * (g - mean(g) - x̂ * mean(g x̂)) = scale * g + x * along + constant, per channel.
    let along: Vec<f32> = (0..channels)
        .map(|c| (-f64::from(scale[c]) * gamma[c] / count * f64::from(inverse[c])) as f32)
        .collect();
    let level: Vec<f32> = (0..channels)
        .map(|c| (-f64::from(scale[c]) * beta[c] / count) as f32)
        .collect();
    let out = filled(values(&x).len(), |out| {
        out.par_chunks_mut(chunk)
            .zip(values(&x).par_chunks(chunk))
            .zip(values(&grad).par_chunks(chunk))
            .for_each(|((out, x), grad)| {
                vectorized(
                    #[inline(always)]
                    || {
                        let rows = out.chunks_exact_mut(channels).zip(x.chunks_exact(channels));
                        for ((out, x), grad) in rows.zip(grad.chunks_exact(channels)) {
                            let (out, x, grad) = (&mut out[..channels], &x[..channels], &grad[..channels]);
                            let (mean, scale, shift) = (&mean[..channels], &scale[..channels], &shift[..channels]);
                            let (along, level) = (&along[..channels], &level[..channels]);
                            for c in 0..channels {
                                let grad = grad[c] * slope(x[c] * scale[c] + shift[c]);
                                out[c] = grad * scale[c] + (x[c] - mean[c]) * along[c] + level[c];
                            }
                        }
                    },
                );
            });
    });
    let narrow = |sums: Vec<f64>| tensor(sums.into_iter().map(|sum| sum as f32).collect(), [channels]);
    [tensor(out, x.shape()), narrow(gamma), narrow(beta)]
}

/// Layer norm over the last dimension, and mean and inverse deviation of every row, `[rows, 2]`.
pub(crate) fn layer_norm(
    x: &FlexTensor,
    gamma: &FlexTensor,
    beta: Option<&FlexTensor>,
    epsilon: f64,
) -> (FlexTensor, FlexTensor) {
    let channels = last(x);
    let [x, gamma] = [x, gamma].map(dense);
    let beta = beta.map(dense);
    let (from, gamma) = (values(&x), values(&gamma));
    let beta = beta.as_ref().map(values);
    let rows = from.len().checked_div(channels).unwrap_or(0);
    let mut moments = vec![0.0; 2 * rows];
    let out = filled(from.len(), |out| {
        let chunk = (ROWS * channels).max(1);
        out.par_chunks_mut(chunk)
            .zip(from.par_chunks(chunk))
            .zip(moments.par_chunks_mut(2 * ROWS))
            .for_each(|((out, from), moments)| {
                vectorized(
                    #[inline(always)]
                    || {
                        let rows = out.chunks_exact_mut(channels).zip(from.chunks_exact(channels));
                        for ((out, x), moments) in rows.zip(moments.chunks_exact_mut(2)) {
                            let (out, x, gamma) = (&mut out[..channels], &x[..channels], &gamma[..channels]);
                            let mean = sum(channels, |c| x[c]) / channels as f32;
                            let squares = sum(channels, |c| (x[c] - mean) * (x[c] - mean));
                            let inverse = 1.0 / (squares / channels as f32 + epsilon as f32).sqrt();
                            match beta {
                                Some(beta) => {
                                    let beta = &beta[..channels];
                                    for c in 0..channels {
                                        out[c] = (x[c] - mean) * inverse * gamma[c] + beta[c];
                                    }
                                }
                                None => {
                                    for c in 0..channels {
                                        out[c] = (x[c] - mean) * inverse * gamma[c];
                                    }
                                }
                            }
                            moments.copy_from_slice(&[mean, inverse]);
                        }
                    },
                );
            });
    });
    (tensor(out, x.shape()), tensor(moments, [rows, 2]))
}

/// Gradients of x, gamma and beta.
pub(crate) fn layer_norm_backward(
    x: &FlexTensor,
    gamma: &FlexTensor,
    moments: &FlexTensor,
    grad: &FlexTensor,
) -> [FlexTensor; 3] {
    let channels = last(x);
    let [x, gamma, grad] = [x, gamma, grad].map(dense);
    let (from, gamma) = (values(&x), values(&gamma));
    let chunk = (ROWS * channels).max(1);
    let mut parts = Vec::new();
    let out = filled(from.len(), |out| {
        parts = out
            .par_chunks_mut(chunk)
            .zip(from.par_chunks(chunk))
            .zip(values(&grad).par_chunks(chunk))
            .zip(values(moments).par_chunks(2 * ROWS))
            .map(|(((out, x), grad), moments)| {
                let (mut gammas, mut betas) = (vec![0.0; channels], vec![0.0; channels]);
                vectorized(
                    #[inline(always)]
                    || {
                        let rows = out.chunks_exact_mut(channels).zip(x.chunks_exact(channels));
                        let rows = rows.zip(grad.chunks_exact(channels)).zip(moments.chunks_exact(2));
                        for (((out, x), grad), moments) in rows {
                            let (out, x, grad) = (&mut out[..channels], &x[..channels], &grad[..channels]);
                            let gamma = &gamma[..channels];
                            let (gammas, betas) = (&mut gammas[..channels], &mut betas[..channels]);
                            let (mean, inverse) = (moments[0], moments[1]);
                            let level = sum(channels, |c| grad[c] * gamma[c]) / channels as f32;
                            let along = sum(channels, |c| grad[c] * gamma[c] * (x[c] - mean)) * inverse * inverse
                                / channels as f32;
                            for c in 0..channels {
                                let centred = x[c] - mean;
                                gammas[c] += grad[c] * centred * inverse;
                                betas[c] += grad[c];
                                out[c] = inverse * (grad[c] * gamma[c] - level - centred * along);
                            }
                        }
                    },
                );
                [gammas, betas]
            })
            .collect::<Vec<_>>();
    });
    let mut sums = [vec![0.0; channels], vec![0.0; channels]];
    for part in parts {
        for (sums, part) in sums.iter_mut().zip(part) {
            add_bias(sums, Some(&part));
        }
    }
    let [gamma, beta] = sums.map(|sums| tensor(sums, [channels]));
    [tensor(out, x.shape()), gamma, beta]
}

fn last(x: &FlexTensor) -> usize {
    let shape = x.shape();
    shape[shape.num_dims() - 1]
}
