//! The statistics against numpy's and scipy's, on the numbers of `fixtures/make_stats.py`.

use std::collections::HashMap;

use bob_stats::{Bootstrap, Direction, Metric, average_ranks, pearson, quantile, spearman, standardize};
use serde::Deserialize;

#[derive(Deserialize)]
struct Oracle {
    columns: Vec<Column>,
    correlations: Vec<Pair>,
    bootstraps: Vec<Resampled>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    values: Vec<f64>,
    ranks: Vec<f64>,
    zscore_ddof0: Vec<f64>,
    zscore_ddof1: Vec<f64>,
    quantiles: HashMap<String, f64>,
}

#[derive(Deserialize)]
struct Pair {
    name: String,
    a: Vec<f64>,
    b: Vec<f64>,
    pearson: [f64; 2],
    spearman: [f64; 2],
}

#[derive(Deserialize)]
struct Resampled {
    name: String,
    statistic: String,
    values: Vec<f64>,
    level: f64,
    value: f64,
    low: f64,
    high: f64,
    standard_error: f64,
    step: f64,
}

fn oracle() -> Oracle {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/stats/oracle.json");
    let text = std::fs::read_to_string(path).expect("the fixture is committed");
    serde_json::from_str(&text).expect("the fixture is what make_stats.py writes")
}

fn present(values: &[f64]) -> Vec<Option<f64>> {
    values.iter().copied().map(Some).collect()
}

/// Equal to 1e-12, relative for numbers above one.
fn check(name: &str, found: f64, expected: f64) {
    assert!(
        (found - expected).abs() <= 1e-12 * expected.abs().max(1.0),
        "{name}: {found} != {expected}"
    );
}

#[test]
fn z_scores_ranks_and_quantiles_equal_scipy() {
    for column in oracle().columns {
        let name = &column.name;
        let scores = present(&column.values);
        for (ddof, expected) in [(0, &column.zscore_ddof0), (1, &column.zscore_ddof1)] {
            let higher = standardize(&scores, Direction::HigherIsBetter, ddof);
            let lower = standardize(&scores, Direction::LowerIsBetter, ddof);
            for ((expected, higher), lower) in expected.iter().zip(&higher.z).zip(&lower.z) {
                check(name, higher.unwrap(), *expected);
                check(name, lower.unwrap(), -expected);
            }
        }
        assert_eq!(average_ranks(&column.values), column.ranks, "{name}");
        let mut sorted = column.values.clone();
        sorted.sort_by(f64::total_cmp);
        for (p, expected) in &column.quantiles {
            check(name, quantile(&sorted, p.parse().unwrap()), *expected);
        }
    }
}

#[test]
fn correlations_equal_scipy() {
    for pair in oracle().correlations {
        let (a, b) = (present(&pair.a), present(&pair.b));
        for (found, [coefficient, p_value]) in [(pearson(&a, &b), pair.pearson), (spearman(&a, &b), pair.spearman)] {
            let found = found.unwrap();
            check(&pair.name, found.coefficient, coefficient);
            // Relative: p-values are as small as 1e-200 here. Where the coefficient is close to one, its last digit
            // moves the p-value by a hundred times as much.
            let difference = (found.p_value - p_value).abs();
            assert!(
                difference <= 1e-10 * p_value,
                "{}: p {} != {p_value}",
                pair.name,
                found.p_value
            );
            assert_eq!(found.n, pair.a.len());
        }
    }
}

#[test]
fn bootstrap_intervals_equal_scipy_within_their_monte_carlo_error() {
    let statistic = |name: &str, values: &[f64]| -> f64 {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        match name {
            "mean" => mean,
            "std" => (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt(),
            "median" => {
                let mut sorted = values.to_vec();
                sorted.sort_by(f64::total_cmp);
                quantile(&sorted, 0.5)
            }
            other => panic!("unknown statistic {other}"),
        }
    };
    for case in oracle().bootstraps {
        let name = &case.name;
        let bootstrap = Bootstrap {
            resamples: 20_000,
            level: case.level,
            seed: 7,
        };
        let of_indices = |indices: &[usize]| {
            let drawn: Vec<f64> = indices.iter().map(|&index| case.values[index]).collect();
            statistic(&case.statistic, &drawn)
        };
        let n = case.values.len();
        let metric = Metric::statistic(name, Direction::HigherIsBetter, n, &bootstrap, of_indices).unwrap();
        check(name, metric.value, case.value);
        // The 2.5 % quantile of 20,000 draws of a normal has a standard deviation of 0.019 standard errors, that of
        // a lumpy median more: 0.12 is six of the former. A statistic with steps may
        // be off by one of them.
        let tolerance = 0.12 * case.standard_error + 1.001 * case.step;
        let interval = metric.interval.unwrap();
        assert!(
            (interval.low - case.low).abs() < tolerance,
            "{name}: low {} != {}",
            interval.low,
            case.low
        );
        assert!(
            (interval.high - case.high).abs() < tolerance,
            "{name}: high {} != {}",
            interval.high,
            case.high
        );
        if case.statistic == "mean" {
            let mean = Metric::mean(name, Direction::HigherIsBetter, &case.values, &bootstrap).unwrap();
            assert_eq!(
                mean.interval, metric.interval,
                "{name}: the same items are resampled alike"
            );
        }
    }
}
