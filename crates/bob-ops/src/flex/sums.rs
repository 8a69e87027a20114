//! Sums over the rows of a matrix, and their gradients' counterpart.

use rayon::prelude::*;

use super::isa::vectorized;

/// Rows that a task adds up.
const ROWS: usize = 256;

/// Add `bias`, where there is one, to as many values.
#[inline(always)]
pub(crate) fn add_bias(out: &mut [f32], bias: Option<&[f32]>) {
    if let Some(bias) = bias {
        for (out, bias) in out.iter_mut().zip(bias) {
            *out += bias;
        }
    }
}

/// The sum of every column of a matrix with `columns` of them; in an order that depends on the shape alone.
pub(crate) fn column_sums(values: &[f32], columns: usize) -> Vec<f32> {
    if columns == 0 {
        return Vec::new();
    }
    let parts: Vec<Vec<f32>> = values
        .par_chunks(ROWS * columns)
        .map(|rows| {
            let mut sums = vec![0.0; columns];
            vectorized(
                #[inline(always)]
                || {
                    for row in rows.chunks_exact(columns) {
                        add_bias(&mut sums, Some(row));
                    }
                },
            );
            sums
        })
        .collect();
    let mut sums = vec![0.0; columns];
    for part in parts {
        add_bias(&mut sums, Some(&part));
    }
    sums
}
