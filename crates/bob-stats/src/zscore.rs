//! z-scores of one setting: how many deviations a backbone lies above the mean of all backbones in it.
//!
//! Battle of the Backbones (Goldblum et al. 2023) standardises every (task, data set, metric) so before it averages.
//! The paper does not say which deviation it divides by; here it is the population's (`ddof` 0) unless asked otherwise.

use crate::Direction;

/// The scores of one setting, standardised.
#[derive(Clone, Debug, PartialEq)]
pub struct Standardized {
    /// Mean of the scores that are there.
    pub mean: f64,
    /// Their standard deviation; zero where the setting is flat.
    pub deviation: f64,
    /// Whether the setting tells nobody apart, so that every z-score is 0.
    pub flat: bool,
    /// z-score of each backbone, more is better whatever the metric's direction; `None` where the score is missing.
    pub z: Vec<Option<f64>>,
}

/// Standardises finite scores, one per backbone, `None` where a backbone has none.
///
/// The deviation is the root of the sum of squares over `n - ddof` (0: population, 1: sample). z-scores of a metric
/// that is better when lower are negated.
///
/// A setting is flat, and every z-score in it 0 (a tie, which counts in means), when its deviation is undefined
/// (`n <= ddof`, a single backbone) or its scores span less than 1e-12 of the largest magnitude: dividing rounding
/// errors by their own deviation would give z-scores of ±1 to equal scores.
pub fn standardize(scores: &[Option<f64>], direction: Direction, ddof: usize) -> Standardized {
    let present: Vec<f64> = scores.iter().copied().flatten().collect();
    let n = present.len() as f64;
    // Scaling by the largest magnitude keeps sums of squares finite; z-scores do not change.
    let scale = present.iter().fold(0.0_f64, |scale, score| scale.max(score.abs()));
    let scale = if scale > 0.0 { scale } else { 1.0 };
    let mean = present.iter().map(|score| score / scale).sum::<f64>() / n.max(1.0);
    let squares: f64 = present.iter().map(|score| (score / scale - mean).powi(2)).sum();
    let low = present.iter().copied().fold(f64::INFINITY, f64::min) / scale;
    let high = present.iter().copied().fold(f64::NEG_INFINITY, f64::max) / scale;

    let flat = present.len() <= ddof.max(1) || high - low <= 1e-12;
    let deviation = if flat {
        0.0
    } else {
        (squares / (n - ddof as f64)).sqrt()
    };
    let sign = match direction {
        Direction::HigherIsBetter => 1.0,
        Direction::LowerIsBetter => -1.0,
    };
    let z = |score: f64| {
        if flat {
            0.0
        } else {
            sign * (score / scale - mean) / deviation
        }
    };
    Standardized {
        mean: mean * scale,
        deviation: deviation * scale,
        flat,
        z: scores.iter().map(|score| score.map(z)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{HigherIsBetter, LowerIsBetter};
    use proptest::prelude::*;

    #[test]
    fn missing_flat_and_extreme_settings() {
        let check = |scores: &[Option<f64>], direction, ddof, flat: bool, expected: &[Option<f64>]| {
            let standardized = standardize(scores, direction, ddof);
            assert_eq!(standardized.flat, flat);
            assert!(standardized.z.len() == expected.len());
            for (z, expected) in standardized.z.iter().zip(expected) {
                match (z, expected) {
                    (Some(z), Some(expected)) => assert!((z - expected).abs() < 1e-12, "{z} != {expected}"),
                    _ => assert_eq!(z, expected),
                }
            }
        };
        check(
            &[Some(1.0), None, Some(3.0)],
            HigherIsBetter,
            0,
            false,
            &[Some(-1.0), None, Some(1.0)],
        );
        check(
            &[Some(1.0), None, Some(3.0)],
            LowerIsBetter,
            0,
            false,
            &[Some(1.0), None, Some(-1.0)],
        );
        let root = 0.5_f64.sqrt();
        check(
            &[Some(1.0), Some(3.0)],
            HigherIsBetter,
            1,
            false,
            &[Some(-root), Some(root)],
        );
        check(
            &[Some(0.1), Some(0.1), Some(0.1)],
            HigherIsBetter,
            0,
            true,
            &[Some(0.0); 3],
        );
        check(&[Some(0.3), Some(0.1 + 0.2)], HigherIsBetter, 0, true, &[Some(0.0); 2]);
        check(&[Some(0.0), Some(0.0)], HigherIsBetter, 0, true, &[Some(0.0); 2]);
        check(&[Some(5.0)], HigherIsBetter, 0, true, &[Some(0.0)]);
        check(&[Some(1.0), Some(2.0)], HigherIsBetter, 2, true, &[Some(0.0); 2]);
        check(&[], HigherIsBetter, 0, true, &[]);
        check(&[None, None], HigherIsBetter, 0, true, &[None, None]);
        check(
            &[Some(f64::MAX), Some(-f64::MAX)],
            HigherIsBetter,
            0,
            false,
            &[Some(1.0), Some(-1.0)],
        );
        check(
            &[Some(5e-324), Some(0.0)],
            HigherIsBetter,
            0,
            false,
            &[Some(1.0), Some(-1.0)],
        );
    }

    proptest! {
        #[test]
        fn z_scores_are_standard_and_keep_the_order(scores in proptest::collection::vec(-1e3..1e3f64, 2..40)) {
            let present: Vec<_> = scores.iter().copied().map(Some).collect();
            let standardized = standardize(&present, HigherIsBetter, 0);
            prop_assume!(!standardized.flat);
            let z: Vec<f64> = standardized.z.into_iter().flatten().collect();
            let n = z.len() as f64;
            prop_assert!((z.iter().sum::<f64>() / n).abs() < 1e-9);
            prop_assert!((z.iter().map(|z| z * z).sum::<f64>() / n - 1.0).abs() < 1e-9);
            for i in 0..z.len() {
                for j in 0..z.len() {
                    prop_assert!(scores[i] >= scores[j] || z[i] <= z[j]);
                }
            }
        }

        #[test]
        fn units_do_not_matter(scores in proptest::collection::vec(0.0..1.0f64, 2..20), factor in 0.01..100.0f64, offset in -5.0..5.0f64) {
            let standard = |f: &dyn Fn(f64) -> f64, direction| {
                let scores: Vec<_> = scores.iter().map(|&score| Some(f(score))).collect();
                standardize(&scores, direction, 0)
            };
            let original = standard(&|x| x, HigherIsBetter);
            prop_assume!(original.deviation > 1e-3);
            let changed = standard(&|x| offset + factor * x, HigherIsBetter);
            let flipped = standard(&|x| offset - factor * x, LowerIsBetter);
            for ((z, changed), flipped) in original.z.iter().zip(&changed.z).zip(&flipped.z) {
                let (z, changed, flipped) = (z.unwrap(), changed.unwrap(), flipped.unwrap());
                prop_assert!((z - changed).abs() < 1e-6 && (z - flipped).abs() < 1e-6);
            }
        }
    }
}
