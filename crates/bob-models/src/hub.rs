//! Checkpoints as timm publishes them on the Hugging Face hub.

use bob_core::{Checkpoint, Preprocess, Pretraining, Source, Style};

use crate::{CheckpointEntry, load_options};

/// One of timm's checkpoints, whose file has the names of timm.
pub(crate) struct TimmCheckpoint {
    /// `architecture.tag`.
    pub(crate) name: &'static str,
    /// Evaluation preprocessing (`default_cfgs`).
    pub(crate) preprocess: Preprocess,
    /// What it learnt from.
    pub(crate) pretraining: Pretraining,
    /// Classes of its classifier, 0 for none.
    pub(crate) num_classes: usize,
    /// SPDX name of the licence.
    pub(crate) license: &'static str,
    /// arXiv number.
    pub(crate) paper: &'static str,
}

impl TimmCheckpoint {
    /// The entry of `family`'s table.
    pub(crate) fn entry(self, family: &str, ignored: &[&str]) -> CheckpointEntry {
        let (architecture, _tag) = self.name.split_once('.').expect("timm's names are `architecture.tag`");
        CheckpointEntry {
            checkpoint: Checkpoint {
                name: self.name.to_owned(),
                architecture: architecture.to_owned(),
                family: family.to_owned(),
                sources: vec![Source::Hub {
                    repo: format!("timm/{}", self.name),
                    revision: "main".to_owned(),
                    path: "model.safetensors".to_owned(),
                    sha256: None,
                }],
                file: format!("{}.safetensors", self.name),
                sha256: None,
                preprocess: self.preprocess,
                pretraining: self.pretraining,
                num_classes: self.num_classes,
                license: self.license.to_owned(),
                paper: self.paper.to_owned(),
            },
            options: load_options(architecture).with_ignored(ignored),
        }
    }
}

impl TimmCheckpoint {
    /// The entry of weights in `file` that neither the hub nor a package has: whoever wants them puts the file into the
    /// cache.
    pub(crate) fn elsewhere(self, family: &str, file: &str, ignored: &[&str]) -> CheckpointEntry {
        let mut entry = self.entry(family, ignored);
        entry.checkpoint.sources.clear();
        entry.checkpoint.file = file.to_owned();
        entry
    }
}

/// What the files of CLIP hold besides the image tower, by OpenAI's names and open_clip's, and the counters that no
/// prediction needs.
pub(crate) const CLIP_IGNORED: &[&str] = &[
    "*.num_batches_tracked",
    "transformer.*",
    "token_embedding.*",
    "ln_final.*",
    "positional_embedding",
    "text_projection",
    "logit_scale",
    "input_resolution",
    "context_length",
    "vocab_size",
    // The projection to the texts: of a vision transformer only, and timm's name for it.
    "visual.proj",
    "head.weight",
    "head.bias",
];

/// What a whole checkpoint of DINO holds besides the teacher's backbone.
pub(crate) const DINO_IGNORED: &[&str] = &[
    "teacher.*",
    "student.*",
    "optimizer.*",
    "fp16_scaler.*",
    "dino_loss.*",
    "module.head.*",
];

/// The key of a checkpoint of DINO, of the backbone or of the whole training, in the names of its backbone; a key already
/// in those stays.
pub(crate) fn remap_dino(key: &str) -> String {
    let key = key
        .strip_prefix("teacher.")
        .filter(|key| key.contains("backbone."))
        .unwrap_or(key);
    let backbone = key.strip_prefix("module.").unwrap_or(key).strip_prefix("backbone.");
    backbone.unwrap_or(key).to_owned()
}

/// The key of a checkpoint of MAE in the names of its encoder; a key already in those stays.
pub(crate) fn remap_mae(key: &str) -> String {
    key.strip_prefix("model.").unwrap_or(key).to_owned()
}

/// The key of a checkpoint of MoCo v3 in the names of its backbone; a key already in those stays.
pub(crate) fn remap_moco_v3(key: &str) -> String {
    key.strip_prefix("module.base_encoder.").unwrap_or(key).to_owned()
}

fn pretraining(style: Style, data: &str, images: impl Into<Option<u64>>) -> Pretraining {
    Pretraining {
        style,
        data: data.to_owned(),
        images: images.into(),
    }
}

/// ImageNet-1k with labels.
pub(crate) fn imagenet_1k() -> Pretraining {
    pretraining(Style::Supervised, "imagenet-1k", 1_281_167)
}

/// ImageNet-1k without labels.
pub(crate) fn imagenet_1k_self_supervised() -> Pretraining {
    pretraining(Style::SelfSupervised, "imagenet-1k", 1_281_167)
}

/// The training images of the Image Similarity Challenge, which have no labels.
pub(crate) fn disc_2021() -> Pretraining {
    pretraining(Style::SelfSupervised, "disc21", 1_000_000)
}

/// The whole of ImageNet with labels, called 21k or 22k.
pub(crate) fn imagenet_22k() -> Pretraining {
    pretraining(Style::Supervised, "imagenet-22k", 14_197_122)
}

/// The whole of ImageNet without labels.
pub(crate) fn imagenet_22k_self_supervised() -> Pretraining {
    pretraining(Style::SelfSupervised, "imagenet-22k", 14_197_122)
}

/// LAION-2B in English, a rounded count.
pub(crate) fn laion_2b() -> Pretraining {
    pretraining(Style::VisionLanguage, "laion-2b", 2_320_000_000)
}

/// The same pairs, to generate the images.
pub(crate) fn laion_2b_generative() -> Pretraining {
    pretraining(Style::Generative, "laion-2b", 2_320_000_000)
}

/// OpenAI's pairs of images and texts, a rounded count.
pub(crate) fn openai_clip() -> Pretraining {
    pretraining(Style::VisionLanguage, "openai-400m", 400_000_000)
}

/// Twelve data sets of depth, after ImageNet (arXiv:2307.14460, which does not say how many images they have).
pub(crate) fn midas() -> Pretraining {
    pretraining(Style::Depth, "midas-12", None)
}

/// DINOv2's curated images, a rounded count.
pub(crate) fn lvd_142m() -> Pretraining {
    pretraining(Style::SelfSupervised, "lvd-142m", 142_000_000)
}

/// Images with what stands out in them; which and how many, nobody says.
pub(crate) fn saliency() -> Pretraining {
    pretraining(Style::Supervised, "saliency (undisclosed)", None)
}

/// The images of Segment Anything with their masks, a rounded count.
pub(crate) fn sa_1b() -> Pretraining {
    pretraining(Style::Supervised, "sa-1b", 11_000_000)
}
