//! The tables of architectures and checkpoints, and the one enum over the families.

use std::path::Path;

use bob_core::{Checkpoint, UnknownName, find, initialize};
use burn::tensor::Device;

use crate::{AnyBackbone, weights};

/// What an architecture needs to know besides its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitOptions {
    /// Classes of the classifier, 0 for none.
    pub num_classes: usize,
    /// `[height, width]` the weights will see, in pixels.
    pub input_size: [usize; 2],
}

/// One architecture: timm's name and how to initialise it.
#[derive(Clone, Copy, Debug)]
pub struct Architecture {
    /// timm's name, for example `resnet50`.
    pub name: &'static str,
    /// `[height, width]` it was designed for, in pixels.
    pub input_size: [usize; 2],
    /// Initialise it on a device; parameters are lazy.
    pub init: fn(&InitOptions, &Device) -> AnyBackbone,
}

/// One checkpoint and what its file needs to load.
#[derive(Clone, Debug)]
pub struct CheckpointEntry {
    /// What is known of it.
    pub checkpoint: Checkpoint,
    /// How its file is read.
    pub options: weights::LoadOptions,
}

impl CheckpointEntry {
    /// The same, its file read in the way that `change` makes of this one's.
    pub(crate) fn with_options(self, change: impl FnOnce(weights::LoadOptions) -> weights::LoadOptions) -> Self {
        Self {
            options: change(self.options),
            ..self
        }
    }
}

/// What a family's file contributes to the tables.
pub(crate) struct Family {
    /// Its architectures.
    pub architectures: &'static [Architecture],
    /// Its checkpoints, one entry each.
    pub checkpoints: fn() -> Vec<CheckpointEntry>,
    /// timm's key, or that of what the family follows, in the names of the fields.
    pub remap: fn(&str) -> String,
}

/// Write the enum over the families, its delegation, and the ordered table of families.
macro_rules! backbones {
    ($($(#[$doc:meta])* $variant:ident($type:ty) from $module:ident),+ $(,)?) => {
        /// Any backbone of this crate: the closed sum over the families.
        ///
        /// The variant is a segment of parameter paths; weights are loaded and saved without it.
        #[derive(burn::module::Module, Debug)]
        #[expect(clippy::large_enum_variant, reason = "a backbone is held once, and a Box is no Module")]
        pub enum AnyBackbone {
            $($(#[$doc])* $variant($type)),+
        }

        $(impl From<$type> for AnyBackbone {
            fn from(backbone: $type) -> Self {
                Self::$variant(backbone)
            }
        })+

        impl bob_core::Backbone for AnyBackbone {
            fn feature_info(&self) -> Vec<bob_core::FeatureInfo> {
                match self { $(Self::$variant(backbone) => backbone.feature_info()),+ }
            }
            fn num_features(&self) -> usize {
                match self { $(Self::$variant(backbone) => backbone.num_features()),+ }
            }
            fn forward_intermediates(&self, images: burn::tensor::Tensor<4>) -> Vec<burn::tensor::Tensor<4>> {
                match self { $(Self::$variant(backbone) => backbone.forward_intermediates(images)),+ }
            }
            fn forward_embedding(&self, images: burn::tensor::Tensor<4>) -> burn::tensor::Tensor<2> {
                match self { $(Self::$variant(backbone) => backbone.forward_embedding(images)),+ }
            }
            fn forward_classifier(&self, embedding: burn::tensor::Tensor<2>) -> Option<burn::tensor::Tensor<2>> {
                match self { $(Self::$variant(backbone) => backbone.forward_classifier(embedding)),+ }
            }
            fn size_divisibility(&self) -> usize {
                match self { $(Self::$variant(backbone) => backbone.size_divisibility()),+ }
            }
            fn fixed_input_size(&self) -> Option<[usize; 2]> {
                match self { $(Self::$variant(backbone) => backbone.fixed_input_size()),+ }
            }
            fn layer_groups(&self) -> Vec<Vec<burn::module::ParamId>> {
                match self { $(Self::$variant(backbone) => backbone.layer_groups()),+ }
            }
            fn fuse(self) -> Self {
                match self { $(Self::$variant(backbone) => Self::$variant(backbone.fuse())),+ }
            }
            fn set_grad_checkpointing(&mut self, enable: bool) -> bool {
                match self { $(Self::$variant(backbone) => backbone.set_grad_checkpointing(enable)),+ }
            }
            fn count(&self, counter: &mut bob_core::CostCounter, input_size: [usize; 2]) {
                match self { $(Self::$variant(backbone) => backbone.count(counter, input_size)),+ }
            }
        }

        /// Every family, by the name of its file.
        fn families() -> [(&'static str, &'static registry::Family); [$(stringify!($variant)),+].len()] {
            [$((stringify!($module), &$module::FAMILY)),+]
        }
    };
}

/// Why a backbone cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// No such architecture or checkpoint.
    #[error(transparent)]
    Unknown(#[from] UnknownName),
    /// The weights do not load.
    #[error(transparent)]
    Weights(#[from] weights::WeightsError),
}

/// Every architecture, in the order of the families.
pub fn architectures() -> Vec<Architecture> {
    crate::families()
        .iter()
        .flat_map(|(_, family)| family.architectures)
        .copied()
        .collect()
}

/// The family of an architecture, the file of this crate that holds it.
pub fn family_of(architecture: &str) -> Option<&'static str> {
    find_family(architecture).map(|(name, _)| name)
}

fn find_family(architecture: &str) -> Option<(&'static str, &'static Family)> {
    let has = |family: &Family| family.architectures.iter().any(|one| one.name == architecture);
    crate::families().into_iter().find(|(_, family)| has(family))
}

/// How a file is read that has the names of the reference for `architecture`.
pub fn load_options(architecture: &str) -> weights::LoadOptions {
    let options = weights::LoadOptions::default();
    match find_family(architecture) {
        Some((_, family)) => options.with_remap(family.remap),
        None => options,
    }
}

/// Every checkpoint, in the order of the families.
pub fn checkpoints() -> Vec<CheckpointEntry> {
    crate::families()
        .iter()
        .flat_map(|(_, family)| (family.checkpoints)())
        .collect()
}

/// The backbone of checkpoint `name` with the weights of the file `path`, loaded strictly.
///
/// # Errors
/// Where the name is unknown or the file does not fit; see [`weights::load`].
pub fn create(name: &str, path: &Path, device: &Device) -> Result<AnyBackbone, CreateError> {
    let checkpoints = checkpoints();
    let entry = find("checkpoint", name, &checkpoints, |entry| &entry.checkpoint.name)?;
    let architectures = architectures();
    let architecture = find(
        "architecture",
        &entry.checkpoint.architecture,
        &architectures,
        |architecture| architecture.name,
    )?;
    let options = InitOptions {
        num_classes: entry.checkpoint.num_classes,
        input_size: entry.checkpoint.preprocess.input_size,
    };
    let backbone = (architecture.init)(&options, device);
    Ok(weights::load(backbone, path, entry)?)
}

/// The architecture `name` with random weights drawn from `seed`: a baseline that has learnt nothing.
///
/// # Errors
/// Where the name is unknown.
pub fn create_random(
    name: &str,
    options: &InitOptions,
    seed: u64,
    device: &Device,
) -> Result<AnyBackbone, UnknownName> {
    let architectures = architectures();
    let architecture = find("architecture", name, &architectures, |architecture| architecture.name)?;
    Ok(initialize(seed, device, || (architecture.init)(options, device)))
}
