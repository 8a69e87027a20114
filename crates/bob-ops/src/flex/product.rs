//! The one matrix kernel: rows that are gathered from a buffer, times a matrix.
//!
//! A row of the left factor is `taps` runs of `depth` values, each anywhere in the buffer or all zero. A linear layer
//! has one tap; a convolution over maps with channels last has one per pixel of its kernel, so that neither a patch
//! matrix nor a padded map is ever built (an indirect convolution: Dukhan, "The Indirect Convolution Algorithm",
//! arXiv:1907.02129). The steps between the values of a run, and the factor on the right, may have any stride.
//!
//! Work is cut by shape alone and every output adds up its products in the order of the runs, so the result does not
//! depend on the number of threads.
#![expect(unsafe_code, reason = "pointers to rows, and vector instructions")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};
use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use super::buffer::{Shared, filled};
use super::isa::{Isa, vectorized};
use super::sums::add_bias;
use super::vector::{Portable, Vector};

/// Rows of a tile, which is what the registers hold; the same for every instruction set, so that tables fit all.
const TILE_ROWS: usize = 6;
/// Vectors across a tile at most.
const TILE_VECTORS: usize = 4;
/// Products that are added up in registers before the sums go to memory: a panel of the right factor then stays in
/// the second-level cache.
const REDUCTION: usize = 256;
/// Panels that one task packs.
const PACKED_PANELS: usize = 8;
/// Rows of a transposed factor that are packed at a time.
const TRANSPOSED_ROWS: usize = 16;
/// Rows of a task at most and at least, multiples of a tile's.
const TASK_ROWS: usize = 24 * TILE_ROWS;
const MIN_TASK_ROWS: usize = 3 * TILE_ROWS;
/// Columns of a task at most and at least, multiples of every panel's width.
const TASK_COLUMNS: usize = 384;
const MIN_TASK_COLUMNS: usize = 128;
/// Tasks that are enough to share out evenly.
const TASKS: usize = 24;
/// Parts that a long reduction is cut into at least and at most, and values of all their results.
const PARTS: [usize; 2] = [8, 32];
const PART_VALUES: usize = 2 << 20;

/// The left factor: where the values of every row lie.
pub(crate) trait Rows: Sync {
    /// What is worked out once for all runs of a row.
    type Origin: Copy;

    /// Rows.
    fn count(&self) -> usize;
    /// Runs of a row.
    fn taps(&self) -> usize;
    /// Values of run `tap`.
    fn depth(&self, tap: usize) -> usize;
    /// Steps in the buffer from one value of a run to the next.
    fn step(&self) -> usize;
    /// The place of a row.
    fn origin(&self, row: usize) -> Self::Origin;
    /// Where run `tap` of the row at `origin` begins in the buffer, or none for a run of zeros.
    fn locate(&self, origin: Self::Origin, tap: usize) -> Option<usize>;
}

/// Rows that lie one after another, without taps.
#[derive(Clone, Copy)]
pub(crate) struct Dense {
    /// Where the first row begins.
    pub(crate) start: usize,
    /// Rows.
    pub(crate) count: usize,
    /// Values of a row.
    pub(crate) depth: usize,
    /// Steps from row to row.
    pub(crate) stride: usize,
    /// Steps from value to value.
    pub(crate) step: usize,
}

impl Dense {
    /// The rows of a matrix of `depth` columns.
    pub(crate) fn rows(count: usize, depth: usize) -> Self {
        Self {
            start: 0,
            count,
            depth,
            stride: depth,
            step: 1,
        }
    }

    /// The columns of a matrix of `rows` rows and `count` columns.
    pub(crate) fn columns(rows: usize, count: usize) -> Self {
        Self {
            start: 0,
            count,
            depth: rows,
            stride: 1,
            step: count,
        }
    }
}

impl Rows for Dense {
    type Origin = usize;

    fn count(&self) -> usize {
        self.count
    }
    fn taps(&self) -> usize {
        1
    }
    fn depth(&self, _tap: usize) -> usize {
        self.depth
    }
    fn step(&self) -> usize {
        self.step
    }
    fn origin(&self, row: usize) -> usize {
        self.start + row * self.stride
    }
    fn locate(&self, origin: usize, _tap: usize) -> Option<usize> {
        Some(origin)
    }
}

