//! The encoder of the autoencoder: images to a latent of an eighth of their sides (`AutoencoderKL` of
//! `ldm/models/autoencoder.py` and `Encoder` of `ldm/modules/diffusionmodules/model.py`).

use bob_core::CostCounter;
use bob_ops::{Epilogue, attention, nn};
use burn::config::Config;
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{GroupNorm, PaddingConfig2d};
use burn::tensor::{Device, Tensor, s};

use super::{SILU, conv, group_norm};
use crate::layers::{channels_last, count_conv, pass};

/// Epsilon of every norm here.
const EPSILON: f64 = 1e-6;

/// Configuration of the encoder of a [`super::StableDiffusion`]'s autoencoder; the fields are ldm's arguments, the
/// defaults those of Stable Diffusion v1.
#[derive(Config, Debug)]
pub struct AutoencoderConfig {
    /// Channels before the first level.
    #[config(default = 128)]
    pub ch: usize,
    /// Channels of every level, as multiples of `ch`; between levels the sides halve.
    #[config(default = "vec![1, 2, 4, 4]")]
    pub ch_mult: Vec<usize>,
    /// Residual blocks per level.
    #[config(default = 2)]
    pub num_res_blocks: usize,
    /// Channels of the latent.
    #[config(default = 4)]
    pub z_channels: usize,
    /// Groups of every group norm.
    #[config(default = 32)]
    pub num_groups: usize,
    /// What the latent is multiplied by, so that its deviation is about one.
    #[config(default = 0.18215)]
    pub scale_factor: f64,
}

impl AutoencoderConfig {
    /// Initialise on `device`.
    pub(super) fn init(&self, device: &Device) -> Autoencoder {
        let levels = self.ch_mult.len();
        assert!(levels >= 3, "an autoencoder of {levels} levels; expected at least 3");
        let block = |channels| ResnetBlock::new(channels, self.num_groups, device);
        let mut channels = self.ch;
        let down = (self.ch_mult.iter().enumerate())
            .map(|(level, multiple)| Level {
                block: (0..self.num_res_blocks)
                    .map(|_| {
                        let inputs = std::mem::replace(&mut channels, self.ch * multiple);
                        block([inputs, channels])
                    })
                    .collect(),
                downsample: (level + 1 < levels).then(|| Downsample::new(channels, device)),
            })
            .collect();
        // Mean and logarithm of the variance.
        let moments = 2 * self.z_channels;
        Autoencoder {
            encoder: Encoder {
                conv_in: conv([3, self.ch], 3, device),
                down,
                mid: Mid {
                    block_1: block([channels, channels]),
                    attn_1: AttnBlock::new(channels, self.num_groups, device),
                    block_2: block([channels, channels]),
                },
                norm_out: group_norm(self.num_groups, channels, EPSILON, device),
                conv_out: conv([channels, moments], 3, device),
                grad_checkpointing: false,
            },
            quant_conv: conv([moments, moments], 1, device),
            scale_factor: self.scale_factor,
        }
    }
}

/// The autoencoder without its decoder.
#[derive(Module, Debug)]
pub(super) struct Autoencoder {
    encoder: Encoder,
    quant_conv: Conv2d,
    scale_factor: f64,
}

#[derive(Module, Debug)]
struct Encoder {
    conv_in: Conv2d,
    down: Vec<Level>,
    mid: Mid,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    grad_checkpointing: bool,
}

#[derive(Module, Debug)]
struct Level {
    block: Vec<ResnetBlock>,
    downsample: Option<Downsample>,
}

#[derive(Module, Debug)]
struct Mid {
    block_1: ResnetBlock,
    attn_1: AttnBlock,
    block_2: ResnetBlock,
}

#[derive(Module, Debug)]
struct Downsample {
    conv: Conv2d,
}

#[derive(Module, Debug)]
struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    nin_shortcut: Option<Conv2d>,
}

/// Attention of one head over all pixels, its projections stored as 1×1 convolutions.
#[derive(Module, Debug)]
struct AttnBlock {
    norm: GroupNorm,
    q: Conv2d,
    k: Conv2d,
    v: Conv2d,
    proj_out: Conv2d,
}

impl Downsample {
    fn new(channels: usize, device: &Device) -> Self {
        // Below and on the right only.
        let conv = Conv2dConfig::new([channels, channels], [3, 3])
            .with_stride([2, 2])
            .with_padding(PaddingConfig2d::Explicit(0, 0, 1, 1));
        Self {
            conv: conv.init(device),
        }
    }
}

impl ResnetBlock {
    fn new([inputs, outputs]: [usize; 2], groups: usize, device: &Device) -> Self {
        Self {
            norm1: group_norm(groups, inputs, EPSILON, device),
            conv1: conv([inputs, outputs], 3, device),
            norm2: group_norm(groups, outputs, EPSILON, device),
            conv2: conv([outputs, outputs], 3, device),
            nin_shortcut: (inputs != outputs).then(|| conv([inputs, outputs], 1, device)),
        }
    }

    /// # Shapes
    ///   - x: `[batch, height, width, in]`
    ///   - output: `[batch, height, width, out]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let shortcut = match &self.nin_shortcut {
            Some(conv) => nn::conv2d(conv, x.clone(), Epilogue::none()),
            None => x.clone(),
        };
        let x = nn::conv2d(&self.conv1, nn::group_norm(&self.norm1, x, SILU), Epilogue::none());
        let x = nn::group_norm(&self.norm2, x, SILU);
        nn::conv2d(&self.conv2, x, Epilogue::residual(shortcut))
    }

    fn convs(&self) -> impl Iterator<Item = &Conv2d> {
        [&self.conv1, &self.conv2].into_iter().chain(&self.nin_shortcut)
    }

    fn convs_mut(&mut self) -> impl Iterator<Item = &mut Conv2d> {
        [&mut self.conv1, &mut self.conv2]
            .into_iter()
            .chain(&mut self.nin_shortcut)
    }
}

