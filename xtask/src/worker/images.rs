//! The images of a cell: a data set or a part of it, with its manifests.

use std::collections::BTreeMap;

use anyhow::Result;
use bob_data::{Dataset, Manifest};
use bob_stats::DataRecord;
use sha2::{Digest, Sha256};

use crate::places;

/// Data sets that are committed with the project; a record on one of them says so.
const FIXTURES: &str = "fixtures";

/// Whether `dataset` is one of the repository's own.
pub fn is_fixtures(dataset: &str) -> bool {
    dataset == FIXTURES || dataset.starts_with(&format!("{FIXTURES}-"))
}

/// A data set with the manifest of every split.
pub struct Images {
    /// The data set.
    pub dataset: Dataset,
    manifests: BTreeMap<String, Manifest>,
}

impl Images {
    /// The images of `dataset`, of each split in `limit` that many.
    ///
    /// Manifests are kept in the cache; with `keep` false one that is not there is computed and forgotten.
    pub fn open(dataset: &Dataset, limit: &BTreeMap<String, usize>, keep: bool) -> Result<Self> {
        let dataset = if limit.is_empty() {
            dataset.clone()
        } else {
            dataset.subset(limit, 0)?
        };
        let folder = places::cache()?.join("manifests").join(&dataset.name);
        let manifest = |split: &str| {
            let path = folder.join(format!("{split}.json"));
            let set = &**dataset.split(split)?;
            if keep || path.exists() {
                Manifest::load_or_compute(set, &path)
            } else {
                Manifest::compute(set)
            }
        };
        let manifests = dataset
            .split_names()
            .into_iter()
            .map(|split| Ok((split.to_owned(), manifest(split)?)))
            .collect::<Result<_, bob_data::DataError>>()?;
        Ok(Self { dataset, manifests })
    }

    /// The manifest of `split`.
    pub fn manifest(&self, split: &str) -> Option<&Manifest> {
        self.manifests.get(split)
    }

    /// Where images of `test` are also in `train`, byte for byte: how many, and one of them.
    pub fn leak(&self) -> Option<String> {
        let (train, test) = (self.manifest("train")?, self.manifest("test")?);
        let known: BTreeMap<&str, &str> = train
            .entries()
            .iter()
            .map(|entry| (entry.sha256.as_str(), entry.name.as_str()))
            .collect();
        let twins: Vec<_> = test
            .entries()
            .iter()
            .filter_map(|entry| Some((&entry.name, known.get(entry.sha256.as_str())?)))
            .collect();
        let (test, train) = twins.first()?;
        Some(format!(
            "{} images that are tested on are also trained on, byte for byte, so scores are too high; `{test}` is `{train}`",
            twins.len()
        ))
    }

    /// What a record says of the images.
    pub fn record(&self) -> DataRecord {
        let mut all = Sha256::new();
        for (split, manifest) in &self.manifests {
            all.update(format!("{split} {}\n", manifest.sha256()));
        }
        DataRecord {
            manifest_sha256: hex(&all.finalize()),
            counts: self
                .dataset
                .splits
                .iter()
                .map(|(split, set)| (split.clone(), set.len()))
                .collect(),
            fixtures: is_fixtures(
                self.dataset
                    .name
                    .split_once("-")
                    .map_or(&self.dataset.name, |(name, _)| name),
            ),
        }
    }
}

/// `bytes` in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
