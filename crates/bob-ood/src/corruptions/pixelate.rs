//! Resized down and up again by Pillow's box filter.

use bob_data::RgbImage;
use rand::rngs::StdRng;

use super::CorruptionError;

const SCALE: [f64; 5] = [0.95, 0.9, 0.85, 0.75, 0.65];

/// Bits behind the point of a weight, as in Pillow's `Resample.c`.
const PRECISION: u32 = 22;

pub(super) fn apply(image: &RgbImage, severity: usize, _: &mut StdRng) -> Result<RgbImage, CorruptionError> {
    let small = |side: usize| ((side as f64 * SCALE[severity]) as usize).max(1);
    let down = resize_box(image, small(image.width), small(image.height));
    Ok(resize_box(&down, image.width, image.height))
}

/// Pillow's `resize(.., Image.BOX)`: one pass an axis, each rounded to bytes; a pass that changes nothing is skipped.
fn resize_box(image: &RgbImage, width: usize, height: usize) -> RgbImage {
    let wide = RgbImage {
        width,
        height: image.height,
        pixels: resize_axis(&image.pixels, image.height, image.width, width, 3),
    };
    RgbImage {
        width,
        height,
        pixels: resize_axis(&wide.pixels, 1, image.height, height, 3 * width),
    }
}

/// Resize the middle axis of `[outer, from, inner]` values to `to`.
fn resize_axis(values: &[u8], outer: usize, from: usize, to: usize, inner: usize) -> Vec<u8> {
    if from == to {
        return values.to_vec();
    }
    let windows: Vec<(usize, Vec<i32>)> = (0..to).map(|at| window(at, from, to)).collect();
    let mut out = Vec::with_capacity(outer * to * inner);
    for values in values.chunks(from * inner).take(outer) {
        for (start, weights) in &windows {
            out.extend((0..inner).map(|offset| {
                let half = 1i32 << (PRECISION - 1);
                let sum = weights.iter().enumerate().fold(half, |sum, (x, weight)| {
                    sum + i32::from(values[(start + x) * inner + offset]) * weight
                });
                (sum >> PRECISION).clamp(0, 255) as u8
            }));
        }
    }
    out
}

/// Where the window of output `at` begins, and its weights.
fn window(at: usize, from: usize, to: usize) -> (usize, Vec<i32>) {
    let scale = from as f64 / to as f64;
    let filter_scale = scale.max(1.0);
    let support = 0.5 * filter_scale;
    let centre = (at as f64 + 0.5) * scale;
    let start = (centre - support + 0.5).max(0.0) as usize;
    let end = ((centre + support + 0.5) as usize).min(from);
    let weight = |x: usize| {
        let distance = (x as f64 - centre + 0.5) * (1.0 / filter_scale);
        f64::from(u8::from(distance > -0.5 && distance <= 0.5))
    };
    let sum: f64 = (start..end).map(weight).sum();
    let fixed = |x: usize| (weight(x) / sum * f64::from(1u32 << PRECISION) + 0.5) as i32;
    (start, (start..end).map(fixed).collect())
}
