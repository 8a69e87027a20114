//! Pearson's and Spearman's correlation with the p-value of the t test, as scipy's `pearsonr` and `spearmanr` give them.

use serde::Serialize;
use statrs::function::beta::beta_reg;

use crate::average_ranks;

/// A correlation coefficient and how surprising it would be without any correlation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Correlation {
    /// The coefficient in [-1, 1].
    pub coefficient: f64,
    /// Two-sided p-value from Student's t with `n - 2` degrees of freedom.
    pub p_value: f64,
    /// Number of pairs.
    pub n: usize,
}

/// Pearson's correlation of the pairs in which both numbers are there.
///
/// `None` with fewer than three pairs (two points always lie on a line) or where one side is constant.
///
/// # Panics
/// When the slices differ in length.
pub fn pearson(a: &[Option<f64>], b: &[Option<f64>]) -> Option<Correlation> {
    let (a, b) = complete_pairs(a, b);
    if is_constant(&a) || is_constant(&b) {
        return None;
    }
    correlate(&a, &b)
}

/// Spearman's rank correlation of the pairs in which both numbers are there; ties get average ranks.
///
/// `None` with fewer than three pairs or where one side is constant.
///
/// # Panics
/// When the slices differ in length.
pub fn spearman(a: &[Option<f64>], b: &[Option<f64>]) -> Option<Correlation> {
    let (a, b) = complete_pairs(a, b);
    if is_constant(&a) || is_constant(&b) {
        return None;
    }
    correlate(&average_ranks(&a), &average_ranks(&b))
}

fn complete_pairs(a: &[Option<f64>], b: &[Option<f64>]) -> (Vec<f64>, Vec<f64>) {
    assert_eq!(a.len(), b.len(), "correlated lists must be equally long");
    a.iter().zip(b).filter_map(|(&a, &b)| Some((a?, b?))).unzip()
}

fn correlate(a: &[f64], b: &[f64]) -> Option<Correlation> {
    let n = a.len();
    if n < 3 {
        return None;
    }
    let (a, b) = (centred(a), centred(b));
    let product: f64 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
    let coefficient = product.clamp(-1.0, 1.0);
    let freedom = (n - 2) as f64;
    // P(|T| > t) with t^2 = r^2 (n - 2) / (1 - r^2), in the form that loses no digits when p is small.
    let p_value = beta_reg(freedom / 2.0, 0.5, (1.0 - coefficient) * (1.0 + coefficient));
    Some(Correlation {
        coefficient,
        p_value,
        n,
    })
}

/// Whether the values differ by no more than rounding; their order would then be noise.
fn is_constant(values: &[f64]) -> bool {
    let scale = largest(values);
    values.iter().all(|value| (value - values[0]).abs() <= 1e-12 * scale)
}

/// Deviations from the mean of values that are not constant, scaled to length one.
fn centred(values: &[f64]) -> Vec<f64> {
    // Scaled first, so that the squares of huge values stay finite.
    let scale = largest(values);
    let mean = values.iter().map(|value| value / scale).sum::<f64>() / values.len() as f64;
    let deviations: Vec<f64> = values.iter().map(|value| value / scale - mean).collect();
    let length = deviations
        .iter()
        .map(|deviation| deviation * deviation)
        .sum::<f64>()
        .sqrt();
    deviations.iter().map(|deviation| deviation / length).collect()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, value| value.abs().max(largest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(values: &[f64]) -> Vec<Option<f64>> {
        values.iter().copied().map(Some).collect()
    }

    #[test]
    fn perfect_missing_and_undefined_correlations() {
        let check = |a: &[Option<f64>], b: &[Option<f64>], expected: Option<(f64, f64, usize)>| {
            let found = spearman(a, b).map(|c| (c.coefficient, c.p_value, c.n));
            match (found, expected) {
                (Some(found), Some(expected)) => {
                    assert!((found.0 - expected.0).abs() < 1e-12, "{found:?}");
                    assert!((found.1 - expected.1).abs() < 1e-7, "{found:?}");
                    assert_eq!(found.2, expected.2);
                }
                _ => assert_eq!(found, expected),
            }
        };
        let up = present(&[1.0, 2.0, 3.0, 4.0]);
        check(&up, &present(&[10.0, 20.0, 30.0, 1e9]), Some((1.0, 0.0, 4)));
        check(&up, &present(&[4.0, 3.0, 2.0, -7.0]), Some((-1.0, 0.0, 4)));
        check(&up, &[Some(1.0), None, Some(2.0), Some(3.0)], Some((1.0, 0.0, 3)));
        check(&up, &[Some(1.0), None, None, Some(3.0)], None);
        check(&up, &present(&[7.0; 4]), None);
        check(&up, &present(&[0.3, 0.1 + 0.2, 0.3, 0.3]), None);
        check(&[], &[], None);
    }
}
