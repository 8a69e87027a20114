//! The left factor, packed into the tiles that the innermost loop reads from end to end.
#![expect(unsafe_code, reason = "pointers to rows, and vector instructions")]

use std::ops::Range;

use super::super::isa::Isa;
use super::super::turn::Turn;
use super::super::vector::{self, Kernel, MOST_LANES, Vector};
use super::operands::Rows;
use super::packed::{Run, ZEROS};
use super::tile::tile_rows;

/// Some rows of the left factor for one block of the reduction: tile by tile, product by product, row by row.
#[derive(Default)]
pub(super) struct Tiles {
    /// With room for a vector beyond the last.
    values: Vec<f32>,
    /// Products of the block.
    len: usize,
    /// Rows of a tile, but for the last, and all.
    height: usize,
    rows: usize,
}

impl Tiles {
    /// Pack `rows` of `left`, whose values lie in `values`.
    ///
    /// # Panics
    /// Where a run leaves `values`, or this processor has no `isa`.
    pub(super) fn pack(&mut self, isa: Isa, values: &[f32], left: &impl Rows, rows: Range<usize>, block: &[Run]) {
        assert!(isa.is_here(), "this processor has no {isa:?}");
        self.height = tile_rows(isa);
        self.rows = rows.len();
        self.len = block.iter().map(|run| run.len).sum();
        let needed = self.rows * self.len + MOST_LANES;
        if self.values.len() < needed {
            self.values.resize(needed, 0.0);
        }
        let origins: Vec<_> = rows.map(|row| left.origin(row)).collect();
        let start = |origin, run: &Run| Some(left.locate(origin, run.tap)? + run.from * left.step());
        if left.step() == 1 {
            // In the order of the places, as a vector beyond the last may be overwritten.
            let mut to = 0;
            for tile in origins.chunks(self.height) {
                for run in block {
                    let end = to + run.len * tile.len();
                    let room = &mut self.values[to..end + MOST_LANES];
                    turn(isa, values, tile, |origin| start(origin, run), run.len, room);
                    to = end;
                }
            }
        } else {
            let mut before = 0;
            let mut parts = Vec::new();
            for run in block {
                parts.clear();
                for (i, tile) in origins.chunks(self.height).enumerate() {
                    let to = i * self.height * self.len + before * tile.len();
                    collect(tile, |origin| start(origin, run), to, &mut parts);
                }
                copy(isa, values, &parts, left.step(), run.len, &mut self.values);
                before += run.len;
            }
        }
    }

    /// Tile `index` of those that were packed.
    pub(super) fn tile(&self, index: usize) -> &[f32] {
        let first = index * self.height;
        let count = (self.rows - first).min(self.height);
        &self.values[first * self.len..][..count * self.len]
    }
}

/// Pack the rows of a tile, whose values lie side by side.
fn turn<O: Copy>(isa: Isa, values: &[f32], tile: &[O], start: impl Fn(O) -> Option<usize>, len: usize, to: &mut [f32]) {
    let count = tile.len();
    assert!((len - 1) * count + MOST_LANES <= to.len());
    let mut rows = [ZEROS[..len].as_ptr(); MOST_LANES];
    for (place, origin) in rows.iter_mut().zip(tile) {
        if let Some(start) = start(*origin) {
            *place = values[start..start + len].as_ptr();
        }
    }
    let turn = Turn {
        rows,
        len,
        to: to.as_mut_ptr(),
        step: count,
    };
    // SAFETY: the rows were cut from slices of `len` values, the last place has room for a vector (asserted), and `isa`
    // is here, as `pack` asserts.
    unsafe { vector::run(isa, turn) };
}

/// Rows of one tile that lie side by side, as the columns of a matrix do.
struct Part {
    /// Where the first values of these rows are, or none for rows of zeros.
    from: Option<usize>,
    /// Where they go.
    to: usize,
    /// Rows, and rows of the tile, which are as far apart as the products.
    width: usize,
    count: usize,
}

/// The parts of the rows of a tile, which goes to `to`.
fn collect<O: Copy>(tile: &[O], start: impl Fn(O) -> Option<usize>, to: usize, parts: &mut Vec<Part>) {
    let mut row = 0;
    while row < tile.len() {
        let from = start(tile[row]);
        let beside = |other: &usize| from.is_some_and(|from| start(tile[*other]) == Some(from + other - row));
        let width = 1 + (row + 1..tile.len()).take_while(beside).count();
        parts.push(Part {
            from,
            to: to + row,
            width,
            count: tile.len(),
        });
        row += width;
    }
}

/// Pack parts of rows, `len` values of each, which are `step` apart.
fn copy(isa: Isa, values: &[f32], parts: &[Part], step: usize, len: usize, to: &mut [f32]) {
    for part in parts {
        if let Some(from) = part.from {
            assert!(
                from + (len - 1) * step + part.width <= values.len(),
                "a run beyond the values"
            );
        }
        assert!(part.to + (len - 1) * part.count + part.width <= to.len());
    }
    let columns = Columns {
        values: values.as_ptr(),
        parts,
        step,
        len,
        to: to.as_mut_ptr(),
    };
    // SAFETY: the last values of every part are within both slices (asserted), a tile has fewer rows than vectors have
    // lanes, and `isa` is here, as `pack` asserts.
    unsafe { vector::run(isa, columns) };
}

/// The parts, product by product, so that what lies side by side is read together.
struct Columns<'a> {
    values: *const f32,
    parts: &'a [Part],
    step: usize,
    len: usize,
    to: *mut f32,
}

impl Kernel for Columns<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        for k in 0..self.len {
            for part in self.parts {
                // SAFETY: the caller's.
                unsafe {
                    let values = match part.from {
                        Some(from) => V::load_first(self.values.add(from + k * self.step), part.width),
                        None => V::splat(0.0),
                    };
                    values.store_first(self.to.add(part.to + k * part.count), part.width);
                }
            }
        }
    }
}
