//! What a data set is: named splits of labelled images.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bob_core::Source;

use crate::{DecodeError, Limits, RgbImage, decode};

/// Labelled images in a fixed order: one split of a data set. Decoding happens on request, on any thread.
pub trait ImageSet: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there is no image.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name of image `index`, unique within the split: a path below the data set's folder, or an index.
    fn name(&self, index: usize) -> String;

    /// Label of image `index`.
    fn label(&self, index: usize) -> u32;

    /// The bytes that image `index` is stored as: what the manifest hashes.
    ///
    /// # Errors
    /// Where the file cannot be read.
    fn bytes(&self, index: usize) -> Result<Vec<u8>, DataError>;

    /// Image `index`, decoded to RGB.
    ///
    /// # Errors
    /// Where the file cannot be read or decoded.
    fn image(&self, index: usize) -> Result<RgbImage, DataError>;

    /// The files that the images are read from: while none of them changes, a kept [`Manifest`](crate::Manifest)
    /// holds. Empty where there is no file to watch; a manifest is then never reused.
    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// What makes [`Self::image`] out of [`Self::bytes`]; part of the data hash.
    fn pixels(&self) -> String {
        "rgb".to_owned()
    }
}

/// A data set: its classes and its splits (`train`, `test`, `query`, `gallery`).
#[derive(Clone)]
pub struct Dataset {
    /// Name, for example `cifar10`.
    pub name: String,
    /// Class names in label order.
    pub classes: Vec<String>,
    /// Splits by name.
    pub splits: BTreeMap<String, Arc<dyn ImageSet>>,
}

impl Dataset {
    /// Order of splits in names and lists; others follow by name.
    pub const SPLIT_ORDER: [&str; 5] = ["train", "val", "test", "query", "gallery"];

    /// Names of the splits, in the order of [`Self::SPLIT_ORDER`].
    pub fn split_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.splits.keys().map(String::as_str).collect();
        names.sort_by_key(|name| {
            Self::SPLIT_ORDER
                .iter()
                .position(|known| known == name)
                .unwrap_or(usize::MAX)
        });
        names
    }

    /// The split `name`.
    ///
    /// # Errors
    /// Where the data set has no such split.
    pub fn split(&self, name: &str) -> Result<&Arc<dyn ImageSet>, DataError> {
        let known = self.split_names();
        let found = bob_core::find(&format!("split of `{}`", self.name), name, &known, |split| split)?;
        Ok(&self.splits[*found])
    }
}

impl std::fmt::Debug for Dataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Dataset");
        debug.field("name", &self.name).field("classes", &self.classes.len());
        for name in self.split_names() {
            debug.field(name, &self.splits[name].len());
        }
        debug.finish()
    }
}

/// One row of the table of data sets.
#[derive(Clone, Debug)]
pub struct DatasetInfo {
    /// Name, for example `cifar10`.
    pub name: &'static str,
    /// What it is, in one sentence.
    pub description: &'static str,
    /// Licence of the images.
    pub license: &'static str,
    /// Folder of its files below the folder of all data sets: its name, or the one it shares them with.
    pub folder: &'static str,
    /// Files it is made of: each with its name in that folder and the places that have it.
    pub files: fn() -> Vec<(String, Vec<Source>)>,
    /// Open it from the folder that holds its files.
    pub open: fn(&Path) -> Result<Dataset, DataError>,
}

/// Why a data set or an image of it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// No data set has the name.
    #[error(transparent)]
    Unknown(#[from] bob_core::UnknownName),
    /// A file or folder cannot be read or written.
    #[error("`{path}`: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// An image cannot be decoded.
    #[error("image `{name}`: {source}")]
    Decode {
        /// The image.
        name: String,
        /// The reason.
        source: DecodeError,
    },
    /// A data file has not the layout of its format.
    #[error("`{path}` is not {expected}: {found}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A kept manifest is damaged.
    #[error("manifest `{path}` is damaged: {reason}; delete it to have it made again", path = path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A class folder has no image, a split is empty, a label is out of range.
    #[error("data set `{dataset}`: {reason}")]
    Content {
        /// The data set.
        dataset: String,
        /// What is wrong and what to do.
        reason: String,
    },
}

impl DataError {
    /// `source`, met at `path`.
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    /// `path` is not `expected`.
    pub(crate) fn format(path: &Path, expected: impl Into<String>, found: impl ToString) -> Self {
        Self::Format {
            path: path.to_owned(),
            expected: expected.into(),
            found: found.to_string(),
        }
    }

    /// Something is wrong with the content of `dataset`.
    pub(crate) fn content(dataset: &str, reason: impl Into<String>) -> Self {
        Self::Content {
            dataset: dataset.to_owned(),
            reason: reason.into(),
        }
    }
}

/// The bytes of the file at `path`.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    std::fs::read(path).map_err(|source| DataError::io(path, source))
}

/// The image in the file at `path`, as Pillow's `convert("RGB")` gives it.
pub(crate) fn read_image(path: &Path) -> Result<RgbImage, DataError> {
    decode(&read(path)?, &Limits::default()).map_err(|source| DataError::Decode {
        name: path.display().to_string(),
        source,
    })
}
