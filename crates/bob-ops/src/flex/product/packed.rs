//! The right factor, packed into the panels that tiles read from end to end.
#![expect(
    unsafe_code,
    reason = "a buffer that is filled piece by piece, by vector instructions"
)]

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use super::super::isa::{Isa, vectorized};
use super::super::sums::add_bias;
use super::super::turn::Turn;
use super::super::vector::{Kernel, Vector, run};
use super::operands::{Right, Rows};
use super::tile::{LINE, VECTORS, lanes};

/// Products that are added up in registers before the sums go to memory: most of a panel then stays in the first-level
/// cache. A multiple of the pixels of small maps, so that their sums are cut into few blocks.
pub(super) const REDUCTION: usize = 392;
/// Panels that one task packs.
const PACKED_PANELS: usize = 8;
/// Rows that are gathered at a time.
const GATHERED_ROWS: usize = 16;
/// What stands for rows and columns that do not exist.
pub(super) static ZEROS: [f32; REDUCTION] = [0.0; REDUCTION];

/// One run of the reduction within a block.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) tap: usize,
    /// First value of the tap's run.
    pub(super) from: usize,
    pub(super) len: usize,
}

/// The right factor in panels: block by block of the reduction, panel by panel of `width` columns, row by row.
pub(super) struct Packed {
    values: Vec<f32>,
    /// Where the first panel begins, on a cache line.
    start: usize,
    /// Blocks of the reduction.
    pub(super) blocks: Vec<Vec<Run>>,
    /// Rows of the reduction before each block, and all.
    before: Vec<usize>,
    pub(super) lanes: usize,
    pub(super) columns: usize,
}

/// The runs of the reduction, cut into even blocks of at most `REDUCTION` products.
pub(super) fn blocks_of(left: &impl Rows) -> Vec<Vec<Run>> {
    let mut blocks = Vec::new();
    let mut block = Vec::new();
    let total: usize = (0..left.taps()).map(|tap| left.depth(tap)).sum();
    let size = total.div_ceil(total.div_ceil(REDUCTION).max(1));
    let mut room = size;
    for tap in 0..left.taps() {
        let mut from = 0;
        let depth = left.depth(tap);
        while from < depth {
            let len = (depth - from).min(room);
            block.push(Run { tap, from, len });
            from += len;
            room -= len;
            if room == 0 {
                blocks.push(std::mem::take(&mut block));
                room = size;
            }
        }
    }
    if !block.is_empty() {
        blocks.push(block);
    }
    blocks
}

impl Packed {
    /// The panels of `right` for the reduction in `blocks`, packed on all cores where `parallel`. Where there is room for
    /// them, [`padded`] values a block and all zero, the sum of every column over the rows of each block goes to `sums`.
    pub(super) fn new(
        right: &Right,
        blocks: Vec<Vec<Run>>,
        isa: Isa,
        parallel: bool,
        mut sums: Option<&mut [f32]>,
    ) -> Self {
        let before: Vec<usize> = std::iter::once(0)
            .chain(blocks.iter().scan(0, |sum, block| {
                *sum += block.iter().map(|run| run.len).sum::<usize>();
                Some(*sum)
            }))
            .collect();
        let lanes = lanes(isa);
        let width = VECTORS * lanes;
        let padded = padded(right.columns, isa);
        let rows = *before.last().unwrap_or(&0);
        let mut values: Vec<MaybeUninit<f32>> = Vec::with_capacity(rows * padded + LINE);
        values.resize_with(rows * padded + LINE, MaybeUninit::uninit);
        let start = values.as_ptr().align_offset(LINE * size_of::<f32>());
        values[..start].fill(MaybeUninit::new(0.0));
        values[start + rows * padded..].fill(MaybeUninit::new(0.0));
        // A task takes some panels of a block, which lie one after another: its rows are then read in long stretches.
        let mut pieces = Vec::new();
        let mut rest = &mut values[start..];
        for (block, ends) in blocks.iter().zip(before.windows(2)) {
            let len = ends[1] - ends[0];
            for first in (0..padded).step_by(PACKED_PANELS * width) {
                let columns = first..(first + PACKED_PANELS * width).min(padded);
                let (to, after) = std::mem::take(&mut rest).split_at_mut(len * columns.len());
                rest = after;
                let sums = sums.as_mut().map(|sums| {
                    let (here, after) = std::mem::take(sums).split_at_mut(columns.len());
                    *sums = after;
                    here
                });
                pieces.push(Panels {
                    to,
                    sums,
                    block,
                    columns,
                    width,
                });
            }
        }
        let pack = |panels: Panels| panels.pack(right, isa);
        if parallel {
            pieces.into_par_iter().with_max_len(1).for_each(pack);
        } else {
            pieces.into_iter().for_each(pack);
        }
        let mut values = std::mem::ManuallyDrop::new(values);
        // SAFETY: the pieces cover the buffer but for its ends, which are zeroed, and `Panels::pack` writes every value of
        // a piece; the two types have one layout.
        let values = unsafe { Vec::from_raw_parts(values.as_mut_ptr().cast::<f32>(), values.len(), values.capacity()) };
        Self {
            values,
            start,
            blocks,
            before,
            lanes,
            columns: right.columns,
        }
    }