impl AttnBlock {
    fn new(channels: usize, groups: usize, device: &Device) -> Self {
        let conv = || conv([channels, channels], 1, device);
        Self {
            norm: group_norm(groups, channels, EPSILON, device),
            q: conv(),
            k: conv(),
            v: conv(),
            proj_out: conv(),
        }
    }

    /// # Shapes
    ///   - x, output: `[batch, height, width, channels]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, height, width, channels] = x.dims();
        let normed = nn::group_norm(&self.norm, x.clone(), None);
        let parts = [&self.q, &self.k, &self.v].map(|conv| nn::conv2d(conv, normed.clone(), Epilogue::none()));
        let qkv = Tensor::cat(parts.into(), 3).reshape([batch, height * width, 3 * channels]);
        let found = attention(qkv, 1, None).reshape([batch, height, width, channels]);
        nn::conv2d(&self.proj_out, found, Epilogue::residual(x))
    }

    fn count(&self, counter: &mut CostCounter, size: [usize; 2]) {
        for conv in [&self.q, &self.k, &self.v, &self.proj_out] {
            count_conv(counter, conv, size);
        }
        let [channels, ..] = self.q.weight.lazy_shape().dims::<4>();
        let pixels = size[0] * size[1];
        counter.matmul(1, pixels, channels, pixels);
        counter.matmul(1, pixels, pixels, channels);
    }
}

impl Autoencoder {
    /// The map after the last downsampling but one, and the most likely latent, scaled.
    ///
    /// # Shapes
    ///   - images: `[batch, 3, height, width]`
    ///   - map: `[batch, 2 * height / reduction, 2 * width / reduction, channels]`
    ///   - latent: `[batch, height / reduction, width / reduction, z_channels]`
    pub(super) fn forward(&self, images: Tensor<4>) -> [Tensor<4>; 2] {
        let encoder = &self.encoder;
        let block = |x, block: &ResnetBlock| pass(block, x, ResnetBlock::forward, encoder.grad_checkpointing);
        let mut x = nn::conv2d(&encoder.conv_in, channels_last(images), Epilogue::none());
        let mut map = x.clone();
        for (index, level) in encoder.down.iter().enumerate() {
            x = level.block.iter().fold(x, block);
            if let Some(Downsample { conv }) = &level.downsample {
                x = nn::conv2d(conv, x, Epilogue::none());
            }
            if index == self.map_level() {
                map = x.clone();
            }
        }
        let Mid {
            block_1,
            attn_1,
            block_2,
        } = &encoder.mid;
        let x = block(attn_1.forward(block(x, block_1)), block_2);
        let x = nn::conv2d(
            &encoder.conv_out,
            nn::group_norm(&encoder.norm_out, x, SILU),
            Epilogue::none(),
        );
        let moments = nn::conv2d(&self.quant_conv, x, Epilogue::none());
        let [.., channels] = moments.dims();
        [map, moments.slice(s![.., .., .., 0..channels / 2]) * self.scale_factor]
    }

    /// The level whose downsampling gives the map.
    pub(super) fn map_level(&self) -> usize {
        self.encoder.down.len() - 3
    }

    /// Channels of the map.
    pub(super) fn map_channels(&self) -> usize {
        let downsample = &self.encoder.down[self.map_level()].downsample;
        downsample
            .as_ref()
            .map_or(0, |Downsample { conv }| conv.weight.lazy_shape()[0])
    }

    /// What the encoder makes of a side.
    pub(super) fn reduction(&self) -> usize {
        1 << (self.encoder.down.len() - 1)
    }

    pub(super) fn set_grad_checkpointing(&mut self, enable: bool) {
        self.encoder.grad_checkpointing = enable;
    }

    /// Lay the convolutions out for inference.
    pub(super) fn lay_out(&mut self) {
        let Encoder {
            conv_in,
            down,
            mid: Mid {
                block_1,
                attn_1,
                block_2,
            },
            conv_out,
            ..
        } = &mut self.encoder;
        let AttnBlock { q, k, v, proj_out, .. } = attn_1;
        [conv_in, conv_out, q, k, v, proj_out, &mut self.quant_conv]
            .into_iter()
            .chain(block_1.convs_mut())
            .chain(block_2.convs_mut())
            .for_each(nn::lay_out);
        for Level { block, downsample } in down {
            block.iter_mut().flat_map(ResnetBlock::convs_mut).for_each(nn::lay_out);
            downsample.iter_mut().for_each(|down| nn::lay_out(&mut down.conv));
        }
    }

    /// Count a pass over an image of `size` and give the size of its latent.
    pub(super) fn count(&self, counter: &mut CostCounter, size: [usize; 2]) -> [usize; 2] {
        let encoder = &self.encoder;
        let mut size = count_conv(counter, &encoder.conv_in, size);
        for Level { block, downsample } in &encoder.down {
            for conv in block.iter().flat_map(ResnetBlock::convs) {
                count_conv(counter, conv, size);
            }
            if let Some(Downsample { conv }) = downsample {
                size = count_conv(counter, conv, size);
            }
        }
        let Mid {
            block_1,
            attn_1,
            block_2,
        } = &encoder.mid;
        attn_1.count(counter, size);
        let rest = [&encoder.conv_out, &self.quant_conv];
        for conv in block_1.convs().chain(block_2.convs()).chain(rest) {
            count_conv(counter, conv, size);
        }
        size
    }
}
