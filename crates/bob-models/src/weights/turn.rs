//! Turning a matrix around on its way from the file.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m256;
use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use pulp::{NullaryFnOnce, cast, x86::V3};

/// Rows and columns that are turned together: a line of the cache on both sides.
const SIDE: usize = 16;

/// Values that are read before they are turned: few enough to stay in the cache, and so many that long stretches of each
/// row of the result are written, as every row is on another page of memory.
const STRIP: usize = 1 << 18;

/// The matrix `[rows, columns]` that `fill` gives from first to last, as `[columns, rows]`; `strip` is room to read it into.
pub(super) fn turned<E>(
    rows: usize,
    columns: usize,
    strip: &mut Vec<f32>,
    mut fill: impl FnMut(&mut [f32]) -> Result<(), E>,
) -> Result<Vec<f32>, E> {
    let mut to = vec![0.0; rows * columns];
    let most = (STRIP / columns.max(1) / SIDE * SIDE).max(SIDE);
    for first in (0..rows).step_by(most) {
        let height = most.min(rows - first);
        strip.resize(height * columns, 0.0);
        fill(strip)?;
        let (from, to) = (strip.as_slice(), to.get_mut(first..).unwrap_or_default());
        let mut strip = Strip {
            from,
            columns,
            height,
            to,
            rows,
        };
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = V3::try_new() {
            simd.vectorize(InVectors { simd, strip });
            continue;
        }
        strip.turn(0..columns, 0..height);
    }
    Ok(to)
}

/// Rows of a matrix, and where they go as columns.
struct Strip<'a> {
    from: &'a [f32],
    columns: usize,
    height: usize,
    /// From the first value of the strip's first row on.
    to: &'a mut [f32],
    /// Rows of the whole matrix, the steps between rows here.
    rows: usize,
}

impl Strip<'_> {
    /// A part of it, value by value.
    fn turn(&mut self, columns: Range<usize>, height: Range<usize>) {
        for column in columns {
            for row in height.clone() {
                self.to[column * self.rows + row] = self.from[row * self.columns + column];
            }
        }
    }
}

/// A strip that is turned in vectors of eight.
#[cfg(target_arch = "x86_64")]
struct InVectors<'a> {
    simd: V3,
    strip: Strip<'a>,
}

#[cfg(target_arch = "x86_64")]
impl NullaryFnOnce for InVectors<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { simd, mut strip } = self;
        let whole = |size: usize| size / SIDE * SIDE;
        let (columns, height) = (whole(strip.columns), whole(strip.height));
        for column in (0..columns).step_by(SIDE) {
            for row in (0..height).step_by(SIDE) {
                let from = &strip.from[row * strip.columns + column..];
                let to = &mut strip.to[column * strip.rows + row..];
                // Both halves of a line are written one after the other: at strides of powers of two lines drive each
                // other out of the cache.
                for half in [0, LANES] {
                    let upper = transposed(simd, &from[half..], strip.columns);
                    let lower = transposed(simd, &from[LANES * strip.columns + half..], strip.columns);
                    for j in 0..LANES {
                        let to = &mut to[(half + j) * strip.rows..][..SIDE];
                        to[..LANES].copy_from_slice(&cast::<_, [f32; LANES]>(upper[j]));
                        to[LANES..].copy_from_slice(&cast::<_, [f32; LANES]>(lower[j]));
                    }
                }
            }
        }
        strip.turn(columns..strip.columns, 0..strip.height);
        strip.turn(0..columns, height..strip.height);
    }
}

/// Values of a vector.
#[cfg(target_arch = "x86_64")]
const LANES: usize = 8;

/// The first values of `row`.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn load(row: &[f32]) -> __m256 {
    cast(*row.first_chunk::<LANES>().expect("a vector's values"))
}

/// `LANES` rows that are `stride` apart, as columns: first four rows by four values in both halves of the vectors, then
/// the halves themselves. Written out, as closures would be called and compiled for every processor.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn transposed(simd: V3, from: &[f32], stride: usize) -> [__m256; LANES] {
    let avx = simd.avx;
    let [a, b, c, d] = fours(simd, from, stride);
    let [e, f, g, h] = fours(simd, &from[4 * stride..], stride);
    [
        avx._mm256_permute2f128_ps::<0x20>(a, e),
        avx._mm256_permute2f128_ps::<0x20>(b, f),
        avx._mm256_permute2f128_ps::<0x20>(c, g),
        avx._mm256_permute2f128_ps::<0x20>(d, h),
        avx._mm256_permute2f128_ps::<0x31>(a, e),
        avx._mm256_permute2f128_ps::<0x31>(b, f),
        avx._mm256_permute2f128_ps::<0x31>(c, g),
        avx._mm256_permute2f128_ps::<0x31>(d, h),
    ]
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn fours(simd: V3, from: &[f32], stride: usize) -> [__m256; 4] {
    let avx = simd.avx;
    let [a, b] = [load(from), load(&from[stride..])];
    let [c, d] = [load(&from[2 * stride..]), load(&from[3 * stride..])];
    let [ab, cd] = [avx._mm256_unpacklo_ps(a, b), avx._mm256_unpacklo_ps(c, d)];
    let [ab_high, cd_high] = [avx._mm256_unpackhi_ps(a, b), avx._mm256_unpackhi_ps(c, d)];
    [
        avx._mm256_shuffle_ps::<0x44>(ab, cd),
        avx._mm256_shuffle_ps::<0xee>(ab, cd),
        avx._mm256_shuffle_ps::<0x44>(ab_high, cd_high),
        avx._mm256_shuffle_ps::<0xee>(ab_high, cd_high),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_turned_around_whatever_its_sides() {
        for (rows, columns) in [
            (0, 3),
            (3, 0),
            (1, 1),
            (2, 3),
            (SIDE, SIDE),
            (SIDE + 1, 2 * SIDE + 3),
            (2 * SIDE, STRIP / SIDE),
            (2 * SIDE + 5, STRIP / SIDE + 7),
            (200, 1),
        ] {
            let mut count = (0_u32..).map(|count| count as f32);
            let mut fill = |to: &mut [f32]| {
                for (to, value) in to.iter_mut().zip(&mut count) {
                    *to = value;
                }
                Ok::<_, ()>(())
            };
            let value = |i: usize, j: usize| (i * columns + j) as f32;
            let expected: Vec<f32> = (0..columns).flat_map(|j| (0..rows).map(move |i| value(i, j))).collect();
            assert_eq!(
                turned(rows, columns, &mut vec![1.0; 3], &mut fill),
                Ok(expected),
                "{rows} x {columns}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_turned() {
        assert_eq!(turned(2, 2, &mut Vec::new(), |_| Err("unread")), Err("unread"));
    }
}
