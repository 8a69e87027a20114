//! HDF5, as far as Keras and h5py write it by default: groups in B-trees of version 1, and arrays in one piece or in
//! chunks, packed by deflate or not.
//!
//! Written from the "HDF5 File Format Specification Version 3.0" of the HDF Group; the crates that read HDF5 in Rust alone
//! are young and promise nothing about files that lie.
//! Every block that is visited is paid for from the length of the file, so a file whose blocks point at each other ends
//! as an error.

use std::collections::BTreeSet;
use std::io::Read;

use burn::tensor::DType;
use flate2::read::ZlibDecoder;

use super::WeightsErrorKind;
use super::error::damaged;
use super::source::{Fields, Source};
use super::stored::{Stored, num_bytes};

/// What opens a file.
pub(super) const MAGIC: &[u8] = b"\x89HDF\r\n\x1a\n";

/// Bytes of a superblock of version 1, the longer of those known.
const SUPERBLOCK: u64 = 100;

/// An address that leads nowhere.
const UNDEFINED: u64 = u64::MAX;

/// Most groups inside each other.
const MAX_DEPTH: usize = 32;

/// Most axes of an array, by the format.
const MAX_RANK: usize = 32;

/// The longest name of a link that is read.
const MAX_NAME: usize = 1024;

/// The arrays of the file by their paths without the first slash, their data unread.
pub(super) fn tensors(source: &Source) -> Result<Vec<Stored>, WeightsErrorKind> {
    let start = source.bytes(0, SUPERBLOCK.min(source.len()))?;
    let mut fields = Fields::new(&start, "its superblock");
    fields.take(MAGIC.len())?;
    let version = fields.u8()?;
    if version > 1 {
        return Err(unsupported(format!(
            "a superblock of version {version}, expected 0 or 1"
        )));
    }
    fields.take(4)?;
    let sizes = [fields.u8()?, fields.u8()?];
    if sizes != [8, 8] {
        return Err(unsupported(format!(
            "addresses and lengths of {sizes:?} bytes, expected 8"
        )));
    }
    fields.take(if version == 0 { 9 } else { 13 })?;
    let base = fields.u64()?;
    if base != 0 {
        return Err(unsupported(format!("a base address of {base}, expected 0")));
    }
    fields.take(8)?;
    let end = fields.u64()?;
    if end > source.len() {
        return Err(damaged(format!("it claims {end} bytes and has {}", source.len())));
    }
    fields.take(16)?;
    let root = fields.u64()?;
    let mut walk = Walk {
        source,
        budget: source.len(),
        tensors: Vec::new(),
    };
    walk.object(root, "", 0)?;
    Ok(walk.tensors)
}

fn unsupported(what: String) -> WeightsErrorKind {
    WeightsErrorKind::Unsupported(what)
}

struct Walk<'a> {
    source: &'a Source,
    /// Bytes of blocks that may still be read.
    budget: u64,
    tensors: Vec<Stored>,
}

/// What the header of an object says of it.
#[derive(Default)]
struct Header {
    group: Option<(u64, u64)>,
    shape: Option<Vec<usize>>,
    dtype: Option<Option<DType>>,
    data: Option<Data>,
    filters: Vec<Filter>,
}

/// Where the data of an array are.
enum Data {
    Compact(u64, u64),
    Contiguous(u64, u64),
    Chunked { index: u64, sizes: Vec<usize> },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Filter {
    Deflate,
    Shuffle,
}

impl Walk<'_> {
    /// A block of the file's own structure.
    fn block(&mut self, start: u64, len: u64) -> Result<Vec<u8>, WeightsErrorKind> {
        self.budget = self
            .budget
            .checked_sub(len)
            .ok_or_else(|| damaged("its blocks overlap or point at each other"))?;
        self.source.bytes(start, len)
    }

    fn signed(&mut self, start: u64, len: u64, signature: &[u8]) -> Result<Vec<u8>, WeightsErrorKind> {
        let block = self.block(start, len)?;
        if block.starts_with(signature) {
            Ok(block)
        } else {
            Err(damaged(format!(
                "no block `{}` at {start}",
                String::from_utf8_lossy(signature)
            )))
        }
    }

