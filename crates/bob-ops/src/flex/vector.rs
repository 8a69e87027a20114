//! Vectors of float32 of three instruction sets, as the kernels use them.
#![expect(unsafe_code, reason = "the processor's vector instructions are unsafe to call")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::isa::Isa;

/// Values in the longest register.
pub(super) const MOST_LANES: usize = 16;

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
    /// The first `LANES` registers turned around: lane `l` of register `r` becomes lane `r` of register `l`.
    unsafe fn transpose(rows: [Self; MOST_LANES]) -> [Self; MOST_LANES];
}

/// Fetch what lies at an address, which may be any, into the cache, where the processor can.
#[inline(always)]
pub(super) fn prefetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint that every x86-64 has; nothing is read that the program could see.
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Turn every four registers around within each of their quarters or halves, by the instructions of their width.
#[cfg(target_arch = "x86_64")]
macro_rules! turn_fours {
    ($rows:expr, $low:ident, $high:ident, $shuffle:ident) => {
        for four in $rows.chunks_exact_mut(4) {
            let [a, b] = [$low(four[0], four[1]), $high(four[0], four[1])];
            let [c, d] = [$low(four[2], four[3]), $high(four[2], four[3])];
            four[0] = $shuffle::<0x44>(a, c);
            four[1] = $shuffle::<0xee>(a, c);
            four[2] = $shuffle::<0x44>(b, d);
            four[3] = $shuffle::<0xee>(b, d);
        }
    };
}

/// What is computed with the registers of any instruction set.
pub(super) trait Kernel {
    /// # Safety
    /// The processor has the instruction set of `V`; what else a kernel asks is said where it is made.
    unsafe fn run<V: Vector>(self);
}

/// Run a kernel compiled for `isa`; its `run` has to be `#[inline(always)]`, as what is not inlined is compiled for
/// every processor.
///
/// # Safety
/// As [`Kernel::run`], on a processor with `isa`.
pub(super) unsafe fn run(isa: Isa, kernel: impl Kernel) {
    // SAFETY: the caller's.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => run_avx512(kernel),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => run_avx2(kernel),
            _ => kernel.run::<Portable>(),
        }
    }
}

/// # Safety
/// As [`Kernel::run`], on a processor with AVX-512.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn run_avx512(kernel: impl Kernel) {
    // SAFETY: the caller's.
    unsafe { kernel.run::<__m512>() }
}

/// # Safety
/// As [`Kernel::run`], on a processor with AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2(kernel: impl Kernel) {
    // SAFETY: the caller's.
    unsafe { kernel.run::<__m256>() }
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
    #[inline(always)]
    unsafe fn transpose(mut rows: [Self; MOST_LANES]) -> [Self; MOST_LANES] {
        // SAFETY: the caller's: AVX-512 is there.
        unsafe {
            // Within every quarter of the registers: four rows by four lanes, turned around.
            turn_fours!(rows, _mm512_unpacklo_ps, _mm512_unpackhi_ps, _mm512_shuffle_ps);
            // Then four by four quarters.
            for i in 0..4 {
                let even = _mm512_shuffle_f32x4::<0x88>(rows[i], rows[4 + i]);
                let odd = _mm512_shuffle_f32x4::<0xdd>(rows[i], rows[4 + i]);
                let last_even = _mm512_shuffle_f32x4::<0x88>(rows[8 + i], rows[12 + i]);
                let last_odd = _mm512_shuffle_f32x4::<0xdd>(rows[8 + i], rows[12 + i]);
                rows[i] = _mm512_shuffle_f32x4::<0x88>(even, last_even);
                rows[4 + i] = _mm512_shuffle_f32x4::<0x88>(odd, last_odd);
                rows[8 + i] = _mm512_shuffle_f32x4::<0xdd>(even, last_even);
                rows[12 + i] = _mm512_shuffle_f32x4::<0xdd>(odd, last_odd);
            }
        }
        rows
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
    #[inline(always)]
    unsafe fn transpose(mut rows: [Self; MOST_LANES]) -> [Self; MOST_LANES] {
        // SAFETY: the caller's: AVX2 is there.
        unsafe {
            // Within both halves of the registers: four rows by four lanes, turned around.
            turn_fours!(rows[..8], _mm256_unpacklo_ps, _mm256_unpackhi_ps, _mm256_shuffle_ps);
            // Then two by two halves.
            for i in 0..4 {
                let [first, second] = [rows[i], rows[4 + i]];
                rows[i] = _mm256_permute2f128_ps::<0x20>(first, second);
                rows[4 + i] = _mm256_permute2f128_ps::<0x31>(first, second);
            }
        }
        rows
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
    #[inline(always)]
    unsafe fn transpose(rows: [Self; MOST_LANES]) -> [Self; MOST_LANES] {
        std::array::from_fn(|lane| match lane < Self::LANES {
            true => Self(std::array::from_fn(|row| rows[row].0[lane])),
            false => rows[lane],
        })
    }
}
