//! One measured number with its direction, its `n` and its interval.

use serde::{Deserialize, Serialize};

use crate::{Bootstrap, BootstrapError, Interval};

/// Which way a metric is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// More is better.
    HigherIsBetter,
    /// Less is better.
    LowerIsBetter,
}

/// A metric's name, value, direction and interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Name, for example `top1` or `map`; units in the name where it has any (`latency_p50_ms`).
    pub name: String,
    /// The value. Shares are in [0, 1].
    pub value: f64,
    /// Which way it is better.
    pub direction: Direction,
    /// Number of items it was computed on.
    pub n: usize,
    /// Its interval; absent where no item can be resampled (a parameter count, a single item).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// Whether it is the one number of its protocol that enters rankings.
    #[serde(default)]
    pub primary: bool,
}

/// Why a metric cannot be computed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MetricError {
    /// Nothing to average.
    #[error("metric `{0}` has no items")]
    Empty(String),
    /// An item's score is not a finite number.
    #[error("metric `{name}` has the score {value} at item {index}; expected a finite number")]
    NotFinite {
        /// Name of the metric.
        name: String,
        /// Index of the item.
        index: usize,
        /// Its score, as text.
        value: String,
    },
    /// The value on all items is not a finite number.
    #[error("metric `{name}` is {value} on its {n} items; expected a finite number")]
    Undefined {
        /// Name of the metric.
        name: String,
        /// Its value, as text.
        value: String,
        /// Number of items.
        n: usize,
    },
    /// The draws of a few-shot metric do not score the same items.
    #[error("metric `{name}` has {found} items in draw {draw}; expected {expected} as in draw 0")]
    Draws {
        /// Name of the metric.
        name: String,
        /// Index of the draw.
        draw: usize,
        /// Its number of items.
        found: usize,
        /// The number of items of the first draw.
        expected: usize,
    },
    /// No interval can be drawn.
    #[error("no interval for metric `{name}`: {source}")]
    Bootstrap {
        /// Name of the metric.
        name: String,
        /// The reason.
        source: BootstrapError,
    },
}

impl Metric {
    /// The mean of one score per item (top-1 is the mean of hits, mAP of average precisions), with the bootstrap
    /// interval over items.
    ///
    /// # Errors
    /// No items, a score that is not finite, or bad bootstrap settings.
    pub fn mean(
        name: impl Into<String>,
        direction: Direction,
        samples: &[f64],
        bootstrap: &Bootstrap,
    ) -> Result<Self, MetricError> {
        let name = name.into();
        check_finite(&name, samples)?;
        Self::statistic(name, direction, samples.len(), bootstrap, |indices| {
            indices.iter().map(|&index| samples[index]).sum::<f64>() / indices.len() as f64
        })
    }

    /// The mean over several draws of the same protocol (the five draws of a k-shot probe), all scored on the same
    /// items: `draws[d][i]` is the score of item `i` in draw `d`.
    ///
    /// The interval resamples draws and items independently (the pigeonhole bootstrap: Owen, "The pigeonhole
    /// bootstrap", Annals of Applied Statistics 2007), so it covers both which examples were drawn for training and
    /// which items were tested; `n` is the number of items.
    ///
    /// # Errors
    /// No draws or items, draws of unlike length, a score that is not finite, or bad bootstrap settings.
    pub fn mean_of_draws(
        name: impl Into<String>,
        direction: Direction,
        draws: &[Vec<f64>],
        bootstrap: &Bootstrap,
    ) -> Result<Self, MetricError> {
        let name = name.into();
        let n = draws.first().map_or(0, Vec::len);
        for (draw, samples) in draws.iter().enumerate() {
            if samples.len() != n {
                return Err(MetricError::Draws {
                    name,
                    draw,
                    found: samples.len(),
                    expected: n,
                });
            }
            check_finite(&name, samples)?;
        }
        if n == 0 {
            return Err(MetricError::Empty(name));
        }
        let total: f64 = draws.iter().flatten().sum();
        let value = total / (draws.len() * n) as f64;
        let interval = (n > 1 || draws.len() > 1).then(|| {
            let mut drawn = vec![0; draws.len()];
            bootstrap.interval_of(|random| {
                drawn.fill_with(|| random.below(draws.len()));
                let mut sum = 0.0;
                for _ in 0..n {
                    let item = random.below(n);
                    sum += drawn.iter().map(|&draw| draws[draw][item]).sum::<f64>();
                }
                sum / (draws.len() * n) as f64
            })
        });
        let interval = interval.transpose().map_err(|source| MetricError::Bootstrap {
            name: name.clone(),
            source,
        })?;
        Ok(Self {
            name,
            value,
            direction,
            n,
            interval,
            primary: false,
        })
    }