    /// A group or an array.
    fn object(&mut self, address: u64, path: &str, depth: usize) -> Result<(), WeightsErrorKind> {
        if depth > MAX_DEPTH {
            return Err(damaged(format!("its groups nest deeper than {MAX_DEPTH}")));
        }
        let header = self.header(address, path)?;
        if let Some((index, heap)) = header.group {
            for (name, address) in self.links(index, heap)? {
                let path = if path.is_empty() {
                    name
                } else {
                    format!("{path}/{name}")
                };
                self.object(address, &path, depth + 1)?;
            }
            return Ok(());
        }
        if let (Some(shape), Some(dtype), Some(data)) = (header.shape, header.dtype, header.data) {
            let tensor = match dtype {
                None => Stored::opaque(path.to_owned(), "it holds neither floats nor integers"),
                Some(dtype) => self.array(path.to_owned(), dtype, shape, data, header.filters)?,
            };
            self.tensors.push(tensor);
        }
        Ok(())
    }

    fn header(&mut self, address: u64, path: &str) -> Result<Header, WeightsErrorKind> {
        let start = self.block(address, 16)?;
        let mut fields = Fields::new(&start, "the header of an object");
        let version = fields.u8()?;
        if version != 1 {
            return Err(unsupported(format!(
                "`/{path}` with a header of version {version}, expected 1"
            )));
        }
        fields.take(1)?;
        let mut messages = fields.u16()?;
        fields.take(4)?;
        let mut header = Header::default();
        // Every continuation is paid for, so this ends.
        let mut blocks = vec![(address.saturating_add(16), u64::from(fields.u32()?))];
        while let Some((start, len)) = blocks.pop() {
            let block = self.block(start, len)?;
            let mut fields = Fields::new(&block, "the header of an object");
            while messages > 0 && fields.rest().len() >= 8 {
                messages -= 1;
                let kind = fields.u16()?;
                let size = fields.u16()?;
                let is_elsewhere = fields.u8()? & 2 == 2;
                fields.take(3)?;
                let at = start + (block.len() - fields.rest().len()) as u64;
                let message = fields.take(size.into())?;
                if is_elsewhere {
                    return Err(unsupported(format!("`/{path}` with a type that it shares with others")));
                }
                if kind == 0x0010 {
                    let mut fields = Fields::new(message, "a continuation of a header");
                    blocks.push((fields.u64()?, fields.u64()?));
                } else {
                    header.message(kind, message, at, path)?;
                }
            }
        }
        Ok(header)
    }

    /// The names in the group of the B-tree `index`, and the addresses of what they name.
    fn links(&mut self, index: u64, heap: u64) -> Result<Vec<(String, u64)>, WeightsErrorKind> {
        let heap = self.signed(heap, 32, b"HEAP")?;
        let mut fields = Fields::new(&heap, "a heap");
        fields.take(8)?;
        let len = fields.u64()?;
        fields.take(8)?;
        let names = fields.u64()?;
        let names = self.block(names, len)?;
        let mut links = Vec::new();
        let mut nodes = Vec::new();
        self.leaves(index, 0, &[0; 8], &mut |_, address| nodes.push(address))?;
        for address in nodes {
            let start = self.signed(address, 8, b"SNOD")?;
            let count = u64::from(u16::from_le_bytes([start[6], start[7]]));
            let entries = self.block(address.saturating_add(8), 40 * count)?;
            for entry in entries.chunks_exact(40) {
                let mut fields = Fields::new(entry, "an entry of a group");
                let (name, object) = (fields.u64()?, fields.u64()?);
                let is_symbolic = fields.u32()? == 2;
                if is_symbolic {
                    continue; // names what has another name already
                }
                let name = usize::try_from(name).ok().and_then(|at| names.get(at..));
                let name = name.and_then(|name| name.split(|&byte| byte == 0).next());
                let name = name.filter(|name| name.len() <= MAX_NAME);
                let name = name.and_then(|name| std::str::from_utf8(name).ok());
                let name = name.ok_or_else(|| damaged("a name in a group that is no text"))?;
                links.push((name.to_owned(), object));
            }
        }
        Ok(links)
    }

