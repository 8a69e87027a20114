//! Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): grey photographs of clothes in IDX files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bob_core::Source;
use flate2::read::GzDecoder;

use super::class_names;
use crate::{DataError, Dataset, DatasetInfo, ImageSet, RgbImage};

pub(super) const INFO: DatasetInfo = DatasetInfo {
    name: "fashion-mnist",
    description: "Fashion-MNIST: 60,000 + 10,000 grey photographs of clothes of 28 x 28 pixels in 10 classes",
    license: "MIT",
    folder: "fashion-mnist",
    files,
    open,
};

const CLASSES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];
/// Name of the split, and of its files.
const SPLITS: [(&str, &str); 2] = [("train", "train"), ("test", "t10k")];
const SIDE: usize = 28;
const PIXELS: usize = SIDE * SIDE;

fn files() -> Vec<(String, Vec<Source>)> {
    let source = |file: &String| Source::Apt {
        package: "dataset-fashion-mnist".to_owned(),
        sha256: "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0".to_owned(),
        path: format!("usr/share/datasets/fashion-mnist/{file}"),
    };
    SPLITS
        .iter()
        .flat_map(|(_, prefix)| [images_file(prefix), labels_file(prefix)])
        .map(|file| (file.clone(), vec![source(&file)]))
        .collect()
}

fn images_file(prefix: &str) -> String {
    format!("{prefix}-images-idx3-ubyte.gz")
}

fn labels_file(prefix: &str) -> String {
    format!("{prefix}-labels-idx1-ubyte.gz")
}

fn open(folder: &Path) -> Result<Dataset, DataError> {
    let mut splits: BTreeMap<String, Arc<dyn ImageSet>> = BTreeMap::new();
    for (name, prefix) in SPLITS {
        splits.insert(name.to_owned(), Arc::new(Split::open(name, folder, prefix)?));
    }
    Ok(Dataset {
        name: INFO.name.to_owned(),
        classes: class_names(&CLASSES),
        splits,
    })
}

struct Split {
    name: &'static str,
    /// `PIXELS` bytes an image.
    images: Vec<u8>,
    labels: Vec<u8>,
    files: [PathBuf; 2],
}

impl Split {
    fn open(name: &'static str, folder: &Path, prefix: &str) -> Result<Self, DataError> {
        let files = [folder.join(images_file(prefix)), folder.join(labels_file(prefix))];
        let images = read_idx(&files[0], &[SIDE, SIDE])?;
        let labels = read_idx(&files[1], &[])?;
        let len = images.len() / PIXELS;
        if labels.len() != len {
            let expected = format!("an IDX file of {len} labels, one an image");
            return Err(DataError::format(
                &files[1],
                expected,
                format!("it has {}", labels.len()),
            ));
        }
        if let Some(at) = labels.iter().position(|&label| usize::from(label) >= CLASSES.len()) {
            let path = files[1].display();
            let reason = format!("`{path}` gives image {at} the label {}; expected 0 to 9", labels[at]);
            return Err(DataError::content(INFO.name, reason));
        }
        Ok(Self {
            name,
            images,
            labels,
            files,
        })
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
        u32::from(self.labels[index])
    }

    /// The grey values.
    fn bytes(&self, index: usize) -> Result<Vec<u8>, DataError> {
        Ok(self.images[index * PIXELS..][..PIXELS].to_vec())
    }

    /// Grey replicated to the three channels.
    fn image(&self, index: usize) -> Result<RgbImage, DataError> {
        let pixels = self.bytes(index)?.into_iter().flat_map(|grey| [grey; 3]).collect();
        Ok(RgbImage {
            width: SIDE,
            height: SIDE,
            pixels,
        })
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.to_vec()
    }
}

/// The bytes of a gzipped IDX file whose items have the shape `item`.
///
/// The format: zero, zero, the type (8 for bytes), the number of dimensions, each dimension as a big-endian `u32`, then
/// the values.
fn read_idx(path: &Path, item: &[usize]) -> Result<Vec<u8>, DataError> {
    let expected = format!("a gzipped IDX file of bytes with items of shape {item:?}");
    let wrong = |found: String| DataError::format(path, expected.clone(), found);
    let file = File::open(path).map_err(|source| DataError::io(path, source))?;
    let mut reader = GzDecoder::new(std::io::BufReader::new(file));

    let mut header = vec![0; 4 + 4 * (1 + item.len())];
    reader
        .read_exact(&mut header)
        .map_err(|error| wrong(error.to_string()))?;
    if header[..4] != [0, 0, 8, 1 + item.len() as u8] {
        return Err(wrong(format!("it begins with the bytes {:02x?}", &header[..4])));
    }
    let dims: Vec<usize> = header[4..]
        .chunks_exact(4)
        .map(|dim| u32::from_be_bytes([dim[0], dim[1], dim[2], dim[3]]) as usize)
        .collect();
    if dims[1..] != *item {
        return Err(wrong(format!("its shape is {dims:?}")));
    }
    let size = dims.iter().product::<usize>();
    let mut values = Vec::new();
    // One byte more than there should be, so that a longer file is noticed; a lying header takes no memory.
    reader
        .take(size as u64 + 1)
        .read_to_end(&mut values)
        .map_err(|error| wrong(error.to_string()))?;
    if values.len() != size {
        let found = if values.len() > size {
            "more".to_owned()
        } else {
            values.len().to_string()
        };
        return Err(wrong(format!("its shape {dims:?} needs {size} values; it has {found}")));
    }
    Ok(values)
}
