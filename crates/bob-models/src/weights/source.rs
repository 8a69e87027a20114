//! Bytes of an open file or archive, read when they are asked for and never more of them than there are.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use burn::tensor::DType;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::WeightsErrorKind;
use super::error::damaged;
use super::stored::{Stored, num_bytes};

/// A file whose length is known.
#[derive(Clone)]
pub(super) struct Source {
    file: Arc<File>,
    len: u64,
}

impl Source {
    pub(super) fn new(file: File, len: u64) -> Self {
        Self {
            file: Arc::new(file),
            len,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The `len` bytes from `start`.
    pub(super) fn bytes(&self, start: u64, len: u64) -> Result<Vec<u8>, WeightsErrorKind> {
        if !self.has(start, len) {
            return Err(damaged(format!(
                "it points to {len} bytes at {start} and has {} in all",
                self.len
            )));
        }
        let mut bytes = vec![0; len as usize];
        self.read_at(start, &mut bytes)?;
        Ok(bytes)
    }

    /// Whether there are `len` bytes at `start`.
    fn has(&self, start: u64, len: u64) -> bool {
        start.checked_add(len).is_some_and(|end| end <= self.len)
    }

    /// Fill `bytes` from `start`, beside others that read.
    #[cfg(unix)]
    fn read_at(&self, start: u64, bytes: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&*self.file, bytes, start)
    }

    /// Fill `bytes` from `start`, beside others that read.
    #[cfg(windows)]
    fn read_at(&self, mut start: u64, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let read = std::os::windows::fs::FileExt::seek_read(&*self.file, bytes, start)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            start += read as u64;
            bytes = &mut bytes[read..];
        }
        Ok(())
    }

    /// What is read from `start` on.
    pub(super) fn place(&self, start: u64) -> Place {
        let source = self.clone();
        Place { source, at: start }
    }

    /// The contiguous tensor whose data are the `len` bytes from `start`.
    pub(super) fn tensor(
        &self,
        name: String,
        dtype: DType,
        shape: Vec<usize>,
        start: u64,
        len: u64,
    ) -> Result<Stored, WeightsErrorKind> {
        if !self.has(start, len) || num_bytes(dtype, &shape) != Some(len) {
            return Err(damaged(format!(
                "tensor `{name}` of shape {shape:?} claims {len} bytes at {start} of {}",
                self.len
            )));
        }
        let place = self.place(start);
        Ok(Stored::new(name, dtype, shape, move |visit| visit(&mut place.clone())))
    }
}

/// A place in a file, to read on from.
#[derive(Clone)]
pub(super) struct Place {
    source: Source,
    at: u64,
}

impl Read for Place {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.source.len.saturating_sub(self.at);
        let len = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.source.read_at(self.at, &mut bytes[..len])?;
        self.at += len as u64;
        Ok(len)
    }
}

impl Seek for Place {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.source.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

/// An archive that several tensors read their bytes from, each beside the others.
#[derive(Clone)]
pub(super) struct Archive {
    archive: ZipArchive<Place>,
    len: u64,
}

impl Archive {
    pub(super) fn open(path: &Path, len: u64) -> Result<Self, WeightsErrorKind> {
        let source = Source::new(File::open(path)?, len);
        let archive = ZipArchive::new(source.place(0)).map_err(|error| damaged(error.to_string()))?;
        Ok(Self { archive, len })
    }

    /// Length of the archive's file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Names of the entries, in the order of the archive.
    pub(super) fn names(&self) -> Vec<String> {
        // A name that is no text is none that is looked for.
        self.archive.file_names().flatten().map(Into::into).collect()
    }

    /// Read the entry `name` with `read`, which also gets its length.
    pub(super) fn with<T>(
        &self,
        name: &str,
        read: impl FnOnce(&mut dyn Read, u64) -> Result<T, WeightsErrorKind>,
    ) -> Result<T, WeightsErrorKind> {
        let mut archive = self.archive.clone();
        let mut entry = archive.by_name(name).map_err(|error| damaged(error.to_string()))?;
        let size = entry.size();
        read(&mut entry, size)
    }

    /// Read the `len` bytes of the entry `name` behind its first `skipped` with `read`.
    pub(super) fn with_part<T>(
        &self,
        name: &str,
        skipped: u64,
        len: u64,
        read: impl FnOnce(&mut dyn Read) -> Result<T, WeightsErrorKind>,
    ) -> Result<T, WeightsErrorKind> {
        let claims = |what| Err(damaged(format!("its entry `{name}` {what}")));
        // Compressed entries can claim any length.
        if len > self.len {
            return claims(format!("claims {len} bytes and the whole has {}", self.len));
        }
        let mut archive = self.archive.clone();
        let zip = |error: ZipError| damaged(error.to_string());
        let index = archive
            .index_for_name(name)
            .ok_or_else(|| zip(ZipError::FileNotFound))?;
        let (size, compression) = {
            let entry = archive.by_index_raw(index).map_err(zip)?;
            (entry.size(), entry.compression())
        };
        if skipped.checked_add(len).is_none_or(|end| end > size) {
            return claims("ends early".to_owned());
        }
        if compression == CompressionMethod::Stored {
            let mut entry = archive.by_index_seek(index).map_err(zip)?;
            entry.seek(SeekFrom::Start(skipped))?;
            return read(&mut entry.take(len));
        }
        let mut entry = archive.by_index(index).map_err(zip)?;
        io::copy(&mut Read::by_ref(&mut entry).take(skipped), &mut io::sink())?;
        read(&mut entry.take(len))
    }
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
