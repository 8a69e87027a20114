//! The corruptions of CIFAR-10-C (Hendrycks and Dietterich, arXiv 1903.12261), with the constants of the authors'
//! `ImageNet-C/create_c/make_cifar_c.py`.
//!
//! Values are computed as there, in `f64` from `[0, 1]`, clipped, and truncated to a byte.

mod contrast;
mod gaussian_blur;
mod gaussian_noise;
mod jpeg_compression;
mod pixelate;

use std::fmt;

use bob_data::{DecodeError, EncodeError, RgbImage};
use rand::rngs::StdRng;

pub use gaussian_noise::add_noise;

/// Number of severities; 1 is the mildest.
pub const SEVERITIES: u8 = 5;

/// Every corruption, in the order of reports.
pub static CORRUPTIONS: [Corruption; 5] = [
    Corruption {
        name: "gaussian_noise",
        apply: gaussian_noise::apply,
    },
    Corruption {
        name: "gaussian_blur",
        apply: gaussian_blur::apply,
    },
    Corruption {
        name: "contrast",
        apply: contrast::apply,
    },
    Corruption {
        name: "jpeg_compression",
        apply: jpeg_compression::apply,
    },
    Corruption {
        name: "pixelate",
        apply: pixelate::apply,
    },
];

/// One way to make an image worse.
pub struct Corruption {
    /// Its name, as in CIFAR-10-C.
    pub name: &'static str,
    apply: fn(&RgbImage, usize, &mut StdRng) -> Result<RgbImage, CorruptionError>,
}

/// Why an image cannot be corrupted.
#[derive(Debug, thiserror::Error)]
pub enum CorruptionError {
    /// There is no such severity.
    #[error("severity {0}; expected 1 to {SEVERITIES}")]
    Severity(u8),
    /// It cannot be stored as JPEG.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// What was stored as JPEG cannot be read back.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl Corruption {
    /// `image` at `severity`, 1 to 5; what is random comes from `random`.
    ///
    /// # Errors
    /// Where there is no such severity or the image cannot be stored as JPEG.
    pub fn apply(&self, image: &RgbImage, severity: u8, random: &mut StdRng) -> Result<RgbImage, CorruptionError> {
        if !(1..=SEVERITIES).contains(&severity) {
            return Err(CorruptionError::Severity(severity));
        }
        (self.apply)(image, usize::from(severity) - 1, random)
    }
}

impl fmt::Debug for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Corruption").field(&self.name).finish()
    }
}

/// `value` of `[0, 1]` as a byte: clipped and truncated, as numpy's `uint8` of `clip(x, 0, 1) * 255`.
fn to_byte(value: f64) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0) as u8
}

/// An image of the size of `image` whose channel values are `f` of the index into its pixels.
fn with_values(image: &RgbImage, f: impl Fn(usize) -> f64) -> RgbImage {
    RgbImage {
        pixels: (0..image.pixels.len()).map(|index| to_byte(f(index))).collect(),
        ..*image
    }
}
