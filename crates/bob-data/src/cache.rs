//! Embeddings kept on disk: one forward pass feeds every protocol.
//!
//! A file is `BOBEMBED`, the version and the length of the header (`u32`, little-endian), the header's SHA-256, the
//! header (JSON), zeros up to a multiple of 64 bytes, and the values (`f32`, little-endian, row-major).

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bob_core::device::BackendName;
use bob_core::{Embeddings, EmbeddingsError};
use burn::tensor::DType;
use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::atomic::write_file;
use crate::manifest::hex;
use crate::{EvalTransform, Manifest, jpeg_decoder};

#[cfg(target_endian = "big")]
compile_error!("the embedding cache maps little-endian values");

const MAGIC: &[u8; 8] = b"BOBEMBED";
const VERSION: u32 = 1;
const BURN_VERSION: &str = "0.22.1";
/// Magic, version, header length, header hash.
const PREFIX: usize = 8 + 4 + 4 + 32;
const ALIGNMENT: usize = 64;

/// Everything that an embedding depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheKey {
    /// SHA-256 of the weights; for random weights, of what they are made from.
    pub weights: String,
    /// What tells one use of the weights from another: the architecture, and which tensor of the file is which of its.
    pub setup: String,
    /// [`Manifest::sha256`] of the images.
    pub data: String,
    /// [`EvalTransform::id`] and the JPEG decoder.
    pub preprocess: String,
    /// Type of the floats that the device computes with.
    pub dtype: String,
    /// Whether batch norm was folded into the convolutions.
    pub folded: bool,
    /// The backend.
    pub backend: String,
    /// Version of burn.
    pub burn: String,
}

impl CacheKey {
    /// The key of the images of `manifest`, prepared by `transform`, through the weights with the hash `weights`, used as
    /// `setup` says.
    pub fn new(
        weights: &str,
        setup: &str,
        manifest: &Manifest,
        transform: &EvalTransform,
        backend: BackendName,
        dtype: DType,
        folded: bool,
    ) -> Self {
        Self {
            weights: weights.to_owned(),
            setup: setup.to_owned(),
            data: manifest.sha256().to_owned(),
            preprocess: format!("{} jpeg={}", transform.id(), jpeg_decoder()),
            dtype: format!("{dtype:?}").to_lowercase(),
            folded,
            backend: backend.to_string(),
            burn: BURN_VERSION.to_owned(),
        }
    }
}

/// Why kept embeddings cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file cannot be read or written.
    #[error("embedding cache `{path}`: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("embedding cache `{path}` is damaged: {reason}; delete it to have it computed again", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file was written by another version of this program.
    #[error(
        "embedding cache `{path}` has version {found}; expected {VERSION}; delete it to have it computed again",
        path = path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version of the file.
        found: u32,
    },
}

/// A folder of embeddings, one file a [`CacheKey`].
#[derive(Clone, Debug)]
pub struct EmbeddingCache {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    key: CacheKey,
    dim: usize,
    labels: Vec<u32>,
    names: Vec<String>,
    payload_sha256: String,
}

impl EmbeddingCache {
    /// The cache in `folder`, which is made when something is stored.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The file of `key`.
    pub fn path(&self, key: &CacheKey) -> PathBuf {
        let text = serde_json::to_vec(key).expect("strings and a bool are JSON");
        let name = hex(&Sha256::digest(text)[..16]);
        self.folder.join(format!("{name}.embeddings"))
    }

    /// The embeddings of `key`, memory-mapped, or `None` where there are none yet.
    ///
    /// # Errors
    /// Where the file is cut short, damaged, of another version, or cannot be read.
    pub fn load(&self, key: &CacheKey) -> Result<Option<Embeddings>, CacheError> {
        let path = self.path(key);
        let io = |source| CacheError::Io {
            path: path.clone(),
            source,
        };
        match File::open(&path) {
            Ok(file) => read(&path, map(&file).map_err(io)?, key).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io(error)),
        }
    }

    /// Keep `embeddings` under `key`.
    ///
    /// # Errors
    /// Where the file cannot be written, as on a full disk; nothing is then kept.
    pub fn store(&self, key: &CacheKey, embeddings: &Embeddings) -> Result<(), CacheError> {
        let path = self.path(key);
        write_file(&path, |writer| write(writer, key, embeddings)).map_err(|source| CacheError::Io { path, source })
    }

    /// The embeddings of `key`, computed and kept where there are none yet.
    ///
    /// # Errors
    /// Those of [`Self::load`], [`Self::store`] and `compute`.
    pub fn get_or_compute<E: From<CacheError>>(
        &self,
        key: &CacheKey,
        compute: impl FnOnce() -> Result<Embeddings, E>,
    ) -> Result<Embeddings, E> {
        if let Some(kept) = self.load(key)? {
            return Ok(kept);
        }
        let computed = compute()?;
        self.store(key, &computed)?;
        Ok(computed)
    }
}