    /// A metric that is no mean over items (an area under a curve, a calibration error): `f` computes it on the items
    /// whose indices it is given, first all of `0..n`, then resamples of them with repeats.
    ///
    /// A few resamples on which `f` is not finite are drawn again.
    ///
    /// # Errors
    /// No items, an `f` that is not finite on all items or on most resamples, or bad bootstrap settings.
    pub fn statistic(
        name: impl Into<String>,
        direction: Direction,
        n: usize,
        bootstrap: &Bootstrap,
        f: impl Fn(&[usize]) -> f64,
    ) -> Result<Self, MetricError> {
        let name = name.into();
        if n == 0 {
            return Err(MetricError::Empty(name));
        }
        let all: Vec<usize> = (0..n).collect();
        let mut metric = Self::exact(name, direction, f(&all), n)?;
        // One item can only be drawn again as itself, which would claim certainty.
        if n > 1 {
            let interval = bootstrap.interval(n, f);
            metric.interval = Some(interval.map_err(|source| MetricError::Bootstrap {
                name: metric.name.clone(),
                source,
            })?);
        }
        Ok(metric)
    }

    /// A number without an interval: a count, or a measurement whose spread is reported by other metrics.
    ///
    /// # Errors
    /// A value that is not finite.
    pub fn exact(name: impl Into<String>, direction: Direction, value: f64, n: usize) -> Result<Self, MetricError> {
        let name = name.into();
        if !value.is_finite() {
            return Err(MetricError::Undefined {
                name,
                value: value.to_string(),
                n,
            });
        }
        Ok(Self {
            name,
            value,
            direction,
            n,
            interval: None,
            primary: false,
        })
    }

    /// Makes it the one number of its protocol that enters rankings.
    #[must_use]
    pub fn primary(mut self) -> Self {
        self.primary = true;
        self
    }
}

fn check_finite(name: &str, samples: &[f64]) -> Result<(), MetricError> {
    match samples.iter().position(|sample| !sample.is_finite()) {
        None => Ok(()),
        Some(index) => Err(MetricError::NotFinite {
            name: name.to_owned(),
            index,
            value: samples[index].to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::HigherIsBetter;

    fn few() -> Bootstrap {
        Bootstrap {
            resamples: 200,
            ..Bootstrap::default()
        }
    }

    #[test]
    fn a_mean_is_the_same_every_time_and_inside_its_interval() {
        let hits: Vec<f64> = (0..400).map(|i| f64::from(u8::from(i % 4 != 0))).collect();
        let metric = Metric::mean("top1", HigherIsBetter, &hits, &Bootstrap::default())
            .unwrap()
            .primary();
        let again = Metric::mean("top1", HigherIsBetter, &hits, &Bootstrap::default())
            .unwrap()
            .primary();
        assert_eq!(metric, again);
        assert_eq!((metric.value, metric.n, metric.primary), (0.75, 400, true));
        // The normal approximation: 1.96 * sqrt(0.75 * 0.25 / 400) = 0.0424.
        let interval = metric.interval.unwrap();
        assert!((metric.value - interval.low - 0.0424).abs() < 0.006, "{interval:?}");
        assert!((interval.high - metric.value - 0.0424).abs() < 0.006, "{interval:?}");
    }

    #[test]
    fn draws_widen_the_interval_by_their_own_spread() {
        let hits = |offset: usize| {
            (0..200)
                .map(|i| f64::from(u8::from((i + offset) % 10 < offset)))
                .collect()
        };
        let alike: Vec<Vec<f64>> = vec![hits(5); 5];
        let apart: Vec<Vec<f64>> = vec![hits(1), hits(3), hits(5), hits(7), hits(9)];
        let width = |draws: &[Vec<f64>]| {
            let metric = Metric::mean_of_draws("top1", HigherIsBetter, draws, &few()).unwrap();
            assert!((metric.value - 0.5).abs() < 1e-12);
            assert_eq!(metric.n, 200);
            let interval = metric.interval.unwrap();
            interval.high - interval.low
        };
        assert!(width(&apart) > 2.0 * width(&alike));
    }

    #[test]
    fn a_single_item_has_no_interval() {
        let metric = Metric::mean("top1", HigherIsBetter, &[1.0], &few()).unwrap();
        assert_eq!((metric.value, metric.interval), (1.0, None));
    }

    #[test]
    fn bad_scores_are_errors_that_name_the_metric() {
        fn check(result: Result<Metric, MetricError>, expected: &str) {
            assert_eq!(result.unwrap_err().to_string(), expected);
        }
        check(
            Metric::mean("map", HigherIsBetter, &[], &few()),
            "metric `map` has no items",
        );
        check(
            Metric::mean_of_draws("map", HigherIsBetter, &[], &few()),
            "metric `map` has no items",
        );
        check(
            Metric::mean("map", HigherIsBetter, &[0.5, f64::NAN], &few()),
            "metric `map` has the score NaN at item 1; expected a finite number",
        );
        check(
            Metric::mean_of_draws("top1", HigherIsBetter, &[vec![0.0, 1.0], vec![1.0]], &few()),
            "metric `top1` has 1 items in draw 1; expected 2 as in draw 0",
        );
        check(
            Metric::exact("macs", HigherIsBetter, f64::INFINITY, 1),
            "metric `macs` is inf on its 1 items; expected a finite number",
        );
        check(
            Metric::mean("map", HigherIsBetter, &[0.5, 0.6], &Bootstrap { level: 1.5, ..few() }),
            "no interval for metric `map`: confidence level 1.5; expected a number between 0 and 1, for example 0.95",
        );
    }
}