/// The right factor: the values of run `tap` of the reduction begin at `starts[tap]`.
pub(crate) struct Right<'a> {
    pub(crate) values: &'a [f32],
    /// Where the rows of every tap begin; one for each tap of the left factor.
    pub(crate) starts: &'a [usize],
    /// Steps from one value of a run to the next.
    pub(crate) row_stride: usize,
    /// Steps from column to column.
    pub(crate) column_stride: usize,
    /// Columns.
    pub(crate) columns: usize,
}

impl<'a> Right<'a> {
    /// A matrix of `columns` columns, without taps.
    pub(crate) fn rows(values: &'a [f32], columns: usize) -> Self {
        Self {
            values,
            starts: &[0],
            row_stride: columns,
            column_stride: 1,
            columns,
        }
    }
}

/// Where the rows of the result go: row by row of a grid, image by image; their columns lie side by side.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// Where the first row goes.
    pub(crate) start: usize,
    /// Height and width of the grid.
    pub(crate) grid: [usize; 2],
    /// Steps from image to image, down the grid and along it.
    pub(crate) strides: [usize; 3],
}

impl Target {
    /// One row after another.
    pub(crate) fn rows(start: usize, stride: usize) -> Self {
        Self {
            start,
            grid: [1, 1],
            strides: [stride; 3],
        }
    }

    fn locate(&self, row: usize) -> usize {
        let [height, width] = self.grid;
        let [image, down, along] = self.strides;
        if height * width == 1 {
            return self.start + row * image;
        }
        let (line, x) = (row / width, row % width);
        self.start + line / height * image + line % height * down + x * along
    }

    /// Whether `rows` rows of `columns` values are disjoint and within `len`.
    fn holds(&self, rows: usize, columns: usize, len: usize) -> bool {
        let [height, width] = self.grid;
        let [image, down, along] = self.strides;
        let disjoint = (width == 1 || along >= columns)
            && (height == 1 || down >= (width - 1) * along + columns)
            && (rows <= height * width || image >= (height - 1) * down + (width - 1) * along + columns);
        // Rows go up, so the last one ends last.
        disjoint && self.locate(rows - 1) + columns <= len
    }
}

/// Whether the product is added to what the target holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Into {
    Overwrite,
    Add,
}

/// One run of the reduction within a block.
#[derive(Clone, Copy)]
struct Run {
    tap: usize,
    /// First value of the tap's run.
    from: usize,
    len: usize,
}

/// The right factor in panels: block by block of the reduction, panel by panel of `width` columns, row by row.
struct Packed {
    values: Vec<f32>,
    /// Blocks of the reduction.
    blocks: Vec<Vec<Run>>,
    /// Rows of the reduction before each block, and all.
    before: Vec<usize>,
    lanes: usize,
    columns: usize,
}

fn blocks_of(left: &impl Rows) -> Vec<Vec<Run>> {
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

fn lanes(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 16,
        Isa::Avx2 => 8,
        Isa::Portable => Portable::LANES,
    }
}

/// Vectors across a panel: what the registers of the instruction set hold beside six rows of sums.
fn panel_vectors(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => TILE_VECTORS,
        Isa::Avx2 | Isa::Portable => 2,
    }
}