/// The values of a mapped file.
struct Payload {
    map: Mmap,
    start: usize,
}

impl AsRef<[f32]> for Payload {
    fn as_ref(&self) -> &[f32] {
        #[expect(unsafe_code, reason = "bytes are seen as f32 without a copy")]
        // SAFETY: every pattern of four bytes is an f32, and `align_to` only puts aligned, whole values in the middle.
        let (before, values, after) = unsafe { self.map[self.start..].align_to::<f32>() };
        assert!(
            before.is_empty() && after.is_empty(),
            "`read` checks the length, and maps begin at a page"
        );
        values
    }
}

fn map(file: &File) -> io::Result<Mmap> {
    #[expect(unsafe_code, reason = "a memory map")]
    // SAFETY: a map must not see its file change. Files of the cache are written under another name, renamed into
    // place once whole, and never written again; replacing or deleting one leaves the mapped file as it was.
    unsafe {
        Mmap::map(file)
    }
}

fn read(path: &Path, map: Mmap, key: &CacheKey) -> Result<Embeddings, CacheError> {
    let damaged = |reason: String| CacheError::Damaged {
        path: path.to_owned(),
        reason,
    };
    if map.len() < PREFIX || &map[..8] != MAGIC {
        return Err(damaged(format!(
            "its {} bytes do not begin as an embedding cache does",
            map.len()
        )));
    }
    let number = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| map[at + byte]));
    if number(8) != VERSION {
        return Err(CacheError::Version {
            path: path.to_owned(),
            found: number(8),
        });
    }
    let length = number(12) as usize;
    let header = map
        .get(PREFIX..PREFIX + length)
        .filter(|header| Sha256::digest(header)[..] == map[16..PREFIX])
        .ok_or_else(|| damaged("its header does not match its hash".to_owned()))?;
    let header: Header = serde_json::from_slice(header).map_err(|error| damaged(error.to_string()))?;
    if header.key != *key {
        return Err(damaged("it holds the embeddings of another key".to_owned()));
    }
    let start = (PREFIX + length).next_multiple_of(ALIGNMENT);
    let expected = header
        .labels
        .len()
        .checked_mul(header.dim)
        .and_then(|n| n.checked_mul(4)?.checked_add(start));
    if expected != Some(map.len()) {
        let expected = expected.map_or("more".to_owned(), |bytes| bytes.to_string());
        return Err(damaged(format!("it has {} bytes; expected {expected}", map.len())));
    }
    if hex(&Sha256::digest(&map[start..])) != header.payload_sha256 {
        return Err(damaged("its values do not match their hash".to_owned()));
    }
    Embeddings::new(Payload { map, start }, header.dim, header.labels, header.names)
        .map_err(|error: EmbeddingsError| damaged(error.to_string()))
}

fn write(writer: &mut dyn Write, key: &CacheKey, embeddings: &Embeddings) -> io::Result<()> {
    let payload = embeddings.values();
    let mut hash = Sha256::new();
    each_block(payload, |block| {
        hash.update(block);
        Ok(())
    })?;
    let header = serde_json::to_vec(&Header {
        key: key.clone(),
        dim: embeddings.dim(),
        labels: embeddings.labels().to_vec(),
        names: embeddings.names().to_vec(),
        payload_sha256: hex(&hash.finalize()),
    })?;
    let length = u32::try_from(header.len()).map_err(|_| io::Error::other("the header is longer than 4 GiB"))?;
    writer.write_all(MAGIC)?;
    writer.write_all(&VERSION.to_le_bytes())?;
    writer.write_all(&length.to_le_bytes())?;
    writer.write_all(&Sha256::digest(&header))?;
    writer.write_all(&header)?;
    let end = PREFIX + header.len();
    writer.write_all(&[0; ALIGNMENT][..end.next_multiple_of(ALIGNMENT) - end])?;
    each_block(payload, |block| writer.write_all(block))
}

/// The little-endian bytes of `values`, some at a time.
fn each_block(values: &[f32], mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(4 * 4096);
    for block in values.chunks(4096) {
        bytes.clear();
        bytes.extend(block.iter().flat_map(|value| value.to_le_bytes()));
        take(&bytes)?;
    }
    Ok(())
}
