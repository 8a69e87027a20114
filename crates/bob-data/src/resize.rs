//! Pillow's resize of 8-bit RGB, bit for bit: `Resample.c` of Pillow 13.0.0.
//!
//! Two passes, each a weighted sum of pixels along one axis in 22-bit fixed point, with 8 bits between them. Only what
//! the window needs is computed. The portable kernels define the result; the AVX2 ones give the same bits.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod taps;

use std::ops::Range;

use bob_core::Interpolation;

use crate::RgbImage;
use taps::{Axis, Taps};

/// Which axis is resized first. The pixels depend on it: 8 bits are kept, and overshoot clipped, between the passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PassOrder {
    /// The width, always: Pillow up to 12.0.
    WidthFirst,
    /// The height where the image shrinks in height by more than twice what it shrinks in width, else the width:
    /// Pillow 13.0.0.
    #[default]
    Pillow13,
}

/// A part of the resized image, in its pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First column.
    pub x: usize,
    /// First row.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// `window` of what Pillow resizes `image` to; `size` is the whole result's `[height, width]`.
///
/// # Panics
/// Where a side is zero, `image.pixels` does not fill `image`, or `window` leaves `size`.
pub fn resize(
    image: &RgbImage,
    size: [usize; 2],
    window: Window,
    interpolation: Interpolation,
    order: PassOrder,
) -> RgbImage {
    resize_with(Kernels::detect(), image, size, window, interpolation, order)
}

fn resize_with(
    kernels: Kernels,
    image: &RgbImage,
    [height, width]: [usize; 2],
    window: Window,
    interpolation: Interpolation,
    order: PassOrder,
) -> RgbImage {
    assert!(image.width > 0 && image.height > 0, "the image has pixels");
    assert_eq!(
        image.pixels.len(),
        image.width * image.height * 3,
        "the pixels fill the image"
    );
    assert!(
        window.width > 0 && window.x + window.width <= width,
        "the window's columns are inside"
    );
    assert!(
        window.height > 0 && window.y + window.height <= height,
        "the window's rows are inside"
    );

    let columns = Axis::new(image.width, width, window.x..window.x + window.width, interpolation);
    let rows = Axis::new(image.height, height, window.y..window.y + window.height, interpolation);
    let height_first = match order {
        PassOrder::WidthFirst => false,
        PassOrder::Pillow13 => {
            let lost = |from: usize, to: usize| from as i64 - to as i64;
            image.height > height && lost(image.height, height) > 2 * lost(image.width, width)
        }
    };
    let part = View::new(&image.pixels, image.width).part(&columns.input, &rows.input);
    let pixels = match (&columns.taps, &rows.taps) {
        (None, None) => part.to_vec(),
        (Some(columns), None) => kernels.horizontal(part, columns),
        (None, Some(rows)) => kernels.vertical(part, rows),
        (Some(columns), Some(rows)) if height_first => {
            kernels.horizontal(View::new(&kernels.vertical(part, rows), part.width), columns)
        }
        (Some(columns), Some(rows)) => {
            kernels.vertical(View::new(&kernels.horizontal(part, columns), columns.len()), rows)
        }
    };
    RgbImage {
        width: window.width,
        height: window.height,
        pixels,
    }
}

/// A rectangle of RGB pixels inside a larger one.
#[derive(Clone, Copy)]
struct View<'a> {
    /// From the first pixel to the end of the larger rectangle.
    bytes: &'a [u8],
    /// Bytes from a row to the next.
    stride: usize,
    width: usize,
    height: usize,
}

impl<'a> View<'a> {
    fn new(bytes: &'a [u8], width: usize) -> Self {
        Self {
            bytes,
            stride: width * 3,
            width,
            height: bytes.len() / (width * 3),
        }
    }

    fn part(self, columns: &Range<usize>, rows: &Range<usize>) -> Self {
        let bytes = &self.bytes[rows.start * self.stride + columns.start * 3..];
        Self {
            bytes,
            stride: self.stride,
            width: columns.len(),
            height: rows.len(),
        }
    }

    fn row(self, y: usize) -> &'a [u8] {
        &self.bytes[y * self.stride..][..self.width * 3]
    }

    fn to_vec(self) -> Vec<u8> {
        (0..self.height).flat_map(|y| self.row(y)).copied().collect()
    }
}

/// The code for the inner loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernels {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Token),
}

