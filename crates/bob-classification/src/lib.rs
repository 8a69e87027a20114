//! k-NN, linear probe and few-shot classification of embeddings, anybody's.
//!
//! ```
//! use bob_classification::{Method, protocols, run};
//! use bob_core::Embeddings;
//! use bob_stats::Bootstrap;
//!
//! let names = |n: usize| (0..n).map(|i| format!("{i}.png")).collect();
//! let train = Embeddings::new(vec![1.0, 0.0, 0.9, 0.1, 0.0, 1.0, 0.2, 0.8], 2, vec![0, 0, 1, 1], names(4))?;
//! let test = Embeddings::new(vec![2.0, 0.3, 0.1, 0.7], 2, vec![0, 1], names(2))?;
//!
//! let knn = &protocols()[0];
//! assert!(matches!(knn.method, Method::Knn(_)));
//! let metrics = run(knn, &train, &test, 0, &Bootstrap::default())?;
//! assert_eq!((metrics[0].name.as_str(), metrics[0].value), ("top1", 1.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! All of it runs on the processor, on embeddings that a backbone gave once; no number depends on the backend or on
//! the number of threads.

mod classifier;
mod few_shot;
mod heads;
mod knn;
mod linear_probe;
mod protocol;
mod score;

use bob_core::{Embeddings, EmbeddingsError};
use bob_stats::{Bootstrap, Direction, Metric, MetricError};

pub use classifier::LinearClassifier;
pub use few_shot::few_shot;
pub use knn::{KnnPredictions, knn};
pub use linear_probe::{Probe, is_validation, linear_probe};
pub use protocol::{FewShot, Knn, LinearProbe, Method, Protocol, protocols};

