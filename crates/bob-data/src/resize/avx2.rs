//! The passes with AVX2.
//!
//! A weight is split into `high * 2^12 + low`, so that both parts fit 16 bits and one instruction multiplies two
//! samples and adds the products. In wrapping 32-bit arithmetic the two sums put together are the portable sum.

use std::arch::x86_64::*;

use super::taps::{BITS, Taps};
use super::{HALF, View, vertical_row};

const LOW_BITS: i32 = 12;

/// The proof that the processor has AVX2: only [`Token::detect`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token(());

impl Token {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    pub(super) fn horizontal(self, source: View<'_>, taps: &Taps, out: &mut [u8]) {
        #[expect(unsafe_code, reason = "the callee is compiled for AVX2")]
        // SAFETY: the processor has AVX2, or `detect` would not have made `self`.
        unsafe {
            horizontal(source, taps, out);
        }
    }

    pub(super) fn vertical(self, source: View<'_>, taps: &Taps, out: &mut [u8]) {
        #[expect(unsafe_code, reason = "the callee is compiled for AVX2")]
        // SAFETY: the processor has AVX2, or `detect` would not have made `self`.
        unsafe {
            vertical(source, taps, out);
        }
    }
}

/// The parts of four weights, the first in the lowest 16 bits.
#[derive(Clone, Copy)]
struct Weights {
    high: i64,
    low: i64,
}

impl Weights {
    /// Of up to four weights; zero for the rest.
    fn new(weights: &[i32]) -> Self {
        let pack = |part: fn(i32) -> i32| {
            let parts = weights.iter().rev().map(|&weight| i64::from(part(weight) as u16));
            parts.fold(0, |packed, part| packed << 16 | part)
        };
        Self {
            high: pack(|weight| weight >> LOW_BITS),
            low: pack(|weight| weight & ((1 << LOW_BITS) - 1)),
        }
    }
}

/// Four output pixels of a row.
struct Group {
    /// Where the input pixels of each start, in bytes.
    starts: [usize; 4],
    /// The weights of each, four input pixels a step.
    steps: Vec<[Weights; 4]>,
    /// Bytes of a row that the loads touch.
    reach: usize,
}

impl Group {
    /// The output pixels from `first` on; the last one is repeated where they run out.
    fn new(taps: &Taps, first: usize) -> Self {
        let taps = [0, 1, 2, 3].map(|index| taps.at((first + index).min(taps.len() - 1)));
        let count = taps
            .iter()
            .map(|(_, weights)| weights.len().div_ceil(4))
            .max()
            .unwrap_or(0);
        let step = |step| taps.map(|(_, weights)| Weights::new(weights.chunks(4).nth(step).unwrap_or(&[])));
        let starts = taps.map(|(first, _)| first * 3);
        let reach = starts.iter().max().map_or(0, |start| start + count * 12 + 4);
        Self {
            starts,
            steps: (0..count).map(step).collect(),
            reach,
        }
    }
}

#[target_feature(enable = "avx2")]
fn horizontal(source: View<'_>, taps: &Taps, out: &mut [u8]) {
    let groups: Vec<_> = (0..taps.len())
        .step_by(4)
        .map(|first| Group::new(taps, first))
        .collect();
    let reach = groups.iter().map(|group| group.reach).max().unwrap_or(0);
    let mut padded = Vec::new();
    for (y, out) in out.chunks_exact_mut(taps.len() * 3).enumerate() {
        // What follows the row meets weights of zero, but has to be there.
        let mut row = &source.bytes[y * source.stride..];
        if row.len() < reach {
            padded.clear();
            padded.extend_from_slice(row);
            padded.resize(reach, 0);
            row = &padded;
        }
        for (out, group) in out.chunks_mut(12).zip(&groups) {
            let pixels = store(horizontal_group(row, group));
            match <&mut [u8; 12]>::try_from(&mut *out) {
                Ok(out) => out.copy_from_slice(&pixels[..12]),
                Err(_) => out.copy_from_slice(&pixels[..out.len()]),
            }
        }
    }
}

