//! Bytes of an open file or archive, read when they are asked for and never more of them than there are.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use burn::store::bridge;
use burn::store::burn_pack::{Error as PackError, Tensor as PackTensor};
use burn::tensor::{DType, Shape, TensorData};
use zip::ZipArchive;

use super::WeightsErrorKind;
use super::error::damaged;

/// A file whose length is known.
#[derive(Clone)]
pub(super) struct Source {
    file: Arc<Mutex<File>>,
    len: u64,
}

impl Source {
    pub(super) fn new(file: File, len: u64) -> Self {
        Self {
            file: Arc::new(Mutex::new(file)),
            len,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The `len` bytes from `start`.
    pub(super) fn bytes(&self, start: u64, len: u64) -> Result<Vec<u8>, WeightsErrorKind> {
        if start.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(damaged(format!(
                "it points to {len} bytes at {start} and has {} in all",
                self.len
            )));
        }
        let mut bytes = vec![0; len as usize];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The contiguous tensor whose data are the `len` bytes from `start`.
    pub(super) fn tensor(
        &self,
        name: String,
        dtype: DType,
        shape: Vec<usize>,
        start: u64,
        len: u64,
    ) -> Result<PackTensor, WeightsErrorKind> {
        let is_inside = start.checked_add(len).is_some_and(|end| end <= self.len);
        if !is_inside || num_bytes(dtype, &shape) != Some(len) {
            return Err(damaged(format!(
                "tensor `{name}` of shape {shape:?} claims {len} bytes at {start} of {}",
                self.len
            )));
        }
        let (source, shape) = (self.clone(), Shape::from(shape));
        let declared = shape.clone();
        Ok(bridge::deferred(name, dtype, shape, None, move || {
            let bytes = source.bytes(start, len).map_err(pack_error)?;
            Ok(TensorData::from_bytes_vec(bytes, declared.clone(), dtype))
        }))
    }
}

/// An archive that several tensors read their bytes from.
#[derive(Clone)]
pub(super) struct Archive {
    archive: Arc<Mutex<ZipArchive<File>>>,
    len: u64,
}

impl Archive {
    pub(super) fn open(path: &Path, len: u64) -> Result<Self, WeightsErrorKind> {
        let archive = ZipArchive::new(File::open(path)?).map_err(|error| damaged(error.to_string()))?;
        Ok(Self {
            archive: Arc::new(Mutex::new(archive)),
            len,
        })
    }

    /// Length of the archive's file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Names of the entries, in the order of the archive.
    pub(super) fn names(&self) -> Vec<String> {
        let archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
        // A name that is no text is none that is looked for.
        archive.file_names().flatten().map(Into::into).collect()
    }

    /// Read the entry `name` with `read`, which also gets its length.
    pub(super) fn with<T>(
        &self,
        name: &str,
        read: impl FnOnce(&mut dyn Read, u64) -> Result<T, WeightsErrorKind>,
    ) -> Result<T, WeightsErrorKind> {
        let mut archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entry = archive.by_name(name).map_err(|error| damaged(error.to_string()))?;
        let size = entry.size();
        read(&mut entry, size)
    }

    /// The `len` bytes of the entry `name` behind its first `skipped`.
    pub(super) fn bytes(&self, name: &str, skipped: u64, len: u64) -> Result<Vec<u8>, WeightsErrorKind> {
        // Compressed entries can claim any length.
        if len > self.len {
            return Err(damaged(format!(
                "its entry `{name}` claims {len} bytes and the whole has {}",
                self.len
            )));
        }
        self.with(name, |entry, _| {
            io::copy(&mut (&mut *entry).take(skipped), &mut io::sink())?;
            let mut bytes = Vec::new();
            entry.take(len).read_to_end(&mut bytes)?;
            if bytes.len() as u64 == len {
                Ok(bytes)
            } else {
                Err(damaged(format!("its entry `{name}` ends early")))
            }
        })
    }
}

/// An error of ours as one of burn's, for where a tensor's data are read.
pub(super) fn pack_error(kind: WeightsErrorKind) -> PackError {
    match kind {
        WeightsErrorKind::Io(error) => PackError::IoError(error.to_string()),
        kind => PackError::ValidationError(kind.to_string()),
    }
}

/// Bytes of a contiguous tensor, where they can be counted.
pub(super) fn num_bytes(dtype: DType, shape: &[usize]) -> Option<u64> {
    let size = shape
        .iter()
        .try_fold(dtype.size(), |size, &dim| size.checked_mul(dim))?;
    u64::try_from(size).ok()
}

/// A tensor of a type that no parameter has: it has a name and a shape, and no data.
pub(super) fn opaque(name: String, what: &'static str) -> PackTensor {
    bridge::deferred(name, DType::U8, Shape::from(vec![0]), None, move || {
        Err(PackError::ValidationError(what.to_owned()))
    })
}

/// The numbers at the start of bytes, in little-endian order.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Fields<'a> {
    /// Of `bytes`, which are a `what`.
    pub(super) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], WeightsErrorKind> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| damaged(format!("{} ends early", self.what)))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WeightsErrorKind> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WeightsErrorKind> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, WeightsErrorKind> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, WeightsErrorKind> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, WeightsErrorKind> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}
