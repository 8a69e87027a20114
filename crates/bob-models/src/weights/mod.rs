//! Loading weights strictly, and saving them under timm's names.
//!
//! [`load`] reads safetensors, both layouts of `torch.save`, TorchScript, arrays of numpy, HDF5 and ONNX, told apart by
//! content. A file fits or it is an error that says all that is wrong with it: nothing may be missing, nothing may be
//! left over that the checkpoint's entry does not name, no two keys may become one tensor, no value may be NaN or
//! infinite, and no Python object beyond tensors may be named. burn's own stores forgive most of these; what they would
//! have done silently is judged here, before any data is read.

mod error;
mod expected;
mod file;
mod fill;
mod hdf5;
mod layout;
mod numpy;
mod onnx;
mod opcodes;
mod pickle;
mod pytorch;
mod rename;
mod safetensors;
mod source;
mod stored;
mod tree;
mod turn;
mod unpickle;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use burn::module::Module;
use burn::store::{BurnToPyTorchAdapter, ModuleSnapshot, SafetensorsStore};
use burn::tensor::{DType, Shape};
use sha2::{Digest, Sha256};

use crate::{AnyBackbone, CheckpointEntry};

pub use error::{Misfit, WeightsError, WeightsErrorKind};
pub use expected::{Expected, expected};
pub use file::Format;
pub use layout::{Layout, Part};
pub use rename::Rename;

use stored::Stored;

/// What a file of weights needs to be read as a module's state dict.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Key under which the file nests its state dict, where it does.
    pub top_level_key: Option<String>,
    /// What is renamed first, one after the other; each must rename at least one key of the file.
    pub renames: Vec<Rename>,
    /// The file's key, renamed, to the module's name for it; the identity for timm's own files.
    pub remap: fn(&str) -> String,
    /// How the file lays out the tensor of a key, renamed; PyTorch's way for timm's own files.
    pub layout: fn(&str) -> Layout,
    /// Names (after the remap) that the module has no place for, on purpose: exact, a suffix after `*`, for example
    /// `*.num_batches_tracked`, or a prefix before `*`, for example `decoder.*`.
    pub ignored: Vec<String>,
    /// Python names (`argparse.Namespace`) that the pickle of a `.pth` may hold besides what tensors need.
    /// They are skipped, never run.
    pub allowed_globals: Vec<String>,
}

impl Default for LoadOptions {
    /// A state dict at the root of the file, under the module's own names.
    fn default() -> Self {
        Self {
            top_level_key: None,
            renames: Vec::new(),
            remap: str::to_owned,
            layout: |_| Layout::PYTORCH,
            ignored: owned(&["*.num_batches_tracked"]),
            allowed_globals: Vec::new(),
        }
    }
}

impl LoadOptions {
    /// The same for a state dict below `key`.
    pub fn with_top_level_key(self, key: &str) -> Self {
        let top_level_key = Some(key.to_owned());
        Self { top_level_key, ..self }
    }

    /// The same with another remap.
    pub fn with_remap(self, remap: fn(&str) -> String) -> Self {
        Self { remap, ..self }
    }

    /// The same with other layouts.
    pub fn with_layout(self, layout: fn(&str) -> Layout) -> Self {
        Self { layout, ..self }
    }

    /// The same with other names ignored.
    pub fn with_ignored(self, ignored: &[&str]) -> Self {
        let ignored = owned(ignored);
        Self { ignored, ..self }
    }

    /// The same with other Python names allowed.
    pub fn with_allowed_globals(self, allowed_globals: &[&str]) -> Self {
        let allowed_globals = owned(allowed_globals);
        Self {
            allowed_globals,
            ..self
        }
    }
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// What was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadReport {
    /// Container of the file.
    pub format: Format,
    /// The file's own types of the tensors that were loaded, each once, in the order of the module's fields; it
    /// holds float32 whatever they were.
    pub dtypes: Vec<DType>,
    /// Number of tensors that were loaded.
    pub tensors: usize,
    /// Names (after the remap) that were passed over because the options say so.
    pub ignored: Vec<String>,
}

