//! Stored as JPEG, as Pillow does, and read back.

use bob_data::{Limits, RgbImage, decode, encode_jpeg};
use rand::rngs::StdRng;

use super::CorruptionError;

const QUALITY: [u8; 5] = [80, 65, 58, 50, 40];

pub(super) fn apply(image: &RgbImage, severity: usize, _: &mut StdRng) -> Result<RgbImage, CorruptionError> {
    Ok(decode(&encode_jpeg(image, QUALITY[severity])?, &Limits::default())?)
}
