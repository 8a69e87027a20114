//! Attention, a task per batch entry and head, in blocks of queries so that the scores stay in the cache.

use std::ops::Range;

use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use super::buffer::{Shared, filled};
use super::isa::vectorized;
use super::math::{exp, max, sum};
use super::product::{Dense, Into, Right, Target, multiply_here};
use super::sums::add_bias;
use super::{dense, tensor, values};
use crate::attention::{SMALLEST_NORM, SMALLEST_WEIGHT};

/// Queries whose scores are at hand at a time.
const QUERIES: usize = 256;
/// Batch entries whose gradients of one bias are summed by one task.
const ENTRIES: usize = 8;

/// The sizes of an attention.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    tokens: usize,
    heads: usize,
    dim: usize,
}

impl Sizes {
    fn of(qkv: &FlexTensor, heads: usize) -> Self {
        let [batch, tokens, width] = qkv.shape().dims();
        Self {
            batch,
            tokens,
            heads,
            dim: width / (3 * heads),
        }
    }

    /// Channels of the output.
    fn width(self) -> usize {
        self.heads * self.dim
    }

    /// Where part 0, 1 or 2 (query, key, value) of a head begins in `qkv`; its rows are `3 * width` apart.
    fn part(self, entry: usize, head: usize, part: usize) -> usize {
        entry * self.tokens * 3 * self.width() + (part * self.heads + head) * self.dim
    }
}

/// Rows of a matrix within a larger buffer.
#[derive(Clone, Copy)]
struct Part<'a> {
    values: &'a [f32],
    start: usize,
    stride: usize,
}

impl Part<'_> {
    fn left(&self, rows: &Range<usize>, dim: usize) -> Dense {
        Dense {
            start: self.start + rows.start * self.stride,
            count: rows.len(),
            depth: dim,
            stride: self.stride,
            step: 1,
        }
    }

    /// As the right factor of a product over tokens.
    fn right<'b>(&'b self, starts: &'b [usize; 1], dim: usize) -> Right<'b> {
        Right {
            values: self.values,
            starts,
            row_stride: self.stride,
            column_stride: 1,
            columns: dim,
        }
    }

    /// Transposed, as the right factor of a product over channels.
    fn transposed<'b>(&'b self, starts: &'b [usize; 1], tokens: usize) -> Right<'b> {
        Right {
            values: self.values,
            starts,
            row_stride: 1,
            column_stride: self.stride,
            columns: tokens,
        }
    }
}

/// One head of one batch entry: its queries and keys, as long as they were or of length one.
struct Head<'a> {
    sizes: Sizes,
    q: Part<'a>,
    k: Part<'a>,
    v: Part<'a>,
    has_units: bool,
    scale: f32,
    bias: Option<&'a [f32]>,
}

/// Queries and keys of length one, `[2, tokens, dim]`, and what they were multiplied by, `[2, tokens]`.
struct Units {
    values: Vec<f32>,
    inverse: Vec<f32>,
}

impl Units {
    fn of(qkv: &[f32], sizes: Sizes, entry: usize, head: usize) -> Self {
        let Sizes { tokens, dim, .. } = sizes;
        let mut inverse = vec![0.0; 2 * tokens];
        let values = filled(2 * tokens * dim, |out| {
            vectorized(
                #[inline(always)]
                || {
                    for part in 0..2 {
                        let start = sizes.part(entry, head, part);
                        for token in 0..tokens {
                            let from = &qkv[start + token * 3 * sizes.width()..][..dim];
                            let norm = sum([from], |[x]| x * x).sqrt().max(SMALLEST_NORM);
                            let at = part * tokens + token;
                            inverse[at] = 1.0 / norm;
                            let out = &mut out[at * dim..][..dim];
                            for (out, x) in out.iter_mut().zip(from) {
                                *out = x * inverse[at];
                            }
                        }
                    }
                },
            );
        });
        Self { values, inverse }
    }
}

