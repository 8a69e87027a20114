//! Vectors of float32 of three instruction sets, as the kernels use them.
#![expect(unsafe_code, reason = "the processor's vector instructions are unsafe to call")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// A vector register of float32.
///
/// # Safety
/// Every method may only be called where the processor has the instruction set of the implementation, and pointers
/// must be valid for the values that are read or written; no alignment is needed.
pub(super) trait Vector: Copy {
    /// Values in a register.
    const LANES: usize;

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    /// The first `count` values at `from`, zero in the other lanes.
    unsafe fn load_first(from: *const f32, count: usize) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// Store the first `count` lanes.
    unsafe fn store_first(self, to: *mut f32, count: usize);
    /// `self * factor + term`; rounded once where the processor has the instruction.
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
}

#[cfg(target_arch = "x86_64")]
impl Vector for __m512 {
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's: AVX-512 is there.
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's: AVX-512 is there, and `from` is valid for 16 values.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller's; lanes that the mask leaves out are not read.
        unsafe { _mm512_maskz_loadu_ps(first_lanes(count), from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's: AVX-512 is there, and `to` is valid for 16 values.
        unsafe { _mm512_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        // SAFETY: the caller's; lanes that the mask leaves out are not written.
        unsafe { _mm512_mask_storeu_ps(to, first_lanes(count), self) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: the caller's: AVX-512 is there.
        unsafe { _mm512_fmadd_ps(self, factor, term) }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn first_lanes(count: usize) -> u16 {
    if count >= 16 { !0 } else { (1 << count) - 1 }
}

#[cfg(target_arch = "x86_64")]
impl Vector for __m256 {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's: AVX2 is there.
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's: AVX2 is there, and `from` is valid for 8 values.
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller's; lanes that the mask leaves out are not read.
        unsafe { _mm256_maskload_ps(from, lanes_mask(count)) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's: AVX2 is there, and `to` is valid for 8 values.
        unsafe { _mm256_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        // SAFETY: the caller's; lanes that the mask leaves out are not written.
        unsafe { _mm256_maskstore_ps(to, lanes_mask(count), self) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: the caller's: FMA is there.
        unsafe { _mm256_fmadd_ps(self, factor, term) }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn lanes_mask(count: usize) -> __m256i {
    const EDGE: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: `8 - min(count, 8)` leaves eight values in the table.
    unsafe { _mm256_loadu_si256(EDGE.as_ptr().add(8 - count.min(8)).cast()) }
}

/// What every processor has: eight values that the compiler puts where it likes.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; 8]);

impl Vector for Portable {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 8])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's: `from` is valid for 8 values; an array of them has no padding.
        Self(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        let mut lanes = [0.0; 8];
        for (lane, value) in lanes.iter_mut().enumerate().take(count) {
            // SAFETY: the caller's: `from` is valid for `count` values.
            *value = unsafe { from.add(lane).read() };
        }
        Self(lanes)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's: `to` is valid for 8 values.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        for (lane, value) in self.0.into_iter().enumerate().take(count) {
            // SAFETY: the caller's: `to` is valid for `count` values.
            unsafe { to.add(lane).write(value) }
        }
    }
    // Not `f32::mul_add`: without the instruction that is a call of a function for every value.
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        Self(std::array::from_fn(|lane| self.0[lane] * factor.0[lane] + term.0[lane]))
    }
}
