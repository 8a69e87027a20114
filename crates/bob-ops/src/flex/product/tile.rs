//! The innermost loop: a tile of the result, which the registers hold while products are added to it.
#![expect(unsafe_code, reason = "pointers to rows, and vector instructions")]

use super::super::isa::Isa;
use super::super::vector::{Kernel, Portable, Vector, prefetch};

/// Rows of a tile at most.
pub(super) const MOST_ROWS: usize = 14;
/// Vectors across a tile, and so across a panel of the right factor.
pub(super) const VECTORS: usize = 2;

/// Values of a vector.
pub(super) fn lanes(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 16,
        Isa::Avx2 => 8,
        Isa::Portable => Portable::LANES,
    }
}

/// Rows of a tile: what the registers of the instruction set hold beside a row of the panel. The more there are, the
/// fewer values come from memory for every product.
pub(super) fn tile_rows(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => MOST_ROWS,
        Isa::Avx2 | Isa::Portable => 6,
    }
}

/// A tile of the result: some rows times `vectors` vectors. Computing it adds up the products of a block of the
/// reduction and stores them.
///
/// The left rows and the panel have as many values as the block for each row and for each lane, every row of `to` is
/// valid for `inside` columns, which are more than `vectors - 1` vectors of them, and neither rows nor vectors are 0 or
/// more than the instruction set's.
pub(super) struct Tile<'a> {
    /// `[product][row]`
    pub(super) left: &'a [f32],
    /// `[product][column]`
    pub(super) panel: &'a [f32],
    pub(super) vectors: usize,
    /// The first column of the result.
    pub(super) to: *mut f32,
    /// Where its rows begin from there.
    pub(super) rows: &'a [usize],
    /// Columns that exist.
    pub(super) inside: usize,
    /// Whether the sums are added to what is there.
    pub(super) accumulate: bool,
    /// Where to fetch from what is wanted next, a cache line for every few products. It may be any address.
    pub(super) ahead: *const f32,
}

/// Products for every line that is fetched ahead.
const PER_LINE: usize = 2;
/// Values of a cache line.
pub(super) const LINE: usize = 16;

impl Kernel for Tile<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        macro_rules! rows {
            ($($count:literal)*) => {
                match (self.rows.len(), self.vectors) {
                    $(($count, VECTORS) => self.sum::<V, $count, VECTORS>(),)*
                    $(($count, _) => self.sum::<V, $count, 1>(),)*
                    _ => unreachable!("a tile is never higher"),
                }
            };
        }
        // SAFETY: the caller's.
        unsafe { rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14) }
    }
}

impl Tile<'_> {
    /// # Safety
    /// As [`Tile`] says, for `ROWS` rows and `VECTORS` vectors; the processor has the vector's instruction set.
    #[inline(always)]
    #[expect(
        clippy::needless_range_loop,
        reason = "by index the compiler writes the stores out; else the sums would go through memory first"
    )]
    unsafe fn sum<V: Vector, const ROWS: usize, const VECTORS: usize>(&self) {
        // SAFETY: the caller's, for every address below.
        unsafe {
            let mut sums = [[V::splat(0.0); VECTORS]; ROWS];
            let (mut left, mut panel) = (self.left.as_ptr(), self.panel.as_ptr());
            let to: [*mut f32; ROWS] = std::array::from_fn(|row| self.to.add(self.rows[row]));
            for row in to {
                (0..VECTORS).for_each(|v| prefetch(row.wrapping_add(v * V::LANES)));
            }
            let mut ahead = self.ahead;
            let mut products = self.left.len() / ROWS;
            while products > 0 {
                prefetch(ahead);
                ahead = ahead.wrapping_add(LINE);
                let some = products.min(PER_LINE);
                for _ in 0..some {
                    let right: [V; VECTORS] = std::array::from_fn(|v| V::load(panel.add(v * V::LANES)));
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let value = V::splat(*left.add(row));
                        for (sum, right) in sums.iter_mut().zip(right) {
                            *sum = value.mul_add(right, *sum);
                        }
                    }
                    panel = panel.add(VECTORS * V::LANES);
                    left = left.add(ROWS);
                }
                products -= some;
            }
            let last = self.inside - (VECTORS - 1) * V::LANES;
            let is_whole = |v: usize| v + 1 < VECTORS || last == V::LANES;
            if self.accumulate {
                for row in 0..ROWS {
                    for v in 0..VECTORS {
                        let to = to[row].add(v * V::LANES);
                        let there = if is_whole(v) {
                            V::load(to)
                        } else {
                            V::load_first(to, last)
                        };
                        sums[row][v] = V::splat(1.0).mul_add(there, sums[row][v]);
                    }
                }
            }
            for row in 0..ROWS {
                for v in 0..VECTORS {
                    let to = to[row].add(v * V::LANES);
                    if is_whole(v) {
                        sums[row][v].store(to);
                    } else {
                        sums[row][v].store_first(to, last);
                    }
                }
            }
        }
    }
}
