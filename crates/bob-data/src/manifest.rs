//! What a split holds, image by image, and the hash of it all.

use std::path::Path;
use std::time::UNIX_EPOCH;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::atomic::write_file;
use crate::dataset::read;
use crate::{DataError, ImageSet};

const VERSION: u32 = 1;

/// One image of a [`Manifest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestEntry {
    /// Its name, unique within the split.
    pub name: String,
    /// Stored bytes.
    pub size: u64,
    /// SHA-256 of the stored bytes, lower-case hex.
    pub sha256: String,
    /// Its label.
    pub label: u32,
}

/// Names, sizes, hashes and labels of the images of a split, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pixels: String,
    entries: Vec<ManifestEntry>,
    sha256: String,
}

/// A manifest as it is kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    sha256: String,
    pixels: String,
    files: Vec<Stamp>,
    entries: Vec<ManifestEntry>,
}

/// What tells that a file has not changed.
#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stamp {
    path: String,
    size: u64,
    modified_ns: u64,
}

impl Manifest {
    /// Read and hash every image of `set`, on all cores.
    ///
    /// # Errors
    /// Where an image cannot be read.
    pub fn compute(set: &dyn ImageSet) -> Result<Self, DataError> {
        let entries = (0..set.len()).into_par_iter().map(|index| {
            let bytes = set.bytes(index)?;
            let sha256 = hex(&Sha256::digest(&bytes));
            Ok(ManifestEntry {
                name: set.name(index),
                size: bytes.len() as u64,
                sha256,
                label: set.label(index),
            })
        });
        Ok(Self::new(set.pixels(), entries.collect::<Result<_, DataError>>()?))
    }

    /// The manifest kept at `path` where it still holds; otherwise it is computed and kept there.
    ///
    /// It holds while the files of `set` keep their sizes and times of change, and `set` its names and labels.
    ///
    /// # Errors
    /// Where an image cannot be read, the file at `path` is damaged, or it cannot be written.
    pub fn load_or_compute(set: &dyn ImageSet, path: &Path) -> Result<Self, DataError> {
        // Taken before the images are read: a change in between is then seen the next time.
        let files = stamps(set)?;
        if path.exists() {
            let kept = Kept::read(path)?;
            if !files.is_empty() && kept.files == files && kept.describes(set) {
                return Ok(Self {
                    pixels: kept.pixels,
                    entries: kept.entries,
                    sha256: kept.sha256,
                });
            }
        }
        let manifest = Self::compute(set)?;
        let Self {
            pixels,
            entries,
            sha256,
        } = manifest.clone();
        let kept = Kept {
            version: VERSION,
            sha256,
            pixels,
            files,
            entries,
        };
        write_file(path, |writer| Ok(serde_json::to_writer(writer, &kept)?))
            .map_err(|source| DataError::io(path, source))?;
        Ok(manifest)
    }

    fn new(pixels: String, entries: Vec<ManifestEntry>) -> Self {
        let sha256 = hash(&pixels, &entries);
        Self {
            pixels,
            entries,
            sha256,
        }
    }

    /// The images, in the order of the split.
    pub fn entries(&self) -> &[ManifestEntry] {
        &self.entries
    }

    /// The data hash, lower-case hex: of every name, size, hash and label, in order, and of
    /// [`ImageSet::pixels`].
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

impl Kept {
    fn read(path: &Path) -> Result<Self, DataError> {
        let damaged = |reason: String| DataError::Manifest {
            path: path.to_owned(),
            reason,
        };
        let kept: Self = serde_json::from_slice(&read(path)?).map_err(|error| damaged(error.to_string()))?;
        if kept.version != VERSION {
            return Err(damaged(format!("it has version {}; expected {VERSION}", kept.version)));
        }
        let sha256 = hash(&kept.pixels, &kept.entries);
        if kept.sha256 != sha256 {
            return Err(damaged(format!(
                "its entries have the hash {sha256}; it says {}",
                kept.sha256
            )));
        }
        Ok(kept)
    }

    fn describes(&self, set: &dyn ImageSet) -> bool {
        self.pixels == set.pixels()
            && self.entries.len() == set.len()
            && self
                .entries
                .iter()
                .enumerate()
                .all(|(index, entry)| entry.label == set.label(index) && entry.name == set.name(index))
    }
}

fn stamps(set: &dyn ImageSet) -> Result<Vec<Stamp>, DataError> {
    let stamp = |path: &std::path::PathBuf| {
        let io = |source| DataError::io(path, source);
        let metadata = path.metadata().map_err(io)?;
        let modified = metadata
            .modified()
            .map_err(io)?
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let path = path.display().to_string();
        Ok(Stamp {
            path,
            size: metadata.len(),
            modified_ns: modified.as_nanos() as u64,
        })
    };
    set.files().iter().map(stamp).collect()
}

/// Of the JSON text, in which no name can be mistaken for two.
fn hash(pixels: &str, entries: &[ManifestEntry]) -> String {
    let text = serde_json::to_vec(&(pixels, entries)).expect("strings and integers are JSON");
    hex(&Sha256::digest(text))
}

/// `bytes` in lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
