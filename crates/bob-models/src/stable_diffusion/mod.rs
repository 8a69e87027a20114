//! The half of Stable Diffusion v1 that looks at images: the encoder of its autoencoder, then the input blocks and the
//! middle block of its denoising network at timestep 0, told "image classification".
//!
//! Papers: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models" (arXiv:2112.10752); as a
//! backbone, Goldblum et al., "Battle of the Backbones" (arXiv:2310.19909). Reference: `ldm/` of
//! github.com/CompVis/latent-diffusion, whose names the fields have, from the root of a checkpoint on;
//! `fixtures/make_models_diffusion.py` compares with diffusers, which has the same network under other names.
//!
//! The latent is the most likely one, also in training, where BoB draws it. The text encoder does not train. The
//! embedding is the mean of the middle block's map: no checkpoint has a head, and the group norm and the linear layer
//! that BoB puts before and after the mean belong to fine-tuning, as do the group norms of its detector.

mod autoencoder;
mod text;
mod unet;

use bob_core::{Backbone, CostCounter, FeatureInfo, Preprocess, Source};
use bob_ops::Activation;
use burn::config::Config;
use burn::module::{Module, ParamId, list_param_ids};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{GroupNorm, GroupNormConfig, Linear, PaddingConfig2d};
use burn::tensor::{Device, Tensor};

use autoencoder::Autoencoder;
use text::Prompt;
use unet::Unet;

use crate::hub::{TimmCheckpoint, laion_2b_generative};
use crate::init as initial;
use crate::layers::{channels_first, classify, global_avg_pool};
use crate::registry::{Architecture, CheckpointEntry, Family};

pub use autoencoder::AutoencoderConfig;
pub use text::TextConfig;
pub use unet::UnetConfig;

const SILU: Option<Activation> = Some(Activation::Silu);

/// Configuration of [`StableDiffusion`]; the fields are those of ldm's configuration, the defaults Stable Diffusion v1.
#[derive(Config, Debug)]
pub struct StableDiffusionConfig {
    /// The autoencoder.
    #[config(default = "AutoencoderConfig::new()")]
    pub first_stage_config: AutoencoderConfig,
    /// The denoising network.
    #[config(default = "UnetConfig::new()")]
    pub unet_config: UnetConfig,
    /// The text encoder.
    #[config(default = "TextConfig::new()")]
    pub cond_stage_config: TextConfig,
    /// Classes of a classifier on the embedding, 0 for none; no checkpoint has one.
    #[config(default = 0)]
    pub num_classes: usize,
}

impl StableDiffusionConfig {
    /// Initialise on `device`; parameters are lazy.
    ///
    /// # Panics
    /// Where the autoencoder has fewer than three levels, groups do not divide the channels of a norm, or the prompt is
    /// empty, longer than a text or of unknown tokens.
    pub fn init(&self, device: &Device) -> StableDiffusion {
        let Self {
            first_stage_config,
            unet_config,
            cond_stage_config,
            num_classes,
        } = self;
        let diffusion_model = unet_config.init(first_stage_config.z_channels, cond_stage_config.hidden_size, device);
        let features = diffusion_model.maps().last().map_or(0, |(channels, _)| *channels);
        StableDiffusion {
            first_stage_model: first_stage_config.init(device),
            model: DiffusionWrapper { diffusion_model },
            cond_stage_model: cond_stage_config.init(device),
            head: (*num_classes > 0).then(|| initial::linear(features, *num_classes, true, device)),
        }
    }
}

/// A group norm.
fn group_norm(groups: usize, channels: usize, epsilon: f64, device: &Device) -> GroupNorm {
    GroupNormConfig::new(groups, channels)
        .with_epsilon(epsilon)
        .init(device)
}

/// A convolution that keeps the size of a map.
fn conv(channels: [usize; 2], kernel: usize, device: &Device) -> Conv2d {
    let pad = kernel / 2;
    Conv2dConfig::new(channels, [kernel, kernel])
        .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
        .init(device)
}

/// The encoding half of Stable Diffusion; see the module.
///
/// It takes images of any size that is a multiple of [`Backbone::size_divisibility`]. The maps are that of the
/// autoencoder after its last downsampling but one, the last of every level of the denoising network but the lowest, and
/// the middle block's, as BoB's detector has them.
#[derive(Module, Debug)]
pub struct StableDiffusion {
    first_stage_model: Autoencoder,
    model: DiffusionWrapper,
    cond_stage_model: Prompt,
    /// Not in Stable Diffusion.
    head: Option<Linear>,
}

#[derive(Module, Debug)]
struct DiffusionWrapper {
    diffusion_model: Unet,
}

impl StableDiffusion {
    /// Every map, with channels last.
    fn forward_maps(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let [map, latent] = self.first_stage_model.forward(images);
        let context = self.cond_stage_model.forward();
        let mut maps = vec![map];
        maps.extend(self.model.diffusion_model.forward(latent, context));
        maps
    }
}

impl Backbone for StableDiffusion {
    fn feature_info(&self) -> Vec<FeatureInfo> {
        let first_stage = &self.first_stage_model;
        let reduction = first_stage.reduction();
        let map = FeatureInfo::new(
            first_stage.map_channels(),
            reduction / 2,
            format!("first_stage_model.encoder.down.{}.downsample", first_stage.map_level()),
        );
        let maps = self.model.diffusion_model.maps().into_iter().enumerate();
        let maps = maps.map(|(level, (channels, name))| {
            FeatureInfo::new(channels, reduction << level, format!("model.diffusion_model.{name}"))
        });
        std::iter::once(map).chain(maps).collect()
    }

