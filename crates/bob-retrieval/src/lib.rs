//! Rank a gallery by embedding similarity and score the ranking, for anybody's embeddings.
//!
//! ```
//! use bob_retrieval::bob_core::Embeddings;
//! use bob_retrieval::bob_stats::Bootstrap;
//! use bob_retrieval::{Protocol, protocols, rank, run};
//!
//! let names = |n: usize| (0..n).map(|i| format!("image{i}")).collect();
//! let queries = Embeddings::new(vec![1.0, 0.1, 0.0, 1.0], 2, vec![7, 8], names(2))?;
//! let gallery = Embeddings::new(vec![0.2, 2.0, 3.0, 0.0, 1.0, 1.0], 2, vec![8, 7, 7], names(3))?;
//!
//! assert_eq!(rank(&queries, &gallery)?.query(0), [1, 2, 0]);
//!
//! let protocol: &Protocol = &protocols()[0];
//! let metrics = run(protocol, &queries, &gallery, &Bootstrap::default())?;
//! assert_eq!((metrics[0].name.as_str(), metrics[0].value), ("map", 1.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! It needs neither `bob-models` nor `bob-data`; [`bob_core`] and [`bob_stats`] are re-exported so that this crate is
//! the only one to depend on (`fixtures/own-backbone` is such a program).

mod protocol;
mod rank;
mod score;

use bob_core::Embeddings;
use bob_stats::{Bootstrap, Direction, Metric, MetricError};

pub use bob_core;
pub use bob_stats;
pub use protocol::{AveragePrecision, Protocol, protocols};
pub use rank::{Ranking, rank, rank_with};
pub use score::{Judged, Relevance, judge};

/// Why embeddings cannot be ranked or a ranking cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum RetrievalError {
    /// A set has no image.
    #[error("the {set} set has no image")]
    Empty {
        /// `query` or `gallery`.
        set: &'static str,
    },
    /// The two sets are embeddings of unlike width.
    #[error("queries have {queries} dimensions and the gallery has {gallery}; embed both with the same backbone")]
    Dimensions {
        /// Width of a query.
        queries: usize,
        /// Width of a gallery image.
        gallery: usize,
    },
    /// A leave-one-out protocol was given two different sets.
    #[error(
        "protocol `{protocol}` ranks a split against itself, but image {index} is `{query}` among the queries and `{gallery}` in the gallery"
    )]
    NotTheSameSet {
        /// The protocol.
        protocol: String,
        /// The first image that differs.
        index: usize,
        /// Its name among the queries.
        query: String,
        /// Its name in the gallery.
        gallery: String,
    },
    /// No query has a right answer in the gallery.
    #[error(
        "none of {queries} queries has an image of its label in the gallery, for example `{example}` of label {label}"
    )]
    NoPositives {
        /// Number of queries.
        queries: usize,
        /// Name of the first query.
        example: String,
        /// Its label.
        label: u32,
    },
    /// A metric cannot be computed.
    #[error(transparent)]
    Metric(#[from] MetricError),
}

/// Rank the gallery for every query and score it as `protocol` says: an image of the query's label is right.
///
/// A protocol that ranks a split against itself ([`Protocol::leave_one_out`]) wants the same embeddings twice.
///
/// The first metric, `map`, is the primary one. `mrr` is over all queries; the others are over the queries that have a
/// positive, and their `n` says how many those are.
///
/// # Errors
/// Where a set is empty, the two do not fit each other or the protocol, or no query has a positive.
pub fn run(
    protocol: &Protocol,
    queries: &Embeddings,
    gallery: &Embeddings,
    bootstrap: &Bootstrap,
) -> Result<Vec<Metric>, RetrievalError> {
    if protocol.leave_one_out() {
        check_same_set(protocol, queries, gallery)?;
    }
    let judged = rank_with(
        queries,
        gallery,
        |query| protocol.leave_one_out().then_some(query),
        |query, order| {
            let label = queries.labels()[query];
            judge(
                order
                    .iter()
                    .map(|&index| match gallery.labels()[index as usize] == label {
                        true => Relevance::Positive,
                        false => Relevance::Negative,
                    }),
            )
        },
    )?;
    if judged.iter().all(|judged| judged.ranks.is_empty()) {
        let (example, label) = (queries.names()[0].clone(), queries.labels()[0]);
        return Err(RetrievalError::NoPositives {
            queries: queries.len(),
            example,
            label,
        });
    }
    score(protocol, &judged, bootstrap)
}