impl<'a> Head<'a> {
    fn new(
        qkv: &'a [f32],
        sizes: Sizes,
        [entry, head]: [usize; 2],
        units: Option<&'a Units>,
        scale: Option<&[f32]>,
        bias: Option<&'a [f32]>,
    ) -> Self {
        let part = |part: usize| match units {
            Some(units) if part < 2 => Part {
                values: &units.values,
                start: part * sizes.tokens * sizes.dim,
                stride: sizes.dim,
            },
            _ => Part {
                values: qkv,
                start: sizes.part(entry, head, part),
                stride: 3 * sizes.width(),
            },
        };
        let square = sizes.tokens * sizes.tokens;
        Self {
            sizes,
            q: part(0),
            k: part(1),
            v: part(2),
            has_units: units.is_some(),
            scale: scale.map_or(1.0 / (sizes.dim as f32).sqrt(), |scale| scale[head]),
            bias: bias.map(|bias| {
                let groups = bias.len() / (square * sizes.heads).max(1);
                &bias[(entry % groups.max(1) * sizes.heads + head) * square..][..square]
            }),
        }
    }

    /// The scores of some queries, scaled and with the bias.
    fn scores(&self, queries: &Range<usize>, out: &mut [f32]) {
        let Sizes { tokens, dim, .. } = self.sizes;
        let starts = [self.k.start];
        let right = self.k.transposed(&starts, tokens);
        let left = self.q.left(queries, dim);
        let target = Target::rows(0, tokens);
        multiply_here(
            self.q.values,
            &left,
            &right,
            &Shared::new(out),
            target,
            Into::Overwrite,
            &|row, first, out| {
                vectorized(
                    #[inline(always)]
                    || match self.bias {
                        Some(bias) => {
                            let bias = &bias[(queries.start + row) * tokens + first..][..out.len()];
                            for (out, bias) in out.iter_mut().zip(bias) {
                                *out = *out * self.scale + bias;
                            }
                        }
                        None => {
                            for out in out.iter_mut() {
                                *out *= self.scale;
                            }
                        }
                    },
                );
            },
        );
    }
}

/// The exponential of a score less the largest, or less the logarithm of the sum.
#[inline(always)]
fn weight(score: f32) -> f32 {
    let weight = exp(score);
    // Of what is no number, still that.
    if weight < SMALLEST_WEIGHT { 0.0 } else { weight }
}

fn blocks(tokens: usize) -> impl Iterator<Item = Range<usize>> {
    (0..tokens)
        .step_by(QUERIES)
        .map(move |first| first..(first + QUERIES).min(tokens))
}

/// The output `[batch, tokens, width]`, and the logarithm of every row's sum of exponentials, `[batch, heads, tokens]`.
pub(crate) fn forward(
    qkv: &FlexTensor,
    heads: usize,
    scale: Option<&FlexTensor>,
    bias: Option<&FlexTensor>,
) -> (FlexTensor, FlexTensor) {
    let sizes = Sizes::of(qkv, heads);
    let Sizes { batch, tokens, dim, .. } = sizes;
    let qkv = dense(qkv);
    let [scale, bias] = [scale, bias].map(|tensor| tensor.map(dense));
    let [scale, bias] = [&scale, &bias].map(|tensor| tensor.as_ref().map(values));
    let mut log_sums = vec![0.0; batch * heads * tokens];
    let out = filled(batch * tokens * sizes.width(), |out| {
        let out = Shared::new(out);
        log_sums
            .par_chunks_mut(tokens.max(1))
            .with_max_len(1)
            .enumerate()
            .for_each(|(task, log_sums)| {
                let place @ [entry, head] = [task / heads, task % heads];
                let units = scale.is_some().then(|| Units::of(values(&qkv), sizes, entry, head));
                let at = Head::new(values(&qkv), sizes, place, units.as_ref(), scale, bias);
                let mut scores = vec![0.0; tokens.min(QUERIES) * tokens];
                for queries in blocks(tokens) {
                    let scores = &mut scores[..queries.len() * tokens];
                    at.scores(&queries, scores);
                    vectorized(
                        #[inline(always)]
                        || {
                            for (row, log_sum) in scores.chunks_exact_mut(tokens).zip(&mut log_sums[queries.clone()]) {
                                let largest = max(row);
                                for x in row.iter_mut() {
                                    *x = weight(*x - largest);
                                }
                                let total = sum([&*row], |[x]| x);
                                let inverse = 1.0 / total;
                                for x in row.iter_mut() {
                                    *x *= inverse;
                                }
                                *log_sum = largest + total.ln();
                            }
                        },
                    );
                    let starts = [at.v.start];
                    let target = Target::rows(
                        (entry * tokens + queries.start) * sizes.width() + head * dim,
                        sizes.width(),
                    );
                    let left = Dense::rows(queries.len(), tokens);
                    let right = at.v.right(&starts, dim);
                    multiply_here(scores, &left, &right, &out, target, Into::Overwrite, &|_, _, _| {});
                }
            });
    });
    (
        tensor(out, [batch, tokens, sizes.width()]),
        tensor(log_sums, [batch, heads, tokens]),
    )
}

