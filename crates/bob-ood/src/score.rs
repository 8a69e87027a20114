//! How much of a predictor's accuracy is left under shift.

use bob_stats::{Bootstrap, Direction, Metric};

use crate::{OodError, Protocol};

/// What a classifier says of the clean test images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predictions {
    /// The right class of every image.
    pub labels: Vec<u32>,
    /// The predicted class of every image.
    pub predicted: Vec<u32>,
}

/// What the same classifier says of the same images under one shift.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShiftedPredictions {
    /// Name of the corruption.
    pub corruption: String,
    /// Severity, 1 to 5.
    pub severity: u8,
    /// The predicted class of every image, in the order of the clean ones.
    pub predicted: Vec<u32>,
}

/// Score predictions under every shift of `protocol`: `mean_top1` (primary), `clean_top1`, `top1_<corruption>` (mean
/// over severities), and `relative_drop`, `1 - mean_top1 / clean_top1`, where the clean accuracy is above 0.
///
/// Intervals resample test images, each with all its shifted versions.
///
/// # Errors
/// Where a shift of the protocol is missing, another is present or present twice, or numbers of images differ.
pub fn run(
    protocol: &Protocol,
    clean: &Predictions,
    shifted: &[ShiftedPredictions],
    bootstrap: &Bootstrap,
) -> Result<Vec<Metric>, OodError> {
    let wanted = protocol.shifts();
    for (corruption, severity) in &wanted {
        let found = shifted
            .iter()
            .filter(|one| one.corruption == corruption.name && one.severity == *severity)
            .count();
        if found != 1 {
            return Err(OodError::Shift {
                corruption: corruption.name.to_owned(),
                severity: *severity,
                found,
            });
        }
    }
    let is_wanted = |one: &ShiftedPredictions| {
        wanted
            .iter()
            .any(|(corruption, severity)| corruption.name == one.corruption && *severity == one.severity)
    };
    if let Some(other) = shifted.iter().find(|one| !is_wanted(one)) {
        return Err(OodError::NotAsked {
            corruption: other.corruption.clone(),
            severity: other.severity,
        });
    }
    score(clean, shifted, bootstrap)
}

/// [`run`] without a protocol: score whatever shifts there are.
///
/// # Errors
/// Where there is no shift or no image, or numbers of images differ.
pub fn score(
    clean: &Predictions,
    shifted: &[ShiftedPredictions],
    bootstrap: &Bootstrap,
) -> Result<Vec<Metric>, OodError> {
    if shifted.is_empty() {
        return Err(OodError::NoShift);
    }
    let labels = &clean.labels;
    let hits = |what: String, predicted: &[u32]| {
        if predicted.len() != labels.len() {
            return Err(OodError::Images {
                what,
                found: predicted.len(),
                expected: labels.len(),
            });
        }
        Ok(predicted
            .iter()
            .zip(labels)
            .map(|(a, b)| f64::from(u8::from(a == b)))
            .collect::<Vec<f64>>())
    };
    let clean_hits = hits("the clean set".to_owned(), &clean.predicted)?;
    let mut corruptions: Vec<(&str, Vec<Vec<f64>>)> = Vec::new();
    for one in shifted {
        let hits = hits(
            format!("`{}` at severity {}", one.corruption, one.severity),
            &one.predicted,
        )?;
        match corruptions.iter_mut().find(|(name, _)| *name == one.corruption) {
            Some((_, all)) => all.push(hits),
            None => corruptions.push((&one.corruption, vec![hits])),
        }
    }
    let mean = |name: String, samples: &[f64]| Metric::mean(name, Direction::HigherIsBetter, samples, bootstrap);

    let all: Vec<f64> = mean_of(corruptions.iter().flat_map(|(_, all)| all), labels.len());
    let mut metrics = vec![
        mean("mean_top1".to_owned(), &all)?.primary(),
        mean("clean_top1".to_owned(), &clean_hits)?,
    ];
    for (name, hits) in &corruptions {
        metrics.push(mean(format!("top1_{name}"), &mean_of(hits.iter(), labels.len()))?);
    }
    if clean_hits.iter().any(|&hit| hit > 0.0) {
        let drop = |indices: &[usize]| {
            let sum = |hits: &[f64]| indices.iter().map(|&index| hits[index]).sum::<f64>();
            1.0 - sum(&all) / sum(&clean_hits)
        };
        metrics.push(Metric::statistic(
            "relative_drop",
            Direction::LowerIsBetter,
            labels.len(),
            bootstrap,
            drop,
        )?);
    }
    Ok(metrics)
}

