//! The safetensors container, read without mapping it: a tensor's bytes are in memory only while it is loaded.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};

use burn::store::bridge;
use burn::store::burn_pack::{Error as PackError, Tensor as PackTensor};
use burn::tensor::{BoolStore, DType, Shape, TensorData};
use safetensors::Dtype;
use safetensors::tensor::Metadata;

use super::WeightsErrorKind;

/// Bytes of the length at the start of the file.
const LENGTH: u64 = 8;

/// The longest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;

/// Whether a file that starts with `start` is in this format: a length, then JSON.
pub(super) fn is_safetensors(start: &[u8]) -> bool {
    start.get(LENGTH as usize) == Some(&b'{')
}

/// The tensors of the open `file` of `file_len` bytes, their data unread.
pub(super) fn tensors(mut file: File, file_len: u64) -> Result<Vec<PackTensor>, WeightsErrorKind> {
    let damaged = |reason: String| WeightsErrorKind::Damaged(reason);
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

    let file = Arc::new(Mutex::new(file));
    let mut tensors = Vec::new();
    for (name, info) in metadata.tensors() {
        let dtype = dtype(info.dtype)
            .ok_or_else(|| damaged(format!("tensor `{name}` has the unsupported type {:?}", info.dtype)))?;
        let (begin, end) = info.data_offsets;
        let shape = Shape::from(info.shape.clone());
        // A length from the file is about to be allocated.
        let size = info
            .shape
            .iter()
            .try_fold(dtype.size(), |size, &dim| size.checked_mul(dim));
        if end as u64 > data_len || end.checked_sub(begin) != size || size.is_none() {
            return Err(damaged(format!("tensor `{name}` claims the bytes {begin} to {end}")));
        }
        let (file, declared) = (file.clone(), shape.clone());
        tensors.push(bridge::deferred(name, dtype, shape, None, move || {
            let mut bytes = vec![0; end - begin];
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(data_start + begin as u64))
                .and_then(|_| file.read_exact(&mut bytes))
                .map_err(|error| PackError::IoError(error.to_string()))?;
            Ok(TensorData::from_bytes_vec(bytes, declared.clone(), dtype))
        }));
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
