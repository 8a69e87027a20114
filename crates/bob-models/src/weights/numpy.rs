//! Arrays of numpy: the archive of `numpy.savez`, and a pickled dictionary of arrays, which is what DeepMind's
//! `*_haiku.npz` are in spite of their name (`nfnets/nfnet_demo_colab.ipynb` of
//! github.com/google-deepmind/deepmind-research loads them with `dill`).
//!
//! An array is `layer/parameter` in both. The format of an array of an archive is in `numpy/lib/format.py`.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use burn::tensor::{BoolStore, DType};

use super::error::damaged;
use super::layout::permute;
use super::source::{Archive, Source};
use super::stored::{Stored, Visitor, num_bytes};
use super::tree::{Node, leaves};
use super::unpickle::{Id, Pickle, Value, unpickle};
use super::{WeightsErrorKind, pickle};

/// What opens an array.
const MAGIC: &[u8] = b"\x93NUMPY";

/// The longest description of an array: that of a name, a type and a shape.
const MAX_HEADER: u64 = 1 << 16;

/// The names that a pickle of arrays needs, as numpy 1 and 2 write them.
const ARRAYS: &[&str] = &[
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
];

/// Haiku's dictionaries that cannot be changed: each is made from a plain one (`haiku/_src/data_structures.py` of
/// github.com/google-deepmind/dm-haiku).
const FROZEN: &[&str] = &[
    "haiku._src.data_structures.FlatMapping",
    "haiku._src.data_structures.frozendict",
];

/// Whether an archive with the entries `names` is one of `numpy.savez`.
pub(super) fn is_npz(names: &[String]) -> bool {
    !names.is_empty() && names.iter().all(|name| name.ends_with(".npy"))
}

/// The arrays of an archive, their data unread.
pub(super) fn archived(archive: &Archive) -> Result<Vec<Stored>, WeightsErrorKind> {
    let mut tensors = Vec::new();
    for entry in archive.names() {
        let name = entry.trim_end_matches(".npy").to_owned();
        let in_array = |reason: &str| damaged(format!("array `{name}`: {reason}"));
        let (header, start) = archive.with(&entry, |entry, _| header(entry, &in_array))?;
        let array = Array::parse(&header).ok_or_else(|| in_array(&format!("its description is `{header}`")))?;
        let len = num_bytes(array.dtype, &array.shape).ok_or_else(|| in_array("its shape is too large"))?;
        let archive = archive.clone();
        tensors.push(array.tensor(name, move |visit| archive.with_part(&entry, start, len, visit)));
    }
    Ok(tensors)
}

/// The description of an array, and how many bytes lie before its data.
fn header(entry: &mut dyn Read, damaged: &dyn Fn(&str) -> WeightsErrorKind) -> Result<(String, u64), WeightsErrorKind> {
    let mut start = [0; 8];
    entry.read_exact(&mut start)?;
    if !start.starts_with(MAGIC) {
        return Err(damaged("no array starts like it"));
    }
    let (len, before) = match start[MAGIC.len()] {
        1 => {
            let mut len = [0; 2];
            entry.read_exact(&mut len)?;
            (u64::from(u16::from_le_bytes(len)), 10)
        }
        2 | 3 => {
            let mut len = [0; 4];
            entry.read_exact(&mut len)?;
            (u64::from(u32::from_le_bytes(len)), 12)
        }
        version => return Err(damaged(&format!("its format has version {version}, expected 1 to 3"))),
    };
    if len > MAX_HEADER {
        return Err(damaged(&format!("its description claims {len} bytes")));
    }
    let mut header = String::new();
    entry.take(len).read_to_string(&mut header)?;
    Ok((header.trim_end().to_owned(), before + len))
}

/// The arrays of the pickled dictionary `path` of `len` bytes, their data unread.
pub(super) fn pickled(path: &Path, len: u64, allowed: &[String]) -> Result<Vec<Stored>, WeightsErrorKind> {
    let open = || File::open(path).map(BufReader::new);
    pickle::check(&mut open()?, allowed, |name| {
        ARRAYS.contains(&name) || FROZEN.contains(&name)
    })?;
    let pickle = unpickle(&mut open()?).map_err(pickle::in_pickle)?;
    let node = |id| {
        let id = thawed(&pickle, id);
        match pickle.get(id) {
            Value::Dict(items) => Node::Branch(items),
            _ if pickle.object(id).is_some() => Node::Leaf(id),
            _ => Node::Other,
        }
    };
    let leaves = leaves(&pickle, pickle.root, '/', node)?;
    if leaves.is_empty() {
        return Err(WeightsErrorKind::UnknownFormat(
            "a bare pickle, which holds neither tensors of PyTorch nor arrays of numpy".to_owned(),
        ));
    }
    let source = Source::new(File::open(path)?, len);
    let tensor = |(name, id)| array(&source, &pickle, id, name);
    leaves.into_iter().map(tensor).collect()
}

/// The plain dictionary of one of Haiku's; anything else as it is.
fn thawed(pickle: &Pickle, id: Id) -> Id {
    match pickle.object(id) {
        Some((class, [dictionary], _)) if FROZEN.contains(&class) => *dictionary,
        _ => id,
    }
}

/// The array `id` of a pickle in the file `source`.
fn array(source: &Source, pickle: &Pickle, id: Id, name: String) -> Result<Stored, WeightsErrorKind> {
    let (array, start, len) = parts(pickle, id).ok_or_else(|| WeightsErrorKind::Tensor {
        key: name.clone(),
        reason: "its pickle describes no plain array".to_owned(),
    })?;
    if num_bytes(array.dtype, &array.shape) != Some(len) {
        return Err(damaged(format!(
            "array `{name}` of shape {:?} has {len} bytes",
            array.shape
        )));
    }
    let place = source.place(start);
    Ok(array.tensor(name, move |visit| visit(&mut place.clone())))
}

