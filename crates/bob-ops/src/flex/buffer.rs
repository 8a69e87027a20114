//! Buffers that tasks fill side by side.
#![expect(unsafe_code, reason = "tasks write disjoint parts that no slice method can hand out")]

use std::cell::UnsafeCell;
use std::ops::Range;

/// A buffer whose disjoint parts are written by different tasks at once.
pub(crate) struct Shared<'a>(&'a [UnsafeCell<f32>]);

// SAFETY: the cells are only reached through the two unsafe methods, whose callers keep tasks apart.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(crate) fn new(values: &'a mut [f32]) -> Self {
        let pointer: *const [UnsafeCell<f32>] = std::ptr::from_mut(values) as *const [UnsafeCell<f32>];
        // SAFETY: `UnsafeCell<f32>` has the layout of `f32`, and the unique borrow lives as long as this.
        Self(unsafe { &*pointer })
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The first value.
    pub(crate) fn pointer(&self) -> *mut f32 {
        UnsafeCell::raw_get(self.0.as_ptr())
    }

    /// A part of the buffer.
    ///
    /// # Safety
    /// As long as the slice lives, nobody else may reach any value of `range`.
    ///
    /// # Panics
    /// Where the range leaves the buffer.
    #[expect(
        clippy::mut_from_ref,
        reason = "what the cells are for; the caller keeps the parts apart"
    )]
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &mut [f32] {
        let part = &self.0[range];
        // SAFETY: the caller's: this part is reached by nobody else.
        unsafe { std::slice::from_raw_parts_mut(UnsafeCell::raw_get(part.as_ptr()), part.len()) }
    }
}

/// A new buffer of `len` values that `fill` writes.
///
/// The values are whatever the memory held, so `fill` must write each before it reads it, as every kernel here does.
#[expect(clippy::uninit_vec, reason = "zeroing costs a pass over every activation")]
pub(crate) fn filled(len: usize, fill: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut values: Vec<f32> = Vec::with_capacity(len);
    // SAFETY: every bit pattern is a float32, the capacity is there, and kernels write their whole output before
    // anyone reads it (their tests compare every value).
    unsafe {
        values.set_len(len);
    }
    fill(&mut values);
    values
}
