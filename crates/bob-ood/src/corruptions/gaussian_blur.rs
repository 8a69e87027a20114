//! A Gaussian filter: `skimage.filters.gaussian`, which is `scipy.ndimage.gaussian_filter` with `mode="nearest"` and
//! `truncate=4`.

use bob_data::RgbImage;
use rand::rngs::StdRng;

use super::{CorruptionError, with_values};

const DEVIATION: [f64; 5] = [0.4, 0.6, 0.7, 0.8, 1.0];

pub(super) fn apply(image: &RgbImage, severity: usize, _: &mut StdRng) -> Result<RgbImage, CorruptionError> {
    let half = half_kernel(DEVIATION[severity]);
    let (height, width) = (image.height, image.width);
    let values: Vec<f64> = image.pixels.iter().map(|&value| f64::from(value) / 255.0).collect();
    let rows = correlate(&values, &half, height, |index| index / (3 * width), 3 * width);
    let both = correlate(&rows, &half, width, |index| index / 3 % width, 3);
    Ok(with_values(image, |index| both[index]))
}

/// Weights from the centre outwards.
fn half_kernel(deviation: f64) -> Vec<f64> {
    let radius = (4.0 * deviation + 0.5) as i64;
    let weight = |x: i64| (-0.5 / (deviation * deviation) * (x * x) as f64).exp();
    let sum: f64 = (-radius..=radius).map(weight).sum();
    (0..=radius).map(|x| weight(x) / sum).collect()
}

/// Correlate along one axis of `length`, whose neighbours lie `stride` apart; the border is repeated outwards.
fn correlate(
    values: &[f64],
    half: &[f64],
    length: usize,
    position: impl Fn(usize) -> usize,
    stride: usize,
) -> Vec<f64> {
    (0..values.len())
        .map(|index| {
            let at = position(index);
            let first = index - at * stride;
            let value = |position: usize| values[first + position.min(length - 1) * stride];
            // The order of scipy's symmetric filter: the centre, then pairs from the outside in.
            (1..half.len()).rev().fold(value(at) * half[0], |sum, distance| {
                sum + (value(at.saturating_sub(distance)) + value(at + distance)) * half[distance]
            })
        })
        .collect()
}