    /// The panel of block `block` that begins at `column`, with `width` columns.
    pub(super) fn panel(&self, block: usize, column: usize, width: usize) -> &[f32] {
        let padded = self.columns.next_multiple_of(self.lanes);
        let len = self.before[block + 1] - self.before[block];
        let start = self.start + self.before[block] * padded + column * len;
        &self.values[start..start + len * width]
    }
}

/// The columns of a right factor of `columns` and those that fill its last panel.
pub(super) fn padded(columns: usize, isa: Isa) -> usize {
    columns.next_multiple_of(lanes(isa))
}

/// Panels of a block of the right factor.
struct Panels<'a> {
    /// Panel by panel, row by row.
    to: &'a mut [MaybeUninit<f32>],
    /// The sum of every column, where it is wanted.
    sums: Option<&'a mut [f32]>,
    block: &'a [Run],
    /// Columns, vectors of them; those beyond the factor's are zero.
    columns: Range<usize>,
    /// Columns of a panel, but for the last.
    width: usize,
}

impl Panels<'_> {
    fn pack(mut self, right: &Right, isa: Isa) {
        assert!(isa.is_here(), "this processor has no {isa:?}");
        let mut row = 0;
        for run in self.block {
            let first = right.starts[run.tap] + run.from * right.row_stride;
            if right.column_stride == 1 {
                self.cut(right, isa, first, row, run.len);
            } else {
                for column in self.columns.clone().step_by(lanes(isa)) {
                    if right.row_stride == 1 {
                        self.turn(right, isa, first, row, run.len, column);
                    } else {
                        self.gather(right, isa, first, row, run.len, column);
                    }
                }
            }
            row += run.len;
        }
        self.add_up(right);
    }

    /// Add up the rows, which have just been read, where that is wanted.
    fn add_up(&mut self, right: &Right) {
        let Some(sums) = &mut self.sums else { return };
        assert_eq!(right.column_stride, 1, "values of a row side by side");
        let columns = self.columns.start..self.columns.end.min(right.columns);
        for run in self.block {
            let first = right.starts[run.tap] + run.from * right.row_stride + columns.start;
            vectorized(
                #[inline(always)]
                || {
                    for row in 0..run.len {
                        add_bias(
                            sums,
                            Some(&right.values[first + row * right.row_stride..][..columns.len()]),
                        );
                    }
                },
            );
        }
    }

    /// Rows of a panel.
    fn rows(&self) -> usize {
        self.to.len() / self.columns.len().max(1)
    }

    /// Where row `row` of column `column` goes, and the width of its panel.
    fn place(&self, row: usize, column: usize) -> (usize, usize) {
        let before = (column - self.columns.start) / self.width * self.width;
        let width = self.width.min(self.columns.len() - before);
        let start = before * self.rows() + row * width;
        (start + column - self.columns.start - before, width)
    }

    /// Rows whose values lie side by side.
    fn cut(&mut self, right: &Right, isa: Isa, first: usize, row: usize, len: usize) {
        let columns = self.columns.start..self.columns.end.min(right.columns);
        let from = first + columns.start;
        let from = &right.values[from..from + (len - 1) * right.row_stride + columns.len()];
        assert!((row + len) * self.columns.len() <= self.to.len());
        let cut = Cut {
            from: from.as_ptr(),
            stride: right.row_stride,
            len,
            columns: columns.len(),
            to: self.to.as_mut_ptr().cast(),
            row,
            rows: self.rows(),
        };
        // SAFETY: the last row ends within `from`, the panels have rows `row` to `row + len` (asserted), and `isa` is
        // here (asserted).
        unsafe { run(isa, cut) };
    }

    /// Columns whose values lie side by side, a vector of them from `column`.
    fn turn(&mut self, right: &Right, isa: Isa, first: usize, row: usize, len: usize, column: usize) {
        let (start, width) = self.place(row, column);
        let lanes = lanes(isa);
        assert!(start + (len - 1) * width + lanes <= self.to.len());
        let rows = std::array::from_fn(|lane| match column + lane < right.columns {
            true => right.values[first + (column + lane) * right.column_stride..][..len].as_ptr(),
            false => ZEROS[..len].as_ptr(),
        });
        let turn = Turn {
            rows,
            len,
            to: self.to[start..].as_mut_ptr().cast(),
            step: width,
        };
        // SAFETY: the rows were cut from slices of `len` values, the last place has room for a vector (asserted), and
        // `isa` is here (asserted).
        unsafe { run(isa, turn) };
    }

    /// Values that lie anywhere, a vector of columns from `column`.
    fn gather(&mut self, right: &Right, isa: Isa, first: usize, row: usize, len: usize, column: usize) {
        let lanes = lanes(isa);
        let inside = right.columns.saturating_sub(column).min(lanes);
        // Some rows at a time: each column is then read in runs, where its values lie near each other.
        for i in (0..len).step_by(GATHERED_ROWS) {
            let count = (len - i).min(GATHERED_ROWS);
            let (start, width) = self.place(row + i, column);
            let to = &mut self.to[start..][..(count - 1) * width + lanes];
            for lane in 0..inside {
                let from = first + i * right.row_stride + (column + lane) * right.column_stride;
                let from = &right.values[from..=from + (count - 1) * right.row_stride];
                for r in 0..count {
                    to[r * width + lane].write(from[r * right.row_stride]);
                }
            }
            to.chunks_mut(width)
                .for_each(|row| row[inside..lanes].fill(MaybeUninit::new(0.0)));
        }
    }
}

