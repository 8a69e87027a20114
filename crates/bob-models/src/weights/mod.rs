//! Loading weights strictly, and saving them under timm's names.
//!
//! [`load`] reads safetensors and both layouts of `torch.save`, told apart by content. A file fits or it is an error
//! that says all that is wrong with it: nothing may be missing, nothing may be left over that the checkpoint's entry
//! does not name, no two keys may become one tensor, no value may be NaN or infinite, and no Python object beyond
//! tensors may be named. burn's own stores forgive most of these; what they would have done silently is judged here,
//! before any data is read.

mod error;
mod expected;
mod file;
mod pickle;
mod safetensors;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use burn::store::burn_pack::{Error as PackError, Tensor as PackTensor};
use burn::store::{BurnToPyTorchAdapter, ModuleSnapshot, PyTorchToBurnAdapter, SafetensorsStore, bridge};
use burn::tensor::{DType, Shape, TensorData};
use sha2::{Digest, Sha256};

use crate::{AnyBackbone, CheckpointEntry};

pub use error::{Misfit, WeightsError, WeightsErrorKind};
pub use expected::{Expected, expected};
pub use file::Format;

/// What a file of weights needs to be read as a module's state dict.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions<'a> {
    /// Key under which the file nests its state dict, where it does.
    pub top_level_key: Option<&'a str>,
    /// The file's key to the module's name for it.
    pub remap: fn(&str) -> String,
    /// Names (after the remap) that the module has no place for, on purpose: exact, a suffix after `*`, or a prefix
    /// before `*`.
    pub ignored: &'a [&'a str],
    /// Python names (`argparse.Namespace`) that the pickle of a `.pth` may hold besides what tensors need.
    /// They are skipped, never run.
    pub allowed_globals: &'a [&'a str],
}

impl Default for LoadOptions<'_> {
    /// A state dict at the root of the file, under the module's own names.
    fn default() -> Self {
        Self {
            top_level_key: None,
            remap: str::to_owned,
            ignored: &["*.num_batches_tracked"],
            allowed_globals: &[],
        }
    }
}

/// What was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadReport {
    /// Container of the file.
    pub format: Format,
    /// The file's own types of the tensors that were loaded, each once, in the order of their names; the module
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
    let options = LoadOptions {
        top_level_key: entry.top_level_key,
        remap: entry.remap,
        ignored: entry.ignored,
        ..LoadOptions::default()
    };
    load_module(backbone, path, &options).map(|(backbone, _)| backbone)
}

/// `module` with the weights of the file `path`, for any module whose fields carry the names of a PyTorch state dict.
///
/// Linear weights are transposed and norms renamed as burn's `PyTorchToBurnAdapter` does, which goes by the names of
/// burn's own layers. Enum variants are no part of a name. Floats of any width become float32. Data are read one
/// tensor at a time.
///
/// # Errors
/// As [`load`].
pub fn load_module<M: Module>(module: M, path: &Path, options: &LoadOptions) -> Result<(M, LoadReport), WeightsError> {
    read_into(module, path, options).map_err(|kind| WeightsError::new(path, kind))
}

fn read_into<M: Module>(
    mut module: M,
    path: &Path,
    options: &LoadOptions,
) -> Result<(M, LoadReport), WeightsErrorKind> {
    let opened = file::open(path, options)?;
    let mut named = rename(opened.tensors, options.remap)?;
    let mut ignored = Vec::new();
    let matched = expected::fit(&expected(&module), &mut named, |name| {
        let explained = is_ignored(name, options.ignored);
        if explained {
            ignored.push(name.to_owned());
        }
        explained
    })?;

    let mut dtypes = Vec::new();
    let fault = Fault::default();
    let mut checked = Vec::new();
    for (name, (Keyed { key, tensor }, shape)) in matched {
        // A view that repeats its storage can claim any size; so can a compressed archive.
        if tensor.byte_len() as u64 > opened.len {
            return Err(WeightsErrorKind::TooLarge {
                key,
                claimed: tensor.byte_len(),
                file: opened.len,
            });
        }
        if !dtypes.contains(&tensor.dtype) {
            dtypes.push(tensor.dtype);
        }
        checked.push(checked_float32(name, key, tensor, shape, fault.clone()));
    }
    let report = LoadReport {
        format: opened.format,
        dtypes,
        tensors: checked.len(),
        ignored,
    };

    let result = module.apply(checked, None, Some(Box::new(PyTorchToBurnAdapter)), true);
    if let Some(kind) = fault.lock().take() {
        return Err(kind);
    }
    let complete = result.missing.is_empty()
        && result.unused.is_empty()
        && result.skipped.is_empty()
        && result.errors.is_empty()
        && result.applied.len() == report.tensors;
    if complete {
        Ok((module, report))
    } else {
        Err(WeightsErrorKind::Refused(result.to_string()))
    }
}

