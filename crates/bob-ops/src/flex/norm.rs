//! Batch norm, group norm and layer norm: statistics of chunks of rows in their order, and one pass for each map.

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
    let found = channel_moments(values(&dense(x)), channels);
    tensor(found.concat().into_iter().map(|x| x as f32).collect(), [2, channels])
}

/// Mean and biased variance of the group of every channel of every image of `[batch, height, width, channels]`, as
/// `[batch, 2, channels]`.
pub(crate) fn group_moments(x: &FlexTensor, groups: usize) -> FlexTensor {
    let [_, height, width, channels] = x.shape().dims();
    let x = dense(x);
    let found: Vec<Vec<f32>> = values(&x)
        .par_chunks((height * width * channels).max(1))
        .map(|image| {
            let [mut mean, mut variance] = channel_moments(image, channels);
            let size = channels / groups;
            for (mean, variance) in mean.chunks_exact_mut(size).zip(variance.chunks_exact_mut(size)) {
                let centre = mean.iter().sum::<f64>() / size as f64;
                let squares = mean
                    .iter()
                    .zip(&*variance)
                    .map(|(mean, variance)| variance + (mean - centre).powi(2));
                let spread = squares.sum::<f64>() / size as f64;
                mean.fill(centre);
                variance.fill(spread);
            }
            mean.into_iter().chain(variance).map(|x| x as f32).collect()
        })
        .collect();
    tensor(found.concat(), [found.len(), 2, channels])
}

