//! The record of one cell: what was asked, what was done, with what, and what came out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Interval, Metric};

/// Version of the layout of [`Record`]; a record of another version is refused.
pub const SCHEMA_VERSION: u32 = 1;

/// What names a cell: its place in the results folder,
/// `<protocol>@<version>/<dataset>/<backbone>/<seed>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellKey {
    /// Task crate, for example `classification`.
    pub task: String,
    /// Protocol, for example `knn`.
    pub protocol: String,
    /// Version of the protocol, for example `1`.
    pub version: u32,
    /// Data set, for example `cifar10-1000-500` (a subset carries its sizes in its name).
    pub dataset: String,
    /// Checkpoint, for example `resnet50.a1_in1k`.
    pub backbone: String,
    /// Seed of everything that is drawn.
    pub seed: u64,
}

/// The weights a cell ran with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointRecord {
    /// SHA-256 of the weights file, or of the architecture and seed for random weights.
    pub sha256: String,
    /// SHA-256 of how they are used: architecture, classes, names of keys and preprocessing; empty in records from before
    /// it was kept.
    #[serde(default)]
    pub setup_sha256: String,
    /// Architecture.
    pub architecture: String,
    /// Pretraining style, `random` for a baseline.
    pub style: String,
    /// Pretraining data.
    pub pretraining_data: String,
    /// Number of pretraining images, 0 for random weights; none where nobody says it.
    pub pretraining_images: Option<u64>,
    /// Number of trainable parameters, classifier included.
    pub parameters: u64,
    /// Multiply-accumulates of one image at the checkpoint's input size, where they could be counted.
    pub macs: Option<u64>,
    /// Whether batch norm was folded into the convolutions.
    pub folded: bool,
}

/// The data a cell ran on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecord {
    /// SHA-256 of the manifests of all splits.
    pub manifest_sha256: String,
    /// Number of images per split.
    pub counts: BTreeMap<String, usize>,
    /// Whether the images are the repository's own fixtures, for want of network and package clients.
    pub fixtures: bool,
}

/// The machine and the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Version of bob.
    pub bob_version: String,
    /// Version of burn.
    pub burn_version: String,
    /// Commit of bob, empty outside a checkout.
    pub commit: String,
    /// Whether the checkout had uncommitted changes.
    pub dirty: bool,
    /// Backend that computed.
    pub backend: String,
    /// Processor or GPU that computed.
    pub adapter: String,
    /// Type of the floats, read back from the device.
    pub dtype: String,
    /// JPEG decoder, `simd` or `scalar` (same pixels).
    pub jpeg: String,
    /// Operating system and architecture.
    pub host: String,
    /// Number of threads.
    pub threads: usize,
    /// How the process keeps its heap.
    pub heap: String,
}

/// The record of one cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`SCHEMA_VERSION`].
    pub schema: u32,
    /// What was asked.
    pub cell: CellKey,
    /// The resolved protocol, every value of it.
    pub protocol: serde_json::Value,
    /// SHA-256 of the resolved protocol.
    pub protocol_sha256: String,
    /// The weights.
    pub checkpoint: CheckpointRecord,
    /// The data.
    pub data: DataRecord,
    /// The machine and the program.
    pub environment: Environment,
    /// Whether the run was cut short on purpose; such a record never enters a table.
    pub limited: bool,
    /// Seconds from start to end.
    pub wall_seconds: f64,
    /// Largest resident memory of the process in bytes.
    pub peak_memory_bytes: u64,
    /// Start of the run, seconds since 1970.
    pub started_unix: u64,
    /// What came out.
    pub metrics: Vec<Metric>,
}

/// Why a file is no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It cannot be read or written.
    #[error("record `{path}`: {source}")]
    Io {
        /// The file.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// It is not the JSON of a record.
    #[error("record `{path}` is corrupt: {reason}; delete it to run the cell again")]
    Corrupt {
        /// The file.
        path: String,
        /// The reason.
        reason: String,
    },
    /// It has the layout of another version of bob.
    #[error("record `{path}` has schema {found}, this bob reads {SCHEMA_VERSION}; delete it to run the cell again")]
    Schema {
        /// The file.
        path: String,
        /// The version it has.
        found: u64,
    },
    /// It would not be a record if it were written.
    #[error("record `{path}` is not written: {reason}")]
    Invalid {
        /// The file.
        path: String,
        /// The reason.
        reason: String,
    },
    /// Two files hold the same cell.
    #[error("record `{path}` is of the same cell as `{first}`; delete or move one of them")]
    Duplicate {
        /// The file.
        path: String,
        /// The file read before it.
        first: String,
    },
}

impl CellKey {
    /// Where the record of this cell lies below a results folder:
    /// `<protocol>@<version>/<dataset>/<backbone>/<seed>.json`.
    ///
    /// Bytes that are not letters, digits or one of `._-+` are percent-encoded, so that no name leaves the folder.
    pub fn path(&self, results_root: &Path) -> PathBuf {
        results_root
            .join(format!("{}@{}", file_name(&self.protocol), self.version))
            .join(file_name(&self.dataset))
            .join(file_name(&self.backbone))
            .join(format!("{}.json", self.seed))
    }
}

