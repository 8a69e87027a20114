//! Metrics of predictions.

use bob_core::Embeddings;
use bob_stats::{Bootstrap, Direction, Metric, MetricError};

/// 1 where a prediction is right, else 0.
pub(crate) fn hits(predicted: &[u32], labels: &[u32]) -> Vec<f64> {
    predicted
        .iter()
        .zip(labels)
        .map(|(predicted, label)| f64::from(u8::from(predicted == label)))
        .collect()
}

/// Accuracy under the name `name`.
pub(crate) fn accuracy(
    name: &str,
    predicted: &[u32],
    labels: &[u32],
    bootstrap: &Bootstrap,
) -> Result<Metric, MetricError> {
    Metric::mean(name, Direction::HigherIsBetter, &hits(predicted, labels), bootstrap)
}

/// The mean over classes of the accuracy in each; a resample without an image of a class leaves it out.
pub(crate) fn mean_per_class(predicted: &[u32], labels: &[u32], bootstrap: &Bootstrap) -> Result<Metric, MetricError> {
    let hits = hits(predicted, labels);
    let classes = labels.iter().max().map_or(0, |&label| label as usize + 1);
    Metric::statistic(
        "mean_per_class",
        Direction::HigherIsBetter,
        labels.len(),
        bootstrap,
        |indices| {
            let mut sums = vec![(0.0, 0u32); classes];
            for &index in indices {
                let (right, all) = &mut sums[labels[index] as usize];
                *right += hits[index];
                *all += 1;
            }
            let seen: Vec<f64> = sums
                .iter()
                .filter(|(_, all)| *all > 0)
                .map(|&(right, all)| right / f64::from(all))
                .collect();
            seen.iter().sum::<f64>() / seen.len() as f64
        },
    )
}

/// The metrics that need the scores of all classes: `nll`, and `top5` where there are more than five classes.
pub(crate) fn of_logits(logits: &[f32], test: &Embeddings, bootstrap: &Bootstrap) -> Result<Vec<Metric>, MetricError> {
    let classes = logits.len() / test.len();
    let rows = || logits.chunks(classes).zip(test.labels());
    let nll: Vec<f64> = rows()
        .map(|(logits, &label)| negative_log_likelihood(logits, label as usize))
        .collect();
    let mut metrics = vec![Metric::mean("nll", Direction::LowerIsBetter, &nll, bootstrap)?];
    if classes > 5 {
        let top5: Vec<f64> = rows()
            .map(|(logits, &label)| f64::from(u8::from(place(logits, label as usize) < 5)))
            .collect();
        metrics.insert(0, Metric::mean("top5", Direction::HigherIsBetter, &top5, bootstrap)?);
    }
    Ok(metrics)
}

/// Minus the logarithm of the softmax at `label`.
pub(crate) fn negative_log_likelihood(logits: &[f32], label: usize) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum();
    sum.ln() + largest - f64::from(logits[label])
}

/// Number of classes that come before `label`, by score and then by number.
fn place(logits: &[f32], label: usize) -> usize {
    let own = logits[label];
    logits
        .iter()
        .enumerate()
        .filter(|&(class, &logit)| logit > own || (logit == own && class < label))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_count_alike_whatever_their_size() {
        let metric = mean_per_class(&[0, 0, 0, 1], &[0, 0, 0, 0], &Bootstrap::default()).expect("fits");
        assert_eq!(metric.value, 0.75);
        let metric = mean_per_class(&[0, 0, 0, 1], &[0, 0, 0, 2], &Bootstrap::default()).expect("fits");
        assert_eq!(metric.value, 0.5);
    }

    #[test]
    fn ties_are_placed_by_class_number() {
        assert_eq!(place(&[1.0, 2.0, 1.0], 0), 1);
        assert_eq!(place(&[1.0, 2.0, 1.0], 2), 2);
        assert!((negative_log_likelihood(&[0.0, 0.0], 1) - 2f64.ln()).abs() < 1e-12);
        assert!((negative_log_likelihood(&[1000.0, 0.0], 1) - 1000.0).abs() < 1e-9);
    }
}
