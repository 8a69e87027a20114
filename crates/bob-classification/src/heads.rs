//! Many linear heads trained at once on the same batches: one product a step for a group of settings.
//!
//! The update is PyTorch's SGD (momentum, no dampening, coupled weight decay) on the mean cross-entropy, from zero
//! weights. Every weight is summed in the same order whatever group its setting is in, so neither the number of
//! threads nor the size of the grid changes a bit of a head.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

/// Features and batches are padded with zeros to multiples of this, the rows of a tile.
const ROWS: usize = 8;

/// Columns are padded to a multiple of this, the lanes of AVX-512.
const LANES: usize = 16;

/// Gradients and velocities below this are 0. Where the images are separable they fall towards the smallest floats,
/// on which processors are fifty times slower.
const NEGLIGIBLE: f32 = 1e-25;

/// Bytes of weights and momentum that a group of settings may take: they should stay in a core's cache.
const GROUP_BYTES: usize = 1 << 20;

/// Rows of features that heads are trained or judged on: standardised, then a 1 for the bias, then zeros.
pub(crate) struct Design {
    values: Vec<f32>,
    labels: Vec<u32>,
    dim: usize,
    width: usize,
}

impl Design {
    /// `features` is `[labels.len(), dim]`.
    pub(crate) fn new(features: &[f32], dim: usize, labels: &[u32]) -> Self {
        let width = (dim + 1).next_multiple_of(ROWS);
        let mut values = vec![0.0; labels.len() * width];
        for (padded, row) in values.chunks_mut(width).zip(features.chunks(dim)) {
            padded[..dim].copy_from_slice(row);
            padded[dim] = 1.0;
        }
        Self {
            values,
            labels: labels.to_vec(),
            dim,
            width,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..(index + 1) * self.width]
    }
}

/// One point of the grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Setting {
    pub(crate) learning_rate: f64,
    pub(crate) weight_decay: f64,
}

/// What all settings share: the batches and the course of the learning rate.
pub(crate) struct Course<'a> {
    /// Rows of the design of every step.
    pub(crate) batches: Vec<&'a [u32]>,
    /// Factor of the learning rate of every step.
    pub(crate) schedule: Vec<f32>,
    pub(crate) momentum: f32,
}

/// The head of one setting after the last step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    /// `[classes, dim]`.
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    /// Share of `validation` it gets right, NaN where it diverged or there is no such image.
    pub(crate) accuracy: f64,
    /// Mean negative log-likelihood of `validation`.
    pub(crate) nll: f64,
}

/// Train a head for every setting on `train` and judge it on `validation`.
pub(crate) fn train_heads(
    train: &Design,
    validation: &Design,
    classes: usize,
    settings: &[Setting],
    course: &Course,
) -> Vec<Head> {
    let affordable = (GROUP_BYTES / (2 * size_of::<f32>() * train.width * classes)).max(1);
    let threads = rayon::current_num_threads();
    let groups = settings
        .len()
        .div_ceil(affordable)
        .next_multiple_of(threads)
        .min(settings.len());
    let groups: Vec<&[Setting]> = split_evenly(settings, groups);
    let heads: Vec<Vec<Head>> = groups
        .into_par_iter()
        .map(|settings| {
            let mut group = Group::new(train.width, classes, settings);
            group.train(train, course);
            group.finish(train.dim, validation)
        })
        .collect();
    heads.into_iter().flatten().collect()
}

fn split_evenly<T>(items: &[T], parts: usize) -> Vec<&[T]> {
    (0..parts)
        .map(|part| &items[part * items.len() / parts..(part + 1) * items.len() / parts])
        .collect()
}

/// Heads side by side: column `setting * classes + class`.
struct Group {
    classes: usize,
    settings: usize,
    columns: usize,
    /// Peak learning rate of every column; 0 in the padding, whose weights then stay 0.
    learning_rate: Vec<f32>,
    /// Learning rate times weight decay of every column.
    decay: Vec<f32>,
    /// `[width, columns]`.
    weight: Vec<f32>,
    /// Momentum times learning rate, `[width, columns]`.
    velocity: Vec<f32>,
}

