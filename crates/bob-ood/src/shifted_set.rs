//! A data set under a corruption.

use std::path::PathBuf;
use std::sync::Arc;

use bob_data::{DataError, ImageSet, RgbImage};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::corruptions::Corruption;

/// The images of another set at one severity of one corruption.
///
/// What is random is drawn from the seed, the image's name, the corruption and the severity, so that an image is the
/// same in whatever order or subset it is asked for.
#[derive(Clone)]
pub struct ShiftedSet {
    clean: Arc<dyn ImageSet>,
    corruption: &'static Corruption,
    severity: u8,
    seed: u64,
}

impl ShiftedSet {
    /// `clean` under `corruption` at `severity`, 1 to 5.
    pub fn new(clean: Arc<dyn ImageSet>, corruption: &'static Corruption, severity: u8, seed: u64) -> Self {
        Self {
            clean,
            corruption,
            severity,
            seed,
        }
    }

    /// Suffix of names, for example `#gaussian_noise-3`.
    fn suffix(&self) -> String {
        format!("#{}-{}", self.corruption.name, self.severity)
    }
}

impl ImageSet for ShiftedSet {
    fn len(&self) -> usize {
        self.clean.len()
    }

    /// The clean image's name with the corruption and the severity, for example `test/17.png#contrast-2`.
    fn name(&self, index: usize) -> String {
        self.clean.name(index) + &self.suffix()
    }

    fn label(&self, index: usize) -> u32 {
        self.clean.label(index)
    }

    fn bytes(&self, index: usize) -> Result<Vec<u8>, DataError> {
        self.clean.bytes(index)
    }

    fn files(&self) -> Vec<PathBuf> {
        self.clean.files()
    }

    /// What makes the clean pixels, then the corruption, the severity and the seed: data hashes of different shifts
    /// differ.
    fn pixels(&self) -> String {
        format!("{}{} seed {}", self.clean.pixels(), self.suffix(), self.seed)
    }

    fn image(&self, index: usize) -> Result<RgbImage, DataError> {
        let name = self.name(index);
        let mut random = StdRng::seed_from_u64(hash(name.as_bytes(), self.seed));
        let clean = self.clean.image(index)?;
        self.corruption
            .apply(&clean, self.severity, &mut random)
            .map_err(|error| DataError::Content {
                dataset: name,
                reason: error.to_string(),
            })
    }
}

/// FNV-1a of `bytes`, begun from `seed`.
fn hash(bytes: &[u8], seed: u64) -> u64 {
    let begin = 0xCBF2_9CE4_8422_2325 ^ seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bytes.iter().fold(begin, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}