/// Mean and biased variance of every channel.
fn channel_moments(x: &[f32], channels: usize) -> [Vec<f64>; 2] {
    // Mean and squared deviations of each chunk, then of all by Chan's update.
    let parts: Vec<(usize, Vec<f32>, Vec<f32>)> = x
        .par_chunks((ROWS * channels).max(1))
        .map(|rows| {
            let count = rows.len() / channels;
            let (mut mean, mut squares) = (vec![0.0; channels], vec![0.0; channels]);
            vectorized(
                #[inline(always)]
                || {
                    for row in rows.chunks_exact(channels) {
                        add_bias(&mut mean, Some(row));
                    }
                    for mean in &mut mean {
                        *mean /= count as f32;
                    }
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
    squares.iter_mut().for_each(|square| *square /= seen);
    [mean, squares]
}

/// `x * scale + shift` per channel: batch norm, or group norm of one image, once the moments are known.
pub(crate) struct ChannelMap {
    mean: Vec<f32>,
    inverse: Vec<f32>,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl ChannelMap {
    pub(crate) fn new(moments: &FlexTensor, gamma: &FlexTensor, beta: &FlexTensor, epsilon: f64) -> Self {
        let [moments, gamma, beta] = [moments, gamma, beta].map(dense);
        Self::of(values(&moments), values(&gamma), values(&beta), epsilon)
    }

    fn of(moments: &[f32], gamma: &[f32], beta: &[f32], epsilon: f64) -> Self {
        let (mean, variance) = moments.split_at(gamma.len());
        let inverse: Vec<f32> = variance
            .iter()
            .map(|variance| (1.0 / (f64::from(*variance) + epsilon).sqrt()) as f32)
            .collect();
        let scale: Vec<f32> = inverse
            .iter()
            .zip(gamma)
            .map(|(inverse, gamma)| inverse * gamma)
            .collect();
        let shift = beta
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
    let x = dense(&x);
    let from = values(&x);
    let out = filled(from.len(), |out| affine(out, from, map, activation));
    tensor(out, x.shape())
}

/// Group norm of `[batch, height, width, channels]` by the `moments` of [`group_moments`].
pub(crate) fn group_norm(
    x: &FlexTensor,
    moments: &FlexTensor,
    gamma: &FlexTensor,
    beta: &FlexTensor,
    epsilon: f64,
    activation: Option<Activation>,
) -> FlexTensor {
    let [_, height, width, channels] = x.shape().dims();
    let [x, gamma, beta] = [x, gamma, beta].map(dense);
    let from = values(&x);
    let out = filled(from.len(), |out| {
        let image = (height * width * channels).max(1);
        out.par_chunks_mut(image)
            .zip(from.par_chunks(image))
            .zip(values(moments).par_chunks((2 * channels).max(1)))
            .for_each(|((out, from), moments)| {
                let map = ChannelMap::of(moments, values(&gamma), values(&beta), epsilon);
                affine(out, from, &map, activation);
            });
    });
    tensor(out, x.shape())
}

fn affine(out: &mut [f32], from: &[f32], map: &ChannelMap, activation: Option<Activation>) {
    match activation {
        None => affine_by(out, from, map, |x| x),
        Some(activation) => each!(activation, A => affine_by(out, from, map, |x| A.of(x))),
    }
}

fn affine_by(out: &mut [f32], from: &[f32], map: &ChannelMap, f: impl Fn(f32) -> f32 + Sync) {
    let channels = map.scale.len();
    let chunk = (ROWS * channels).max(1);
    out.par_chunks_mut(chunk)
        .zip(from.par_chunks(chunk))
        .for_each(|(out, from)| {
            vectorized(
                #[inline(always)]
                || {
                    for (out, from) in out.chunks_exact_mut(channels).zip(from.chunks_exact(channels)) {
                        let rows = out.iter_mut().zip(from).zip(&map.scale).zip(&map.shift);
                        for (((out, x), scale), shift) in rows {
                            *out = f(x * scale + shift);
                        }
                    }
                },
            );
        });
}

/// Gradients of x, gamma and beta.
pub(crate) fn batch_norm_backward(
    x: &FlexTensor,
    grad: FlexTensor,
    map: &ChannelMap,
    activation: Option<Activation>,
) -> [FlexTensor; 3] {
    let [x, grad] = [x, &grad].map(dense);
    let mut sums = Vec::new();
    let out = filled(values(&x).len(), |out| {
        sums = vec![differentiate(out, values(&x), values(&grad), map, 1, activation)];
    });
    gradients(tensor(out, x.shape()), sums, map.scale.len())
}

/// Gradients of x, gamma and beta of [`group_norm`].
#[expect(
    clippy::too_many_arguments,
    reason = "all that the forward pass had, and the gradient"
)]
pub(crate) fn group_norm_backward(
    x: &FlexTensor,
    grad: &FlexTensor,
    moments: &FlexTensor,
    gamma: &FlexTensor,
    beta: &FlexTensor,
    groups: usize,
    epsilon: f64,
    activation: Option<Activation>,
) -> [FlexTensor; 3] {
    let [_, height, width, channels] = x.shape().dims();
    let [x, grad, gamma, beta] = [x, grad, gamma, beta].map(dense);
    let mut sums = Vec::new();
    let out = filled(values(&x).len(), |out| {
        let image = (height * width * channels).max(1);
        sums = out
            .par_chunks_mut(image)
            .zip(values(&x).par_chunks(image))
            .zip(values(&grad).par_chunks(image))
            .zip(values(moments).par_chunks((2 * channels).max(1)))
            .map(|(((out, x), grad), moments)| {
                let map = ChannelMap::of(moments, values(&gamma), values(&beta), epsilon);
                differentiate(out, x, grad, &map, channels / groups, activation)
            })
            .collect();
    });
    gradients(tensor(out, x.shape()), sums, channels)
}

/// The gradient of x, and those of gamma and beta as the `sums` of their parts.
fn gradients(x: FlexTensor, sums: Vec<[Vec<f64>; 2]>, channels: usize) -> [FlexTensor; 3] {
    let total = |which: usize| {
        let mut total = vec![0.0; channels];
        for part in &sums {
            total
                .iter_mut()
                .zip(&part[which])
                .for_each(|(total, part)| *total += part);
        }
        tensor(total.into_iter().map(|sum| sum as f32).collect(), [channels])
    };
    [x, total(0), total(1)]
}

/// The gradient of `x` into `out`, and those of gamma and beta, where `group` channels in a row share their moments.
fn differentiate(
    out: &mut [f32],
    x: &[f32],
    grad: &[f32],
    map: &ChannelMap,
    group: usize,
    activation: Option<Activation>,
) -> [Vec<f64>; 2] {
    match activation {
        None => differentiate_by(out, x, grad, map, group, |_| 1.0),
        Some(activation) => each!(activation, A => differentiate_by(out, x, grad, map, group, |y| A.slope(y))),
    }
}

/// `slope` is the derivative of the activation at the normalised value.
fn differentiate_by(
    out: &mut [f32],
    x: &[f32],
    grad: &[f32],
    map: &ChannelMap,
    group: usize,
    slope: impl Fn(f32) -> f32 + Sync,
) -> [Vec<f64>; 2] {
    let ChannelMap {
        mean,
        inverse,
        scale,
        shift,
    } = map;
    let channels = scale.len();
    let chunk = (ROWS * channels).max(1);
    let parts: Vec<[Vec<f32>; 2]> = x
        .par_chunks(chunk)
        .zip(grad.par_chunks(chunk))
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
    let count = (x.len() / channels.max(1) * group) as f64;
    // With s = g * gamma, dx = inverse * (s - mean(s) - x̂ * mean(s x̂)) = g * scale + (x - mean) * along + level, the
    // means over a group.
    let (mut along, mut level) = (vec![0.0; channels], vec![0.0; channels]);
    for first in (0..channels).step_by(group) {
        let members = first..first + group;
        let mean_of = |sums: &[f64]| {
            let products = members.clone().map(|c| f64::from(scale[c]) * sums[c]);
            -products.sum::<f64>() / count
        };
        along[members.clone()].fill((mean_of(&gamma) * f64::from(inverse[first])) as f32);
        level[members.clone()].fill(mean_of(&beta) as f32);
    }
    out.par_chunks_mut(chunk)
        .zip(x.par_chunks(chunk))
        .zip(grad.par_chunks(chunk))
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
    [gamma, beta]
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
                            let mean = sum([x], |[x]| x) / channels as f32;
                            let squares = sum([x], |[x]| (x - mean) * (x - mean));
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
                            let level = sum([grad, gamma], |[grad, gamma]| grad * gamma) / channels as f32;
                            let along =
                                sum([grad, gamma, x], |[grad, gamma, x]| grad * gamma * (x - mean)) * inverse * inverse
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
