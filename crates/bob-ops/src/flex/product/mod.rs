//! The one matrix kernel: rows that are gathered from a buffer, times a matrix.
//!
//! A row of the left factor is `taps` runs of `depth` values, each anywhere in the buffer or all zero. A linear layer
//! has one tap; a convolution over maps with channels last has one per pixel of its kernel, so that neither a patch
//! matrix nor a padded map is ever built (an indirect convolution: Dukhan, "The Indirect Convolution Algorithm",
//! arXiv:1907.02129). The steps between the values of a run, and the factor on the right, may have any stride.
//!
//! Work is cut by shape alone and every output adds up its products in the order of the runs, so the result does not
//! depend on the number of threads.
#![expect(unsafe_code, reason = "pointers to rows, and pieces of one result")]

mod left;
mod operands;
mod packed;
mod tile;

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::buffer::{Shared, filled};
use super::isa::Isa;
use super::sums::{add_bias, column_sums};
use super::vector::run;
use left::Tiles;
use packed::{Packed, Run, blocks_of, padded};
use tile::{Tile, VECTORS, tile_rows};

pub(crate) use operands::{Dense, Into, Right, Rows, Target};

/// Rows and columns of a task at most, and those that are not cut further.
const TASK: [usize; 2] = [84, 768];
const SMALLEST_TASK: [usize; 2] = [84, 192];
/// Left rows that are packed at a time, where one task has more.
const PACKED_ROWS: usize = 336;
/// Tasks that are enough to share out evenly.
const TASKS: usize = 16;
/// Parts that a long reduction is cut into at least and at most, and values of all their results.
const PARTS: [usize; 2] = [8, 32];
const PART_VALUES: usize = 2 << 20;

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
    multiply_with(Isa::best(), true, values, left, right, out, target, into, finish, None);
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

/// The same, and the sum of every column of the right factor, whose values lie side by side in its rows: they are added up
/// while they are packed, which saves a pass over them. Neither factor may be empty.
pub(crate) fn product_and_sums(values: &[f32], left: &impl Rows, right: &Right) -> (Vec<f32>, Vec<f32>) {
    let (isa, columns) = (Isa::best(), right.columns);
    let width = padded(columns, isa);
    let mut block_sums = vec![0.0; blocks_of(left).len() * width];
    let found = filled(left.count() * columns, |out| {
        let (out, target) = (Shared::new(out), Target::rows(0, columns));
        multiply_with(
            isa,
            true,
            values,
            left,
            right,
            &out,
            target,
            Into::Overwrite,
            &|_, _, _| {},
            Some(&mut block_sums),
        );
    });
    let mut sums = column_sums(&block_sums, width);
    sums.truncate(columns);
    (found, sums)
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
    multiply_with(Isa::best(), false, values, left, right, out, target, into, finish, None);
}

#[expect(
    clippy::too_many_arguments,
    reason = "the ways in differ by the first two and the last"
)]
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
    block_sums: Option<&mut [f32]>,
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
    let product = Product { isa, values, left };
    if parallel && let Some(parts) = parts(rows * columns, blocks.len()) {
        let sums = product.in_parts(right, &blocks, parts, block_sums);
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
    let packed = Packed::new(right, blocks, isa, parallel, block_sums);
    let [task_rows, task_columns] = task_size(rows, columns, [tile_rows(isa), VECTORS * packed.lanes]);
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
        // One by one: what a thread has begun to go through is lost to one that is done early.
        (0..down * across)
            .into_par_iter()
            .with_max_len(1)
            .for_each(|i| task(i / across * task_rows, i % across * task_columns));
    } else {
        (0..down * across).for_each(|i| task(i / across * task_rows, i % across * task_columns));
    }
}

/// Rows and columns of a task: even shares of the result that keep their left rows in the cache and use each often,
/// smaller ones where there would be too few to share out.
fn task_size(rows: usize, columns: usize, tile: [usize; 2]) -> [usize; 2] {
    let all = [rows, columns];
    let mut pieces = [rows.div_ceil(TASK[0]), columns.div_ceil(TASK[1])];
    let size =
        |pieces: [usize; 2]| std::array::from_fn(|axis| all[axis].div_ceil(pieces[axis]).next_multiple_of(tile[axis]));
    while pieces[0] * pieces[1] < TASKS {
        let [down, across] = size(pieces);
        let can = [down > SMALLEST_TASK[0], across > SMALLEST_TASK[1]];
        match can {
            [true, _] if down * 2 >= across || !can[1] => pieces[0] += 1,
            [_, true] => pieces[1] += 1,
            _ => break,
        }
    }
    size(pieces)
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
    left: &'a L,
}