impl Packed {
    fn new(right: &Right, blocks: Vec<Vec<Run>>, isa: Isa, parallel: bool) -> Self {
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
    fn panel(&self, block: usize, column: usize, width: usize) -> &[f32] {
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

/// `left · right`, on all cores; `finish(row, first column, values)` sees every finished piece of a row once.
///
/// # Panics
/// Where a run of the left factor leaves `values`, the right factor its own, or the result `out`.
pub(crate) fn multiply(
    values: &[f32],
    left: &impl Rows,
    right: &Right,
    out: &Shared,
    target: Target,
    into: Into,
    finish: &(dyn Fn(usize, usize, &mut [f32]) + Sync),
) {
    multiply_with(Isa::best(), true, values, left, right, out, target, into, finish);
}

/// The same into a new buffer, row after row.
pub(crate) fn product(
    values: &[f32],
    left: &impl Rows,
    right: &Right,
    finish: &(dyn Fn(usize, usize, &mut [f32]) + Sync),
) -> Vec<f32> {
    filled(left.count() * right.columns, |out| {
        let target = Target::rows(0, right.columns);
        multiply(values, left, right, &Shared::new(out), target, Into::Overwrite, finish);
    })
}

/// The same on this thread alone, for a caller that has a task per product.
pub(crate) fn multiply_here(
    values: &[f32],
    left: &impl Rows,
    right: &Right,
    out: &Shared,
    target: Target,
    into: Into,
    finish: &(dyn Fn(usize, usize, &mut [f32]) + Sync),
) {
    multiply_with(Isa::best(), false, values, left, right, out, target, into, finish);
}

#[expect(clippy::too_many_arguments, reason = "the two ways in differ by the first two")]
fn multiply_with(
    isa: Isa,
    parallel: bool,
    values: &[f32],
    left: &impl Rows,
    right: &Right,
    out: &Shared,
    target: Target,
    into: Into,
    finish: &(dyn Fn(usize, usize, &mut [f32]) + Sync),
) {
    let (rows, columns) = (left.count(), right.columns);
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(isa.is_here(), "this processor has no {isa:?}");
    assert_eq!(
        right.starts.len(),
        left.taps(),
        "runs of the left and of the right factor"
    );
    assert!(target.holds(rows, columns, out.len()), "the target holds the product");
    let blocks = blocks_of(left);
    let longest = (0..left.taps()).map(|tap| left.depth(tap)).max().unwrap_or(0);
    let zeros = vec![
        0.0;
        if longest == 0 {
            0
        } else {
            (longest - 1) * left.step() + 1
        }
    ];
    let product = Product {
        isa,
        values,
        zeros: &zeros,
        left,
    };
    if parallel && let Some(parts) = parts(rows * columns, blocks.len()) {
        let sums = product.in_parts(right, &blocks, parts);
        (0..rows).into_par_iter().for_each(|row| {
            let start = target.locate(row);
            // SAFETY: rows do not overlap (asserted), so nobody else has this one; its end is within `out`, as asserted.
            let finished = unsafe { out.slice(start..start + columns) };
            if into == Into::Overwrite {
                finished.fill(0.0);
            }
            for sum in &sums {
                add_bias(finished, Some(&sum[row * columns..][..columns]));
            }
            finish(row, 0, finished);
        });
        return;
    }
    let packed = Packed::new(right, blocks, isa, parallel);
    let [task_rows, task_columns] = task_size(rows, columns);
    let task = |row: usize, column: usize| {
        let piece = Piece {
            rows: row..(row + task_rows).min(rows),
            columns: column..(column + task_columns).min(columns),
        };
        product.compute(&packed, out, target, into, &piece);
        for row in piece.rows.clone() {
            let start = target.locate(row);
            // SAFETY: the ranges of rows and columns of two tasks are disjoint and rows do not overlap (asserted), so
            // nobody else has this part of `out`; the end is within it, as asserted.
            let finished = unsafe { out.slice(start + piece.columns.start..start + piece.columns.end) };
            finish(row, piece.columns.start, finished);
        }
    };
    let (down, across) = (rows.div_ceil(task_rows), columns.div_ceil(task_columns));
    if parallel && down * across > 1 {
        (0..down * across)
            .into_par_iter()
            .for_each(|i| task(i / across * task_rows, i % across * task_columns));
    } else {
        (0..down * across).for_each(|i| task(i / across * task_rows, i % across * task_columns));
    }
}

/// Rows and columns of a task: as many as keep its left rows in the cache, fewer where there would be too few tasks to
/// share out.
fn task_size(rows: usize, columns: usize) -> [usize; 2] {
    let mut size = [TASK_ROWS, TASK_COLUMNS];
    let count = |size: [usize; 2]| rows.div_ceil(size[0]) * columns.div_ceil(size[1]);
    while count(size) < TASKS && size[0] > MIN_TASK_ROWS {
        size[0] /= 2;
    }
    if count(size) < TASKS {
        size[1] = MIN_TASK_COLUMNS;
    }
    size
}

/// How many parts the reduction of `blocks` blocks to `values` values is cut into, if it is: where the result is small
/// and the reduction long, as of the gradient of a weight, tasks of rows and columns would each read both factors whole.
fn parts(values: usize, blocks: usize) -> Option<usize> {
    let [fewest, most] = PARTS;
    let parts = (PART_VALUES / values).min(most);
    (parts >= fewest && blocks >= parts).then_some(parts)
}

/// The part of the result that one task computes.
struct Piece {
    rows: Range<usize>,
    columns: Range<usize>,
}

/// What all tasks of a product share.
struct Product<'a, L> {
    isa: Isa,
    values: &'a [f32],
    /// As long as the longest run.
    zeros: &'a [f32],
    left: &'a L,
}

impl<L: Rows> Product<'_, L> {
    /// The sums of `parts` stretches of the reduction, each row after row; the right factor is packed where it is used.
    fn in_parts(&self, right: &Right, blocks: &[Vec<Run>], parts: usize) -> Vec<Vec<f32>> {
        let (rows, columns) = (self.left.count(), right.columns);
        let whole = Piece {
            rows: 0..rows,
            columns: 0..columns,
        };
        blocks
            .par_chunks(blocks.len().div_ceil(parts))
            .map(|blocks| {
                filled(rows * columns, |sum| {
                    let sum = Shared::new(sum);
                    for (i, block) in blocks.iter().enumerate() {
                        let packed = Packed::new(right, vec![block.clone()], self.isa, false);
                        let into = if i == 0 { Into::Overwrite } else { Into::Add };
                        self.compute(&packed, &sum, Target::rows(0, columns), into, &whole);
                    }
                })
            })
            .collect()
    }

    /// Compute `piece` of the product with what is packed, which no other task may have.
    fn compute(&self, packed: &Packed, out: &Shared, target: Target, into: Into, piece: &Piece) {
        let &Self {
            isa,
            values,
            zeros,
            left,
        } = self;
        let width = panel_vectors(isa) * packed.lanes;
        if packed.blocks.is_empty() && into == Into::Overwrite {
            for row in piece.rows.clone() {
                let start = target.locate(row);
                // SAFETY: as in `multiply_with`: no other task has this part of `out`.
                unsafe { out.slice(start + piece.columns.start..start + piece.columns.end) }.fill(0.0);
            }
        }
        let mut table: Vec<*const f32> = Vec::new();
        for (b, block) in packed.blocks.iter().enumerate() {
            // Where every run of every tile of rows begins: [tile][run][row of the tile].
            table.clear();
            for tile in piece.rows.clone().step_by(TILE_ROWS) {
                // Rows beyond the last are never stored; any address that may be read will do.
                let origins: [_; TILE_ROWS] =
                    std::array::from_fn(|row| left.origin((tile + row).min(piece.rows.end - 1)));
                for run in block {
                    for origin in origins {
                        let start = match left.locate(origin, run.tap) {
                            Some(start) => {
                                let first = start + run.from * left.step();
                                &values[first..=first + (run.len - 1) * left.step()]
                            }
                            None => zeros,
                        };
                        table.push(start.as_ptr());
                    }
                }
            }
            let accumulate = b > 0 || into == Into::Add;
            let mut column = piece.columns.start;
            while column < piece.columns.end {
                let panel_width = width.min(packed.columns.next_multiple_of(packed.lanes) - column);
                let inside = (packed.columns - column).min(panel_width);
                let panel = packed.panel(b, column, panel_width);
                for (i, tile) in piece.rows.clone().step_by(TILE_ROWS).enumerate() {
                    let rows = (piece.rows.end - tile).min(TILE_ROWS);
                    let work = Tile {
                        runs: block,
                        table: &table[i * block.len() * TILE_ROWS..][..block.len() * TILE_ROWS],
                        step: left.step(),
                        panel,
                        to: std::array::from_fn(|row| {
                            let start = target.locate((tile + row).min(piece.rows.end - 1)) + column;
                            // SAFETY: `start` is within `out`: the target holds every row and column, as asserted.
                            unsafe { out.pointer().add(start) }
                        }),
                        inside,
                        accumulate,
                    };
                    // SAFETY: the table's runs were cut from slices that hold them (and `zeros` is as long as the longest
                    // run), the panel has `width` values for every row of the block, the first `inside` columns at the
                    // first `rows` of `to` are within `out` and belong to this task alone, and `isa` is here (asserted).
                    unsafe { work.run(isa, rows, panel_width / packed.lanes) };
                }
                column += panel_width;
            }
        }
    }
}

/// A tile of the result: up to six rows times up to four vectors.
struct Tile<'a> {
    runs: &'a [Run],
    /// Where the runs begin: `[run][row]`.
    table: &'a [*const f32],
    step: usize,
    panel: &'a [f32],
    /// Where the rows of the result begin.
    to: [*mut f32; TILE_ROWS],
    /// Columns that exist.
    inside: usize,
    accumulate: bool,
}