/// Score rankings judged elsewhere, for example with junk images, as `protocol` says.
///
/// # Errors
/// Where there is no query with a positive.
pub fn score(protocol: &Protocol, judged: &[Judged], bootstrap: &Bootstrap) -> Result<Vec<Metric>, RetrievalError> {
    let mean = |name: String, score: &dyn Fn(&Judged) -> Option<f64>| {
        let samples: Vec<f64> = judged.iter().filter_map(score).collect();
        Metric::mean(name, Direction::HigherIsBetter, &samples, bootstrap)
    };
    let average_precision = match protocol.average_precision {
        AveragePrecision::Standard => Judged::average_precision,
        AveragePrecision::Trapezoid => Judged::trapezoid_average_precision,
    };
    let mut metrics = vec![
        mean("map".to_owned(), &average_precision)?.primary(),
        mean("mrr".to_owned(), &|judged| Some(judged.reciprocal_rank()))?,
    ];
    for &k in &protocol.recall_at {
        metrics.push(mean(format!("recall_at_{k}"), &|judged| judged.recall_at(k))?);
        metrics.push(mean(format!("hit_at_{k}"), &|judged| judged.hit_at(k))?);
    }
    for &k in &protocol.precision_at {
        metrics.push(mean(format!("precision_at_{k}"), &|judged| judged.precision_at(k))?);
    }
    Ok(metrics)
}

fn check_same_set(protocol: &Protocol, queries: &Embeddings, gallery: &Embeddings) -> Result<(), RetrievalError> {
    let name = |set: &Embeddings, index: usize| set.names().get(index).cloned().unwrap_or_default();
    match (0..queries.len().max(gallery.len())).find(|&i| queries.names().get(i) != gallery.names().get(i)) {
        None => Ok(()),
        Some(index) => Err(RetrievalError::NotTheSameSet {
            protocol: protocol.name().to_owned(),
            index,
            query: name(queries, index),
            gallery: name(gallery, index),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn embeddings<const D: usize>(rows: &[[f32; D]], labels: &[u32]) -> Embeddings {
        let names = (0..rows.len()).map(|i| format!("image{i}")).collect();
        Embeddings::new(rows.as_flattened().to_vec(), D, labels.to_vec(), names).expect("fits")
    }

    fn protocol(name: &str) -> Protocol {
        protocols()
            .into_iter()
            .find(|protocol| protocol.name() == name)
            .expect("in the table")
    }

    #[test]
    fn bad_sets_are_named() {
        let check = |name: &str, queries: &Embeddings, gallery: &Embeddings, expected: &str| {
            let error = run(&protocol(name), queries, gallery, &Bootstrap::default()).expect_err("must be refused");
            assert_eq!(error.to_string(), expected);
        };
        let none = embeddings::<2>(&[], &[]);
        let two = embeddings(&[[1.0, 0.0], [0.0, 1.0]], &[0, 1]);
        let wide = embeddings(&[[1.0, 0.0, 0.0]], &[0]);
        let others = embeddings(&[[1.0, 0.0]], &[9]);
        let instance = "instance-retrieval";
        check(instance, &none, &two, "the query set has no image");
        check(instance, &two, &none, "the gallery set has no image");
        check(
            instance,
            &two,
            &wide,
            "queries have 2 dimensions and the gallery has 3; embed both with the same backbone",
        );
        check(
            instance,
            &two,
            &others,
            "none of 2 queries has an image of its label in the gallery, for example `image0` of label 0",
        );
        check(
            "class-retrieval",
            &two,
            &others,
            "protocol `class-retrieval` ranks a split against itself, but image 1 is `image1` among the queries and `` in the gallery",
        );
    }

    #[test]
    fn no_image_finds_itself() {
        let set = embeddings(&[[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]], &[0, 1, 0, 1]);
        let metrics = run(&protocol("class-retrieval"), &set, &set, &Bootstrap::default()).expect("fits");
        let value = |name: &str| {
            metrics
                .iter()
                .find(|metric| metric.name == name)
                .expect("reported")
                .value
        };
        assert_eq!(
            value("hit_at_1"),
            0.0,
            "the nearest other image is of the other class everywhere"
        );
        assert_eq!(metrics.iter().filter(|metric| metric.primary).count(), 1);
    }
}