    /// The channels of the middle block.
    fn num_features(&self) -> usize {
        let maps = self.model.diffusion_model.maps();
        maps.last().map_or(0, |(channels, _)| *channels)
    }

    fn forward_intermediates(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        self.forward_maps(images).into_iter().map(channels_first).collect()
    }

    /// The mean of the middle block's map.
    fn forward_embedding(&self, images: Tensor<4>) -> Tensor<2> {
        let middle = self.forward_maps(images).pop();
        global_avg_pool(middle.expect("the middle block gives a map"))
    }

    fn forward_classifier(&self, embedding: Tensor<2>) -> Option<Tensor<2>> {
        classify(&self.head, embedding)
    }

    /// What the lowest level makes of a side: 64 for Stable Diffusion v1.
    fn size_divisibility(&self) -> usize {
        self.feature_info().last().map_or(1, |info| info.reduction)
    }

    /// The autoencoder, the text encoder and the embedding of the timestep; every input block; the middle block.
    fn layer_groups(&self) -> Vec<Vec<ParamId>> {
        let mut groups = self.model.diffusion_model.layer_groups();
        if let Some(stem) = groups.first_mut() {
            stem.extend(list_param_ids(&self.first_stage_model));
            stem.extend(list_param_ids(&self.cond_stage_model));
        }
        groups
    }

    /// The same function with the prompt's embedding instead of the text encoder.
    fn fuse(mut self) -> Self {
        self.first_stage_model.lay_out();
        self.model.diffusion_model.lay_out();
        Self {
            cond_stage_model: self.cond_stage_model.fuse(),
            ..self
        }
    }

    fn set_grad_checkpointing(&mut self, enable: bool) -> bool {
        self.first_stage_model.set_grad_checkpointing(enable);
        self.model.diffusion_model.set_grad_checkpointing(enable);
        true
    }

    /// What one image more costs: the prompt and the timestep, which are those of every batch, are not counted.
    fn count(&self, counter: &mut CostCounter, input_size: [usize; 2]) {
        let latent = self.first_stage_model.count(counter, input_size);
        let context = self.cond_stage_model.tokens();
        self.model.diffusion_model.count(counter, latent, context);
        if let Some(head) = &self.head {
            counter.linear(head, 1);
        }
    }
}

/// What a checkpoint holds besides the encoding half: the decoder, the rest of the denoising network, moving averages, the
/// constants of the diffusion, the numbers of the text's places, and Lightning's state of training.
const IGNORED: &[&str] = &[
    "first_stage_model.decoder.*",
    "first_stage_model.post_quant_conv.*",
    "first_stage_model.loss.*",
    "model.diffusion_model.output_blocks.*",
    "model.diffusion_model.out.*",
    "model_ema.*",
    "cond_stage_model.transformer.text_model.embeddings.position_ids",
    "betas",
    "alphas_*",
    "sqrt_*",
    "log_one_minus_alphas_cumprod",
    "posterior_*",
    "logvar",
    "callbacks.*",
];

/// What Lightning writes beside the state dict: its state of training names one of its classes, and holds numbers of
/// numpy's.
const LIGHTNING_GLOBALS: &[&str] = &[
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "_codecs.encode",
];

/// The key of Lightning's file without the key that nests the state dict.
fn remap(key: &str) -> String {
    key.strip_prefix("state_dict.").unwrap_or(key).to_owned()
}

/// The tables of this family.
pub(crate) static FAMILY: Family = Family {
    architectures: &[Architecture {
        name: "stable_diffusion_v1",
        input_size: [256, 256],
        init: |options, device| {
            let config = StableDiffusionConfig::new().with_num_classes(options.num_classes);
            config.init(device).into()
        },
    }],
    checkpoints,
    remap: str::to_owned,
};

fn checkpoints() -> Vec<CheckpointEntry> {
    let checkpoint = |name, repo: &str, file: &str| {
        let mut entry = TimmCheckpoint {
            name,
            // BoB's; the autoencoder was trained on values from -1 to 1.
            preprocess: Preprocess::imagenet(256),
            pretraining: laion_2b_generative(),
            num_classes: 0,
            license: "CreativeML-OpenRAIL-M",
            paper: "2112.10752",
        }
        .entry("stable_diffusion", IGNORED);
        entry.checkpoint.sources = vec![Source::Hub {
            repo: repo.to_owned(),
            revision: "main".to_owned(),
            path: file.to_owned(),
            sha256: None,
        }];
        entry.checkpoint.file = file.to_owned();
        entry.with_options(|options| options.with_remap(remap).with_allowed_globals(LIGHTNING_GLOBALS))
    };
    vec![
        checkpoint(
            "stable_diffusion_v1.sd_v1_4",
            "CompVis/stable-diffusion-v-1-4-original",
            "sd-v1-4.ckpt",
        ),
        checkpoint(
            "stable_diffusion_v1.sd_v1_1",
            "CompVis/stable-diffusion-v-1-1-original",
            "sd-v1-1.ckpt",
        ),
    ]
}
