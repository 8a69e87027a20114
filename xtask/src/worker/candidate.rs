//! What `--backbone` can name: a checkpoint, or an architecture with random weights.

use std::path::Path;

use anyhow::{Context, Result};
use bob_core::{Backbone, Checkpoint, Cost, CostCounter, Preprocess, Pretraining, Style, UnknownName, find};
use bob_models::weights::{LoadOptions, load_module};
use bob_models::{AnyBackbone, Architecture, CheckpointEntry, InitOptions, architectures, checkpoints};
use burn::tensor::Device;
use sha2::{Digest, Sha256};

use crate::launch::Usage;
use crate::worker::images::hex;

/// The tag of an architecture with random weights, `resnet18.random`.
const RANDOM: &str = "random";
/// Raised when an architecture draws its random weights in another way, so that what is kept of the old ones is not
/// taken for theirs.
const DRAWN: u32 = 2;
/// Classes of the classifier of an architecture that has no checkpoint: ImageNet's, as published sizes count it.
const NUM_CLASSES: usize = 1000;

/// A backbone that can be loaded.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What is known of its weights; of random ones, what timm would say of the architecture.
    pub checkpoint: Checkpoint,
    architecture: Architecture,
    /// Absent for random weights.
    entry: Option<CheckpointEntry>,
}

impl Candidate {
    /// Every candidate: the checkpoints, then the architectures with random weights.
    pub fn all() -> Vec<Self> {
        let architectures = architectures();
        let of_checkpoint = |entry: CheckpointEntry| {
            let architecture = architectures
                .iter()
                .find(|one| one.name == entry.checkpoint.architecture)
                .copied()?;
            Some(Self {
                checkpoint: entry.checkpoint.clone(),
                architecture,
                entry: Some(entry),
            })
        };
        let pretrained = checkpoints();
        // `swinv2_micro_window7_224` has no checkpoint, but is of the family of those that begin like it.
        let stem = |architecture: &str| architecture.split('_').next().map(str::to_owned);
        let family = |architecture: &Architecture| {
            let own = |entry: &&CheckpointEntry| entry.checkpoint.architecture == architecture.name;
            let like = |entry: &&CheckpointEntry| stem(&entry.checkpoint.architecture) == stem(architecture.name);
            pretrained
                .iter()
                .find(own)
                .or_else(|| pretrained.iter().find(like))
                .map(|entry| entry.checkpoint.family.clone())
                .unwrap_or_default()
        };
        let random: Vec<Self> = architectures
            .iter()
            .map(|one| Self::random(*one, family(one)))
            .collect();
        pretrained.into_iter().filter_map(of_checkpoint).chain(random).collect()
    }

    /// The candidate `name`.
    ///
    /// # Errors
    /// Where there is none, with the nearest name.
    pub fn find(name: &str) -> Result<Self, UnknownName> {
        find("backbone", name, &Self::all(), |candidate| &candidate.checkpoint.name).cloned()
    }

    fn random(architecture: Architecture, family: String) -> Self {
        let checkpoint = Checkpoint {
            name: format!("{}.{RANDOM}", architecture.name),
            architecture: architecture.name.to_owned(),
            family,
            sources: Vec::new(),
            file: String::new(),
            sha256: None,
            preprocess: Preprocess {
                input_size: architecture.input_size,
                ..Preprocess::imagenet(architecture.input_size[0])
            },
            pretraining: Pretraining {
                style: Style::Random,
                data: String::new(),
                images: 0,
            },
            num_classes: NUM_CLASSES,
            license: String::new(),
            paper: String::new(),
        };
        Self {
            checkpoint,
            architecture,
            entry: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.checkpoint.name
    }

    /// Whether its weights are random.
    pub fn is_random(&self) -> bool {
        self.entry.is_none()
    }

    /// The same for images of `side` pixels.
    ///
    /// # Errors
    /// Where its weights were trained at a size of their own.
    pub fn at_input_size(mut self, side: usize) -> Result<Self, Usage> {
        if !self.is_random() {
            return Err(Usage(format!(
                "backbone `{}` has the input size of its checkpoint; only random weights take another",
                self.name()
            )));
        }
        self.checkpoint.preprocess.input_size = [side, side];
        Ok(self)
    }

    fn options(&self) -> InitOptions {
        InitOptions {
            num_classes: self.checkpoint.num_classes,
            input_size: self.checkpoint.preprocess.input_size,
        }
    }

    /// The architecture without its weights: parameters are lazy, so it costs nothing to look at.
    pub fn skeleton(&self, device: &Device) -> AnyBackbone {
        (self.architecture.init)(&self.options(), device)
    }

    /// What tells these weights from others: the file's SHA-256, or that of what random ones are drawn from.
    pub fn identity(&self, weights: Option<&Path>, seed: u64) -> Result<String> {
        if let Some(path) = weights {
            return bob_models::weights::sha256(path).with_context(|| format!("`{}`", path.display()));
        }
        let InitOptions {
            num_classes,
            input_size,
        } = self.options();
        let drawn = format!(
            "{} {num_classes} {input_size:?} seed {seed} drawn {DRAWN}",
            self.architecture.name
        );
        Ok(hex(&Sha256::digest(drawn)))
    }

    /// The backbone on `device`: with the weights of a file, or with random ones drawn from `seed`.
    pub fn load(&self, weights: Option<&Path>, seed: u64, device: &Device) -> Result<AnyBackbone> {
        match (weights, &self.entry) {
            (Some(path), Some(_)) => Ok(bob_models::create(self.name(), path, device)?),
            // A file of one's own in timm's names.
            (Some(path), None) => Ok(load_module(self.skeleton(device), path, &LoadOptions::default())?.0),
            (None, _) => Ok(bob_models::create_random(
                self.architecture.name,
                &self.options(),
                seed,
                device,
            )?),
        }
    }

    /// Parameters, and the cost of one image at the input size where it can be counted.
    pub fn size(&self, device: &Device) -> (u64, Option<Cost>) {
        let skeleton = self.skeleton(device);
        let mut counter = CostCounter::new();
        skeleton.count(&mut counter, self.checkpoint.preprocess.input_size);
        (bob_core::num_parameters(&skeleton) as u64, counter.finish())
    }
}