/// The mean over sets of every image's score.
fn mean_of<'a>(sets: impl Iterator<Item = &'a Vec<f64>>, images: usize) -> Vec<f64> {
    let mut mean = vec![0.0; images];
    let mut count = 0.0;
    for hits in sets {
        count += 1.0;
        mean.iter_mut().zip(hits).for_each(|(mean, hit)| *mean += hit);
    }
    mean.iter_mut().for_each(|mean| *mean /= count);
    mean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols;

    fn predictions() -> (Predictions, Vec<ShiftedPredictions>) {
        let labels = vec![0, 1, 2, 3];
        let shifted = protocols()[0]
            .shifts()
            .into_iter()
            .map(|(corruption, severity)| ShiftedPredictions {
                corruption: corruption.name.to_owned(),
                severity,
                // One more image is wrong at every severity from 2 on.
                predicted: labels
                    .iter()
                    .map(|&label| if label + 1 < u32::from(severity) { 9 } else { label })
                    .collect(),
            });
        let shifted = shifted.collect();
        (
            Predictions {
                predicted: vec![0, 1, 2, 9],
                labels,
            },
            shifted,
        )
    }

    #[test]
    fn accuracies_are_means_over_severities() {
        let (clean, shifted) = predictions();
        let metrics = run(&protocols()[0], &clean, &shifted, &Bootstrap::default()).expect("fits");
        let value = |name: &str| {
            metrics
                .iter()
                .find(|metric| metric.name == name)
                .expect("reported")
                .value
        };
        assert_eq!(value("clean_top1"), 0.75);
        assert_eq!(value("top1_pixelate"), 0.5);
        assert_eq!(value("mean_top1"), 0.5);
        assert!((value("relative_drop") - 1.0 / 3.0).abs() < 1e-12);
        let primary: Vec<&str> = metrics.iter().filter(|m| m.primary).map(|m| m.name.as_str()).collect();
        assert_eq!(primary, ["mean_top1"]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let check = |change: &dyn Fn(&mut Predictions, &mut Vec<ShiftedPredictions>), expected: &str| {
            let (mut clean, mut shifted) = predictions();
            change(&mut clean, &mut shifted);
            let error = run(&protocols()[0], &clean, &shifted, &Bootstrap::default()).expect_err("must be refused");
            assert_eq!(error.to_string(), expected);
        };
        check(
            &|_, shifted| drop(shifted.remove(0)),
            "corruption `gaussian_noise` at severity 1 is predicted 0 times; expected once",
        );
        check(
            &|_, shifted| shifted.push(shifted[3].clone()),
            "corruption `gaussian_noise` at severity 4 is predicted 2 times; expected once",
        );
        check(
            &|_, shifted| {
                shifted.push(ShiftedPredictions {
                    corruption: "fog".to_owned(),
                    ..shifted[0].clone()
                })
            },
            "corruption `fog` at severity 1 is predicted but not part of the protocol",
        );
        check(
            &|_, shifted| shifted[1].predicted.truncate(3),
            "`gaussian_noise` at severity 2 has predictions of 3 images; expected 4, those of the clean set",
        );
        check(
            &|clean, _| clean.predicted.truncate(3),
            "the clean set has predictions of 3 images; expected 4, those of the clean set",
        );
        let (clean, _) = predictions();
        let error = score(&clean, &[], &Bootstrap::default()).expect_err("must be refused");
        assert_eq!(error.to_string(), "there are no predictions under shift");
    }
}
