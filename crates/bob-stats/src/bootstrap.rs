//! The percentile bootstrap (Efron 1979) over the items of a test set.
//!
//! Resampling is part of a result: the same seed, number of items and number of resamples give the same indices on
//! every machine and in every later version, so the generator is written here and not taken from a library. Two
//! metrics on the same items are resampled with the same indices.

use serde::{Deserialize, Serialize};

/// A confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Confidence level in (0, 1), for example 0.95.
    pub level: f64,
    /// Number of bootstrap resamples behind it.
    pub resamples: u32,
}

/// How intervals are drawn: the percentile bootstrap over the items of a test set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    /// Number of resamples.
    pub resamples: u32,
    /// Confidence level in (0, 1).
    pub level: f64,
    /// Seed of the resampling.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self {
            resamples: 1000,
            level: 0.95,
            seed: 0,
        }
    }
}

/// Why an interval cannot be drawn.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BootstrapError {
    /// The number of resamples is zero.
    #[error("0 bootstrap resamples; expected at least 1")]
    NoResamples,
    /// The confidence level is not in (0, 1).
    #[error("confidence level {0}; expected a number between 0 and 1, for example 0.95")]
    Level(String),
    /// The statistic is undefined on most resamples.
    #[error(
        "the statistic is not a finite number on {undefined} of {drawn} resamples; the test set is too small for an \
         interval, use more items"
    )]
    Undefined {
        /// Resamples on which it was not finite.
        undefined: u32,
        /// Resamples drawn.
        drawn: u32,
    },
}

impl Bootstrap {
    /// Interval of a statistic that `draw` computes on one resample, with the generator it is given.
    ///
    /// A resample on which the statistic is not finite (an area under a curve without a positive among its items) is
    /// drawn again, up to as many times as there are resamples. The ends are percentiles with linear interpolation
    /// between order statistics, numpy's default.
    ///
    /// # Errors
    /// No resamples, a level outside (0, 1), or a statistic that is undefined on more than half of what was drawn.
    pub(crate) fn interval_of(&self, mut draw: impl FnMut(&mut SplitMix64) -> f64) -> Result<Interval, BootstrapError> {
        self.check()?;
        let mut random = SplitMix64::new(self.seed);
        let mut values = Vec::with_capacity(self.resamples as usize);
        let mut undefined = 0;
        while values.len() < self.resamples as usize {
            let value = draw(&mut random);
            if value.is_finite() {
                values.push(value);
                continue;
            }
            undefined += 1;
            if undefined > self.resamples {
                return Err(BootstrapError::Undefined {
                    undefined,
                    drawn: undefined + values.len() as u32,
                });
            }
        }
        values.sort_by(f64::total_cmp);
        let tail = (1.0 - self.level) / 2.0;
        Ok(Interval {
            low: quantile(&values, tail),
            high: quantile(&values, 1.0 - tail),
            level: self.level,
            resamples: self.resamples,
        })
    }

    /// Calls `visit` with the indices of every resample: `n` of `0..n`, drawn with replacement.
    ///
    /// # Errors
    /// No resamples or a level outside (0, 1).
    pub(crate) fn resample(&self, n: usize, mut visit: impl FnMut(&[usize])) -> Result<(), BootstrapError> {
        self.check()?;
        let mut random = SplitMix64::new(self.seed);
        let mut indices = vec![0; n];
        for _ in 0..self.resamples {
            indices.fill_with(|| random.below(n));
            visit(&indices);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), BootstrapError> {
        if self.resamples == 0 {
            return Err(BootstrapError::NoResamples);
        }
        if !(self.level > 0.0 && self.level < 1.0) {
            return Err(BootstrapError::Level(self.level.to_string()));
        }
        Ok(())
    }

    /// Interval of `statistic`, which is given the indices of a resample: `n` of `0..n`, drawn with replacement.
    ///
    /// # Errors
    /// No resamples, a level outside (0, 1), or a statistic that is not finite on more than half of the resamples
    /// (a few such resamples are drawn again).
    ///
    /// # Panics
    /// When `n` is zero.
    pub fn interval(&self, n: usize, statistic: impl Fn(&[usize]) -> f64) -> Result<Interval, BootstrapError> {
        assert!(n > 0, "a bootstrap needs at least one item");
        let mut indices = vec![0; n];
        self.interval_of(|random| {
            indices.fill_with(|| random.below(n));
            statistic(&indices)
        })
    }
}

/// The `p`-quantile, `p` in [0, 1], of finite values in ascending order, by linear interpolation (numpy's `linear`).
///
/// # Panics
/// When there are no values.
pub fn quantile(sorted: &[f64], p: f64) -> f64 {
    let position = p * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (position - below as f64) * (sorted[above] - sorted[below])
}

/// SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
///
/// A period of 2^64 and one word of state are plenty for resampling; it is no generator for secrets.
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// An integer in `0..n`; its bias, `n` / 2^64, is far below what resampling can show.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs for the seed 1234567, from the reference C program of the paper's authors.
    #[test]
    fn the_generator_is_splitmix64() {
        let mut random = SplitMix64::new(1_234_567);
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!([random.next(), random.next(), random.next()], expected);
    }

    #[test]
    fn quantiles_interpolate() {
        let check = |values: &[f64], p, expected: f64| assert!((quantile(values, p) - expected).abs() < 1e-15);
        check(&[3.0], 0.3, 3.0);
        check(&[0.0, 10.0], 0.25, 2.5);
        check(&[1.0, 2.0, 4.0], 0.5, 2.0);
        check(&[1.0, 2.0, 4.0], 0.75, 3.0);
        check(&[1.0, 2.0, 4.0], 1.0, 4.0);
    }

    #[test]
    fn bad_settings_are_refused() {
        let check = |bootstrap: Bootstrap, expected: BootstrapError| {
            assert_eq!(bootstrap.interval(3, |_| 0.0), Err(expected));
        };
        check(
            Bootstrap {
                resamples: 0,
                ..Bootstrap::default()
            },
            BootstrapError::NoResamples,
        );
        for level in [0.0, 1.0, -0.5, f64::NAN] {
            check(
                Bootstrap {
                    level,
                    ..Bootstrap::default()
                },
                BootstrapError::Level(level.to_string()),
            );
        }
    }

    #[test]
    fn undefined_resamples_are_drawn_again_until_they_are_too_many() {
        let bootstrap = Bootstrap {
            resamples: 50,
            ..Bootstrap::default()
        };
        // Undefined on a fifth of the resamples.
        let interval = bootstrap.interval(5, |indices| if indices[0] == 0 { f64::NAN } else { 1.0 });
        assert_eq!(interval.map(|i| (i.low, i.high, i.resamples)), Ok((1.0, 1.0, 50)));
        let never = bootstrap.interval(5, |_| f64::NAN);
        assert_eq!(
            never,
            Err(BootstrapError::Undefined {
                undefined: 51,
                drawn: 51
            })
        );
    }
}