    /// Give `visit` the key and the address of every leaf of the B-tree at `address`, whose keys are like `key`.
    fn leaves(
        &mut self,
        address: u64,
        kind: u8,
        key: &[u8],
        visit: &mut dyn FnMut(&[u8], u64),
    ) -> Result<(), WeightsErrorKind> {
        let mut nodes = vec![(address, None)];
        while let Some((address, expected)) = nodes.pop() {
            let start = self.signed(address, 24, b"TREE")?;
            let (found, level) = (start[4], start[5]);
            let count = u64::from(u16::from_le_bytes([start[6], start[7]]));
            if found != kind || expected.is_some_and(|expected| expected != level) {
                return Err(damaged(format!("the block `TREE` at {address} is of another kind")));
            }
            let pair = key.len() + 8;
            let pairs = self.block(address.saturating_add(24), pair as u64 * count)?;
            for pair in pairs.chunks_exact(pair) {
                let (key, child) = pair.split_at(key.len());
                let child = Fields::new(child, "a B-tree").u64()?;
                match level.checked_sub(1) {
                    None => visit(key, child),
                    Some(level) => nodes.push((child, Some(level))),
                }
            }
        }
        Ok(())
    }

    fn array(
        &mut self,
        path: String,
        dtype: DType,
        shape: Vec<usize>,
        data: Data,
        filters: Vec<Filter>,
    ) -> Result<Stored, WeightsErrorKind> {
        let len =
            num_bytes(dtype, &shape).ok_or_else(|| damaged(format!("array `{path}` claims the shape {shape:?}")))?;
        let (index, sizes) = match data {
            Data::Compact(start, stored) | Data::Contiguous(start, stored) => {
                if start == UNDEFINED && len > 0 {
                    return Err(damaged(format!("array `{path}` was never written")));
                }
                let start = if len == 0 { 0 } else { start };
                // The format allows more room than the array needs in a header only.
                let stored = if matches!(data, Data::Compact(..)) {
                    stored.min(len)
                } else {
                    stored
                };
                return self.source.tensor(path, dtype, shape, start, stored);
            }
            Data::Chunked { index, sizes } => (index, sizes),
        };
        // A chunk is held whole while it is unpacked, and can claim any size.
        let chunk = num_bytes(dtype, &sizes)
            .filter(|&chunk| chunk <= self.source.len() && sizes.len() == shape.len() && !sizes.contains(&0));
        let Some(chunk) = chunk else {
            return Err(damaged(format!("array `{path}` claims chunks of {sizes:?}")));
        };
        let mut chunks = Vec::new();
        if index != UNDEFINED {
            let key = vec![0; 8 + 8 * (shape.len() + 1)];
            self.leaves(index, 1, &key, &mut |key, address| chunks.push((key.to_vec(), address)))?;
        }
        let chunks = chunks
            .into_iter()
            .map(|(key, address)| Chunk::parse(&key, address, shape.len()))
            .collect::<Result<Vec<_>, _>>()?;
        let wanted: usize = shape
            .iter()
            .zip(&sizes)
            .map(|(size, chunk)| size.div_ceil(*chunk))
            .product();
        let is_placed = |chunk: &&Chunk| {
            let mut axes = chunk.at.iter().zip(&shape).zip(&sizes);
            axes.all(|((at, size), chunk)| at < size && at % chunk == 0)
        };
        let found: BTreeSet<_> = chunks.iter().filter(is_placed).map(|chunk| &chunk.at).collect();
        if found.len() != wanted || chunks.len() != wanted {
            return Err(damaged(format!(
                "array `{path}` has {} chunks in {} places, expected {wanted}",
                chunks.len(),
                found.len()
            )));
        }
        let source = self.source.clone();
        Ok(Stored::new(path, dtype, shape.clone(), move |visit| {
            let mut bytes = vec![0; len as usize];
            for one in &chunks {
                let stored = source.bytes(one.address, one.len)?;
                let read = unpack(stored, one.skipped, &filters, chunk, dtype.size())?;
                place(&read, &sizes, &mut bytes, &shape, &one.at, dtype.size());
            }
            visit(&mut bytes.as_slice())
        }))
    }
}