macro_rules! tiles {
    ($($name:ident, $vector:ty, $features:literal, $vectors:tt;)*) => {
        $(
            /// # Safety
            /// As [`Tile::sum`], on a processor with the instruction set.
            #[target_feature(enable = $features)]
            unsafe fn $name(tile: &Tile, rows: usize, vectors: usize) {
                // SAFETY: the caller's.
                unsafe { tiles!(@rows tile, rows, vectors, $vector, $vectors) }
            }
        )*
    };
    (@rows $tile:ident, $rows:ident, $vectors:ident, $vector:ty, $counts:tt) => {
        match $rows {
            1 => tiles!(@vectors $tile, $vectors, $vector, 1, $counts),
            2 => tiles!(@vectors $tile, $vectors, $vector, 2, $counts),
            3 => tiles!(@vectors $tile, $vectors, $vector, 3, $counts),
            4 => tiles!(@vectors $tile, $vectors, $vector, 4, $counts),
            5 => tiles!(@vectors $tile, $vectors, $vector, 5, $counts),
            _ => tiles!(@vectors $tile, $vectors, $vector, 6, $counts),
        }
    };
    (@vectors $tile:ident, $vectors:ident, $vector:ty, $rows:literal, [$($count:literal)*]) => {
        match $vectors {
            $($count => $tile.sum::<$vector, $rows, $count>(),)*
            _ => unreachable!("a panel is never wider"),
        }
    };
}

