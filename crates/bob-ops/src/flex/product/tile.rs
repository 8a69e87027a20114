//! The innermost loop: a tile of the result, which the registers hold while products are added to it.
#![expect(unsafe_code, reason = "pointers to rows, and vector instructions")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};

use super::super::isa::Isa;
use super::super::vector::{Portable, Vector};
use super::packed::Run;

/// Rows of a tile, which is what the registers hold; the same for every instruction set, so that tables fit all.
pub(super) const TILE_ROWS: usize = 6;
/// Vectors across a tile at most.
const TILE_VECTORS: usize = 4;

/// Values of a vector.
pub(super) fn lanes(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 16,
        Isa::Avx2 => 8,
        Isa::Portable => Portable::LANES,
    }
}

/// Vectors across a panel: what the registers of the instruction set hold beside six rows of sums.
pub(super) fn panel_vectors(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => TILE_VECTORS,
        Isa::Avx2 | Isa::Portable => 2,
    }
}

/// A tile of the result: up to six rows times up to four vectors.
pub(super) struct Tile<'a> {
    pub(super) runs: &'a [Run],
    /// Where the runs begin: `[run][row]`.
    pub(super) table: &'a [*const f32],
    pub(super) step: usize,
    pub(super) panel: &'a [f32],
    /// Where the rows of the result begin.
    pub(super) to: [*mut f32; TILE_ROWS],
    /// Columns that exist.
    pub(super) inside: usize,
    pub(super) accumulate: bool,
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
    pub(super) unsafe fn run(&self, isa: Isa, rows: usize, vectors: usize) {
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
