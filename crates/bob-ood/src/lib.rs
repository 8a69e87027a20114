//! The same predictor under a shifted test set.
//!
//! [`ShiftedSet`] gives the shifted images, whoever has a classifier predicts them, and [`run`] scores the predictions:
//!
//! ```
//! use bob_ood::{Predictions, ShiftedPredictions, score};
//! use bob_stats::Bootstrap;
//!
//! let clean = Predictions { labels: vec![0, 1, 1, 0], predicted: vec![0, 1, 1, 0] };
//! let noisy = ShiftedPredictions {
//!     corruption: "gaussian_noise".to_owned(),
//!     severity: 3,
//!     predicted: vec![0, 0, 1, 0],
//! };
//! let metrics = score(&clean, &[noisy], &Bootstrap::default())?;
//! assert_eq!((metrics[0].name.as_str(), metrics[0].value), ("mean_top1", 0.75));
//! # Ok::<(), bob_ood::OodError>(())
//! ```
//!
//! It knows no classifier: a driver trains one on clean images and hands over what it predicts.

pub mod corruptions;
mod protocol;
mod score;
mod shifted_set;

use bob_stats::MetricError;

pub use protocol::{Protocol, protocols};
pub use score::{Predictions, ShiftedPredictions, run, score};
pub use shifted_set::ShiftedSet;

/// Why predictions under shift cannot be scored.
#[derive(Debug, thiserror::Error)]
pub enum OodError {
    /// A shift of the protocol is missing or twice there.
    #[error("corruption `{corruption}` at severity {severity} is predicted {found} times; expected once")]
    Shift {
        /// The corruption.
        corruption: String,
        /// The severity.
        severity: u8,
        /// How often it is there.
        found: usize,
    },
    /// A shift is not part of the protocol.
    #[error("corruption `{corruption}` at severity {severity} is predicted but not part of the protocol")]
    NotAsked {
        /// The corruption.
        corruption: String,
        /// The severity.
        severity: u8,
    },
    /// There is nothing to score.
    #[error("there are no predictions under shift")]
    NoShift,
    /// Predictions are not of the clean set's images.
    #[error("{what} has predictions of {found} images; expected {expected}, those of the clean set")]
    Images {
        /// The set.
        what: String,
        /// Number of its predictions.
        found: usize,
        /// Number of labels.
        expected: usize,
    },
    /// A metric cannot be computed.
    #[error(transparent)]
    Metric(#[from] MetricError),
}