fn file_name(name: &str) -> String {
    // `.` and `..` are folders, and an empty name is none.
    if name.is_empty() || name.bytes().all(|byte| byte == b'.') {
        return format!("%{name}");
    }
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-+".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

impl Record {
    /// Reads a record.
    ///
    /// # Errors
    /// A file that cannot be read, is no JSON, has another schema version, lacks or has unknown keys, or holds numbers
    /// that are no record's (see [`Record::write`]).
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Version {
            schema: u64,
        }
        let name = || path.display().to_string();
        let corrupt = |error: serde_json::Error| RecordError::Corrupt {
            path: name(),
            reason: error.to_string(),
        };
        let text = fs::read(path).map_err(|source| RecordError::Io { path: name(), source })?;
        // The version first: another version's keys would be reported as unknown.
        let version: Version = serde_json::from_slice(&text).map_err(corrupt)?;
        if version.schema != u64::from(SCHEMA_VERSION) {
            return Err(RecordError::Schema {
                path: name(),
                found: version.schema,
            });
        }
        let record: Self = serde_json::from_slice(&text).map_err(corrupt)?;
        match record.fault() {
            None => Ok(record),
            Some(reason) => Err(RecordError::Corrupt { path: name(), reason }),
        }
    }

    /// Writes the record so that the file is, at every moment, absent, the previous record, or this one: to a temporary
    /// file in the same folder, synced, renamed, and the folder synced. Missing folders are made.
    ///
    /// # Errors
    /// A record of another schema version, a number that is not finite, two metrics of one name, two primary metrics,
    /// an interval whose ends are in the wrong order; a folder or file that cannot be written (a full disk). No file is
    /// left behind then.
    pub fn write(&self, path: &Path) -> Result<(), RecordError> {
        let name = || path.display().to_string();
        if let Some(reason) = self.fault() {
            return Err(RecordError::Invalid { path: name(), reason });
        }
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| RecordError::Invalid {
            path: name(),
            reason: error.to_string(),
        })?;
        text.push(b'\n');
        write_atomically(path, &text).map_err(|source| RecordError::Io { path: name(), source })
    }

    /// Whether this record answers the cell that would be run now: the same protocol, weights, use of them and data, and
    /// not cut short.
    pub fn is_done(
        &self,
        protocol_sha256: &str,
        checkpoint_sha256: &str,
        setup_sha256: &str,
        manifest_sha256: &str,
    ) -> bool {
        !self.limited
            && self.protocol_sha256 == protocol_sha256
            && self.checkpoint.sha256 == checkpoint_sha256
            && self.checkpoint.setup_sha256 == setup_sha256
            && self.data.manifest_sha256 == manifest_sha256
    }

    /// The metric that enters rankings, if the record has one.
    pub fn primary(&self) -> Option<&Metric> {
        self.metrics.iter().find(|metric| metric.primary)
    }

    /// The metric of that name, if the record has it.
    pub fn metric(&self, name: &str) -> Option<&Metric> {
        self.metrics.iter().find(|metric| metric.name == name)
    }

    fn fault(&self) -> Option<String> {
        if self.schema != SCHEMA_VERSION {
            return Some(format!("schema {}, expected {SCHEMA_VERSION}", self.schema));
        }
        if !(self.wall_seconds.is_finite() && self.wall_seconds >= 0.0) {
            return Some(format!(
                "wall_seconds is {}, expected a finite number of seconds",
                self.wall_seconds
            ));
        }
        let mut names = HashSet::new();
        for metric in &self.metrics {
            let name = &metric.name;
            if !metric.value.is_finite() {
                return Some(format!("metric `{name}` is {}, expected a finite number", metric.value));
            }
            if let Some(Interval { low, high, level, .. }) = metric.interval
                && !(low.is_finite() && high.is_finite() && low <= high && level > 0.0 && level < 1.0)
            {
                return Some(format!(
                    "metric `{name}` has the interval [{low}, {high}] at level {level}"
                ));
            }
            if !names.insert(name) {
                return Some(format!("metric `{name}` occurs twice"));
            }
        }
        match self.metrics.iter().filter(|metric| metric.primary).count() {
            0 | 1 => None,
            primaries => Some(format!("{primaries} metrics are primary, expected at most one")),
        }
    }
}

fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let file_name = path.file_name().ok_or_else(|| io::Error::other("not a file name"))?;
    fs::create_dir_all(folder)?;
    // Hidden and not ending in `.json`, so that what a killed process leaves is never read as a record.
    let temporary = folder.join(format!(".{}.{}.tmp", file_name.to_string_lossy(), std::process::id()));
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // The reason is the first error; that the temporary file may be missing is none.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    // The rename is durable once the folder is; only Unix can open one.
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Reads every record below a folder, in the order of their paths, and what could not be read.
///
/// A record is a file ending in `.json` whose name does not start with a dot. A folder that does not exist is an error
/// in the list; the second of two files with the same cell is one too.
pub fn read_all(results_root: &Path) -> (Vec<Record>, Vec<RecordError>) {
    let mut paths = Vec::new();
    let mut errors = Vec::new();
    find_records(results_root, &mut paths, &mut errors);
    paths.sort();
    let mut seen: HashMap<CellKey, PathBuf> = HashMap::new();
    let mut records = Vec::new();
    for path in paths {
        match Record::read(&path) {
            Err(error) => errors.push(error),
            Ok(record) => {
                if let Some(first) = seen.get(&record.cell) {
                    let (path, first) = (path.display().to_string(), first.display().to_string());
                    errors.push(RecordError::Duplicate { path, first });
                } else {
                    seen.insert(record.cell.clone(), path);
                    records.push(record);
                }
            }
        }
    }
    (records, errors)
}

fn find_records(folder: &Path, paths: &mut Vec<PathBuf>, errors: &mut Vec<RecordError>) {
    let failed = |source| RecordError::Io {
        path: folder.display().to_string(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(source) => return errors.push(failed(source)),
    };
    for entry in entries {
        let (path, kind) = match entry.and_then(|entry| Ok((entry.path(), entry.file_type()?))) {
            Ok(found) => found,
            Err(source) => {
                errors.push(failed(source));
                continue;
            }
        };
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        // Links to folders are not followed: they can lead in a circle.
        if kind.is_dir() {
            find_records(&path, paths, errors);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
}

#[cfg(test)]
mod tests;
