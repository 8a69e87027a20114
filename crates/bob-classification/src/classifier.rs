//! A trained linear classifier.

use bob_core::{Embeddings, dot_products};
use rayon::prelude::*;

use crate::ClassificationError;

/// A linear classifier of standardised embeddings.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearClassifier {
    /// Weights, `[classes, dim]`.
    pub weight: Vec<f32>,
    /// One number a class.
    pub bias: Vec<f32>,
    /// Mean of every feature over the images it was trained on.
    pub mean: Vec<f32>,
    /// Deviation of every feature over these; 1 where a feature is constant.
    pub std: Vec<f32>,
}

impl LinearClassifier {
    /// Number of classes.
    pub fn num_classes(&self) -> usize {
        self.bias.len()
    }

    /// Scores of every class.
    ///
    /// # Shapes
    ///   - output: `[embeddings.len(), classes]`, row-major
    ///
    /// # Errors
    /// Where the embeddings are not as wide as those it was trained on.
    pub fn logits(&self, embeddings: &Embeddings) -> Result<Vec<f32>, ClassificationError> {
        let dim = self.mean.len();
        if embeddings.dim() != dim {
            return Err(ClassificationError::Dimensions {
                train: dim,
                test: embeddings.dim(),
            });
        }
        let rows: Vec<Vec<f32>> = embeddings
            .values()
            .par_chunks(64 * dim)
            .map(|block| {
                let mut block = block.to_vec();
                standardise(&mut block, &self.mean, &self.std);
                let mut logits = vec![0.0; block.len() / dim * self.bias.len()];
                dot_products(&block, &self.weight, dim, &mut logits);
                for row in logits.chunks_mut(self.bias.len()) {
                    row.iter_mut().zip(&self.bias).for_each(|(logit, bias)| *logit += bias);
                }
                logits
            })
            .collect();
        Ok(rows.concat())
    }

    /// The class of the highest score of every image, the lowest of equals.
    ///
    /// # Errors
    /// Where the embeddings are not as wide as those it was trained on.
    pub fn predict(&self, embeddings: &Embeddings) -> Result<Vec<u32>, ClassificationError> {
        Ok(self
            .logits(embeddings)?
            .chunks(self.bias.len())
            .map(|logits| argmax(logits) as u32)
            .collect())
    }
}

/// Index of the largest value, the first of equals; values that are not numbers never win.
pub(crate) fn argmax(values: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, &value) in values.iter().enumerate() {
        if value > best.1 {
            best = (index, value);
        }
    }
    best.0
}

/// `(x - mean) / std` of every feature of every row.
pub(crate) fn standardise(rows: &mut [f32], mean: &[f32], std: &[f32]) {
    for row in rows.chunks_mut(mean.len()) {
        for ((value, mean), std) in row.iter_mut().zip(mean).zip(std) {
            *value = (*value - mean) / std;
        }
    }
}

/// Mean and population deviation of every feature; the deviation is 1 where a feature does not vary beyond the
/// rounding of `f32`, so that rounding is not blown up to a feature.
pub(crate) fn moments(embeddings: &Embeddings) -> (Vec<f32>, Vec<f32>) {
    let (dim, n) = (embeddings.dim(), embeddings.len() as f64);
    let mut mean = vec![0.0f64; dim];
    for row in embeddings.values().chunks(dim) {
        mean.iter_mut()
            .zip(row)
            .for_each(|(mean, &value)| *mean += f64::from(value) / n);
    }
    let mut variance = vec![0.0f64; dim];
    for row in embeddings.values().chunks(dim) {
        for ((variance, &value), mean) in variance.iter_mut().zip(row).zip(&mean) {
            *variance += (f64::from(value) - mean).powi(2) / n;
        }
    }
    let std = variance.iter().zip(&mean).map(|(variance, mean)| {
        let std = variance.sqrt();
        if std <= 1e-6 * mean.abs() {
            1.0
        } else {
            (std as f32).max(f32::MIN_POSITIVE)
        }
    });
    (mean.iter().map(|&mean| mean as f32).collect(), std.collect())
}
