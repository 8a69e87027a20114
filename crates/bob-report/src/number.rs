//! How numbers, counts, memory, times and dates are written.

use bob_stats::Direction;

use crate::Cell;

/// Significant digits of scores and measurements.
const DIGITS: usize = 4;

/// Exponent of the leading digit after rounding to [`DIGITS`] digits.
fn exponent(value: f64) -> i32 {
    let scientific = format!("{value:.*e}", DIGITS - 1);
    let exponent = scientific.rsplit('e').next().unwrap_or("0");
    exponent.parse().unwrap_or(0)
}

fn decimals(value: f64) -> usize {
    (DIGITS as i32 - 1 - exponent(value)).clamp(0, 9) as usize
}

/// Four significant digits; scientific where the number would be long.
pub(crate) fn significant(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if (-4..6).contains(&exponent(value)) {
        format!("{value:.*}", decimals(value))
    } else {
        format!("{value:.*e}", DIGITS - 1)
    }
}

/// `value ± half the interval`, or the value alone.
pub(crate) fn with_interval(cell: &Cell) -> String {
    let value = significant(cell.value);
    match (cell.low, cell.high) {
        (Some(low), Some(high)) => {
            let half = (high - low) / 2.0;
            // Four digits of 0 or 1 are those of the shares between them.
            let decimals = if cell.value == 0.0 {
                DIGITS
            } else {
                decimals(cell.value)
            };
            if (-4..6).contains(&exponent(cell.value)) {
                format!("{value} ± {half:.decimals$}")
            } else {
                format!("{value} ± {}", significant(half))
            }
        }
        _ => value,
    }
}

/// A z-score: sign and two decimals, no negative zero.
pub(crate) fn z(value: f64) -> String {
    let text = format!("{value:+.2}");
    if text == "-0.00" || text == "+0.00" {
        "0.00".to_owned()
    } else {
        text
    }
}

/// A rank: a whole number, or a half where an even number of backbones tie.
pub(crate) fn rank(value: f64) -> String {
    if value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

/// Both ends of a rank's interval.
pub(crate) fn rank_interval(low: Option<f64>, high: Option<f64>) -> String {
    match (low, high) {
        (Some(low), Some(high)) => format!("{}–{}", rank(low), rank(high)),
        _ => String::new(),
    }
}

/// A count with an SI prefix: `25.56 M`.
pub(crate) fn si(value: f64) -> String {
    scaled(value, 1e3, &["", " k", " M", " G", " T", " P"])
}

/// A size in memory: `812.3 MiB`.
pub(crate) fn bytes(value: f64) -> String {
    scaled(value, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB"])
}

fn scaled(value: f64, step: f64, prefixes: &[&str]) -> String {
    let mut scaled = value;
    let mut place = 0;
    // 999,999 must not become "1000 k".
    while scaled.abs() >= step - 0.05 && place + 1 < prefixes.len() {
        scaled /= step;
        place += 1;
    }
    let digits = if place == 0 && scaled.fract() == 0.0 {
        format!("{scaled}")
    } else {
        significant(scaled)
    };
    format!("{digits}{}", prefixes[place])
}

/// Pairs below which a p-value from Student's t claims too much: three pairs in the same order, one chance in three,
/// would be `< 0.001`.
const FEW_PAIRS: usize = 10;

/// A p-value of a correlation: three decimals, or that it is smaller; empty with few pairs.
pub(crate) fn p_value(value: f64, pairs: usize) -> String {
    match pairs {
        0..FEW_PAIRS => String::new(),
        _ if value < 0.001 => "< 0.001".to_owned(),
        _ => format!("{value:.3}"),
    }
}

/// A length of time: `1 h 23 min`, `4 min 5 s`, `3.2 s`.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// The day of a time, in UTC: `2026-11-22`.
///
/// Days to a civil date as Hinnant, "chrono-compatible low-level date algorithms" (2013), derives it.
pub(crate) fn date(unix_seconds: u64) -> String {
    let days = unix_seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March, so that the leap day is last.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// An arrow that points where a metric is better.
pub(crate) fn arrow(direction: Direction) -> &'static str {
    match direction {
        Direction::HigherIsBetter => "↑",
        Direction::LowerIsBetter => "↓",
    }
}

/// `3 records`, `1 record`.
pub(crate) fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_digits() {
        let check = |value: f64, expected: &str| assert_eq!(significant(value), expected);
        check(0.0, "0");
        check(0.731_249, "0.7312");
        check(0.999_97, "1.000");
        check(1.0, "1.000");
        check(-12.345_6, "-12.35");
        check(123_456.0, "123456");
        check(0.000_123_456, "0.0001235");
        check(0.000_012_345_6, "1.235e-5");
        check(123_456_789.0, "1.235e8");
    }

    #[test]
    fn intervals_have_the_decimals_of_the_value() {
        let check = |value, low, high, expected: &str| {
            let cell = Cell {
                value,
                low: Some(low),
                high: Some(high),
                ..Cell::of(value)
            };
            assert_eq!(with_interval(&cell), expected);
        };
        check(0.731_2, 0.71, 0.752, "0.7312 ± 0.0210");
        check(12.34, 12.0, 13.0, "12.34 ± 0.50");
        check(0.0, 0.0, 0.01, "0 ± 0.0050");
        check(2.5e8, 2.4e8, 2.6e8, "2.500e8 ± 1.000e7");
        assert_eq!(with_interval(&Cell::of(0.5)), "0.5000");
    }

    #[test]
    fn units() {
        let check = |found: String, expected: &str| assert_eq!(found, expected);
        check(si(25_557_032.0), "25.56 M");
        check(si(999_999.0), "1.000 M");
        check(si(999.0), "999");
        check(si(0.0), "0");
        check(bytes(1_073_741_824.0), "1.000 GiB");
        check(z(-0.001), "0.00");
        check(z(1.234), "+1.23");
        check(rank(2.5), "2.5");
        check(rank_interval(Some(1.0), Some(3.0)), "1–3");
        check(duration(3.21), "3.2 s");
        check(duration(245.4), "4 min 5 s");
        check(duration(5000.0), "1 h 23 min");
        check(date(0), "1970-01-01");
        check(date(951_782_400), "2000-02-29");
        check(date(1_795_305_600), "2026-11-22");
        check(p_value(0.000_2, 10), "< 0.001");
        check(p_value(0.042, 12), "0.042");
        check(p_value(0.0, 9), "");
    }
}