/// A tensor and its key in the file.
struct Keyed {
    key: String,
    tensor: PackTensor,
}

/// The tensors by the module's names for them.
fn rename(tensors: Vec<PackTensor>, remap: fn(&str) -> String) -> Result<BTreeMap<String, Keyed>, WeightsErrorKind> {
    let mut named = BTreeMap::<String, Keyed>::new();
    for tensor in tensors {
        let key = tensor.name.clone();
        let name = remap(&key);
        if let Some(other) = named.get(&name) {
            return Err(WeightsErrorKind::DuplicateName {
                first: other.key.clone(),
                second: key,
                name,
            });
        }
        named.insert(name, Keyed { key, tensor });
    }
    Ok(named)
}

fn is_ignored(name: &str, ignored: &[&str]) -> bool {
    ignored.iter().any(|pattern| {
        let suffix = pattern.strip_prefix('*').map(|suffix| name.ends_with(suffix));
        let prefix = pattern.strip_suffix('*').map(|prefix| name.starts_with(prefix));
        suffix.or(prefix).unwrap_or(name == *pattern)
    })
}

/// The first fault met while data are read: burn's own error type has no room for one of ours.
#[derive(Clone, Default)]
struct Fault(Arc<Mutex<Option<WeightsErrorKind>>>);

impl Fault {
    fn lock(&self) -> MutexGuard<'_, Option<WeightsErrorKind>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `tensor` as float32 of `shape` under `name`, its values checked when they are read.
fn checked_float32(name: String, key: String, tensor: PackTensor, shape: Shape, fault: Fault) -> PackTensor {
    bridge::deferred(name, DType::F32, shape.clone(), None, move || {
        if fault.lock().is_some() {
            return Err(PackError::ValidationError("an earlier tensor is at fault".to_owned()));
        }
        match read_float32(&key, &tensor) {
            Ok(data) => Ok(TensorData::from_bytes(data.into_bytes(), shape.clone(), DType::F32)),
            Err(kind) => {
                let message = kind.to_string();
                *fault.lock() = Some(kind);
                Err(PackError::ValidationError(message))
            }
        }
    })
}

fn read_float32(key: &str, tensor: &PackTensor) -> Result<TensorData, WeightsErrorKind> {
    let data = bridge::to_data(tensor).map_err(|error| WeightsErrorKind::Tensor {
        key: key.to_owned(),
        reason: error.to_string(),
    })?;
    let data = data.convert_dtype(DType::F32);
    let value = |bytes: &[u8]| bytes.try_into().map_or(f32::NAN, f32::from_ne_bytes);
    match data
        .as_bytes()
        .chunks_exact(size_of::<f32>())
        .map(value)
        .enumerate()
        .find(|(_, value)| !value.is_finite())
    {
        None => Ok(data),
        Some((at, value)) => Err(WeightsErrorKind::NotFinite {
            key: key.to_owned(),
            index: unravel(at, &tensor.shape),
            value,
        }),
    }
}

/// The index of every dimension of the element `at` of a row-major tensor.
fn unravel(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = shape
        .iter()
        .rev()
        .map(|&dim| (at % dim, at /= dim).0)
        .collect::<Vec<_>>();
    index.reverse();
    index
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
