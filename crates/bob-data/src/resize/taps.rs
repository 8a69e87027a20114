//! Which input pixels make an output pixel, and how much each counts.

use std::ops::Range;

use bob_core::Interpolation;

/// Bits behind the point of a weight: 8 of a pixel, 22 here, and 2 for overshoot and sign make 32.
pub(super) const BITS: u32 = 22;

/// One axis of a resize.
pub(super) struct Axis {
    /// Input pixels that the window depends on.
    pub input: Range<usize>,
    /// How to resample them; nothing where the size stays.
    pub taps: Option<Taps>,
}

/// For each output pixel, the weights of a run of input pixels.
pub(super) struct Taps {
    /// First input pixel, counted from the start of [`Axis::input`], and number of weights, for each output pixel.
    runs: Vec<(usize, usize)>,
    /// `stride` weights for each output pixel, the last ones unused.
    weights: Vec<i32>,
    stride: usize,
}

impl Axis {
    /// Pixels `window` of `input` pixels resized to `output` pixels (`precompute_coeffs`, `normalize_coeffs_8bpc`).
    ///
    /// Every step is in f64 and in Pillow's order, so that the rounded weights are Pillow's.
    pub(super) fn new(input: usize, output: usize, window: Range<usize>, interpolation: Interpolation) -> Self {
        if input == output {
            return Self {
                input: window,
                taps: None,
            };
        }
        let (filter, radius): (fn(f64) -> f64, f64) = match interpolation {
            Interpolation::Bilinear => (bilinear, 1.0),
            Interpolation::Bicubic => (bicubic, 2.0),
        };
        let scale = input as f64 / output as f64;
        let spread = scale.max(1.0);
        let support = radius * spread;
        let stride = support.ceil() as usize * 2 + 1;
        let mut runs = Vec::with_capacity(window.len());
        let mut weights = vec![0; window.len() * stride];
        let mut row = Vec::with_capacity(stride);
        for (x, fixed) in window.zip(weights.chunks_exact_mut(stride)) {
            let center = (x as f64 + 0.5) * scale;
            let from = (center - support + 0.5).max(0.0) as usize;
            let to = ((center + support + 0.5) as usize).min(input);
            row.clear();
            row.extend((from..to).map(|x| filter((x as f64 - center + 0.5) * (1.0 / spread))));
            let sum = row.iter().fold(0.0, |sum, weight| sum + weight);
            for (fixed, weight) in fixed.iter_mut().zip(&row) {
                let weight = weight / sum * f64::from(1 << BITS);
                *fixed = (weight + if weight < 0.0 { -0.5 } else { 0.5 }) as i32;
            }
            runs.push((from, to - from));
        }
        let start = runs.iter().map(|run| run.0).min().unwrap_or(0);
        let end = runs.iter().map(|run| run.0 + run.1).max().unwrap_or(0);
        for run in &mut runs {
            run.0 -= start;
        }
        Self {
            input: start..end,
            taps: Some(Taps { runs, weights, stride }),
        }
    }
}

impl Taps {
    /// Number of output pixels.
    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    /// First input pixel of output pixel `index`, and the weights from there on.
    pub(super) fn at(&self, index: usize) -> (usize, &[i32]) {
        let (first, count) = self.runs[index];
        (first, &self.weights[index * self.stride..][..count])
    }
}

fn bilinear(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 { 1.0 - x } else { 0.0 }
}

fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}