impl Group {
    fn new(width: usize, classes: usize, settings: &[Setting]) -> Self {
        let columns = (settings.len() * classes).next_multiple_of(LANES);
        let mut learning_rate = vec![0.0; columns];
        let mut decay = vec![0.0; columns];
        for (column, setting) in settings
            .iter()
            .flat_map(|setting| std::iter::repeat_n(setting, classes))
            .enumerate()
        {
            learning_rate[column] = setting.learning_rate as f32;
            decay[column] = (setting.learning_rate * setting.weight_decay) as f32;
        }
        let zeros = vec![0.0; width * columns];
        Self {
            classes,
            settings: settings.len(),
            columns,
            learning_rate,
            decay,
            weight: zeros.clone(),
            velocity: zeros,
        }
    }

    fn train(&mut self, train: &Design, course: &Course) {
        let arch = Arch::new();
        let largest = course
            .batches
            .iter()
            .map(|batch| batch.len())
            .max()
            .unwrap_or(0)
            .next_multiple_of(ROWS);
        let mut inputs = vec![0.0; largest * train.width];
        let mut logits = vec![0.0; largest * self.columns];
        for (batch, &factor) in course.batches.iter().zip(&course.schedule) {
            let rows = batch.len().next_multiple_of(ROWS);
            let (inputs, logits) = (&mut inputs[..rows * train.width], &mut logits[..rows * self.columns]);
            for (input, &index) in inputs.chunks_mut(train.width).zip(*batch) {
                input.copy_from_slice(train.row(index as usize));
            }
            inputs[batch.len() * train.width..].fill(0.0);
            self.forward(arch, inputs, logits);
            for (logits, &index) in logits.chunks_mut(self.columns).zip(*batch) {
                self.scaled_gradient(logits, train.labels[index as usize] as usize, 1.0 / batch.len() as f32);
            }
            logits[batch.len() * self.columns..].fill(0.0);
            arch.dispatch(Step {
                inputs,
                width: train.width,
                gradient: logits,
                columns: self.columns,
                decay: &self.decay,
                momentum: course.momentum,
                factor,
                weight: &mut self.weight,
                velocity: &mut self.velocity,
            });
        }
    }

    fn forward(&self, arch: Arch, inputs: &[f32], logits: &mut [f32]) {
        let width = self.weight.len() / self.columns;
        arch.dispatch(Forward {
            inputs,
            width,
            weight: &self.weight,
            columns: self.columns,
            logits,
        });
    }

    /// One image's logits become the gradient of its loss by its logits, times the learning rate and `share`.
    fn scaled_gradient(&self, logits: &mut [f32], label: usize, share: f32) {
        let heads = self.settings * self.classes;
        let rates = self.learning_rate.chunks(self.classes);
        for (logits, rates) in logits[..heads].chunks_mut(self.classes).zip(rates) {
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut sum = 0.0;
            for logit in logits.iter_mut() {
                *logit = (*logit - largest).exp();
                sum += *logit;
            }
            let scale = rates[0] * share;
            logits.iter_mut().for_each(|exponential| *exponential *= scale / sum);
            logits[label] -= scale;
            for gradient in logits.iter_mut().filter(|gradient| gradient.abs() < NEGLIGIBLE) {
                *gradient = 0.0;
            }
        }
    }

    fn finish(self, dim: usize, validation: &Design) -> Vec<Head> {
        let judged = self.judge(validation);
        let column =
            |row: usize, head: usize, class: usize| self.weight[row * self.columns + head * self.classes + class];
        let heads = judged.into_iter().enumerate().map(|(head, (accuracy, nll))| Head {
            weight: (0..self.classes)
                .flat_map(|class| (0..dim).map(move |row| (row, class)))
                .map(|(row, class)| column(row, head, class))
                .collect(),
            bias: (0..self.classes).map(|class| column(dim, head, class)).collect(),
            accuracy,
            nll,
        });
        heads.collect()
    }

