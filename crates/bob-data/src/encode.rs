//! JPEG encoding with the pixels of Pillow's `save(format="JPEG", quality=q)`.
//!
//! ImageNet-C's JPEG corruption is defined by that call.

use std::panic::{AssertUnwindSafe, catch_unwind};

use mozjpeg::qtable::{AnnexK_Chroma, AnnexK_Luma, QTable};
use mozjpeg::{ColorSpace, Compress};

use crate::RgbImage;

/// Why an image cannot be encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The quality is outside libjpeg's scale.
    #[error("quality {0} is not between 1 and 100")]
    Quality(u8),
    /// JPEG holds 1 to 65500 columns and rows, and the pixels must fill them.
    #[error("{width} x {height} pixels in {bytes} bytes are not an RGB image that JPEG can hold")]
    Size {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
        /// Bytes of pixels.
        bytes: usize,
    },
    /// libjpeg refused.
    #[error("libjpeg: {0}")]
    Libjpeg(String),
}

/// `image` as a baseline JPEG with 4:2:0 chroma, libjpeg's own quantisation tables at `quality` (1 to 100, limited to
/// 8 bits) and the accurate integer DCT: once decoded, the pixels that Pillow's file has.
///
/// # Errors
/// Where `quality` is out of range or the image is empty or too large for JPEG.
pub fn encode_jpeg(image: &RgbImage, quality: u8) -> Result<Vec<u8>, EncodeError> {
    let &RgbImage {
        width,
        height,
        ref pixels,
    } = image;
    if !(1..=100).contains(&quality) {
        return Err(EncodeError::Quality(quality));
    }
    let sides = 1..=65500;
    if !sides.contains(&width) || !sides.contains(&height) || pixels.len() != width * height * 3 {
        return Err(EncodeError::Size {
            width,
            height,
            bytes: pixels.len(),
        });
    }
    // libjpeg reports a fatal error by unwinding; nothing outside is touched until the closure has returned.
    let written = catch_unwind(AssertUnwindSafe(|| {
        let mut jpeg = Compress::new(ColorSpace::JCS_RGB);
        jpeg.set_fastest_defaults();
        jpeg.set_size(width, height);
        jpeg.set_luma_qtable(&quantization(&AnnexK_Luma, quality));
        jpeg.set_chroma_qtable(&quantization(&AnnexK_Chroma, quality));
        let mut jpeg = jpeg.start_compress(Vec::new())?;
        jpeg.write_scanlines(pixels)?;
        jpeg.finish()
    }));
    match written {
        Ok(result) => result.map_err(|error| EncodeError::Libjpeg(error.to_string())),
        Err(panic) => Err(EncodeError::Libjpeg(
            panic
                .downcast_ref::<String>()
                .cloned()
                .unwrap_or_else(|| "stopped".to_owned()),
        )),
    }
}

/// libjpeg's `jpeg_set_quality` with tables limited to 8 bits: `base` by a whole percentage, halves rounded up.
///
/// `QTable::scaled` is the one way to make a table. It multiplies by `50 / q` or `(100 - q) / 50` in f32, so it is given
/// the `q` for libjpeg's percentage, which the last factor raises by too little to reach anything but an exact half.
fn quantization(base: &QTable, quality: u8) -> QTable {
    let percent = if quality < 50 {
        5000 / u32::from(quality)
    } else {
        200 - 2 * u32::from(quality)
    };
    let scale = percent as f32 / 100.0 * 1.000_01;
    let quality = if scale > 1.0 {
        50.0 / scale
    } else {
        100.0 - 50.0 * scale
    };
    base.scaled(quality, quality)
}
