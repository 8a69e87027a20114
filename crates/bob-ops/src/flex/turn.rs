//! Runs of values turned around: a row each before, a column each after.
#![expect(unsafe_code, reason = "pointers to rows, and vector instructions")]

use super::vector::{Kernel, MOST_LANES, Vector};

/// Value `k` of row `r` goes to `to[k * step + r]`.
///
/// Every row is valid for `len` values, and `to` for a vector from each of its places on: what lies there beyond the
/// rows is overwritten, place by place in ascending order.
pub(super) struct Turn {
    /// Where the rows begin; as many as a vector has lanes are read, so the last may stand again for those beyond it.
    pub(super) rows: [*const f32; MOST_LANES],
    /// Values of every row.
    pub(super) len: usize,
    pub(super) to: *mut f32,
    pub(super) step: usize,
}

impl Kernel for Turn {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let mut from = 0;
        // SAFETY: the caller's: rows and places are valid, and no more than the values that are left of a row are read.
        unsafe {
            while self.len - from >= V::LANES {
                let block = V::transpose(self.block(|row| V::load(row.add(from))));
                for (k, column) in block.into_iter().enumerate().take(V::LANES) {
                    column.store(self.to.add((from + k) * self.step));
                }
                from += V::LANES;
            }
            let count = self.len - from;
            if count > 0 {
                let block = V::transpose(self.block(|row| V::load_first(row.add(from), count)));
                for (k, column) in block.into_iter().enumerate().take(V::LANES) {
                    if k < count {
                        column.store(self.to.add((from + k) * self.step));
                    }
                }
            }
        }
    }
}

impl Turn {
    /// What `load` reads of every row.
    ///
    /// # Safety
    /// The processor has the instruction set of `V`.
    #[inline(always)]
    unsafe fn block<V: Vector>(&self, load: impl Fn(*const f32) -> V) -> [V; MOST_LANES] {
        // SAFETY: the caller's.
        let mut block = [unsafe { V::splat(0.0) }; MOST_LANES];
        for (values, row) in block.iter_mut().zip(self.rows).take(V::LANES) {
            *values = load(row);
        }
        block
    }
}