/// The gradients of qkv, of the scale and, where it is wanted, of the bias.
pub(crate) fn backward(
    qkv: &FlexTensor,
    heads: usize,
    scale: Option<&FlexTensor>,
    bias: Option<&FlexTensor>,
    log_sums: &FlexTensor,
    grad: &FlexTensor,
    bias_wanted: bool,
) -> (FlexTensor, Option<FlexTensor>, Option<FlexTensor>) {
    let sizes = Sizes::of(qkv, heads);
    let Sizes { batch, tokens, .. } = sizes;
    let shape = qkv.shape();
    let [qkv, grad] = [qkv, grad].map(dense);
    let [scale, bias] = [scale, bias].map(|tensor| tensor.map(dense));
    let [scale, bias] = [&scale, &bias].map(|tensor| tensor.as_ref().map(values));
    let square = tokens * tokens;
    let groups = bias.map_or(1, |bias| (bias.len() / (square * heads).max(1)).max(1));
    // A task takes some entries of one group and one head, in order, so that sums over entries have one order.
    let per_group = batch / groups;
    let rounds = per_group.div_ceil(ENTRIES);
    let mut found = Vec::new();
    let out = filled(values(&qkv).len(), |out| {
        let out = Shared::new(out);
        found = (0..groups * heads * rounds)
            .into_par_iter()
            .with_max_len(1)
            .map(|task| {
                let (group, rest) = (task / (heads * rounds), task % (heads * rounds));
                let (head, round) = (rest / rounds, rest % rounds);
                let mut bias_grad = vec![0.0; if bias_wanted { square } else { 0 }];
                let mut scale_grad = 0.0;
                for i in round * ENTRIES..((round + 1) * ENTRIES).min(per_group) {
                    let place @ [entry, head] = [i * groups + group, head];
                    let units = scale.is_some().then(|| Units::of(values(&qkv), sizes, entry, head));
                    let at = Head::new(values(&qkv), sizes, place, units.as_ref(), scale, bias);
                    let log_sums = &values(log_sums)[(entry * heads + head) * tokens..][..tokens];
                    let grad = Part {
                        values: values(&grad),
                        start: entry * tokens * sizes.width() + head * sizes.dim,
                        stride: sizes.width(),
                    };
                    at.differentiate(place, log_sums, grad, &out, &mut bias_grad);
                    if let Some(units) = &units {
                        scale_grad += at.through_units(place, units, values(&qkv), &out);
                    }
                }
                (scale_grad, bias_grad)
            })
            .collect::<Vec<(f32, Vec<f32>)>>();
    });
    let mut scale_grad = vec![0.0; heads];
    let mut bias_grad = vec![0.0; if bias_wanted { groups * heads * square } else { 0 }];
    for (task, (scale, part)) in found.into_iter().enumerate() {
        let head = task % (heads * rounds) / rounds;
        scale_grad[head] += scale;
        if bias_wanted {
            let start = (task / (heads * rounds) * heads + head) * square;
            add_bias(&mut bias_grad[start..start + square], Some(&part));
        }
    }
    (
        tensor(out, shape),
        scale.map(|_| tensor(scale_grad, [heads])),
        bias_wanted.then(|| tensor(bias_grad, [groups, heads, tokens, tokens])),
    )
}