    /// Accuracy and mean negative log-likelihood of every head.
    fn judge(&self, set: &Design) -> Vec<(f64, f64)> {
        let arch = Arch::new();
        let mut sums = vec![(0.0, 0.0); self.settings];
        for (inputs, labels) in set.values.chunks(64 * set.width).zip(set.labels.chunks(64)) {
            let mut padded = inputs.to_vec();
            padded.resize(labels.len().next_multiple_of(ROWS) * set.width, 0.0);
            let mut logits = vec![0.0; padded.len() / set.width * self.columns];
            self.forward(arch, &padded, &mut logits);
            for (logits, &label) in logits.chunks(self.columns).zip(labels) {
                for (sums, logits) in sums.iter_mut().zip(logits.chunks(self.classes)) {
                    let nll = crate::score::negative_log_likelihood(logits, label as usize);
                    sums.0 += if nll.is_finite() {
                        f64::from(u8::from(crate::classifier::argmax(logits) == label as usize))
                    } else {
                        f64::NAN
                    };
                    sums.1 += nll;
                }
            }
        }
        sums.into_iter()
            .map(|(hits, nll)| (hits / set.len() as f64, nll / set.len() as f64))
            .collect()
    }
}

/// `acc[r][v] += left[r, k] * right[k, v]` over `depth` steps, for `R` rows and `V` vectors of columns.
#[inline(always)]
fn tile<S: Simd, const V: usize>(
    simd: S,
    mut sums: [[S::f32s; V]; ROWS],
    depth: usize,
    left: impl Fn(usize, usize) -> f32,
    right: &[f32],
    stride: usize,
) -> [[S::f32s; V]; ROWS] {
    for k in 0..depth {
        let (right, _) = S::as_simd_f32s(&right[k * stride..][..V * S::F32_LANES]);
        for (r, sums) in sums.iter_mut().enumerate() {
            let left = simd.splat_f32s(left(r, k));
            for (sum, &right) in sums.iter_mut().zip(right) {
                *sum = simd.mul_add_e_f32s(left, right, *sum);
            }
        }
    }
    sums
}

/// `logits = inputs * weight`.
struct Forward<'a> {
    inputs: &'a [f32],
    width: usize,
    weight: &'a [f32],
    columns: usize,
    logits: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let pair = 2 * S::F32_LANES;
        let pairs = self.columns / pair * pair;
        for column in (0..pairs).step_by(pair) {
            self.columns::<S, 2>(simd, column);
        }
        for column in (pairs..self.columns).step_by(S::F32_LANES) {
            self.columns::<S, 1>(simd, column);
        }
    }
}

impl Forward<'_> {
    #[inline(always)]
    fn columns<S: Simd, const V: usize>(&mut self, simd: S, column: usize) {
        let (width, columns) = (self.width, self.columns);
        for (inputs, logits) in self
            .inputs
            .chunks_exact(ROWS * width)
            .zip(self.logits.chunks_exact_mut(ROWS * columns))
        {
            let zeros = [[simd.splat_f32s(0.0); V]; ROWS];
            let rows: [&[f32]; ROWS] = std::array::from_fn(|r| &inputs[r * width..(r + 1) * width]);
            let sums = tile::<S, V>(
                simd,
                zeros,
                width,
                #[inline(always)]
                |r, k| rows[r][k],
                &self.weight[column..],
                columns,
            );
            for (logits, sums) in logits.chunks_exact_mut(columns).zip(sums) {
                let (logits, _) = S::as_mut_simd_f32s(&mut logits[column..column + V * S::F32_LANES]);
                logits.copy_from_slice(&sums);
            }
        }
    }
}

/// `velocity = momentum * velocity + inputsᵀ * gradient + decay * weight`, then `weight -= factor * velocity`.
struct Step<'a> {
    inputs: &'a [f32],
    width: usize,
    gradient: &'a [f32],
    columns: usize,
    decay: &'a [f32],
    momentum: f32,
    factor: f32,
    weight: &'a mut [f32],
    velocity: &'a mut [f32],
}

impl WithSimd for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let pair = 2 * S::F32_LANES;
        let pairs = self.columns / pair * pair;
        for row in (0..self.width).step_by(ROWS) {
            for column in (0..pairs).step_by(pair) {
                self.tile::<S, 2>(simd, row, column);
            }
            for column in (pairs..self.columns).step_by(S::F32_LANES) {
                self.tile::<S, 1>(simd, row, column);
            }
        }
    }
}

