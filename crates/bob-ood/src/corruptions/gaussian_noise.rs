//! Normal noise on every channel value.

use bob_data::RgbImage;
use rand::Rng;
use rand::rngs::StdRng;

use super::{CorruptionError, with_values};

const DEVIATION: [f64; 5] = [0.04, 0.06, 0.08, 0.09, 0.10];

pub(super) fn apply(image: &RgbImage, severity: usize, random: &mut StdRng) -> Result<RgbImage, CorruptionError> {
    let noise: Vec<f64> = (0..image.pixels.len())
        .map(|_| DEVIATION[severity] * normal(random))
        .collect();
    Ok(add_noise(image, &noise))
}

/// `image` plus `noise`, one value of `[-1, 1]` for every channel value, clipped and truncated to bytes.
///
/// # Panics
/// Where there is not one value of noise for every channel value.
pub fn add_noise(image: &RgbImage, noise: &[f64]) -> RgbImage {
    assert_eq!(noise.len(), image.pixels.len(), "one value of noise a channel value");
    with_values(image, |index| f64::from(image.pixels[index]) / 255.0 + noise[index])
}

/// A standard normal number (Box and Muller).
fn normal(random: &mut StdRng) -> f64 {
    // 1 - u is in (0, 1], so that its logarithm is finite.
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.random::<f64>()).cos()
}