impl Head<'_> {
    /// Write the gradients of queries and keys (as they enter the product) and of values to their places in `out`, and
    /// add that of the bias.
    fn differentiate(
        &self,
        [entry, head]: [usize; 2],
        log_sums: &[f32],
        grad: Part,
        out: &Shared,
        bias_grad: &mut [f32],
    ) {
        let Sizes { tokens, dim, .. } = self.sizes;
        let row = 3 * self.sizes.width();
        let target = |part: usize, first: usize| Target::rows(self.sizes.part(entry, head, part) + first * row, row);
        let mut scores = vec![0.0; tokens.min(QUERIES) * tokens];
        let mut score_grads = vec![0.0; tokens.min(QUERIES) * tokens];
        for queries in blocks(tokens) {
            let into = if queries.start == 0 { Into::Overwrite } else { Into::Add };
            let scores = &mut scores[..queries.len() * tokens];
            let score_grads = &mut score_grads[..queries.len() * tokens];
            self.scores(&queries, scores);
            vectorized(
                #[inline(always)]
                || {
                    for (row, log_sum) in scores.chunks_exact_mut(tokens).zip(&log_sums[queries.clone()]) {
                        for x in row.iter_mut() {
                            *x = weight(*x - log_sum);
                        }
                    }
                },
            );
            // Values: the weights, transposed, times the gradient of the output.
            let columns = Dense::columns(queries.len(), tokens);
            let starts = [grad.start + queries.start * grad.stride];
            let right = grad.right(&starts, dim);
            multiply_here(scores, &columns, &right, out, target(2, 0), into, &|_, _, _| {});
            // Weights: the gradient of the output times the values, transposed.
            let left = grad.left(&queries, dim);
            let starts = [self.v.start];
            let right = self.v.transposed(&starts, tokens);
            let rows = Target::rows(0, tokens);
            multiply_here(
                grad.values,
                &left,
                &right,
                &Shared::new(score_grads),
                rows,
                Into::Overwrite,
                &|_, _, _| {},
            );
            // Scores, through the softmax.
            vectorized(
                #[inline(always)]
                || {
                    for (grads, weights) in score_grads.chunks_exact_mut(tokens).zip(scores.chunks_exact(tokens)) {
                        let (grads, weights) = (&mut grads[..tokens], &weights[..tokens]);
                        let mean = sum([&*grads, weights], |[grad, weight]| grad * weight);
                        for i in 0..tokens {
                            grads[i] = weights[i] * (grads[i] - mean);
                        }
                    }
                    if !bias_grad.is_empty() {
                        let part = &mut bias_grad[queries.start * tokens..queries.end * tokens];
                        add_bias(part, Some(score_grads));
                    }
                    // Where they are of length one, the scale comes with their lengths.
                    if !self.has_units {
                        for grad in score_grads.iter_mut() {
                            *grad *= self.scale;
                        }
                    }
                },
            );
            let starts = [self.k.start];
            let left = Dense::rows(queries.len(), tokens);
            let right = self.k.right(&starts, dim);
            multiply_here(
                score_grads,
                &left,
                &right,
                out,
                target(0, queries.start),
                Into::Overwrite,
                &|_, _, _| {},
            );
            let starts = [self.q.start + queries.start * self.q.stride];
            let right = self.q.right(&starts, dim);
            multiply_here(score_grads, &columns, &right, out, target(1, 0), into, &|_, _, _| {});
        }
    }

    /// Turn the gradients of unit queries and keys in `out`, which lack the scale, into those of what they were, and
    /// give the scale's.
    #[expect(unsafe_code, reason = "a task writes the rows of its own head")]
    fn through_units(&self, [entry, head]: [usize; 2], units: &Units, qkv: &[f32], out: &Shared) -> f32 {
        let Sizes { tokens, dim, .. } = self.sizes;
        assert_eq!(qkv.len(), out.len());
        let mut scale_grad = 0.0;
        vectorized(
            #[inline(always)]
            || {
                for part in 0..2 {
                    let start = self.sizes.part(entry, head, part);
                    for token in 0..tokens {
                        let from = start + token * 3 * self.sizes.width();
                        // SAFETY: the rows of this entry and head belong to this task alone.
                        let grad = unsafe { out.slice(from..from + dim) };
                        let unit = &units.values[(part * tokens + token) * dim..][..dim];
                        let along = sum([&*grad, unit], |[grad, unit]| grad * unit);
                        if part == 0 {
                            scale_grad += along;
                        }
                        let inverse = units.inverse[part * tokens + token];
                        // What is too short to be made one long was only divided by a constant.
                        let along = if inverse >= 1.0 / SMALLEST_NORM { 0.0 } else { along };
                        let factor = inverse * self.scale;
                        for (grad, unit) in grad.iter_mut().zip(unit) {
                            *grad = (*grad - unit * along) * factor;
                        }
                    }
                }
            },
        );
        scale_grad
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_weight_is_subnormal() {
        let check = |score: f32, expected: f32| assert_eq!(weight(score), expected, "{score}");
        check(0.0, 1.0);
        check(-69.5, 0.0);
        check(-100.0, 0.0);
        check(f32::NEG_INFINITY, 0.0);
        // Also beside millions of others.
        const { assert!(SMALLEST_WEIGHT / 1e7 > f32::MIN_POSITIVE) };
        assert!(weight(f32::NAN).is_nan());
    }
}
