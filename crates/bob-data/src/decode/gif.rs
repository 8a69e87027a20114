//! The first frame of a GIF, on the canvas that Pillow gives it (`GifImagePlugin.py`).

use std::io;

use gif::{DecodeOptions, DecodingError, MemoryLimit};

use crate::{DecodeError, Limits, RgbImage};

const FORMAT: &str = "GIF";

pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<RgbImage, DecodeError> {
    let failed = |error: DecodingError| {
        let ended = match &error {
            DecodingError::UnexpectedEof => true,
            DecodingError::Io(error) => error.kind() == io::ErrorKind::UnexpectedEof,
            _ => false,
        };
        match ended {
            true => DecodeError::Truncated {
                format: FORMAT,
                bytes: bytes.len(),
            },
            false => invalid(error.to_string()),
        }
    };
    let mut options = DecodeOptions::new();
    // The size is checked below, before the frame is read.
    options.set_memory_limit(MemoryLimit::Unlimited);
    let mut decoder = options.read_info(bytes).map_err(failed)?;
    let canvas = [decoder.width(), decoder.height()].map(usize::from);
    let frame = decoder.next_frame_info().map_err(failed)?;
    let frame = frame.ok_or_else(|| invalid("it has no frame".to_owned()))?;
    let [left, top, columns, rows] = [frame.left, frame.top, frame.width, frame.height].map(usize::from);
    // The canvas grows to hold the frame, and shows the transparent colour around it.
    let background = frame.transparent.unwrap_or(0);
    let [width, height] = [canvas[0].max(left + columns), canvas[1].max(top + rows)];
    limits.check(FORMAT, width as u64, height as u64)?;
    limits.check(FORMAT, columns as u64, rows as u64)?;

    let mut indices = vec![0; columns * rows];
    decoder.read_into_buffer(&mut indices).map_err(failed)?;
    let palette = decoder.palette().map_err(failed)?.as_chunks::<3>().0;
    let color = |index: u8| palette.get(usize::from(index)).copied().unwrap_or_default();
    let mut pixels = color(background).repeat(width * height);
    for (row, indices) in pixels
        .chunks_exact_mut(width * 3)
        .skip(top)
        .zip(indices.chunks_exact(columns))
    {
        for (pixel, &index) in row.as_chunks_mut::<3>().0[left..].iter_mut().zip(indices) {
            *pixel = color(index);
        }
    }
    Ok(RgbImage { width, height, pixels })
}

fn invalid(reason: String) -> DecodeError {
    DecodeError::Invalid { format: FORMAT, reason }
}