/// Four output pixels, in the first 12 bytes.
///
/// # Panics
/// Where `row` is shorter than the group's reach.
#[target_feature(enable = "avx2")]
#[inline]
fn horizontal_group(row: &[u8], group: &Group) -> __m128i {
    assert!(group.reach <= row.len(), "the row holds what the group touches");
    // Four pixels to pairs of 16-bit samples: r0 r1, r2 r3, g0 g1, g2 g3; b0 b1, b2 b3.
    let pairs = _mm256_setr_epi8(
        0, -1, 3, -1, 6, -1, 9, -1, 1, -1, 4, -1, 7, -1, 10, -1, //
        2, -1, 5, -1, 8, -1, 11, -1, -1, -1, -1, -1, -1, -1, -1, -1,
    );
    let [mut high, mut low] = [[_mm256_setzero_si256(); 4]; 2];
    for (step, weights) in group.steps.iter().enumerate() {
        for index in 0..4 {
            let at = group.starts[index] + step * 12;
            #[expect(unsafe_code, reason = "checking the bounds of every load costs a third of the pass")]
            // SAFETY: `at + 16 <= starts[index] + (steps.len() - 1) * 12 + 16 <= reach <= row.len()`.
            let four = load(unsafe { row.get_unchecked(at..at + 16) });
            let samples = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(four), pairs);
            let Weights {
                high: high_weights,
                low: low_weights,
            } = weights[index];
            high[index] = multiply_add(high[index], samples, _mm256_set1_epi64x(high_weights));
            low[index] = multiply_add(low[index], samples, _mm256_set1_epi64x(low_weights));
        }
    }
    let sum = |index: usize| _mm256_add_epi32(_mm256_slli_epi32::<LOW_BITS>(high[index]), low[index]);
    // Lanes r, r, g, g, b, b, 0, 0 of two pixels: neighbours together are a channel's sum.
    let first_two = round(_mm256_hadd_epi32(sum(0), sum(1)));
    let last_two = round(_mm256_hadd_epi32(sum(2), sum(3)));
    let words = _mm256_packs_epi32(first_two, last_two);
    let bytes = _mm256_packus_epi16(words, words);
    let pixels = _mm_unpacklo_epi16(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes));
    // `r0 g0 b0 0 r1 g1 b1 0 ..` without the zeros.
    _mm_shuffle_epi8(
        pixels,
        _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1),
    )
}

#[target_feature(enable = "avx2")]
fn vertical(source: View<'_>, taps: &Taps, out: &mut [u8]) {
    let length = source.width * 3;
    if length < 16 {
        let mut sums = vec![0; length];
        for (y, out) in out.chunks_exact_mut(length).enumerate() {
            vertical_row(source, taps, y, &mut sums, out);
        }
        return;
    }
    let mut pairs = Vec::new();
    for (y, out) in out.chunks_exact_mut(length).enumerate() {
        let (first, weights) = taps.at(y);
        pairs.clear();
        pairs.extend((first..).step_by(2).zip(weights.chunks(2)).map(|(y, weights)| {
            let rows = [source.row(y), source.row(y + weights.len() - 1)];
            let weights = Weights::new(weights);
            (rows, weights.high as i32, weights.low as i32)
        }));
        let mut start = 0;
        while start < length {
            // The last 16 bytes may be written a second time, with the same values.
            start = start.min(length - 16);
            let [mut high, mut low] = [[_mm256_setzero_si256(); 2]; 2];
            for &(rows, high_weights, low_weights) in &pairs {
                #[expect(unsafe_code, reason = "checking the bounds of every load costs a third of the pass")]
                // SAFETY: `View::row` gives `length` bytes, and `start <= length - 16`.
                let [even, odd] = rows.map(|row| load(unsafe { row.get_unchecked(start..start + 16) }));
                let [even, odd] = [_mm256_cvtepu8_epi16(even), _mm256_cvtepu8_epi16(odd)];
                let samples = [_mm256_unpacklo_epi16(even, odd), _mm256_unpackhi_epi16(even, odd)];
                for index in 0..2 {
                    high[index] = multiply_add(high[index], samples[index], _mm256_set1_epi32(high_weights));
                    low[index] = multiply_add(low[index], samples[index], _mm256_set1_epi32(low_weights));
                }
            }
            let sum = |index: usize| round(_mm256_add_epi32(_mm256_slli_epi32::<LOW_BITS>(high[index]), low[index]));
            let words = _mm256_packs_epi32(sum(0), sum(1));
            let bytes = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi16(words, words));
            out[start..start + 16].copy_from_slice(&store(_mm256_castsi256_si128(bytes)));
            start += 16;
        }
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn multiply_add(sum: __m256i, samples: __m256i, weights: __m256i) -> __m256i {
    _mm256_add_epi32(sum, _mm256_madd_epi16(samples, weights))
}

/// The integer part of the sum and a half.
#[target_feature(enable = "avx2")]
#[inline]
fn round(sum: __m256i) -> __m256i {
    _mm256_srai_epi32::<{ BITS as i32 }>(_mm256_add_epi32(sum, _mm256_set1_epi32(HALF)))
}

/// # Panics
/// Where there are fewer than 16 bytes.
#[target_feature(enable = "avx2")]
#[inline]
fn load(bytes: &[u8]) -> __m128i {
    assert!(bytes.len() >= 16, "16 bytes to load");
    #[expect(unsafe_code, reason = "a load through a pointer")]
    // SAFETY: 16 bytes are there, and the load asks for no alignment.
    unsafe {
        _mm_loadu_si128(bytes.as_ptr().cast())
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(register: __m128i) -> [u8; 16] {
    let mut bytes = [0; 16];
    #[expect(unsafe_code, reason = "a store through a pointer")]
    // SAFETY: 16 bytes are there, and the store asks for no alignment.
    unsafe {
        _mm_storeu_si128(bytes.as_mut_ptr().cast(), register);
    }
    bytes
}
