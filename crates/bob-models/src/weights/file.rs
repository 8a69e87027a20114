//! Opening a file of weights: its format is told by its content, never by its name.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use burn::store::bridge;
use burn::store::pytorch_reader::{PytorchError, PytorchReader};

use super::error::damaged;
use super::source::{Archive, Source};
use super::stored::Stored;
use super::{LoadOptions, WeightsErrorKind, hdf5, numpy, onnx, pickle, pytorch, safetensors};

/// The magic number that opens a checkpoint of PyTorch before 1.6, as `torch.serialization.MAGIC_NUMBER` is pickled.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Pickles at the start of such a checkpoint: magic number, protocol, system, state dict, keys of the storages.
const LEGACY_PICKLES: usize = 5;

/// The container of a file of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// safetensors.
    Safetensors,
    /// What `torch.save` writes since PyTorch 1.6.
    Zip,
    /// What `torch.save` wrote before.
    Legacy,
    /// What `torch.jit.save` writes.
    TorchScript,
    /// What `numpy.savez` writes.
    Npz,
    /// A pickled dictionary of numpy's arrays.
    PickledArrays,
    /// HDF5, as Keras writes it.
    Hdf5,
    /// ONNX.
    Onnx,
}

/// A file of weights whose data is unread.
pub(super) struct Opened {
    pub(super) format: Format,
    pub(super) len: u64,
    /// Named by the file's keys, in alphabetical order.
    pub(super) tensors: Vec<Stored>,
}

pub(super) fn open(path: &Path, options: &LoadOptions) -> Result<Opened, WeightsErrorKind> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut start = Vec::new();
    Read::by_ref(&mut file).take(64).read_to_end(&mut start)?;
    let (format, archive) = match format(&start)? {
        Format::Zip => {
            let archive = Archive::open(path, len)?;
            (zipped(&archive.names()), Some(archive))
        }
        format => (format, None),
    };
    if let (Some(key), Some(name)) = (&options.top_level_key, flat(format)) {
        return Err(WeightsErrorKind::TopLevelKey {
            key: key.clone(),
            reason: format!("{name} does not nest"),
        });
    }
    let allowed = options.allowed_globals.as_slice();
    let mut tensors = match (format, &archive) {
        (Format::TorchScript, Some(archive)) => pytorch::tensors(archive, allowed)?,
        (Format::Npz, Some(archive)) => numpy::archived(archive)?,
        (_, Some(archive)) => pytorch::state_dict(archive, allowed, options.top_level_key.as_deref())?,
        (Format::Safetensors, None) => safetensors::tensors(File::open(path)?, len)?,
        (Format::PickledArrays, None) => numpy::pickled(path, len, allowed)?,
        (Format::Hdf5, None) => hdf5::tensors(&Source::new(File::open(path)?, len))?,
        (Format::Onnx, None) => onnx::tensors(path, len)?,
        // An archive has been opened above.
        (Format::Legacy | Format::Zip | Format::TorchScript | Format::Npz, None) => {
            let mut reader = BufReader::new(File::open(path)?);
            for _ in 0..LEGACY_PICKLES {
                pickle::check(&mut reader, allowed, |_| false)?;
            }
            legacy(path, options.top_level_key.as_deref())?
        }
    };
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Opened { format, len, tensors })
}

/// The format of an archive with the entries `names`.
fn zipped(names: &[String]) -> Format {
    if pytorch::is_torchscript(names) {
        Format::TorchScript
    } else if numpy::is_npz(names) {
        Format::Npz
    } else {
        Format::Zip
    }
}

/// The name of a format whose tensors lie under no top-level key.
fn flat(format: Format) -> Option<&'static str> {
    match format {
        Format::Zip | Format::Legacy => None,
        Format::Safetensors => Some("safetensors"),
        Format::TorchScript => Some("TorchScript"),
        Format::Npz | Format::PickledArrays => Some("a file of numpy's arrays"),
        Format::Hdf5 => Some("HDF5"),
        Format::Onnx => Some("ONNX"),
    }
}

fn format(start: &[u8]) -> Result<Format, WeightsErrorKind> {
    let looks_like = |what: &str| Err(WeightsErrorKind::UnknownFormat(what.to_owned()));
    match start {
        [] => Err(WeightsErrorKind::Empty),
        [b'P', b'K', 3, 4, ..] => Ok(Format::Zip),
        _ if start.windows(LEGACY_MAGIC.len()).any(|window| window == LEGACY_MAGIC) => Ok(Format::Legacy),
        _ if safetensors::is_safetensors(start) => Ok(Format::Safetensors),
        _ if start.starts_with(hdf5::MAGIC) => Ok(Format::Hdf5),
        _ if onnx::is_onnx(start) => Ok(Format::Onnx),
        _ if start.starts_with(b"version https://git-lfs") => {
            looks_like("a pointer of Git LFS, so the weights themselves were not downloaded")
        }
        [b'<', ..] => looks_like("a web page, perhaps the error message of a server"),
        [0x1f, 0x8b, ..] => looks_like("gzip, so unpack it first"),
        [0x80, 2..=5, ..] => Ok(Format::PickledArrays),
        _ => {
            let first = start
                .iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect::<Vec<_>>();
            looks_like(&format!("nothing known (first bytes {})", first.join(" ")))
        }
    }
}

/// The tensors of a checkpoint of PyTorch before 1.6, which burn reads.
fn legacy(path: &Path, top_level_key: Option<&str>) -> Result<Vec<Stored>, WeightsErrorKind> {
    let reader = match top_level_key {
        Some(key) => PytorchReader::with_top_level_key(path, key),
        None => PytorchReader::new(path),
    };
    let reader = reader.map_err(|error| match (error, top_level_key) {
        (PytorchError::KeyNotFound(reason), Some(key)) => WeightsErrorKind::TopLevelKey {
            key: key.to_owned(),
            reason,
        },
        (PytorchError::Io(error), _) if error.raw_os_error().is_some() => WeightsErrorKind::Io(error),
        (error, _) => damaged(error.to_string()),
    })?;
    let tensors = reader.into_tensors().into_values().map(bridge::from_pytorch);
    Ok(tensors.map(Stored::of_burn).collect())
}
