//! The small data sets that are committed with the project: what the quick profile runs on where neither a network nor
//! a package client is at hand. Made by `fixtures/make_datasets.py`.

use std::path::{Path, PathBuf};

use super::{emoji, image_folder};
use crate::{DataError, Dataset, DatasetInfo};

pub(super) const INFO: DatasetInfo = DatasetInfo {
    name: "fixtures",
    description: "200 drawings from Open Clip Art in 10 classes, at most 64 x 64 pixels, committed with the project",
    license: "CC-PDDC",
    folder: "fixtures",
    files: Vec::new,
    open: |_| open(),
};

pub(super) const EMOJI: DatasetInfo = DatasetInfo {
    name: "fixtures-emoji",
    description: "60 emoji by two vendors, 64 x 64 pixels, committed with the project: find the same character",
    license: "Apache-2.0 (Noto) and CC-BY-4.0 (Twemoji)",
    folder: "fixtures",
    files: Vec::new,
    open: |_| emoji::open(&folder().join("emoji"), EMOJI.name, emoji::Label::Character),
};

/// Where the committed data sets lie: beside the sources that this program was built from.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/datasets")
}

fn open() -> Result<Dataset, DataError> {
    let set = image_folder::open(&folder().join("clipart"))?;
    Ok(Dataset {
        name: INFO.name.to_owned(),
        ..set
    })
}