#[cfg(target_arch = "x86_64")]
tiles! {
    tile_avx512, __m512, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma", [1 2 3 4];
    tile_avx2, __m256, "avx2,fma", [1 2];
}

impl Tile<'_> {
    /// # Safety
    /// As [`Self::sum`], on a processor with `isa`.
    unsafe fn run(&self, isa: Isa, rows: usize, vectors: usize) {
        // SAFETY: the caller's.
        unsafe {
            match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => tile_avx512(self, rows, vectors),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => tile_avx2(self, rows, vectors),
                _ => tiles!(@rows self, rows, vectors, Portable, [1 2]),
            }
        }
    }

    /// Add up the products of the block and store them.
    ///
    /// # Safety
    /// The table holds six addresses for every run, each valid for the run's values at the step; the panel has
    /// `VECTORS` vectors for every value of the runs; each of the first `ROWS` of `to` is valid for `inside`
    /// columns, more than `VECTORS - 1` vectors of them; the processor has the vector's instruction set.
    #[inline(always)]
    unsafe fn sum<V: Vector, const ROWS: usize, const VECTORS: usize>(&self) {
        // SAFETY: the caller's, for every address below.
        unsafe {
            let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
            let mut panel = self.panel.as_ptr();
            for (run, starts) in self.runs.iter().zip(self.table.chunks_exact(TILE_ROWS)) {
                let starts: [*const f32; ROWS] = std::array::from_fn(|row| starts[row]);
                let mut offset = 0;
                for _ in 0..run.len {
                    let right: [V; VECTORS] = std::array::from_fn(|v| V::load(panel.add(v * V::LANES)));
                    panel = panel.add(VECTORS * V::LANES);
                    for row in 0..ROWS {
                        let left = V::splat(*starts[row].add(offset));
                        for v in 0..VECTORS {
                            sums[row][v] = left.mul_add(right[v], sums[row][v]);
                        }
                    }
                    offset += self.step;
                }
            }
            let last = self.inside - (VECTORS - 1) * V::LANES;
            for (to, sums) in self.to.into_iter().zip(sums) {
                for (v, sum) in sums.into_iter().enumerate() {
                    let to = to.add(v * V::LANES);
                    if v + 1 < VECTORS || last == V::LANES {
                        let sum = if self.accumulate {
                            V::splat(1.0).mul_add(V::load(to), sum)
                        } else {
                            sum
                        };
                        sum.store(to);
                    } else {
                        let before = if self.accumulate {
                            V::load_first(to, last)
                        } else {
                            V::splat(0.0)
                        };
                        let sum = if self.accumulate {
                            V::splat(1.0).mul_add(before, sum)
                        } else {
                            sum
                        };
                        sum.store_first(to, last);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows in any order, some runs of which are zero.
    struct Scattered {
        count: usize,
        depths: Vec<usize>,
        step: usize,
    }

    impl Rows for Scattered {
        type Origin = usize;

        fn count(&self) -> usize {
            self.count
        }
        fn taps(&self) -> usize {
            self.depths.len()
        }
        fn depth(&self, tap: usize) -> usize {
            self.depths[tap]
        }
        fn step(&self) -> usize {
            self.step
        }
        fn origin(&self, row: usize) -> usize {
            row
        }
        fn locate(&self, row: usize, tap: usize) -> Option<usize> {
            ((row + tap) % 5 != 4).then_some((row * 7 + tap * 3) % 11)
        }
    }

    fn check(isa: Isa, count: usize, depths: &[usize], step: usize, columns: usize, transposed: bool, into: Into) {
        let value = |i: usize| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0;
        let left = Scattered {
            count,
            depths: depths.to_vec(),
            step,
        };
        let longest = depths.iter().copied().max().unwrap_or(0);
        let values: Vec<f32> = (0..11 + longest * step + 1).map(value).collect();
        let total: usize = depths.iter().sum();
        let right: Vec<f32> = (0..total * columns).map(|i| value(i * 13 + 5)).collect();
        let (row_stride, column_stride) = if transposed { (1, total) } else { (columns, 1) };
        let starts: Vec<usize> = depths
            .iter()
            .scan(0, |sum, depth| {
                *sum += depth;
                Some((*sum - depth) * row_stride)
            })
            .collect();
        let factor = Right {
            values: &right,
            starts: &starts,
            row_stride,
            column_stride,
            columns,
        };
        // Room around every row that must stay as it is.
        let stride = columns + 3;
        let before: Vec<f32> = (0..2 + count * stride).map(|i| value(i * 3)).collect();
        let mut found = before.clone();
        let out = Shared::new(&mut found);
        let target = Target::rows(2, stride);
        multiply_with(isa, true, &values, &left, &factor, &out, target, into, &|_, _, _| {});
        let mut expected: Vec<f64> = before.iter().map(|x| f64::from(*x)).collect();
        for row in 0..count {
            for column in 0..columns {
                let mut sum = if into == Into::Add {
                    expected[2 + row * stride + column]
                } else {
                    0.0
                };
                for (tap, depth) in depths.iter().enumerate() {
                    let Some(start) = left.locate(row, tap) else { continue };
                    for d in 0..*depth {
                        let b = right[starts[tap] + d * row_stride + column * column_stride];
                        sum += f64::from(values[start + d * step]) * f64::from(b);
                    }
                }
                expected[2 + row * stride + column] = sum;
            }
        }
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let error = (f64::from(*found) - expected).abs();
            // A sum of hundreds has no digits for the absolute bound.
            assert!(
                error < 1e-4_f64.max(1e-6 * expected.abs()),
                "{isa:?} {count}x{depths:?}x{columns}, value {i}: {found} for {expected}"
            );
        }
    }

    #[test]
    fn every_instruction_set_multiplies() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_here()) {
            for (count, depths, step, columns) in [
                (1, &[1][..], 1, 1),
                (6, &[3, 5], 1, 16),
                (7, &[4, 4, 4], 2, 65),
                (13, &[300], 1, 70),
                (40, &[9, 1, 260], 3, 130),
                (5, &[0], 1, 4),
                (3, &[], 1, 9),
                // So long that the reduction is cut.
                (7, &[16_400, 5], 1, 17),
            ] {
                for transposed in [false, true] {
                    for into in [Into::Overwrite, Into::Add] {
                        check(isa, count, depths, step, columns, transposed, into);
                    }
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "the target holds the product")]
    fn a_target_that_is_too_small_is_refused() {
        let mut out = [0.0; 5];
        let right = Right::rows(&[1.0; 6], 3);
        let left = Dense::rows(2, 2);
        multiply_here(
            &[1.0; 4],
            &left,
            &right,
            &Shared::new(&mut out),
            Target::rows(0, 3),
            Into::Overwrite,
            &|_, _, _| {},
        );
    }

    #[test]
    #[should_panic(expected = "range end index")]
    fn a_run_beyond_the_values_is_refused() {
        let mut out = [0.0; 6];
        let right = Right::rows(&[1.0; 6], 3);
        let left = Dense::rows(2, 2);
        multiply_here(
            &[1.0; 3],
            &left,
            &right,
            &Shared::new(&mut out),
            Target::rows(0, 3),
            Into::Overwrite,
            &|_, _, _| {},
        );
    }
}