/// Why embeddings cannot be classified.
#[derive(Debug, thiserror::Error)]
pub enum ClassificationError {
    /// A split has no image.
    #[error("the {split} split has no image")]
    Empty {
        /// `train` or `test`.
        split: &'static str,
    },
    /// Train and test are embeddings of unlike width.
    #[error(
        "training embeddings have {train} dimensions and test embeddings {test}; embed both with the same backbone"
    )]
    Dimensions {
        /// Width of training embeddings.
        train: usize,
        /// Width of test embeddings.
        test: usize,
    },
    /// Every training image is of the same class.
    #[error("all {images} training images are of class {class}; at least two classes are needed")]
    SingleClass {
        /// The class.
        class: u32,
        /// Number of training images.
        images: usize,
    },
    /// A test image is of a class that no training image is of.
    #[error("test image `{name}` is of class {class}, which no training image is of")]
    UnknownClass {
        /// The image.
        name: String,
        /// Its class.
        class: u32,
    },
    /// No neighbour may vote.
    #[error("k is 0; expected at least 1 neighbour")]
    NoNeighbours,
    /// A class has fewer images than are to be drawn.
    #[error("class {class} has {found} training images; {needed} are needed, take a larger set or fewer shots")]
    TooFewImages {
        /// The class.
        class: u32,
        /// Number of its training images.
        found: usize,
        /// Number of images to be drawn.
        needed: usize,
    },
    /// The training images cannot be split to select a setting.
    #[error(
        "{validation} of {images} training images fall into the validation share; expected some inside and some outside, take a larger set"
    )]
    NoSplit {
        /// Number of training images.
        images: usize,
        /// Number of those held out.
        validation: usize,
    },
    /// No setting of the grid converges.
    #[error("all {settings} settings diverge; lower the learning rates")]
    Diverged {
        /// Number of settings.
        settings: usize,
    },
    /// A subset of the embeddings cannot be taken.
    #[error(transparent)]
    Embeddings(#[from] EmbeddingsError),
    /// A metric cannot be computed.
    #[error(transparent)]
    Metric(#[from] MetricError),
}

/// Classify `test` by what `train` teaches, as `protocol` says.
///
/// Exactly one metric is the primary one: `top1`, or `top1_5shot` of `few-shot`.
///
/// # Errors
/// Where a split is empty, the two do not fit each other, or the method cannot be trained.
pub fn run(
    protocol: &Protocol,
    train: &Embeddings,
    test: &Embeddings,
    seed: u64,
    bootstrap: &Bootstrap,
) -> Result<Vec<Metric>, ClassificationError> {
    check_pair(train, test)?;
    let labels = test.labels();
    match &protocol.method {
        Method::Knn(settings) => {
            let predicted = knn(train, test, settings)?;
            Ok(vec![
                score::accuracy("top1", &predicted.weighted, labels, bootstrap)?.primary(),
                score::accuracy("top1_k1", &predicted.nearest, labels, bootstrap)?,
                score::mean_per_class(&predicted.weighted, labels, bootstrap)?,
            ])
        }
        Method::LinearProbe(settings) => probe_metrics(&linear_probe(train, settings, seed)?, test, bootstrap),
        Method::FewShot(settings) => {
            let metric = |&shots: &usize| {
                let predicted = few_shot(train, test, shots, settings.draws, seed)?;
                let hits: Vec<Vec<f64>> = predicted.iter().map(|draw| score::hits(draw, labels)).collect();
                let name = format!("top1_{shots}shot");
                let metric = Metric::mean_of_draws(name, Direction::HigherIsBetter, &hits, bootstrap)?;
                Ok(if shots == settings.primary_shots {
                    metric.primary()
                } else {
                    metric
                })
            };
            settings.shots.iter().map(metric).collect()
        }
    }
}

/// The metrics of a trained probe on `test`: `top1` (primary), `top5` where there are more than five classes, `nll`,
/// `mean_per_class`, and how its setting was selected.
///
/// # Errors
/// Where `test` is empty or does not fit the probe.
pub fn probe_metrics(
    probe: &Probe,
    test: &Embeddings,
    bootstrap: &Bootstrap,
) -> Result<Vec<Metric>, ClassificationError> {
    if test.is_empty() {
        return Err(ClassificationError::Empty { split: "test" });
    }
    let classes = probe.classifier.num_classes();
    if let Some(row) = test.labels().iter().position(|&label| label as usize >= classes) {
        return Err(ClassificationError::UnknownClass {
            name: test.names()[row].clone(),
            class: test.labels()[row],
        });
    }
    let logits = probe.classifier.logits(test)?;
    let predicted: Vec<u32> = logits
        .chunks(classes)
        .map(|logits| classifier::argmax(logits) as u32)
        .collect();
    let mut metrics = vec![score::accuracy("top1", &predicted, test.labels(), bootstrap)?.primary()];
    metrics.extend(score::of_logits(&logits, test, bootstrap)?);
    metrics.push(score::mean_per_class(&predicted, test.labels(), bootstrap)?);
    let exact = |name: &str, value: f64| Metric::exact(name, Direction::HigherIsBetter, value, probe.validation_images);
    metrics.push(exact("validation_top1", probe.validation_accuracy)?);
    metrics.push(exact("selected_learning_rate", probe.learning_rate)?);
    metrics.push(exact("selected_weight_decay", probe.weight_decay)?);
    Ok(metrics)
}

fn check_train(train: &Embeddings) -> Result<(), ClassificationError> {
    let Some(&class) = train.labels().first() else {
        return Err(ClassificationError::Empty { split: "train" });
    };
    if train.labels().iter().all(|&label| label == class) {
        return Err(ClassificationError::SingleClass {
            class,
            images: train.len(),
        });
    }
    Ok(())
}

fn check_pair(train: &Embeddings, test: &Embeddings) -> Result<(), ClassificationError> {
    check_train(train)?;
    if test.is_empty() {
        return Err(ClassificationError::Empty { split: "test" });
    }
    if train.dim() != test.dim() {
        return Err(ClassificationError::Dimensions {
            train: train.dim(),
            test: test.dim(),
        });
    }
    let known: std::collections::BTreeSet<u32> = train.labels().iter().copied().collect();
    match test.labels().iter().position(|label| !known.contains(label)) {
        None => Ok(()),
        Some(row) => Err(ClassificationError::UnknownClass {
            name: test.names()[row].clone(),
            class: test.labels()[row],
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// A file of `fixtures/tasks`, made by `fixtures/make_tasks.py`.
    pub(crate) fn fixture(name: &str) -> Value {
        let path = format!("{}/../../fixtures/tasks/{name}", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).expect("fixture")).expect("JSON")
    }

    pub(crate) fn numbers<T: serde::de::DeserializeOwned>(value: &Value) -> Vec<T> {
        serde_json::from_value(value.clone()).expect("numbers")
    }

    /// Embeddings of stored values.
    pub(crate) fn stored(values: &Value, labels: Vec<u32>) -> Embeddings {
        let values: Vec<f32> = numbers(values);
        let names = (0..labels.len()).map(|i| i.to_string()).collect();
        Embeddings::new(values.clone(), values.len() / labels.len(), labels, names).expect("fits")
    }

    pub(crate) fn embeddings<const D: usize>(rows: &[[f32; D]], labels: &[u32]) -> Embeddings {
        let names = (0..rows.len()).map(|i| format!("image{i}")).collect();
        Embeddings::new(rows.as_flattened().to_vec(), D, labels.to_vec(), names).expect("fits")
    }

    #[test]
    fn bad_sets_are_named_by_every_protocol() {
        let check = |train: &Embeddings, test: &Embeddings, expected: &str| {
            for protocol in protocols() {
                let error = run(&protocol, train, test, 0, &Bootstrap::default()).expect_err("must be refused");
                assert_eq!(error.to_string(), expected, "{}", protocol.name());
            }
        };
        let none = embeddings::<2>(&[], &[]);
        let two = embeddings(&[[1.0, 0.0], [0.0, 1.0]], &[0, 1]);
        let one_class = embeddings(&[[1.0, 0.0], [0.0, 1.0]], &[4, 4]);
        let wide = embeddings(&[[1.0, 0.0, 0.0]], &[0]);
        let other = embeddings(&[[1.0, 0.0]], &[2]);
        check(&none, &two, "the train split has no image");
        check(&two, &none, "the test split has no image");
        check(
            &one_class,
            &one_class,
            "all 2 training images are of class 4; at least two classes are needed",
        );
        check(
            &two,
            &wide,
            "training embeddings have 2 dimensions and test embeddings 3; embed both with the same backbone",
        );
        check(
            &two,
            &other,
            "test image `image0` is of class 2, which no training image is of",
        );
    }

    #[test]
    fn every_protocol_has_one_primary_metric() {
        let rows: Vec<[f32; 4]> = (0..120)
            .map(|i: u32| [0, 1, 2, 3].map(|c| ((i * 31 + c * 7) % 17) as f32 + f32::from(i % 3 == c)))
            .collect();
        let set = embeddings(&rows, &(0..120).map(|i| i % 3).collect::<Vec<_>>());
        for protocol in protocols() {
            let metrics = run(&protocol, &set, &set, 1, &Bootstrap::default()).expect("runs");
            assert_eq!(
                metrics.iter().filter(|metric| metric.primary).count(),
                1,
                "{}",
                protocol.name()
            );
            assert!(metrics.iter().all(|metric| metric.value.is_finite()));
        }
    }
}