impl Header {
    fn message(&mut self, kind: u16, message: &[u8], at: u64, path: &str) -> Result<(), WeightsErrorKind> {
        let mut fields = Fields::new(message, "a message of a header");
        match kind {
            0x0001 => self.shape = Some(dataspace(&mut fields, path)?),
            0x0002 | 0x0006 => {
                return Err(unsupported(format!("`/{path}` as a group of the newer kind")));
            }
            0x0003 => self.dtype = Some(datatype(&mut fields)?),
            0x0008 => self.data = Some(layout(&mut fields, at, path)?),
            0x000b => self.filters = filters(&mut fields, path)?,
            0x0011 => self.group = Some((fields.u64()?, fields.u64()?)),
            _ => {}
        }
        Ok(())
    }
}

fn dataspace(fields: &mut Fields, path: &str) -> Result<Vec<usize>, WeightsErrorKind> {
    let version = fields.u8()?;
    let rank = usize::from(fields.u8()?);
    let _flags = fields.u8()?;
    match version {
        1 => fields.take(5)?,
        2 => fields.take(1)?,
        _ => return Err(unsupported(format!("the shape of `/{path}` in version {version}"))),
    };
    if rank > MAX_RANK {
        return Err(damaged(format!("array `{path}` claims {rank} axes")));
    }
    (0..rank)
        .map(|_| {
            let size = fields.u64()?;
            usize::try_from(size).map_err(|_| damaged(format!("array `{path}` claims an axis of {size}")))
        })
        .collect()
}

/// The type, or nothing for what is no plain number in little-endian order.
fn datatype(fields: &mut Fields) -> Result<Option<DType>, WeightsErrorKind> {
    let class = fields.u8()? & 0x0f;
    let bits = fields.take(3)?[0];
    let size = fields.u32()?;
    let (is_big_endian, is_signed) = (bits & 1 == 1, bits & 8 == 8);
    Ok(match (class, size) {
        _ if is_big_endian => None,
        (1, 8) => Some(DType::F64),
        (1, 4) => Some(DType::F32),
        // Where the exponent lies tells float16 from bfloat16.
        (1, 2) => match fields.take(6)?[5] {
            5 => Some(DType::F16),
            8 => Some(DType::BF16),
            _ => None,
        },
        (0, 8) if is_signed => Some(DType::I64),
        (0, 4) if is_signed => Some(DType::I32),
        (0, 2) if is_signed => Some(DType::I16),
        (0, 1) if is_signed => Some(DType::I8),
        (0, 8) => Some(DType::U64),
        (0, 4) => Some(DType::U32),
        (0, 2) => Some(DType::U16),
        (0, 1) => Some(DType::U8),
        _ => None,
    })
}

fn layout(fields: &mut Fields, at: u64, path: &str) -> Result<Data, WeightsErrorKind> {
    let version = fields.u8()?;
    if version != 3 {
        return Err(unsupported(format!(
            "the layout of `/{path}` in version {version}, expected 3"
        )));
    }
    match fields.u8()? {
        0 => {
            let len = fields.u16()?;
            Ok(Data::Compact(at + 4, len.into()))
        }
        1 => Ok(Data::Contiguous(fields.u64()?, fields.u64()?)),
        2 => {
            // The last axis is that of the bytes of an element.
            let rank = usize::from(fields.u8()?).saturating_sub(1);
            let index = fields.u64()?;
            let sizes = (0..rank).map(|_| fields.u32().map(|size| size as usize));
            Ok(Data::Chunked {
                index,
                sizes: sizes.collect::<Result<_, _>>()?,
            })
        }
        class => Err(unsupported(format!("the layout of `/{path}` of class {class}"))),
    }
}

fn filters(fields: &mut Fields, path: &str) -> Result<Vec<Filter>, WeightsErrorKind> {
    let version = fields.u8()?;
    let count = fields.u8()?;
    if version != 1 {
        return Err(unsupported(format!(
            "the filters of `/{path}` in version {version}, expected 1"
        )));
    }
    fields.take(6)?;
    (0..count)
        .map(|_| {
            let id = fields.u16()?;
            let name = fields.u16()?;
            fields.take(2)?;
            let values = usize::from(fields.u16()?);
            fields.take(usize::from(name).next_multiple_of(8))?;
            fields.take(4 * values.next_multiple_of(2))?;
            match id {
                1 => Ok(Filter::Deflate),
                2 => Ok(Filter::Shuffle),
                _ => Err(unsupported(format!(
                    "the filter {id} of `/{path}`, expected deflate or shuffle"
                ))),
            }
        })
        .collect()
}

