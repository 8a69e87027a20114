//! Values drawn towards the image's mean colour.

use bob_data::RgbImage;
use rand::rngs::StdRng;

use super::{CorruptionError, with_values};

const FACTOR: [f64; 5] = [0.75, 0.5, 0.4, 0.3, 0.15];

pub(super) fn apply(image: &RgbImage, severity: usize, _: &mut StdRng) -> Result<RgbImage, CorruptionError> {
    let value = |index: usize| f64::from(image.pixels[index]) / 255.0;
    let count = (image.width * image.height) as f64;
    let mean = [0, 1, 2].map(|channel| (channel..image.pixels.len()).step_by(3).map(value).sum::<f64>() / count);
    Ok(with_values(image, |index| {
        (value(index) - mean[index % 3]) * FACTOR[severity] + mean[index % 3]
    }))
}