impl<L: Rows> Product<'_, L> {
    /// The sums of `parts` stretches of the reduction, each row after row; the right factor is packed where it is used.
    fn in_parts(
        &self,
        right: &Right,
        blocks: &[Vec<Run>],
        parts: usize,
        block_sums: Option<&mut [f32]>,
    ) -> Vec<Vec<f32>> {
        let (rows, columns) = (self.left.count(), right.columns);
        let whole = Piece {
            rows: 0..rows,
            columns: 0..columns,
        };
        let (length, width) = (blocks.len().div_ceil(parts), padded(columns, self.isa));
        let mut block_sums: Vec<Option<&mut [f32]>> = match block_sums {
            Some(sums) => sums.chunks_mut(length * width).map(Some).collect(),
            None => blocks.chunks(length).map(|_| None).collect(),
        };
        blocks
            .par_chunks(length)
            .zip(&mut block_sums)
            .with_max_len(1)
            .map(|(blocks, block_sums)| {
                filled(rows * columns, |sum| {
                    let sum = Shared::new(sum);
                    for (i, block) in blocks.iter().enumerate() {
                        let sums = block_sums.as_mut().map(|sums| &mut sums[i * width..(i + 1) * width]);
                        let packed = Packed::new(right, vec![block.clone()], self.isa, false, sums);
                        let into = if i == 0 { Into::Overwrite } else { Into::Add };
                        self.compute(&packed, &sum, Target::rows(0, columns), into, &whole);
                    }
                })
            })
            .collect()
    }

    /// Compute `piece` of the product with what is packed, which no other task may have.
    fn compute(&self, packed: &Packed, out: &Shared, target: Target, into: Into, piece: &Piece) {
        let &Self { isa, values, left } = self;
        let (width, height) = (VECTORS * packed.lanes, tile_rows(isa));
        if packed.blocks.is_empty() && into == Into::Overwrite {
            for row in piece.rows.clone() {
                let start = target.locate(row);
                // SAFETY: as in `multiply_with`: no other task has this part of `out`.
                unsafe { out.slice(start + piece.columns.start..start + piece.columns.end) }.fill(0.0);
            }
        }
        TILES.with_borrow_mut(|tiles| {
            for (b, block) in packed.blocks.iter().enumerate() {
                let accumulate = b > 0 || into == Into::Add;
                for first in piece.rows.clone().step_by(PACKED_ROWS) {
                    let rows = first..(first + PACKED_ROWS).min(piece.rows.end);
                    tiles.pack(isa, values, left, rows.clone(), block);
                    let starts: Vec<usize> = rows.map(|row| target.locate(row)).collect();
                    let mut column = piece.columns.start;
                    while column < piece.columns.end {
                        let panel_width = width.min(packed.columns.next_multiple_of(packed.lanes) - column);
                        let inside = (packed.columns - column).min(panel_width);
                        let panel = packed.panel(b, column, panel_width);
                        // Each tile fetches its share of the next panel, which is in no near cache.
                        let share = panel.len() / starts.len().div_ceil(height);
                        for (i, starts) in starts.chunks(height).enumerate() {
                            let tile = Tile {
                                left: tiles.tile(i),
                                panel,
                                vectors: panel_width / packed.lanes,
                                // SAFETY: the target holds every row and column, as asserted.
                                to: unsafe { out.pointer().add(column) },
                                rows: starts,
                                inside,
                                accumulate,
                                ahead: panel.as_ptr().wrapping_add(panel.len() + i * share),
                            };
                            // SAFETY: the rows and the panel were packed for this block and this instruction set,
                            // which is here (asserted), and the first `inside` columns of the rows are within
                            // `out` and belong to this task alone.
                            unsafe { run(isa, tile) };
                        }
                        column += panel_width;
                    }
                }
            }
        });
    }
}

thread_local! {
    /// What a task packs of the left factor, kept for the next.
    static TILES: RefCell<Tiles> = RefCell::default();
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
        let width = padded(columns, isa);
        let mut block_sums = vec![0.0; blocks_of(&left).len() * width];
        multiply_with(
            isa,
            true,
            &values,
            &left,
            &factor,
            &out,
            target,
            into,
            &|_, _, _| {},
            (!transposed).then_some(&mut block_sums),
        );
        let sums = column_sums(&block_sums, width);
        assert_eq!(sums.len(), width);
        for (column, sum) in sums[..columns].iter().enumerate() {
            let values = right.iter().skip(column).step_by(columns);
            // Nothing where they were not asked for.
            let expected: f64 = values.map(|x| f64::from(*x)).filter(|_| !transposed).sum();
            assert!(
                (f64::from(*sum) - expected).abs() < 1e-4,
                "{isa:?} {depths:?}, sum of column {column}"
            );
        }
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

    /// Two rows of two values, which lie in `values`, times a matrix of three columns, into `len` values.
    fn multiply_few(values: &[f32], len: usize) {
        let mut out = vec![0.0; len];
        let (right, left) = (Right::rows(&[1.0; 6], 3), Dense::rows(2, 2));
        let (out, target) = (Shared::new(&mut out), Target::rows(0, 3));
        multiply_here(values, &left, &right, &out, target, Into::Overwrite, &|_, _, _| {});
    }

    #[test]
    #[should_panic(expected = "the target holds the product")]
    fn a_target_that_is_too_small_is_refused() {
        multiply_few(&[1.0; 4], 5);
    }

    #[test]
    #[should_panic(expected = "range end index")]
    fn a_run_beyond_the_values_is_refused() {
        multiply_few(&[1.0; 3], 6);
    }
}
