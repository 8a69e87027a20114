//! Checkpoints as timm publishes them on the Hugging Face hub.

use bob_core::{Checkpoint, Preprocess, Pretraining, Source, Style};

use crate::CheckpointEntry;

/// One of timm's checkpoints; its own names, so that its file needs no remap.
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
    pub(crate) fn entry(self, family: &str, ignored: &'static [&'static str]) -> CheckpointEntry {
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
            top_level_key: None,
            remap: str::to_owned,
            ignored,
        }
    }
}

fn pretraining(style: Style, data: &str, images: u64) -> Pretraining {
    Pretraining {
        style,
        data: data.to_owned(),
        images,
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

/// The whole of ImageNet with labels, called 21k or 22k.
pub(crate) fn imagenet_22k() -> Pretraining {
    pretraining(Style::Supervised, "imagenet-22k", 14_197_122)
}

/// LAION-2B in English, a rounded count.
pub(crate) fn laion_2b() -> Pretraining {
    pretraining(Style::VisionLanguage, "laion-2b", 2_320_000_000)
}
