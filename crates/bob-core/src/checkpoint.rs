//! What is known of a set of weights before it is loaded.

use serde::{Deserialize, Serialize};

use crate::{Preprocess, Source};

/// How a checkpoint was pretrained, as BoB's Table 1 groups it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    /// Labels.
    Supervised,
    /// No labels.
    SelfSupervised,
    /// Images with text.
    VisionLanguage,
    /// Depth estimation.
    Depth,
    /// Image generation.
    Generative,
    /// Not pretrained: a baseline.
    Random,
}

/// What a checkpoint learnt from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pretraining {
    /// How it was pretrained.
    pub style: Style,
    /// Name of the data, for example `imagenet-1k`; empty for random weights.
    pub data: String,
    /// Number of distinct images, 0 for random weights; none where nobody says it.
    pub images: Option<u64>,
}

/// A named set of weights of one architecture, with all that is needed to use it.
///
/// It belongs to the weights and not to the architecture, as timm's `PretrainedCfg` does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// `architecture.tag`, timm's grammar, for example `resnet50.a1_in1k`.
    pub name: String,
    /// Architecture, timm's name, for example `resnet50`.
    pub architecture: String,
    /// Family, the file of `bob-models` that holds it, for example `resnet`.
    pub family: String,
    /// Places that have the weights, tried in order; empty for random weights.
    pub sources: Vec<Source>,
    /// Name of the file in the cache once fetched; empty for random weights.
    pub file: String,
    /// SHA-256 of that file where it is pinned, lower-case hex.
    pub sha256: Option<String>,
    /// Evaluation preprocessing.
    pub preprocess: Preprocess,
    /// What it learnt from.
    pub pretraining: Pretraining,
    /// Classes of its own classifier, 0 where it has none.
    pub num_classes: usize,
    /// Licence of the weights, an SPDX name where there is one.
    pub license: String,
    /// arXiv number of the paper.
    pub paper: String,
}