/// `backbone` with the weights of the file `path`, read as `entry` says.
///
/// # Errors
/// [`WeightsError`] names the file and everything in it that does not fit; the backbone is dropped.
pub fn load(backbone: AnyBackbone, path: &Path, entry: &CheckpointEntry) -> Result<AnyBackbone, WeightsError> {
    load_module(backbone, path, &entry.options).map(|(backbone, _)| backbone)
}

/// `module` with the weights of the file `path`, for any module whose fields carry the names of a PyTorch state dict.
///
/// Linear weights are transposed and norms renamed as burn's `BurnToPyTorchAdapter` does when it saves them, which goes
/// by the names of burn's own layers. Enum variants are no part of a name. Floats of any width become float32. Data are
/// read a few tensors at a time, and never mapped: who overwrites the file later changes no weight.
///
/// # Errors
/// As [`load`].
pub fn load_module<M: Module>(module: M, path: &Path, options: &LoadOptions) -> Result<(M, LoadReport), WeightsError> {
    read_into(module, path, options).map_err(|kind| WeightsError::new(path, kind))
}

fn read_into<M: Module>(module: M, path: &Path, options: &LoadOptions) -> Result<(M, LoadReport), WeightsErrorKind> {
    let opened = file::open(path, options)?;
    let mut named = rename(opened.tensors, options)?;
    let mut ignored = Vec::new();
    let matched = expected::fit(expected(&module), &mut named, |name| {
        let explained = is_ignored(name, &options.ignored);
        if explained {
            ignored.push(name.to_owned());
        }
        explained
    })?;

    let mut dtypes = Vec::new();
    for Piece { tensor, .. } in matched.iter().flat_map(|matched| &matched.keyed.0) {
        // A view that repeats its storage can claim any size; so can a compressed archive.
        let claimed = tensor.byte_len().unwrap_or(u64::MAX);
        if claimed > opened.len {
            return Err(WeightsErrorKind::TooLarge {
                key: tensor.name.clone(),
                claimed,
                file: opened.len,
            });
        }
        if !dtypes.contains(&tensor.dtype) {
            dtypes.push(tensor.dtype);
        }
    }
    let report = LoadReport {
        format: opened.format,
        dtypes,
        tensors: matched.len(),
        ignored,
    };
    Ok((fill::fill(module, matched)?, report))
}

/// A tensor of the file.
struct Piece {
    tensor: Stored,
    layout: Layout,
}

impl Piece {
    /// Its shape in PyTorch's layout.
    fn shape(&self) -> Result<Shape, WeightsErrorKind> {
        let shape = &self.tensor.shape;
        self.layout.shape(shape).ok_or_else(|| {
            let expected = self.layout.axes.len();
            self.tensor
                .fault(format!("its shape is {:?}, expected {expected} axes", shape.as_slice()))
        })
    }

    fn index(&self) -> usize {
        self.layout.part.map_or(0, |part| part.index)
    }
}

/// The tensors of the file that are one tensor of the module, in the order of the parts; at least one.
struct Keyed(Vec<Piece>);

impl Keyed {
    /// How many parts there should be.
    fn count(&self) -> usize {
        let part = self.0.first().and_then(|piece| piece.layout.part);
        part.map_or(1, |part| part.count)
    }

    /// The parts that the file has not.
    fn lacking(&self) -> Vec<usize> {
        let is_there = |index: &usize| self.0.iter().any(|piece| piece.index() == *index);
        (0..self.count()).filter(|index| !is_there(index)).collect()
    }

    fn dtypes(&self) -> impl Iterator<Item = DType> {
        self.0.iter().map(|piece| piece.tensor.dtype)
    }

    /// The shape of the whole in PyTorch's layout.
    fn shape(&self) -> Result<Shape, WeightsErrorKind> {
        let mut whole = Vec::new();
        for (i, piece) in self.0.iter().enumerate() {
            let shape = piece.shape()?.to_vec();
            if i == 0 {
                whole = shape;
                continue;
            }
            let axis = piece.layout.part.map_or(0, |part| part.axis);
            let is_alike = |at: usize| at == axis || whole[at] == shape[at];
            if whole.len() != shape.len() || axis >= shape.len() || !(0..shape.len()).all(is_alike) {
                let reason = format!("its shape is {shape:?}, which does not continue {whole:?} along axis {axis}");
                return Err(piece.tensor.fault(reason));
            }
            whole[axis] = whole[axis].saturating_add(shape[axis]);
        }
        Ok(Shape::from(whole))
    }

