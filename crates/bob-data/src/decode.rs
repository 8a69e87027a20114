//! Images from bytes to RGB, with the pixels of Pillow's `Image.open(file).convert("RGB")`.
//!
//! No EXIF rotation, no colour management, no alpha compositing: what timm's loader does, and nothing else.

mod gif;
mod jpeg;
mod raster;

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::ImageFormat;

/// An 8-bit RGB image.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `width * height * 3` bytes: RGB interleaved, row by row.
    pub pixels: Vec<u8>,
}

impl std::fmt::Debug for RgbImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RgbImage({} x {})", self.width, self.height)
    }
}

/// How large an image may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most pixels that a file may declare. Checked before memory is taken.
    pub max_pixels: u64,
}

impl Default for Limits {
    /// The number above which Pillow raises `DecompressionBombError`: twice `Image.MAX_IMAGE_PIXELS`.
    fn default() -> Self {
        Self {
            max_pixels: 2 * (1024 * 1024 * 1024 / 4 / 3),
        }
    }
}

impl Limits {
    fn check(self, format: &'static str, width: u64, height: u64) -> Result<(), DecodeError> {
        if width == 0 || height == 0 {
            let reason = format!("it declares {width} x {height} pixels");
            return Err(DecodeError::Invalid { format, reason });
        }
        match width.checked_mul(height) {
            Some(pixels) if pixels <= self.max_pixels => Ok(()),
            _ => Err(DecodeError::TooLarge {
                format,
                width,
                height,
                max_pixels: self.max_pixels,
            }),
        }
    }
}

/// Why bytes are not an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There is nothing.
    #[error("the file is empty")]
    Empty,
    /// The first bytes are those of no format that is read.
    #[error("it starts with {start}, as no JPEG, PNG, WebP, GIF, TIFF or BMP file does")]
    UnknownFormat {
        /// The first bytes, quoted.
        start: String,
    },
    /// The image is larger than [`Limits`] allow.
    #[error("the {format} declares {width} x {height} pixels, more than the {max_pixels} that are allowed")]
    TooLarge {
        /// The format, by the first bytes.
        format: &'static str,
        /// Declared columns.
        width: u64,
        /// Declared rows.
        height: u64,
        /// The limit.
        max_pixels: u64,
    },
    /// The file ends before the image does.
    #[error("the {format} is truncated: its {bytes} bytes end before the image does")]
    Truncated {
        /// The format, by the first bytes.
        format: &'static str,
        /// Bytes that are there.
        bytes: usize,
    },
    /// The bytes break the rules of their format.
    #[error("the {format} is damaged: {reason}")]
    Invalid {
        /// The format, by the first bytes.
        format: &'static str,
        /// The decoder's reason.
        reason: String,
    },
    /// The file may be sound, but uses a part of its format that is not read.
    #[error("the {format} uses what is not supported: {reason}; convert it to PNG")]
    Unsupported {
        /// The format, by the first bytes.
        format: &'static str,
        /// The decoder's reason.
        reason: String,
    },
}

/// The image that `bytes` hold; of an animation, the first frame. The format is told by the first bytes.
///
/// # Errors
/// Where the bytes are not an image, are cut short or damaged, or declare more pixels than `limits` allow.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, DecodeError> {
    match bytes {
        [] => Err(DecodeError::Empty),
        [0xff, 0xd8, 0xff, ..] => jpeg::decode(bytes, limits),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => guarded("GIF", || gif::decode(bytes, limits)),
        _ => match format(bytes) {
            Some((format, name)) => guarded(name, || raster::decode(bytes, format, name, limits)),
            None => {
                let start = &bytes[..bytes.len().min(8)];
                Err(DecodeError::UnknownFormat {
                    start: format!("\"{}\"", start.escape_ascii()),
                })
            }
        },
    }
}

/// A decoder's panic is the fault of the file, and nothing of the decoder is used afterwards.
fn guarded(
    format: &'static str,
    decode: impl FnOnce() -> Result<RgbImage, DecodeError>,
) -> Result<RgbImage, DecodeError> {
    let reason = "its decoder panicked".to_owned();
    let panicked = |_| Err(DecodeError::Invalid { format, reason });
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(panicked)
}

/// How this build decodes JPEG: `"simd"` or `"scalar"`. The pixels are the same.
pub fn jpeg_decoder() -> &'static str {
    if cfg!(feature = "jpeg-simd") { "simd" } else { "scalar" }
}

fn format(bytes: &[u8]) -> Option<(ImageFormat, &'static str)> {
    match bytes {
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some((ImageFormat::Png, "PNG")),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some((ImageFormat::WebP, "WebP")),
        [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Some((ImageFormat::Tiff, "TIFF")),
        [b'B', b'M', ..] => Some((ImageFormat::Bmp, "BMP")),
        _ => None,
    }
}
