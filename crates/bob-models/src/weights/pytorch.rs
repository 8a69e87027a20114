//! The archives of PyTorch: the dictionaries of tensors that `torch.save` writes, and the parameters and buffers in the
//! pickled module tree of `torch.jit.save`.
//!
//! The archive of TorchScript is the zip of `torch.save` with the source of the module's methods beside it, and its
//! `data.pkl` is the module itself, not a state dict (`torch/csrc/jit/docs/serialization.md` of PyTorch). None of the
//! source is looked at.

use std::io::{BufReader, Read};

use burn::store::pytorch_reader::MAX_PICKLE_SIZE;
use burn::tensor::{BoolStore, DType};

use super::WeightsErrorKind;
use super::error::damaged;
use super::layout::gather;
use super::pickle;
use super::source::Archive;
use super::stored::{Stored, num_bytes};
use super::tree::{Node, leaves};
use super::unpickle::{Id, Pickle, Value, unpickle};

/// What the module's classes are named below.
const CLASSES: &str = "__torch__.";

/// Functions that rebuild lists of numbers, which are no parameters.
const LISTS: &str = "torch.jit._pickle.";

/// Whether an archive with the entries `names` is one of TorchScript: only those have constants.
pub(super) fn is_torchscript(names: &[String]) -> bool {
    names.iter().any(|name| name.ends_with("/constants.pkl"))
}

/// The tensors of the `archive` under the names that `state_dict` would give them, their data unread.
pub(super) fn tensors(archive: &Archive, allowed: &[String]) -> Result<Vec<Stored>, WeightsErrorKind> {
    let (folder, pickle) = read(archive, allowed, |name| {
        name.starts_with(CLASSES) || name.starts_with(LISTS)
    })?;
    let storages = Storages {
        archive,
        folder: &folder,
        pickle: &pickle,
    };
    storages.tensors(pickle.root, |id| match pickle.object(id) {
        Some((class, _, Some(state))) if class.starts_with(CLASSES) => branch(&pickle, state),
        _ => Node::Other,
    })
}

/// The tensors of the dictionaries in the `archive` of `torch.save`, those of `top_level_key` where it is given, their
/// data unread. Whatever is no tensor under a text is passed over.
pub(super) fn state_dict(
    archive: &Archive,
    allowed: &[String],
    top_level_key: Option<&str>,
) -> Result<Vec<Stored>, WeightsErrorKind> {
    let (folder, pickle) = read(archive, allowed, |_| false)?;
    let root = match top_level_key {
        None => pickle.root,
        Some(key) => item(&pickle, key).ok_or_else(|| WeightsErrorKind::TopLevelKey {
            key: key.to_owned(),
            reason: "the file does not hold a dictionary there".to_owned(),
        })?,
    };
    let storages = Storages {
        archive,
        folder: &folder,
        pickle: &pickle,
    };
    storages.tensors(root, |id| branch(&pickle, id))
}

/// The dictionary under `key` of that which `pickle` is.
fn item(pickle: &Pickle, key: &str) -> Option<Id> {
    let Value::Dict(items) = pickle.get(pickle.root) else {
        return None;
    };
    let (_, value) = items.iter().find(|(name, _)| pickle.text(*name) == Some(key))?;
    matches!(pickle.get(*value), Value::Dict(_)).then_some(*value)
}

/// The one pickle of the `archive`, which names nothing but what is `allowed` or `is_needed`, and the folder it lies in.
fn read(
    archive: &Archive,
    allowed: &[String],
    is_needed: impl Fn(&str) -> bool,
) -> Result<(String, Pickle), WeightsErrorKind> {
    let names = archive.names();
    let pickles: Vec<_> = names.iter().filter(|name| name.ends_with("/data.pkl")).collect();
    let [name] = pickles.as_slice() else {
        return Err(damaged(format!("it has {} pickles", pickles.len())));
    };
    let bytes = archive.with(name, |entry, size| {
        if size > MAX_PICKLE_SIZE.min(archive.len()) {
            return Err(damaged(format!("its pickle claims {size} bytes")));
        }
        let mut bytes = Vec::new();
        BufReader::new(entry).take(size).read_to_end(&mut bytes)?;
        Ok(bytes)
    })?;
    pickle::check(&mut bytes.as_slice(), allowed, is_needed)?;
    let pickle = unpickle(&mut bytes.as_slice()).map_err(pickle::in_pickle)?;
    Ok((name.trim_end_matches("data.pkl").to_owned(), pickle))
}

/// The items of a dictionary.
fn branch(pickle: &Pickle, id: Id) -> Node<'_> {
    match pickle.get(id) {
        Value::Dict(items) => Node::Branch(items),
        _ => Node::Other,
    }
}

