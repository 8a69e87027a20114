//! PNG, WebP, TIFF and BMP through `image`, with Pillow's conversion of every pixel format to RGB.

use std::io::{self, Cursor};

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader};
use tiff::decoder::Decoder;
use tiff::tags::Tag;

use crate::{DecodeError, Limits, RgbImage};

pub(super) fn decode(
    bytes: &[u8],
    format: ImageFormat,
    name: &'static str,
    limits: &Limits,
) -> Result<RgbImage, DecodeError> {
    let failed = |error: ImageError| match error {
        ImageError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => DecodeError::Truncated {
            format: name,
            bytes: bytes.len(),
        },
        ImageError::Unsupported(error) => DecodeError::Unsupported {
            format: name,
            reason: error.to_string(),
        },
        error => DecodeError::Invalid {
            format: name,
            reason: error.to_string(),
        },
    };
    if let Some(reason) = unequal(bytes, format) {
        return Err(DecodeError::Unsupported {
            format: name,
            reason: reason.to_owned(),
        });
    }
    if format == ImageFormat::WebP && riff_size(bytes) > bytes.len() as u64 {
        return Err(DecodeError::Truncated {
            format: name,
            bytes: bytes.len(),
        });
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut memory = image::Limits::no_limits();
    // Twice the widest pixel, 16-bit RGBA: the image and one buffer of the decoder.
    memory.max_alloc = Some(limits.max_pixels.saturating_mul(16).max(1 << 20));
    reader.limits(memory);
    let decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    limits.check(name, width.into(), height.into())?;
    let grey = format == ImageFormat::Png && bytes.get(PNG_COLOR_TYPE) == Some(&0);
    let image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    Ok(RgbImage {
        width: width as usize,
        height: height as usize,
        pixels: rgb(image, grey),
    })
}

/// What `image` reads with pixels that are not Pillow's.
fn unequal(bytes: &[u8], format: ImageFormat) -> Option<&'static str> {
    match format {
        ImageFormat::Bmp => match bytes.get(BMP_BITS..)?.first_chunk::<6>()? {
            [16, 0, ..] => Some("16 bits a pixel"),
            [_, _, 1 | 2, 0, 0, 0] => Some("run-length encoding"),
            _ => None,
        },
        ImageFormat::Tiff => {
            let mut tags = Decoder::new(Cursor::new(bytes)).ok()?;
            let mut tag = |tag| tags.find_tag_unsigned_vec::<u16>(tag).ok()??.first().copied();
            if matches!(tag(Tag::Compression)?, 6 | 7) {
                return Some("JPEG compression");
            }
            (tag(Tag::PhotometricInterpretation) == Some(0) && tag(Tag::BitsPerSample) == Some(16))
                .then_some("16 bits a sample with white as zero")
        }
        _ => None,
    }
}

/// Where a BMP says how many bits a pixel has, in two bytes, and after them how it is compressed, in four.
const BMP_BITS: usize = 28;

/// How long a WebP says that it is. A shorter file is refused by libwebp, and only sometimes by `image`.
fn riff_size(bytes: &[u8]) -> u64 {
    bytes[4..]
        .first_chunk()
        .map_or(0, |size| u64::from(u32::from_le_bytes(*size)) + 8)
}

/// Where a PNG says what its samples are; 0 is grey without an alpha channel.
const PNG_COLOR_TYPE: usize = 25;

/// 8-bit RGB as `convert("RGB")` makes it: alpha is dropped, 16-bit grey is clipped (`I;16`), other 16-bit samples
/// lose their low byte. A grey PNG with a transparent colour reaches us with alpha, but is `I;16` to Pillow.
fn rgb(image: DynamicImage, grey: bool) -> Vec<u8> {
    let clip = |value: u16| value.min(255) as u8;
    let high = |value: u16| (value >> 8) as u8;
    match image {
        DynamicImage::ImageLuma16(image) => image.iter().flat_map(|&v| [clip(v); 3]).collect(),
        DynamicImage::ImageLumaA16(image) if grey => image.pixels().flat_map(|p| [clip(p.0[0]); 3]).collect(),
        DynamicImage::ImageLumaA16(image) => image.pixels().flat_map(|p| [high(p.0[0]); 3]).collect(),
        DynamicImage::ImageRgb16(image) => image.iter().map(|&v| high(v)).collect(),
        DynamicImage::ImageRgba16(image) => image
            .pixels()
            .flat_map(|p| [p.0[0], p.0[1], p.0[2]].map(high))
            .collect(),
        image => image.into_rgb8().into_raw(),
    }
}
