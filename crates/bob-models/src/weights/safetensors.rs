//! The safetensors container, read without mapping it, so that nobody who writes to it changes what was loaded.

use std::fs::File;
use std::io::Read;

use burn::tensor::{BoolStore, DType};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::WeightsErrorKind;
use super::error::damaged;
use super::source::Source;
use super::stored::Stored;

/// Bytes of the length at the start of the file.
const LENGTH: u64 = 8;

/// The longest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;

/// Whether a file that starts with `start` is in this format: a length, then JSON.
pub(super) fn is_safetensors(start: &[u8]) -> bool {
    start.get(LENGTH as usize) == Some(&b'{')
}

/// The tensors of the open `file` of `file_len` bytes, their data unread.
pub(super) fn tensors(mut file: File, file_len: u64) -> Result<Vec<Stored>, WeightsErrorKind> {
    let mut length = [0; LENGTH as usize];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let room = file_len.saturating_sub(LENGTH);
    if length > room.min(MAX_HEADER) {
        return Err(damaged(format!(
            "its header claims {length} bytes and there is room for {room}"
        )));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| damaged(format!("its header: {error}")))?;
    let data_start = LENGTH + length;
    let data_len = file_len - data_start;
    if metadata.data_len() as u64 != data_len {
        let claimed = metadata.data_len();
        return Err(damaged(format!(
            "its header claims {claimed} bytes of data and there are {data_len}"
        )));
    }

    let source = Source::new(file, file_len);
    let mut tensors = Vec::new();
    for (name, info) in metadata.tensors() {
        let dtype = dtype(info.dtype)
            .ok_or_else(|| damaged(format!("tensor `{name}` has the unsupported type {:?}", info.dtype)))?;
        let (begin, end) = info.data_offsets;
        let len = end
            .checked_sub(begin)
            .ok_or_else(|| damaged(format!("tensor `{name}` claims the bytes {begin} to {end}")))?;
        let start = data_start.saturating_add(begin as u64);
        tensors.push(source.tensor(name, dtype, info.shape.clone(), start, len as u64)?);
    }
    Ok(tensors)
}

fn dtype(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F64 => Some(DType::F64),
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        Dtype::I64 => Some(DType::I64),
        Dtype::I32 => Some(DType::I32),
        Dtype::I16 => Some(DType::I16),
        Dtype::I8 => Some(DType::I8),
        Dtype::U64 => Some(DType::U64),
        Dtype::U32 => Some(DType::U32),
        Dtype::U16 => Some(DType::U16),
        Dtype::U8 => Some(DType::U8),
        Dtype::BOOL => Some(DType::Bool(BoolStore::Native)),
        _ => None,
    }
}