/// Rows `stride` apart, cut into panels of `rows` rows each, where they are from row `row` on. The last panel has as
/// many vectors as it needs, with zeros beyond the columns.
struct Cut {
    from: *const f32,
    stride: usize,
    len: usize,
    columns: usize,
    to: *mut f32,
    row: usize,
    rows: usize,
}

impl Kernel for Cut {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let width = VECTORS * V::LANES;
        let (whole, rest) = (self.columns / width, self.columns % width);
        let last = rest.next_multiple_of(V::LANES);
        for row in 0..self.len {
            // SAFETY: the caller's: the columns of every row may be read, and the rows of every panel written.
            unsafe {
                let from = self.from.add(row * self.stride);
                for panel in 0..whole {
                    let (from, to) = (
                        from.add(panel * width),
                        self.to.add((panel * self.rows + self.row + row) * width),
                    );
                    for v in 0..VECTORS {
                        V::load(from.add(v * V::LANES)).store(to.add(v * V::LANES));
                    }
                }
                if rest > 0 {
                    let to = self.to.add(whole * self.rows * width + (self.row + row) * last);
                    for column in (0..rest).step_by(V::LANES) {
                        V::load_first(from.add(whole * width + column), (rest - column).min(V::LANES))
                            .store(to.add(column));
                    }
                }
            }
        }
    }
}
