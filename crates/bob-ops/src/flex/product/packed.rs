//! The right factor, packed into the panels that tiles read from end to end.
#![expect(unsafe_code, reason = "a buffer that is filled piece by piece")]

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::super::isa::{Isa, vectorized};
use super::operands::{Right, Rows};
use super::tile::{lanes, panel_vectors};

/// Products that are added up in registers before the sums go to memory: a panel of the right factor then stays in
/// the second-level cache.
const REDUCTION: usize = 256;
/// Panels that one task packs.
const PACKED_PANELS: usize = 8;
/// Rows of a transposed factor that are packed at a time.
const TRANSPOSED_ROWS: usize = 16;

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
    /// Blocks of the reduction.
    pub(super) blocks: Vec<Vec<Run>>,
    /// Rows of the reduction before each block, and all.
    before: Vec<usize>,
    pub(super) lanes: usize,
    pub(super) columns: usize,
}

/// The runs of the reduction, cut into blocks of `REDUCTION` products.
pub(super) fn blocks_of(left: &impl Rows) -> Vec<Vec<Run>> {
    let mut blocks = Vec::new();
    let mut block = Vec::new();
    let mut room = REDUCTION;
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
                room = REDUCTION;
            }
        }
    }
    if !block.is_empty() {
        blocks.push(block);
    }
    blocks
}

impl Packed {
    /// The panels of `right` for the reduction in `blocks`, packed on all cores where `parallel`.
    pub(super) fn new(right: &Right, blocks: Vec<Vec<Run>>, isa: Isa, parallel: bool) -> Self {
        let before: Vec<usize> = std::iter::once(0)
            .chain(blocks.iter().scan(0, |sum, block| {
                *sum += block.iter().map(|run| run.len).sum::<usize>();
                Some(*sum)
            }))
            .collect();
        let lanes = lanes(isa);
        let width = panel_vectors(isa) * lanes;
        let padded = right.columns.next_multiple_of(lanes);
        let rows = *before.last().unwrap_or(&0);
        let mut values: Vec<MaybeUninit<f32>> = Vec::with_capacity(rows * padded);
        values.resize_with(rows * padded, MaybeUninit::uninit);
        // A task takes some panels of a block, which lie one after another: its rows are then read in long stretches.
        let mut pieces = Vec::new();
        let mut rest = &mut values[..];
        for (block, ends) in blocks.iter().zip(before.windows(2)) {
            let len = ends[1] - ends[0];
            for column in (0..padded).step_by(PACKED_PANELS * width) {
                let columns = (PACKED_PANELS * width).min(padded - column);
                let (piece, after) = std::mem::take(&mut rest).split_at_mut(len * columns);
                rest = after;
                pieces.push((piece, block, column, len));
            }
        }
        let pack = |(piece, block, column, len): (&mut [MaybeUninit<f32>], &Vec<Run>, usize, usize)| {
            let mut panels: Vec<Panel> = piece
                .chunks_mut((len * width).max(1))
                .enumerate()
                .map(|(i, values)| Panel {
                    width: values.len() / len.max(1),
                    values,
                    column: column + i * width,
                })
                .collect();
            vectorized(
                #[inline(always)]
                || pack_panels(&mut panels, right, block),
            );
        };
        if parallel {
            pieces.into_par_iter().for_each(pack);
        } else {
            pieces.into_iter().for_each(pack);
        }
        let mut values = std::mem::ManuallyDrop::new(values);
        // SAFETY: the pieces cover the buffer and `pack_panels` writes every value of a piece; the two types have one
        // layout.
        let values = unsafe { Vec::from_raw_parts(values.as_mut_ptr().cast::<f32>(), values.len(), values.capacity()) };
        Self {
            values,
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
        let start = self.before[block] * padded + column * len;
        &self.values[start..start + len * width]
    }
}

/// Some columns of a block of the right factor, row by row.
struct Panel<'a> {
    values: &'a mut [MaybeUninit<f32>],
    column: usize,
    width: usize,
}

impl Panel<'_> {
    /// Columns that exist; the others are zero.
    #[inline(always)]
    fn inside(&self, right: &Right) -> usize {
        right.columns.saturating_sub(self.column).min(self.width)
    }

    #[inline(always)]
    fn row(&mut self, row: usize) -> &mut [MaybeUninit<f32>] {
        &mut self.values[row * self.width..][..self.width]
    }
}

/// Copy the rows of the runs of a block into panels.
#[inline(always)]
fn pack_panels(panels: &mut [Panel], right: &Right, block: &[Run]) {
    let mut row = 0;
    for run in block {
        let first = right.starts[run.tap] + run.from * right.row_stride;
        if right.column_stride == 1 {
            for i in 0..run.len {
                for panel in panels.iter_mut() {
                    let inside = panel.inside(right);
                    let start = first + i * right.row_stride + panel.column;
                    copy(panel.row(row + i), &right.values[start..start + inside]);
                }
            }
        } else {
            for panel in panels.iter_mut() {
                let inside = panel.inside(right);
                // Some rows at a time: each column is then read in runs, where its values lie side by side.
                for i in (0..run.len).step_by(TRANSPOSED_ROWS) {
                    let count = (run.len - i).min(TRANSPOSED_ROWS);
                    let width = panel.width;
                    let rows = &mut panel.values[(row + i) * width..][..count * width];
                    for c in 0..inside {
                        let start = first + i * right.row_stride + (panel.column + c) * right.column_stride;
                        let from = &right.values[start..=start + (count - 1) * right.row_stride];
                        for r in 0..count {
                            rows[r * width + c].write(from[r * right.row_stride]);
                        }
                    }
                    rows.chunks_exact_mut(width)
                        .for_each(|row| row[inside..].fill(MaybeUninit::new(0.0)));
                }
            }
        }
        row += run.len;
    }
}

/// Copy a row of a panel, zero beyond its end.
#[inline(always)]
fn copy(to: &mut [MaybeUninit<f32>], from: &[f32]) {
    if from.len() == to.len() {
        to.iter_mut().zip(from).for_each(|(to, from)| _ = to.write(*from));
    } else {
        let (inside, outside) = to.split_at_mut(from.len());
        inside.write_copy_of_slice(from);
        outside.fill(MaybeUninit::new(0.0));
    }
}