impl Step<'_> {
    #[inline(always)]
    fn tile<S: Simd, const V: usize>(&mut self, simd: S, row: usize, column: usize) {
        let momentum = simd.splat_f32s(self.momentum);
        let factor = simd.splat_f32s(-self.factor);
        let (negligible, zero) = (simd.splat_f32s(NEGLIGIBLE), simd.splat_f32s(0.0));
        let at = |r: usize| {
            let start = (row + r) * self.columns + column;
            start..start + V * S::F32_LANES
        };
        let mut sums = [[simd.splat_f32s(0.0); V]; ROWS];
        for (r, sums) in sums.iter_mut().enumerate() {
            let (velocity, _) = S::as_simd_f32s(&self.velocity[at(r)]);
            for (sum, &velocity) in sums.iter_mut().zip(velocity) {
                *sum = simd.mul_f32s(momentum, velocity);
            }
        }
        let inputs = &self.inputs[row..];
        let sums = tile::<S, V>(
            simd,
            sums,
            self.inputs.len() / self.width,
            #[inline(always)]
            |r, k| inputs[k * self.width + r],
            &self.gradient[column..],
            self.columns,
        );
        let (decay, _) = S::as_simd_f32s(&self.decay[column..column + V * S::F32_LANES]);
        for (r, sums) in sums.into_iter().enumerate() {
            let (weight, _) = S::as_mut_simd_f32s(&mut self.weight[at(r)]);
            let (velocity, _) = S::as_mut_simd_f32s(&mut self.velocity[at(r)]);
            for (v, sum) in sums.into_iter().enumerate() {
                let sum = simd.mul_add_e_f32s(decay[v], weight[v], sum);
                let is_negligible = simd.less_than_f32s(simd.abs_f32s(sum), negligible);
                velocity[v] = simd.select_f32s(is_negligible, zero, sum);
                weight[v] = simd.mul_add_e_f32s(factor, velocity[v], weight[v]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{fixture, numbers};

    #[test]
    fn heads_equal_those_of_torch() {
        let fixture = fixture("linear_probe.json");
        let number = |value: &serde_json::Value| value.as_f64().expect("a number");
        let design = Design::new(
            &numbers::<f32>(&fixture["features"]),
            11,
            &numbers::<u32>(&fixture["labels"]),
        );
        let batches: Vec<Vec<u32>> = numbers(&fixture["batches"]);
        let course = Course {
            batches: batches.iter().map(Vec::as_slice).collect(),
            schedule: numbers(&fixture["schedule"]),
            momentum: 0.9,
        };
        let expected = fixture["settings"].as_array().expect("settings");
        let settings: Vec<Setting> = expected
            .iter()
            .map(|one| Setting {
                learning_rate: number(&one["learning_rate"]),
                weight_decay: number(&one["weight_decay"]),
            })
            .collect();
        let heads = train_heads(&design, &design, 4, &settings, &course);
        for (head, expected) in heads.iter().zip(expected) {
            let close = |found: &[f32], expected: Vec<f32>| {
                let difference = found
                    .iter()
                    .zip(&expected)
                    .map(|(a, b)| (a - b).abs())
                    .fold(0.0, f32::max);
                assert!(
                    found.len() == expected.len() && difference < 1e-5,
                    "weights differ by {difference}"
                );
            };
            close(&head.weight, numbers(&expected["weight"]));
            close(&head.bias, numbers(&expected["bias"]));
            assert_eq!(head.accuracy, number(&expected["accuracy"]));
            assert!((head.nll - number(&expected["nll"])).abs() < 1e-5);
        }
    }

    #[test]
    fn a_head_does_not_depend_on_the_heads_beside_it() {
        let features: Vec<f32> = (0..60 * 9).map(|i| ((i * 31) % 17) as f32 / 8.0 - 1.0).collect();
        let design = Design::new(&features, 9, &(0..60).map(|i| i % 5).collect::<Vec<_>>());
        let order: Vec<u32> = (0..60).collect();
        let course = Course {
            batches: order.chunks(7).collect(),
            schedule: vec![1.0; 9],
            momentum: 0.5,
        };
        let setting = |i: u32| Setting {
            learning_rate: f64::from(i) * 0.05,
            weight_decay: 0.01,
        };
        let settings: Vec<Setting> = (1..30).map(setting).collect();
        let together = train_heads(&design, &design, 5, &settings, &course);
        for (setting, head) in settings.iter().zip(together) {
            assert_eq!(train_heads(&design, &design, 5, &[*setting], &course), [head]);
        }
    }
}