/// The array, and where its bytes lie.
fn parts(pickle: &Pickle, id: Id) -> Option<(Array, u64, u64)> {
    let (function, _, state) = pickle.object(id)?;
    if !function.ends_with(".multiarray._reconstruct") {
        return None;
    }
    // (version, shape, type, whether in Fortran's order, bytes)
    let [_, shape, dtype, is_fortran, bytes] = pickle.tuple(state?)? else {
        return None;
    };
    let (class, arguments, dtype_state) = pickle.object(*dtype)?;
    // (version, byte order, ...)
    let [_, order, ..] = pickle.tuple(dtype_state?)? else {
        return None;
    };
    let code = pickle.text(*arguments.first()?)?;
    let (Value::Bool(is_fortran), Value::Bytes { start, len }) = (pickle.get(*is_fortran), pickle.get(*bytes)) else {
        return None;
    };
    (class == "numpy.dtype").then_some((
        Array {
            dtype: dtype_of(pickle.text(*order)?, code)?,
            shape: pickle.sizes(*shape)?,
            is_fortran: *is_fortran,
        },
        *start,
        *len,
    ))
}

/// What is known of an array besides its name and data.
#[derive(Debug, PartialEq)]
struct Array {
    dtype: DType,
    shape: Vec<usize>,
    /// Whether its first axis is the fastest.
    is_fortran: bool,
}

impl Array {
    /// Of the dictionary that `numpy.lib.format` writes: `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`.
    fn parse(header: &str) -> Option<Self> {
        let value = |key: &str| {
            let (_, value) = header.split_once(&format!("'{key}':"))?;
            Some(value.trim_start())
        };
        let (descr, _) = value("descr")?.strip_prefix('\'')?.split_once('\'')?;
        let is_fortran = value("fortran_order")?.starts_with("True");
        let (shape, _) = value("shape")?.strip_prefix('(')?.split_once(')')?;
        let sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty());
        let (order, code) = descr.split_at_checked(1)?;
        Some(Self {
            dtype: dtype_of(order, code)?,
            shape: sizes.map(|size| size.parse().ok()).collect::<Option<_>>()?,
            is_fortran,
        })
    }

    /// As a tensor whose bytes, in the array's own order, `data` gives to its visitor.
    fn tensor(
        self,
        name: String,
        data: impl Fn(&mut Visitor) -> Result<(), WeightsErrorKind> + Send + Sync + 'static,
    ) -> Stored {
        let Self {
            dtype,
            shape,
            is_fortran,
        } = self;
        if !is_fortran || shape.len() < 2 {
            return Stored::new(name, dtype, shape, data);
        }
        Stored::new(name, dtype, shape.clone(), move |visit| {
            data(&mut |columns| {
                let mut bytes = vec![0; shape.iter().product::<usize>() * dtype.size()];
                columns.read_exact(&mut bytes)?;
                visit(&mut to_row_major(&bytes, &shape, dtype.size()).as_slice())
            })
        })
    }
}

/// Values of `size` bytes whose first axis is the fastest, with the last axis the fastest.
fn to_row_major(bytes: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    let mut stored: Vec<_> = shape.to_vec();
    stored.reverse();
    stored.push(size);
    let axes: Vec<_> = (0..shape.len()).rev().chain([shape.len()]).collect();
    permute(bytes, &stored, &axes)
}

/// The type of numpy's byte order and code, for example `<` and `f4`.
fn dtype_of(order: &str, code: &str) -> Option<DType> {
    let dtype = match code {
        "f8" => DType::F64,
        "f4" => DType::F32,
        "f2" => DType::F16,
        "i8" => DType::I64,
        "i4" => DType::I32,
        "i2" => DType::I16,
        "i1" => DType::I8,
        "u8" => DType::U64,
        "u4" => DType::U32,
        "u2" => DType::U16,
        "u1" => DType::U8,
        "b1" => DType::Bool(BoolStore::Native),
        _ => return None,
    };
    (order == "<" || (order == "|" && dtype.size() == 1)).then_some(dtype)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_s_description_is_read() {
        let check = |header: &str, expected: Option<(DType, &[usize], bool)>| {
            let expected = expected.map(|(dtype, shape, is_fortran)| Array {
                dtype,
                shape: shape.to_vec(),
                is_fortran,
            });
            assert_eq!(Array::parse(header), expected, "{header}");
        };
        check(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 3, 3, 16), }",
            Some((DType::F32, &[3, 3, 3, 16], false)),
        );
        check(
            "{'descr': '<f8', 'fortran_order': True, 'shape': (7,), }",
            Some((DType::F64, &[7], true)),
        );
        check(
            "{'descr': '|b1', 'fortran_order': False, 'shape': (), }",
            Some((DType::Bool(BoolStore::Native), &[], false)),
        );
        check("{'descr': '>f4', 'fortran_order': False, 'shape': (7,), }", None);
        check("{'descr': '|O', 'fortran_order': False, 'shape': (7,), }", None);
        check("{'descr': '<f4', 'fortran_order': False, 'shape': (-7,), }", None);
        check("{'descr': '<f4', 'fortran_order': False, 'shape': (7, }", None);
        check("", None);
    }

    #[test]
    fn fortran_s_order_is_turned() {
        // numpy.arange(6).reshape(2, 3) in columns
        assert_eq!(to_row_major(&[0, 3, 1, 4, 2, 5], &[2, 3], 1), [0, 1, 2, 3, 4, 5]);
    }
}