/// One chunk of an array.
struct Chunk {
    address: u64,
    len: u64,
    /// The filters that were not applied, one bit each.
    skipped: u32,
    /// Its first element.
    at: Vec<usize>,
}

impl Chunk {
    fn parse(key: &[u8], address: u64, rank: usize) -> Result<Self, WeightsErrorKind> {
        let mut fields = Fields::new(key, "the key of a chunk");
        let (len, skipped) = (fields.u32()?, fields.u32()?);
        let at = (0..rank)
            .map(|_| {
                let at = fields.u64()?;
                usize::try_from(at).map_err(|_| damaged(format!("a chunk lies at {at}")))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            address,
            len: len.into(),
            skipped,
            at,
        })
    }
}

/// Undo the `filters` of one chunk of `len` bytes, the last first.
fn unpack(
    mut bytes: Vec<u8>,
    skipped: u32,
    filters: &[Filter],
    len: u64,
    size: usize,
) -> Result<Vec<u8>, WeightsErrorKind> {
    for (i, filter) in filters.iter().enumerate().rev() {
        if i < 32 && skipped & (1 << i) != 0 {
            continue;
        }
        bytes = match filter {
            Filter::Deflate => {
                let mut unpacked = Vec::new();
                ZlibDecoder::new(bytes.as_slice())
                    .take(len)
                    .read_to_end(&mut unpacked)?;
                unpacked
            }
            Filter::Shuffle => unshuffle(&bytes, size),
        };
    }
    if bytes.len() as u64 == len {
        Ok(bytes)
    } else {
        Err(damaged(format!("a chunk has {} bytes, expected {len}", bytes.len())))
    }
}

/// Bytes of elements of `size` bytes, from all first bytes, all second bytes, and so on.
fn unshuffle(bytes: &[u8], size: usize) -> Vec<u8> {
    let count = bytes.len() / size;
    let mut elements = vec![0; bytes.len()];
    for (i, element) in elements.chunks_exact_mut(size).enumerate() {
        for (j, byte) in element.iter_mut().enumerate() {
            *byte = bytes[j * count + i];
        }
    }
    elements
}

/// Copy the `chunk` of shape `sizes` to where it lies, from `at`, in the `array` of `shape`; what hangs over is dropped.
fn place(chunk: &[u8], sizes: &[usize], array: &mut [u8], shape: &[usize], at: &[usize], size: usize) {
    match (sizes, shape, at) {
        ([width, sizes @ ..], [limit, shape @ ..], [first, at @ ..]) => {
            let chunk_stride = size * sizes.iter().product::<usize>();
            let array_stride = size * shape.iter().product::<usize>();
            for i in 0..(*width).min(limit.saturating_sub(*first)) {
                place(
                    &chunk[i * chunk_stride..],
                    sizes,
                    &mut array[(first + i) * array_stride..],
                    shape,
                    at,
                    size,
                );
            }
        }
        _ => array[..size].copy_from_slice(&chunk[..size]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_placed_and_cut() {
        let mut array = [0; 6];
        place(&[1, 2, 3, 4], &[2, 2], &mut array, &[2, 3], &[0, 2], 1);
        assert_eq!(array, [0, 0, 1, 0, 0, 3]);
        place(&[5, 6, 7, 8], &[2, 2], &mut array, &[2, 3], &[1, 0], 1);
        assert_eq!(array, [0, 0, 1, 5, 6, 3]);
        place(&[5, 6, 7, 8], &[2, 2], &mut array, &[2, 3], &[9, 9], 1);
        assert_eq!(array, [0, 0, 1, 5, 6, 3]);
    }

    #[test]
    fn shuffled_bytes_are_put_back() {
        assert_eq!(unshuffle(&[1, 3, 5, 2, 4, 6, 7], 2), [1, 2, 3, 4, 5, 6, 0]);
    }
}
