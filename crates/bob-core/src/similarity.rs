//! Dot products of many embeddings with many others: the inner loop of k-NN and of retrieval.

use pulp::{Arch, Simd, WithSimd};

/// Rows of a tile on either side: 16 running sums fit the registers of AVX2 and AVX-512.
const TILE: usize = 4;

/// The dot product of every row of `left` with every row of `right`.
///
/// Every product is summed in the same order wherever it lies in the matrices, so equal rows give equal bits.
/// Hand it blocks that fit the cache and call it from several threads.
///
/// # Shapes
///   - left: `[m, dim]`, right: `[n, dim]`, row-major
///   - out: `[m, n]`, row-major
///
/// # Panics
/// Where the lengths do not fit these shapes or `dim` is 0.
pub fn dot_products(left: &[f32], right: &[f32], dim: usize, out: &mut [f32]) {
    assert!(
        dim > 0 && left.len().is_multiple_of(dim) && right.len().is_multiple_of(dim),
        "rows of {dim} values"
    );
    let (m, n) = (left.len() / dim, right.len() / dim);
    assert_eq!(out.len(), m * n, "one product for each pair of {m} and {n} rows");
    Arch::new().dispatch(DotProducts {
        left,
        right,
        dim,
        n,
        out,
    });
}

struct DotProducts<'a> {
    left: &'a [f32],
    right: &'a [f32],
    dim: usize,
    n: usize,
    out: &'a mut [f32],
}

impl WithSimd for DotProducts<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            left,
            right,
            dim,
            n,
            out,
        } = self;
        // A tile of `right` stays in the first-level cache while all of `left` passes by.
        for (tile, right) in right.chunks(TILE * dim).enumerate() {
            for (row, left) in left.chunks(TILE * dim).enumerate() {
                let at = row * TILE * n + tile * TILE;
                match (left.len() == TILE * dim, right.len() == TILE * dim) {
                    (true, true) => dot_tile::<S, TILE, TILE>(simd, left, right, dim, n, &mut out[at..]),
                    _ => {
                        for (i, left) in left.chunks_exact(dim).enumerate() {
                            for (j, right) in right.chunks_exact(dim).enumerate() {
                                dot_tile::<S, 1, 1>(simd, left, right, dim, n, &mut out[at + i * n + j..]);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The products of `L` rows with `R` rows, written at the start of `out`, whose rows are `stride` apart.
#[inline(always)]
fn dot_tile<S: Simd, const L: usize, const R: usize>(
    simd: S,
    left: &[f32],
    right: &[f32],
    dim: usize,
    stride: usize,
    out: &mut [f32],
) {
    let left: [(&[S::f32s], &[f32]); L] = std::array::from_fn(|i| S::as_simd_f32s(&left[i * dim..(i + 1) * dim]));
    let right: [(&[S::f32s], &[f32]); R] = std::array::from_fn(|j| S::as_simd_f32s(&right[j * dim..(j + 1) * dim]));
    let mut sums = [[simd.splat_f32s(0.0); R]; L];
    for k in 0..dim / S::F32_LANES {
        for i in 0..L {
            for j in 0..R {
                sums[i][j] = simd.mul_add_e_f32s(left[i].0[k], right[j].0[k], sums[i][j]);
            }
        }
    }
    for i in 0..L {
        for j in 0..R {
            let rest: f32 = left[i].1.iter().zip(right[j].1).map(|(left, right)| left * right).sum();
            out[i * stride + j] = simd.reduce_sum_f32s(sums[i][j]) + rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_equal_the_plain_sum_at_every_shape() {
        let check = |m: usize, n: usize, dim: usize| {
            let values = |count: usize, salt: usize| -> Vec<f32> {
                (0..count)
                    .map(|i| ((i * 7919 + salt) % 101) as f32 / 50.0 - 1.0)
                    .collect()
            };
            let (left, right) = (values(m * dim, 3), values(n * dim, 58));
            let mut out = vec![f32::NAN; m * n];
            dot_products(&left, &right, dim, &mut out);
            for (i, left) in left.chunks(dim).enumerate() {
                for (j, right) in right.chunks(dim).enumerate() {
                    let expected: f64 = left.iter().zip(right).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    let found = f64::from(out[i * n + j]);
                    assert!(
                        (found - expected).abs() < 1e-5 * dim as f64,
                        "{m}x{n}x{dim}: {found} not {expected}"
                    );
                }
            }
        };
        for (m, n, dim) in [(1, 1, 1), (4, 4, 16), (5, 7, 19), (8, 3, 64), (2, 9, 5), (33, 65, 100)] {
            check(m, n, dim);
        }
    }

    #[test]
    fn equal_rows_give_equal_bits_in_a_tile_and_at_the_edge() {
        let row: Vec<f32> = (0..37).map(|i| (i as f32 * 0.37).sin()).collect();
        let right = row.repeat(7);
        let left = row.repeat(5);
        let mut out = vec![0.0; 35];
        dot_products(&left, &right, 37, &mut out);
        assert!(out.iter().all(|product| product.to_bits() == out[0].to_bits()));
    }
}
