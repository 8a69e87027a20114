//! Part of a data set: class-balanced subsets.
//!
//! Images are chosen by a hash of their names, so a choice neither depends on the order of files nor on a
//! random number generator, and a larger subset holds every smaller one of the same seed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::{DataError, Dataset, ImageSet, RgbImage};

/// Some images of another set, in a given order.
#[derive(Clone)]
pub struct Subset {
    set: Arc<dyn ImageSet>,
    indices: Vec<usize>,
}

impl Subset {
    /// The images of `set` at `indices`.
    ///
    /// # Panics
    /// Where an index is not below `set.len()`.
    pub fn new(set: Arc<dyn ImageSet>, indices: Vec<usize>) -> Self {
        assert!(
            indices.iter().all(|&index| index < set.len()),
            "an index of the subset is past the end of its set"
        );
        Self { set, indices }
    }
}

impl ImageSet for Subset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn name(&self, index: usize) -> String {
        self.set.name(self.indices[index])
    }

    fn label(&self, index: usize) -> u32 {
        self.set.label(self.indices[index])
    }

    fn bytes(&self, index: usize) -> Result<Vec<u8>, DataError> {
        self.set.bytes(self.indices[index])
    }

    fn image(&self, index: usize) -> Result<RgbImage, DataError> {
        self.set.image(self.indices[index])
    }

    fn files(&self) -> Vec<PathBuf> {
        self.set.files()
    }

    fn pixels(&self) -> String {
        self.set.pixels()
    }
}

impl Dataset {
    /// A smaller data set: `sizes` images of each split it names, the other splits whole.
    ///
    /// Every class gets as many images as any other, or one fewer, as far as it has them; they keep their order.
    /// A gallery is cut so that the labels of the queries come first: equal sizes keep equal labels where every
    /// label has one image. The name carries the sizes of all splits, `cifar10-600-200`, and a seed that is not 0,
    /// `cifar10-600-200-s1`.
    ///
    /// # Errors
    /// Where a split is unknown, a size is 0 or more than there are images, or a query is left without an image of
    /// its label in the gallery.
    pub fn subset(&self, sizes: &BTreeMap<String, usize>, seed: u64) -> Result<Self, DataError> {
        for (name, &size) in sizes {
            let len = self.split(name)?.len();
            if size == 0 || size > len {
                let reason = format!("{size} images of split `{name}` were asked for; it has {len}");
                return Err(DataError::content(&self.name, reason));
            }
        }
        let mut splits: BTreeMap<String, Arc<dyn ImageSet>> = BTreeMap::new();
        let mut name = self.name.clone();
        for split in self.split_names() {
            let whole = &self.splits[split];
            let queries: BTreeSet<u32> = match splits.get("query") {
                Some(query) if split == "gallery" => (0..query.len()).map(|index| query.label(index)).collect(),
                _ => BTreeSet::new(),
            };
            let part = match sizes.get(split) {
                Some(&size) => Arc::new(Subset::new(whole.clone(), balanced(&**whole, size, seed, &queries))),
                None => whole.clone(),
            };
            let labels: BTreeSet<u32> = (0..part.len()).map(|index| part.label(index)).collect();
            if let Some(&label) = queries.difference(&labels).next() {
                let reason = format!(
                    "a gallery of {} has no image of class `{}` for its query; take at least {} images",
                    part.len(),
                    self.classes.get(label as usize).map_or("?", String::as_str),
                    queries.len()
                );
                return Err(DataError::content(&self.name, reason));
            }
            name += &format!("-{}", part.len());
            splits.insert(split.to_owned(), part);
        }
        if seed != 0 {
            name += &format!("-s{seed}");
        }
        Ok(Self {
            name,
            classes: self.classes.clone(),
            splits,
        })
    }
}

/// Indices of `size` images, ascending: every class's first image by hash, then every second one, and so on.
/// Where a round does not fit, classes in `first` are served before the others, then by the hash of the label.
fn balanced(set: &dyn ImageSet, size: usize, seed: u64, first: &BTreeSet<u32>) -> Vec<usize> {
    let mut classes: BTreeMap<u32, Vec<(u64, usize)>> = BTreeMap::new();
    for index in 0..set.len() {
        classes
            .entry(set.label(index))
            .or_default()
            .push((hash("image", seed, &set.name(index)), index));
    }
    let mut order = Vec::with_capacity(set.len());
    for (label, mut images) in classes {
        images.sort_unstable();
        let turn = (!first.contains(&label), hash("class", seed, &label.to_string()), label);
        order.extend(
            images
                .into_iter()
                .enumerate()
                .map(|(round, (_, index))| (round, turn, index)),
        );
    }
    order.sort_unstable();
    let mut indices: Vec<usize> = order.into_iter().take(size).map(|(_, _, index)| index).collect();
    indices.sort_unstable();
    indices
}

pub(crate) fn hash(purpose: &str, seed: u64, name: &str) -> u64 {
    let digest = Sha256::new()
        .chain_update(purpose)
        .chain_update(seed.to_le_bytes())
        .chain_update(name)
        .finalize();
    u64::from_be_bytes(std::array::from_fn(|byte| digest[byte]))
}
