//! JPEG through libjpeg-turbo's code (as `mozjpeg` carries it), whose pixels are Pillow's.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use mozjpeg::{ColorSpace, Decompress};

use crate::{DecodeError, Limits, RgbImage};

const FORMAT: &str = "JPEG";

/// More scans than any encoder writes. A progressive file costs a pass over the whole image for each of them.
const MAX_SCANS: usize = 1000;

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, DecodeError> {
    if bytes.windows(2).filter(|pair| pair == &[0xff, 0xda]).count() > MAX_SCANS {
        return Err(invalid(format!("it has more than {MAX_SCANS} scans")));
    }
    let ended = Cell::new(false);
    // libjpeg reports a fatal error by unwinding; nothing outside is touched until the closure has returned.
    let result = catch_unwind(AssertUnwindSafe(|| {
        read(
            Bytes {
                rest: bytes,
                ended: &ended,
            },
            limits,
        )
    }));
    match result {
        Ok(Ok(image)) => Ok(image),
        Ok(Err(error @ (DecodeError::TooLarge { .. } | DecodeError::Unsupported { .. }))) => Err(error),
        _ if ended.get() => Err(DecodeError::Truncated {
            format: FORMAT,
            bytes: bytes.len(),
        }),
        Ok(Err(error)) => Err(error),
        Err(panic) => {
            let message = panic.downcast_ref::<String>().map_or("libjpeg stopped", String::as_str);
            Err(invalid(message.trim_start_matches("libjpeg fatal error: ").to_owned()))
        }
    }
}

fn read(bytes: Bytes<'_>, limits: &Limits) -> Result<RgbImage, DecodeError> {
    let ended = bytes.ended;
    let failed = |error: io::Error| invalid(error.to_string());
    let header = Decompress::builder().from_reader(bytes).map_err(failed)?;
    let (width, height) = header.size();
    limits.check(FORMAT, width as u64, height as u64)?;
    let space = match header.components().len() {
        1 | 3 => ColorSpace::JCS_RGB,
        4 => ColorSpace::JCS_CMYK,
        components => {
            let reason = format!("{components} components");
            return Err(DecodeError::Unsupported { format: FORMAT, reason });
        }
    };
    let mut image = header.to_colorspace(space).map_err(failed)?;
    let mut pixels = image.read_scanlines::<u8>().map_err(failed)?;
    // As in Pillow: once every row is there, a missing end marker does not matter, other damage does.
    match catch_unwind(AssertUnwindSafe(|| image.finish())) {
        Ok(finished) => finished.map_err(failed)?,
        Err(_) if ended.get() => {}
        Err(panic) => std::panic::resume_unwind(panic),
    }
    if space == ColorSpace::JCS_CMYK {
        pixels = rgb_of_inverted_cmyk(&pixels);
    }
    Ok(RgbImage { width, height, pixels })
}

/// Pillow takes every four-component JPEG for Adobe's inverted CMYK (`JpegImagePlugin.py`, `Convert.c`).
fn rgb_of_inverted_cmyk(stored: &[u8]) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(stored.len() / 4 * 3);
    for cmyk in stored.as_chunks::<4>().0 {
        let white = i32::from(cmyk[3]);
        rgb.extend(cmyk[..3].iter().map(|&ink| {
            let product = (255 - i32::from(ink)) * white + 128;
            let share = ((product >> 8) + product) >> 8;
            (white - share).clamp(0, 255) as u8
        }));
    }
    rgb
}

fn invalid(reason: String) -> DecodeError {
    DecodeError::Invalid { format: FORMAT, reason }
}

/// The file. At its end it fails instead of letting `mozjpeg` make up an end marker, which would turn the missing
/// part of the image grey.
struct Bytes<'a> {
    rest: &'a [u8],
    ended: &'a Cell<bool>,
}

impl Read for Bytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Bytes<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.rest.is_empty() {
            self.ended.set(true);
            return Err(io::Error::other("the data end"));
        }
        Ok(self.rest)
    }

    fn consume(&mut self, count: usize) {
        self.rest = &self.rest[count..];
    }
}