impl Kernels {
    fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(token) = avx2::Token::detect() {
            return Self::Avx2(token);
        }
        Self::Portable
    }

    fn horizontal(self, source: View<'_>, taps: &Taps) -> Vec<u8> {
        let mut pixels = vec![0; source.height * taps.len() * 3];
        match self {
            Self::Portable => {
                for (y, out) in pixels.chunks_exact_mut(taps.len() * 3).enumerate() {
                    horizontal_row(source.row(y), taps, out);
                }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.horizontal(source, taps, &mut pixels),
        }
        pixels
    }

    fn vertical(self, source: View<'_>, taps: &Taps) -> Vec<u8> {
        let mut pixels = vec![0; taps.len() * source.width * 3];
        match self {
            Self::Portable => {
                let mut sums = vec![0; source.width * 3];
                for (y, out) in pixels.chunks_exact_mut(source.width * 3).enumerate() {
                    vertical_row(source, taps, y, &mut sums, out);
                }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(token) => token.vertical(source, taps, &mut pixels),
        }
        pixels
    }
}

/// One half in fixed point: sums are rounded to the nearest.
const HALF: i32 = 1 << (taps::BITS - 1);

fn to_byte(sum: i32) -> u8 {
    (sum >> taps::BITS).clamp(0, 255) as u8
}

fn horizontal_row(source: &[u8], taps: &Taps, out: &mut [u8]) {
    for (x, pixel) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        let (first, weights) = taps.at(x);
        let mut sums = [HALF; 3];
        for (rgb, &weight) in source[first * 3..].as_chunks::<3>().0.iter().zip(weights) {
            for (sum, &value) in sums.iter_mut().zip(rgb) {
                *sum += i32::from(value) * weight;
            }
        }
        *pixel = sums.map(to_byte);
    }
}

fn vertical_row(source: View<'_>, taps: &Taps, y: usize, sums: &mut [i32], out: &mut [u8]) {
    let (first, weights) = taps.at(y);
    sums.fill(HALF);
    for (row, &weight) in (first..).zip(weights) {
        for (sum, &value) in sums.iter_mut().zip(source.row(row)) {
            *sum += i32::from(value) * weight;
        }
    }
    for (byte, &sum) in out.iter_mut().zip(&*sums) {
        *byte = to_byte(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pixels without a pattern, black and white among them, where overshoot clips.
    fn noise(width: usize, height: usize) -> RgbImage {
        let mut state = (width * 7919 + height) as u64;
        let pixels = (0..width * height * 3).map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            match (state >> 33) % 4 {
                0 => 0,
                1 => 255,
                _ => (state >> 40) as u8,
            }
        });
        RgbImage {
            width,
            height,
            pixels: pixels.collect(),
        }
    }

    #[test]
    fn every_kernel_gives_the_same_pixels() {
        let sides = [1, 2, 3, 5, 6, 17, 33, 90];
        for (from, to) in sides.iter().flat_map(|&from| sides.map(|to| (from, to))) {
            for (image, size) in [(noise(from, to), [from, to]), (noise(to, from), [to, 91 - to])] {
                for interpolation in [Interpolation::Bilinear, Interpolation::Bicubic] {
                    for order in [PassOrder::WidthFirst, PassOrder::Pillow13] {
                        let window = Window {
                            x: 0,
                            y: 0,
                            width: size[1],
                            height: size[0],
                        };
                        let [portable, detected] = [Kernels::Portable, Kernels::detect()]
                            .map(|kernels| resize_with(kernels, &image, size, window, interpolation, order));
                        assert!(
                            portable == detected,
                            "{image:?} to {size:?}, {interpolation:?}, {order:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_window_is_a_part_of_the_whole() {
        for image in [noise(61, 40), noise(20, 190)] {
            let size = [50, 37];
            let whole = Window {
                x: 0,
                y: 0,
                width: 37,
                height: 50,
            };
            for part in [
                Window {
                    x: 3,
                    y: 11,
                    width: 20,
                    height: 9,
                },
                Window {
                    x: 36,
                    y: 49,
                    width: 1,
                    height: 1,
                },
            ] {
                let [whole, found] = [whole, part]
                    .map(|window| resize(&image, size, window, Interpolation::Bicubic, PassOrder::Pillow13));
                let expected =
                    View::new(&whole.pixels, 37).part(&(part.x..part.x + part.width), &(part.y..part.y + part.height));
                assert_eq!(found.pixels, expected.to_vec(), "{image:?} {part:?}");
            }
        }
    }
}
