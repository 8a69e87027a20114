//! Rows of a map for some of its channels, copied to where the depthwise kernels read them: between zeros, and every 16
//! channels of a pixel on a cache line of their own.
//!
//! A buffer begins at any place, so that its vectors lie across two cache lines, and the pixels of one row may all fall
//! into few sets of the cache.
#![expect(unsafe_code, reason = "vector instructions")]

use std::ops::Range;

use super::isa::Isa;
use super::vector::{Kernel, Vector, run};

/// Channels of a cache line.
pub(super) const LINE: usize = 16;

/// Some channels of a pixel, zero beyond the last.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [f32; LINE]);

impl Line {
    pub(super) const ZERO: Self = Self([0.0; LINE]);

    /// Up to 16 values.
    pub(super) fn of(values: &[f32]) -> Self {
        match values.first_chunk() {
            Some(whole) => Self(*whole),
            None => Self(std::array::from_fn(|lane| values.get(lane).copied().unwrap_or(0.0))),
        }
    }
}

/// The pixels of a map, and how its rows are laid out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Height and width of the map.
    pub(super) size: [usize; 2],
    pub(super) channels: usize,
    /// Zeros before every row.
    pub(super) before: usize,
    /// Pixels of a row from the first of these zeros on; there are zeros beyond the last of the map too.
    pub(super) pixels: usize,
    /// Every pixel and the one so much further lie side by side, as neighbours in the output meet them.
    pub(super) stride: usize,
}

impl Layout {
    /// Lines of a row.
    pub(super) fn row(&self) -> usize {
        self.stride * self.pixels.div_ceil(self.stride)
    }

    /// Where a pixel is in its row, counted with the zeros before.
    pub(super) fn place(&self, pixel: usize) -> usize {
        pixel % self.stride * self.pixels.div_ceil(self.stride) + pixel / self.stride
    }

    /// Copy `rows` of an image, those outside of it as zeros, to `to`: line after line of `channels`, row after row,
    /// pixel after pixel.
    ///
    /// # Panics
    /// Where the map is not of this size, `to` too short, or this processor has no `isa`.
    pub(super) fn pack(
        &self,
        isa: Isa,
        map: &[f32],
        image: usize,
        rows: Range<isize>,
        channels: Range<usize>,
        to: &mut [Line],
    ) {
        let [height, width] = self.size;
        let plane = rows.len() * self.row();
        assert!(isa.is_here(), "this processor has no {isa:?}");
        assert!((image + 1) * height * width * self.channels <= map.len());
        assert!(channels.start <= channels.end && channels.end <= self.channels);
        assert!(channels.len().div_ceil(LINE) * plane <= to.len());
        let [start, end] = [self.before, self.before + width].map(|pixel| pixel.min(self.pixels));
        for (n, y) in rows.enumerate() {
            let y = usize::try_from(y).ok().filter(|y| *y < height);
            let inside = match y {
                Some(_) => start..end,
                None => 0..0,
            };
            let row = (image * height + y.unwrap_or(0)) * width * self.channels;
            let row = Row {
                layout: self,
                from: map.as_ptr().wrapping_add(row + channels.start),
                to: to[n * self.row()..].as_mut_ptr(),
                plane,
                inside,
                channels: channels.len(),
            };
            // SAFETY: if any pixel is inside, the row is in the map, and so are the channels; every plane is in `to`,
            // and the instruction set is here: all asserted.
            unsafe { run(isa, row) };
        }
    }
}

/// A row of the map.
struct Row<'a> {
    layout: &'a Layout,
    from: *const f32,
    to: *mut Line,
    /// Lines from one plane to the next.
    plane: usize,
    /// The pixels of the copy that are not zeros.
    inside: Range<usize>,
    channels: usize,
}

impl Kernel for Row<'_> {
    /// # Safety
    /// From `from`, all channels of every pixel inside are there; from `to`, the row in every plane.
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let Layout {
            channels,
            pixels,
            stride,
            ..
        } = *self.layout;
        let side_by_side = pixels.div_ceil(stride);
        let [mut remainder, mut n] = [0, 0];
        for pixel in 0..pixels {
            let mut to = self.to.wrapping_add(remainder * side_by_side + n);
            let from = self
                .from
                .wrapping_add(pixel.wrapping_sub(self.inside.start).wrapping_mul(channels));
            let count = if self.inside.contains(&pixel) { self.channels } else { 0 };
            for first in (0..self.channels).step_by(LINE) {
                for lane in (0..LINE).step_by(V::LANES) {
                    let from = from.wrapping_add(first + lane);
                    let left = count.saturating_sub(first + lane);
                    // SAFETY: the caller's; lanes beyond the channels are not read.
                    unsafe {
                        let values = if left < V::LANES {
                            V::load_first(from, left)
                        } else {
                            V::load(from)
                        };
                        values.store(to.cast::<f32>().add(lane));
                    }
                }
                to = to.wrapping_add(self.plane);
            }
            remainder += 1;
            if remainder == stride {
                [remainder, n] = [0, n + 1];
            }
        }
    }
}
