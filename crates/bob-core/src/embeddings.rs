//! Embeddings of a set of images, with their labels and names: what every frozen-feature task reads.

use std::fmt;
use std::sync::Arc;

/// A matrix of embeddings, one row an image, with the image's label and name.
///
/// Rows are finite `f32`, row-major. Cheap to clone; the values may lie in a memory map.
#[derive(Clone)]
pub struct Embeddings {
    values: Arc<dyn AsRef<[f32]> + Send + Sync>,
    dim: usize,
    labels: Arc<[u32]>,
    names: Arc<[String]>,
}

/// Why values, labels and names do not make [`Embeddings`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmbeddingsError {
    /// Numbers of values, labels and names do not fit.
    #[error("{values} values of dimension {dim} do not make {labels} rows with {names} names")]
    Shape {
        /// Number of values.
        values: usize,
        /// Width of a row.
        dim: usize,
        /// Number of labels.
        labels: usize,
        /// Number of names.
        names: usize,
    },
    /// A value is NaN or infinite.
    #[error("embedding of `{name}` (row {row}) has the value {value} in column {column}; expected finite values")]
    NotFinite {
        /// Name of the image.
        name: String,
        /// Row of the value.
        row: usize,
        /// Column of the value.
        column: usize,
        /// The value, as text.
        value: String,
    },
    /// A row index is past the end.
    #[error("row {row} of {rows}")]
    NoSuchRow {
        /// The row that was asked for.
        row: usize,
        /// The number of rows.
        rows: usize,
    },
}

impl Embeddings {
    /// Embeddings of `labels.len()` images, `dim` values each.
    ///
    /// # Errors
    /// Where the numbers of values, labels and names do not fit or a value is not finite.
    pub fn new(
        values: impl AsRef<[f32]> + Send + Sync + 'static,
        dim: usize,
        labels: Vec<u32>,
        names: Vec<String>,
    ) -> Result<Self, EmbeddingsError> {
        let slice = values.as_ref();
        if dim == 0 || labels.len().checked_mul(dim) != Some(slice.len()) || names.len() != labels.len() {
            return Err(EmbeddingsError::Shape {
                values: slice.len(),
                dim,
                labels: labels.len(),
                names: names.len(),
            });
        }
        if let Some(at) = slice.iter().position(|value| !value.is_finite()) {
            return Err(EmbeddingsError::NotFinite {
                name: names[at / dim].clone(),
                row: at / dim,
                column: at % dim,
                value: slice[at].to_string(),
            });
        }
        Ok(Self {
            values: Arc::new(values),
            dim,
            labels: labels.into(),
            names: names.into(),
        })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Width of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All values, row-major: `[len, dim]`.
    pub fn values(&self) -> &[f32] {
        (*self.values).as_ref()
    }

    /// The embedding of image `index`.
    ///
    /// # Panics
    /// Where `index` is not below [`Self::len`].
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values()[index * self.dim..(index + 1) * self.dim]
    }

    /// The label of every image.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The name of every image, unique within a data set.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The number of classes: one more than the largest label.
    pub fn num_classes(&self) -> usize {
        self.labels.iter().max().map_or(0, |&label| label as usize + 1)
    }

    /// The images at `rows`, in that order.
    ///
    /// # Errors
    /// Where a row is past the end.
    pub fn select(&self, rows: &[usize]) -> Result<Self, EmbeddingsError> {
        if let Some(&row) = rows.iter().find(|&&row| row >= self.len()) {
            return Err(EmbeddingsError::NoSuchRow { row, rows: self.len() });
        }
        let mut values = Vec::with_capacity(rows.len() * self.dim);
        for &row in rows {
            values.extend_from_slice(self.row(row));
        }
        Ok(Self {
            values: Arc::new(values),
            dim: self.dim,
            labels: rows.iter().map(|&row| self.labels[row]).collect(),
            names: rows.iter().map(|&row| self.names[row].clone()).collect(),
        })
    }

    /// Every row divided by its Euclidean length; a row of zeros stays zero.
    pub fn l2_normalized(&self) -> Self {
        let mut values = self.values().to_vec();
        for row in values.chunks_exact_mut(self.dim) {
            let norm = row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
            if norm > 0.0 {
                for value in row {
                    *value = (f64::from(*value) / norm) as f32;
                }
            }
        }
        Self {
            values: Arc::new(values),
            ..self.clone()
        }
    }
}

impl fmt::Debug for Embeddings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embeddings")
            .field("len", &self.len())
            .field("dim", &self.dim)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("image{i}")).collect()
    }

    #[test]
    fn a_shape_or_value_that_does_not_fit_is_named() {
        let check = |values: Vec<f32>, dim: usize, labels: Vec<u32>, expected: &str| {
            let n = labels.len();
            let error = Embeddings::new(values, dim, labels, names(n)).expect_err("must be refused");
            assert_eq!(error.to_string(), expected);
        };
        check(
            vec![1.0; 5],
            2,
            vec![0, 1],
            "5 values of dimension 2 do not make 2 rows with 2 names",
        );
        check(
            vec![],
            0,
            vec![],
            "0 values of dimension 0 do not make 0 rows with 0 names",
        );
        check(
            vec![1.0, 2.0, f32::NAN, 0.0],
            2,
            vec![0, 1],
            "embedding of `image1` (row 1) has the value NaN in column 0; expected finite values",
        );
    }

    #[test]
    fn rows_are_selected_and_normalised() {
        let all = Embeddings::new(vec![3.0, 4.0, 0.0, 0.0], 2, vec![7, 2], names(2)).expect("fits");
        let some = all.select(&[1, 0]).expect("rows exist").l2_normalized();
        assert_eq!(some.values(), [0.0, 0.0, 0.6, 0.8]);
        assert_eq!(some.labels(), [2, 7]);
        assert_eq!(all.num_classes(), 8);
        assert!(all.select(&[2]).is_err());
    }
}