    /// The one tensor whose values are those of the whole, in their order.
    fn plain(&self) -> Option<&Stored> {
        match self.0.as_slice() {
            [piece] if piece.layout.axes.is_empty() => Some(&piece.tensor),
            _ => None,
        }
    }

    /// The values of the whole in PyTorch's layout.
    fn values(&self) -> Result<Vec<f32>, WeightsErrorKind> {
        if let Some(tensor) = self.plain() {
            return tensor.values();
        }
        let mut parts = Vec::with_capacity(self.0.len());
        for piece in &self.0 {
            let values = piece.tensor.values()?;
            parts.push((piece.layout.values(values, &piece.tensor.shape), piece.shape()?));
        }
        let axis = self.0[0].layout.part.map_or(0, |part| part.axis);
        Ok(layout::join(&parts, axis))
    }
}

/// The tensors by the module's names for them.
fn rename(tensors: Vec<Stored>, options: &LoadOptions) -> Result<BTreeMap<String, Keyed>, WeightsErrorKind> {
    let mut named = BTreeMap::<String, Keyed>::new();
    let mut idle: Vec<&Rename> = options.renames.iter().collect();
    let first_key = tensors.first().map(|tensor| tensor.name.clone());
    for tensor in tensors {
        let mut renamed = tensor.name.clone();
        for rename in &options.renames {
            if let Some(name) = rename.apply(&renamed) {
                renamed = name;
                idle.retain(|other| *other != rename);
            }
        }
        let name = (options.remap)(&renamed);
        let layout = (options.layout)(&renamed);
        let piece = Piece { tensor, layout };
        let Some(Keyed(pieces)) = named.get_mut(&name) else {
            named.insert(name, Keyed(vec![piece]));
            continue;
        };
        let is_other = |other: &&Piece| match (other.layout.part, piece.layout.part) {
            (Some(other), Some(part)) => other.index == part.index,
            _ => true,
        };
        if let Some(other) = pieces.iter().find(is_other) {
            return Err(WeightsErrorKind::DuplicateName {
                first: other.tensor.name.clone(),
                second: piece.tensor.name,
                name,
            });
        }
        let at = pieces.partition_point(|other| other.index() < piece.index());
        pieces.insert(at, piece);
    }
    match (idle.first(), first_key) {
        (Some(&rename), Some(first_key)) => Err(WeightsErrorKind::IdleRename {
            rename: rename.clone(),
            first_key,
        }),
        _ => Ok(named),
    }
}

fn is_ignored(name: &str, ignored: &[String]) -> bool {
    ignored.iter().any(|pattern| {
        let suffix = pattern.strip_prefix('*').map(|suffix| name.ends_with(suffix));
        let prefix = pattern.strip_suffix('*').map(|prefix| name.starts_with(prefix));
        suffix.or(prefix).unwrap_or(name == pattern)
    })
}

/// Write `backbone` as safetensors with timm's names and layouts, so that timm's `load_state_dict` takes it; only
/// `num_batches_tracked`, which no prediction depends on, is left out.
///
/// # Errors
/// Where the file cannot be written; an existing file is replaced only by a whole one.
pub fn save(backbone: &AnyBackbone, path: &Path) -> Result<(), WeightsError> {
    save_module(backbone, path)
}

/// [`save`] for any module whose fields carry the names of a PyTorch state dict.
///
/// # Errors
/// As [`save`].
pub fn save_module<M: Module>(module: &M, path: &Path) -> Result<(), WeightsError> {
    let mut store = SafetensorsStore::from_file(path)
        .with_to_adapter(BurnToPyTorchAdapter)
        .skip_enum_variants(true)
        // One entry only: several would be written in another order each time.
        .clear_metadata()
        .metadata("format", "pt")
        .overwrite(true);
    // Running statistics in training hold updates that only `valid` takes in.
    module
        .valid()
        .save_into(&mut store)
        .map_err(|error| WeightsError::new(path, WeightsErrorKind::Io(io::Error::other(error.to_string()))))
}

/// The SHA-256 of the file `path`, lower-case hex.
///
/// # Errors
/// Where the file cannot be read.
pub fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
