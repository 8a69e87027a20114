//! The table of data sets, one file each.

use std::path::Path;

use crate::{DataError, Dataset, DatasetInfo};

mod cifar10;
mod emoji;
mod fashion_mnist;
mod fixtures;
pub mod image_folder;

/// Every data set, in the order of lists and reports.
pub const DATASETS: &[DatasetInfo] = &[
    cifar10::INFO,
    fashion_mnist::INFO,
    emoji::INFO,
    emoji::CATEGORY,
    fixtures::INFO,
    fixtures::EMOJI,
];

/// Every data set, in the order of lists and reports.
pub fn datasets() -> &'static [DatasetInfo] {
    DATASETS
}

/// The row of the data set `name`.
///
/// # Errors
/// Where there is none, with the nearest name.
pub fn info(name: &str) -> Result<&'static DatasetInfo, DataError> {
    Ok(bob_core::find("data set", name, DATASETS, |row| row.name)?)
}

/// Open the data set `name`, whose files lie in its [`DatasetInfo::folder`] below `root`.
///
/// # Errors
/// Where there is no such data set, or its files are missing or damaged.
pub fn open(name: &str, root: &Path) -> Result<Dataset, DataError> {
    let row = info(name)?;
    (row.open)(&root.join(row.folder))
}

/// `names`, owned.
fn class_names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}
