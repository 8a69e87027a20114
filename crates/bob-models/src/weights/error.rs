//! What can be wrong with a file of weights.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Shape};

use super::Rename;

/// A file of weights that does not load, and why.
#[derive(Debug, thiserror::Error)]
#[error("weights `{}` {kind}", path.display())]
pub struct WeightsError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub kind: WeightsErrorKind,
}

impl WeightsError {
    pub(super) fn new(path: &Path, kind: WeightsErrorKind) -> Self {
        Self {
            path: path.to_owned(),
            kind,
        }
    }
}

/// [`WeightsErrorKind::Damaged`] for `reason`.
pub(super) fn damaged(reason: impl Into<String>) -> WeightsErrorKind {
    WeightsErrorKind::Damaged(reason.into())
}

/// What is wrong with a file of weights; every text continues "weights `file` …".
#[derive(Debug, thiserror::Error)]
pub enum WeightsErrorKind {
    /// The operating system refuses.
    #[error("cannot be read or written: {0}")]
    Io(#[from] io::Error),
    /// Nothing in it.
    #[error("is empty; delete it and fetch it again")]
    Empty,
    /// No container of weights that is known.
    #[error(
        "is neither safetensors, a checkpoint of PyTorch, TorchScript, arrays of numpy, HDF5 nor ONNX: it starts like {0}"
    )]
    UnknownFormat(String),
    /// The container contradicts itself or ends too early.
    #[error("is damaged or cut short: {0}; delete it and fetch it again")]
    Damaged(String),
    /// A corner of its format that no file of weights has needed yet.
    #[error("has what is not read here: {0}")]
    Unsupported(String),
    /// Its pickle names Python objects that a state dict has no need of.
    #[error(
        "names Python objects that no state dict needs: {}; nothing was run, and nothing is loaded. \
         Save the bare state dict in Python, or allow these names in `LoadOptions` if you know what they are",
        Names(.0)
    )]
    UnknownGlobals(Vec<String>),
    /// The state dict is not where it should be.
    #[error("has no state dict at the key `{key}`: {reason}")]
    TopLevelKey {
        /// Where the state dict should be.
        key: String,
        /// What is there instead.
        reason: String,
    },
    /// Two keys of the file are one name of the model.
    #[error("has two keys for one tensor: `{first}` and `{second}` are both `{name}` after the remap")]
    DuplicateName {
        /// The key that comes first in alphabetical order.
        first: String,
        /// The other key.
        second: String,
        /// What both are mapped to.
        name: String,
    },
    /// A rename has nothing to rename.
    #[error("has no {rename}, which are to be renamed; its first key is `{first_key}`")]
    IdleRename {
        /// The rename.
        rename: Rename,
        /// The key that comes first in alphabetical order.
        first_key: String,
    },
    /// Its tensors are not the model's.
    #[error("does not fit the model: {0}")]
    Misfit(Misfit),
    /// A tensor's data cannot be had.
    #[error("has a tensor that cannot be read, `{key}`: {reason}")]
    Tensor {
        /// The tensor's key in the file.
        key: String,
        /// Why.
        reason: String,
    },
    /// A tensor is larger than the file that holds it.
    #[error("has {file} bytes, but its tensor `{key}` claims {claimed}")]
    TooLarge {
        /// The tensor's key in the file.
        key: String,
        /// Bytes that its shape and type ask for.
        claimed: u64,
        /// Bytes of the whole file.
        file: u64,
    },
    /// A value is NaN or infinite.
    #[error("has the value {value} in `{key}` at {index:?}; expected finite values")]
    NotFinite {
        /// The tensor's key in the file.
        key: String,
        /// Where in the tensor, one index per dimension of the file's shape.
        index: Vec<usize>,
        /// The value, as float32.
        value: f32,
    },
    /// The module did not take what was judged to fit: a defect of ours.
    #[error("was judged to fit and was refused all the same: {0}")]
    Refused(String),
}

/// Every way in which a file's tensors are not the model's, found before any data is read.
///
/// All names and shapes are the file's (after the remap and in PyTorch's layout): `weight` for burn's `gamma`,
/// `[out, in]` for a linear layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Misfit {
    /// Tensors of the model that the file lacks; of one that the file has in parts, the parts it lacks.
    pub missing: Vec<String>,
    /// Tensors of the file that the model has no place for.
    pub unexpected: Vec<String>,
    /// Tensors of another shape: name, the file's shape, the model's shape.
    pub shapes: Vec<(String, Shape, Shape)>,
    /// Tensors of a type that cannot become the model's: name and the file's type.
    pub dtypes: Vec<(String, DType)>,
}

impl Misfit {
    /// Whether everything fits.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = self.missing.iter().map(|name| match nearest(name, &self.unexpected) {
            Some(nearest) => format!("`{name}` (did you mean the file's `{nearest}`?)"),
            None => format!("`{name}`"),
        });
        let unexpected = self.unexpected.iter().map(|name| format!("`{name}`"));
        let shapes = self.shapes.iter().map(|(name, found, expected)| {
            format!(
                "`{name}` is {:?} and should be {:?}",
                found.as_slice(),
                expected.as_slice()
            )
        });
        let dtypes = self
            .dtypes
            .iter()
            .map(|(name, found)| format!("`{name}` is {found:?} and should be a float"));
        let parts = [
            list("missing", self.missing.len(), missing),
            list("unexpected", self.unexpected.len(), unexpected),
            list("of another shape", self.shapes.len(), shapes),
            list("of another type", self.dtypes.len(), dtypes),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join("; "))
    }
}

/// How many names a message lists before it only counts.
const LISTED: usize = 10;

fn list(what: &str, count: usize, items: impl Iterator<Item = String>) -> Option<String> {
    let shown = items.take(LISTED).collect::<Vec<_>>().join(", ");
    match count {
        0 => None,
        1 => Some(format!("1 tensor {what}: {shown}")),
        _ if count > LISTED => Some(format!("{count} tensors {what}: {shown} and {} more", count - LISTED)),
        _ => Some(format!("{count} tensors {what}: {shown}")),
    }
}

/// The unexpected name that most likely is `name`: the same below a prefix, or spelt alike.
fn nearest(name: &str, unexpected: &[String]) -> Option<String> {
    let below_prefix = |other: &&String| other.strip_suffix(name).is_some_and(|prefix| prefix.ends_with('.'));
    match unexpected.iter().find(below_prefix) {
        Some(other) => Some(other.clone()),
        None => {
            bob_core::find("tensor", name, unexpected, String::as_str)
                .err()?
                .nearest
        }
    }
}

struct Names<'a>(&'a [String]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self
            .0
            .iter()
            .take(LISTED)
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>();
        f.write_str(&shown.join(", "))?;
        match self.0.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
