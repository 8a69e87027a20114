//! What `--backbone` can name: a checkpoint, also of one's own, or an architecture with random weights.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bob_core::{Backbone, Checkpoint, Cost, CostCounter, Preprocess, Pretraining, Style, UnknownName, find};
use bob_models::weights::{self, load_module};
use bob_models::{
    AnyBackbone, Architecture, CheckpointEntry, InitOptions, OwnWeights, architectures, checkpoints, family_of,
    load_options, parse_own_checkpoints,
};
use burn::tensor::Device;
use serde_json::json;
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
    /// Absent for what is registered.
    own: Option<Own>,
}

/// What is known of a checkpoint that is not registered.
#[derive(Clone, Debug)]
struct Own {
    described_in: PathBuf,
    weights: OwnWeights,
    like: Option<String>,
}

/// Every backbone that can be loaded.
#[derive(Debug)]
pub struct Candidates(Vec<Candidate>);

impl Candidates {
    /// The checkpoints, the architectures with random weights, and the checkpoints of one's own that `files` describe.
    ///
    /// # Errors
    /// Where a file cannot be read, describes no checkpoints, or names weights that are not there.
    pub fn open(files: &[PathBuf]) -> Result<Self> {
        let architectures = architectures();
        let of_checkpoint = |entry: CheckpointEntry| Candidate::pretrained(entry, &architectures);
        let mut candidates = checkpoints()
            .into_iter()
            .map(of_checkpoint)
            .collect::<Result<Vec<_>>>()?;
        candidates.extend(architectures.iter().copied().map(Candidate::random));
        let mut opened = Vec::new();
        for file in files {
            let shown = file.display();
            let unreadable = |error| Usage(format!("checkpoints `{shown}`: {error}; expected a TOML file"));
            // A file may be named by the profile and on the command line.
            let canonical = fs::canonicalize(file).map_err(unreadable)?;
            if opened.contains(&canonical) {
                continue;
            }
            opened.push(canonical);
            let text = fs::read_to_string(file).map_err(unreadable)?;
            let taken: Vec<&str> = candidates.iter().map(Candidate::name).collect();
            let own =
                parse_own_checkpoints(&text, &shown.to_string(), &taken).map_err(|error| Usage(error.to_string()))?;
            let described_in = std::path::absolute(file).map_err(unreadable)?;
            for mut own in own {
                if let OwnWeights::File(path) = &mut own.weights {
                    *path = described_in.with_file_name("").join(&*path);
                    if !path.is_file() {
                        return Err(Usage(format!(
                            "checkpoints `{shown}`, `{}`: key `file` is `{}`, which is no file; expected one, relative \
                             to the folder of `{shown}`",
                            own.entry.checkpoint.name,
                            path.display()
                        ))
                        .into());
                    }
                }
                let candidate = Candidate::pretrained(own.entry, &architectures)?;
                candidates.push(Candidate {
                    own: Some(Own {
                        described_in: described_in.clone(),
                        weights: own.weights,
                        like: own.like,
                    }),
                    ..candidate
                });
            }
        }
        Ok(Self(candidates))
    }

    /// The candidate `name`.
    ///
    /// # Errors
    /// Where there is none, with the nearest name.
    pub fn find(&self, name: &str) -> Result<Candidate, UnknownName> {
        find("backbone", name, &self.0, Candidate::name).cloned()
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Candidate> {
        self.0.iter()
    }
}

impl Candidate {
    fn pretrained(entry: CheckpointEntry, architectures: &[Architecture]) -> Result<Self> {
        let checkpoint = entry.checkpoint.clone();
        let architecture = find("architecture", &checkpoint.architecture, architectures, |one| one.name)?;
        Ok(Self {
            checkpoint,
            architecture: *architecture,
            entry: Some(entry),
            own: None,
        })
    }

    fn random(architecture: Architecture) -> Self {
        let checkpoint = Checkpoint {
            name: format!("{}.{RANDOM}", architecture.name),
            architecture: architecture.name.to_owned(),
            family: family_of(architecture.name).unwrap_or_default().to_owned(),
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
                images: Some(0),
            },
            num_classes: NUM_CLASSES,
            license: String::new(),
            paper: String::new(),
        };
        Self {
            checkpoint,
            architecture,
            entry: None,
            own: None,
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

    /// The file that describes it, for a checkpoint of one's own.
    pub fn described_in(&self) -> Option<&Path> {
        self.own.as_ref().map(|own| own.described_in.as_path())
    }

    /// Its weights where they are no matter of the cache.
    pub fn file(&self) -> Option<&Path> {
        match &self.own.as_ref()?.weights {
            OwnWeights::File(path) => Some(path),
            OwnWeights::Fetched(_) => None,
        }
    }

    /// The name below which the cache has its weights.
    pub fn fetched_as(&self) -> &str {
        match self.own.as_ref().map(|own| &own.weights) {
            Some(OwnWeights::Fetched(name)) => name,
            _ => self.name(),
        }
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
    pub fn identity(&self, file: Option<&Path>, seed: u64) -> Result<String> {
        if let Some(path) = file {
            return weights::sha256(path).with_context(|| format!("`{}`", path.display()));
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

    /// What tells this use of the weights from others, as hex: one file gives other backbones by another architecture or
    /// other names for its keys, and other embeddings by another preprocessing.
    pub fn setup(&self) -> String {
        // The functions of a table stand behind the name of the checkpoint that has them.
        let keys = match (&self.own, &self.entry) {
            (Some(own), _) => own.like.as_deref().unwrap_or_default(),
            (None, Some(_)) => self.name(),
            (None, None) => "",
        };
        let options = self.entry.as_ref().map(|entry| &entry.options);
        let setup = json!({
            "architecture": self.architecture.name,
            "num_classes": self.checkpoint.num_classes,
            "preprocess": self.checkpoint.preprocess,
            "keys": keys,
            "renames": options.map_or(&[][..], |options| &options.renames),
            "top_level_key": options.and_then(|options| options.top_level_key.as_ref()),
        });
        hex(&Sha256::digest(setup.to_string()))
    }

    /// The backbone on `device`: with the weights of a file, or with random ones drawn from `seed`.
    pub fn load(&self, file: Option<&Path>, seed: u64, device: &Device) -> Result<AnyBackbone> {
        match (file, &self.entry) {
            (Some(path), Some(entry)) => Ok(weights::load(self.skeleton(device), path, entry)?),
            (Some(path), None) => {
                Ok(load_module(self.skeleton(device), path, &load_options(self.architecture.name))?.0)
            }
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
