//! Opening a file of weights: its format is told by its content, never by its name.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use burn::store::bridge;
use burn::store::burn_pack::Tensor as PackTensor;
use burn::store::pytorch_reader::{MAX_PICKLE_SIZE, PytorchError, PytorchReader};
use zip::ZipArchive;

use super::source::{Archive, Source};
use super::{LoadOptions, WeightsErrorKind, hdf5, numpy, onnx, pickle, safetensors, torchscript};

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
    pub(super) tensors: Vec<PackTensor>,
}

pub(super) fn open(path: &Path, options: &LoadOptions) -> Result<Opened, WeightsErrorKind> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut start = Vec::new();
    Read::by_ref(&mut file).take(64).read_to_end(&mut start)?;
    let mut format = format(&start)?;
    let mut archive = None;
    if format == Format::Zip {
        let opened = Archive::open(path, len)?;
        let names = opened.names();
        if torchscript::is_torchscript(&names) {
            format = Format::TorchScript;
        } else if numpy::is_npz(&names) {
            format = Format::Npz;
        }
        archive = Some(opened);
    }
    if let (Some(key), Some(name)) = (options.top_level_key, flat(format)) {
        return Err(WeightsErrorKind::TopLevelKey {
            key: key.to_owned(),
            reason: format!("{name} does not nest"),
        });
    }
    let mut tensors = match (format, &archive) {
        (Format::Safetensors, _) => safetensors::tensors(File::open(path)?, len)?,
        (Format::TorchScript, Some(archive)) => torchscript::tensors(archive, options.allowed_globals)?,
        (Format::Npz, Some(archive)) => numpy::archived(archive)?,
        (Format::PickledArrays, _) => numpy::pickled(path, len, options.allowed_globals)?,
        (Format::Hdf5, _) => hdf5::tensors(&Source::new(File::open(path)?, len))?,
        (Format::Onnx, _) => onnx::tensors(path, len)?,
        (Format::Zip | Format::TorchScript | Format::Npz, _) => {
            scan_zip(path, options.allowed_globals)?;
            pytorch(path, options.top_level_key)?
        }
        (Format::Legacy, _) => {
            let mut reader = BufReader::new(File::open(path)?);
            for _ in 0..LEGACY_PICKLES {
                scan(&mut reader, options.allowed_globals)?;
            }
            pytorch(path, options.top_level_key)?
        }
    };
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Opened { format, len, tensors })
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

/// Scan every pickle that could be the one of the state dict.
fn scan_zip(path: &Path, allowed: &[&str]) -> Result<(), WeightsErrorKind> {
    let damaged = |error: zip::result::ZipError| WeightsErrorKind::Damaged(error.to_string());
    let mut archive = ZipArchive::new(BufReader::new(File::open(path)?)).map_err(damaged)?;
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(damaged)?;
        if !matches!(entry.name(), Ok(name) if name.ends_with("data.pkl")) {
            continue;
        }
        if entry.size() > MAX_PICKLE_SIZE {
            return Err(WeightsErrorKind::Damaged(format!(
                "its pickle claims {} bytes",
                entry.size()
            )));
        }
        scan(&mut BufReader::new(entry), allowed)?;
    }
    Ok(())
}

fn scan(pickle: &mut impl std::io::BufRead, allowed: &[&str]) -> Result<(), WeightsErrorKind> {
    let unknown = pickle::unknown_globals(pickle, allowed)
        .map_err(|error| WeightsErrorKind::Damaged(format!("its pickle: {error}")))?;
    if unknown.is_empty() {
        Ok(())
    } else {
        Err(WeightsErrorKind::UnknownGlobals(unknown.into_iter().collect()))
    }
}

fn pytorch(path: &Path, top_level_key: Option<&str>) -> Result<Vec<PackTensor>, WeightsErrorKind> {
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
        (error, _) => WeightsErrorKind::Damaged(error.to_string()),
    })?;
    Ok(reader.into_tensors().into_values().map(bridge::from_pytorch).collect())
}