/// Where the values of a pickle's tensors lie.
struct Storages<'a> {
    archive: &'a Archive,
    /// The folder of the pickle and the data.
    folder: &'a str,
    pickle: &'a Pickle,
}

impl<'a> Storages<'a> {
    /// The tensors below `root`, whose branches `branch` knows.
    fn tensors(&self, root: Id, branch: impl Fn(Id) -> Node<'a>) -> Result<Vec<Stored>, WeightsErrorKind> {
        let node = |id| match self.pickle.object(id) {
            Some(("torch._utils._rebuild_parameter", arguments, _)) => {
                Node::Leaf(arguments.first().copied().unwrap_or(id))
            }
            Some((function, ..)) if function.starts_with("torch._utils._rebuild_") => Node::Leaf(id),
            _ => branch(id),
        };
        let leaves = leaves(self.pickle, root, '.', node)?;
        leaves.into_iter().map(|(name, id)| self.tensor(id, name)).collect()
    }

    fn tensor(&self, id: Id, name: String) -> Result<Stored, WeightsErrorKind> {
        let parts = self.parts(id).ok_or_else(|| WeightsErrorKind::Tensor {
            key: name.clone(),
            reason: "its pickle describes no plain tensor".to_owned(),
        })?;
        let Parts {
            dtype,
            storage,
            len,
            offset,
            shape,
            strides,
        } = parts;
        // A place beyond the storage is met here, before anything is read.
        let last = shape.iter().zip(&strides).try_fold(offset, |last, (size, stride)| {
            last.checked_add(size.saturating_sub(1).checked_mul(*stride)?)
        });
        let end = if shape.contains(&0) {
            Some(offset)
        } else {
            last.and_then(|last| last.checked_add(1))
        };
        let fits = num_bytes(dtype, &shape).is_some() && num_bytes(dtype, &[len]).is_some();
        let Some(end) = end.filter(|&end| end <= len && fits) else {
            return Err(damaged(format!(
                "tensor `{name}` of shape {shape:?} claims more than the {len} values of its storage"
            )));
        };
        let (archive, entry) = (self.archive.clone(), format!("{}data/{storage}", self.folder));
        Ok(Stored::new(name, dtype, shape.clone(), move |visit| {
            let size = dtype.size();
            let [skipped, len] = [offset, end - offset].map(|values| (values * size) as u64);
            archive.with_part(&entry, skipped, len, |data| {
                if is_row_major(&shape, &strides) {
                    return visit(data);
                }
                let mut stored = vec![0; len as usize];
                data.read_exact(&mut stored)?;
                let mut values = Vec::new();
                gather(&shape, &strides, 0, &mut |at| {
                    values.extend_from_slice(&stored[at * size..(at + 1) * size]);
                });
                visit(&mut values.as_slice())
            })
        }))
    }

    fn parts(&self, id: Id) -> Option<Parts> {
        let pickle = self.pickle;
        let (_, arguments, _) = pickle.object(id)?;
        let [storage, offset, shape, strides, ..] = arguments else {
            return None;
        };
        let Value::Persistent(storage) = pickle.get(*storage) else {
            return None;
        };
        // ("storage", type, key, device, length)
        let [_, kind, key, _, len] = pickle.tuple(*storage)? else {
            return None;
        };
        let (shape, strides) = (pickle.sizes(*shape)?, pickle.sizes(*strides)?);
        (shape.len() == strides.len()).then_some(Parts {
            dtype: dtype(pickle.text(*kind)?)?,
            storage: pickle.text(*key)?.to_owned(),
            len: pickle.size(*len)?,
            offset: pickle.size(*offset)?,
            shape,
            strides,
        })
    }
}

/// How a tensor lies in its storage.
struct Parts {
    dtype: DType,
    storage: String,
    len: usize,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

/// Whether the values of `shape` lie one behind the other.
fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut next = 1;
    shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let fits = size <= 1 || stride == next;
        // An empty tensor may have any other sizes.
        next = size.wrapping_mul(next);
        fits
    })
}

fn dtype(storage: &str) -> Option<DType> {
    Some(match storage.strip_prefix("torch.")?.strip_suffix("Storage")? {
        "Double" => DType::F64,
        "Float" => DType::F32,
        "Half" => DType::F16,
        "BFloat16" => DType::BF16,
        "Long" => DType::I64,
        "Int" => DType::I32,
        "Short" => DType::I16,
        "Char" => DType::I8,
        "Byte" => DType::U8,
        "Bool" => DType::Bool(BoolStore::Native),
        _ => return None,
    })
}
