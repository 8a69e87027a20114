//! The residual networks of CLIP: a stem of three convolutions, pooling before every stride, and a pooling by
//! attention whose one query is the mean of the map.
//!
//! Paper: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (arXiv:2103.00020).
//! Reference: `resnet50_clip` and its sisters in `timm/models/byobnet.py` and `timm/layers/attention_pool2d.py` of timm
//! 1.0.31. The embedding is the output of the pooling, CLIP's own; timm calls the last layer of it the classifier.

use bob_core::{Backbone, CostCounter, FeatureInfo, Preprocess};
use bob_ops::{Activation, Epilogue, nn};
use burn::config::Config;
use burn::module::{Module, Param, ParamId, list_param_ids};
use burn::nn::{Initializer, Linear};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, s};

use crate::hub::{CLIP_IGNORED, TimmCheckpoint, openai_clip};
use crate::layers::{ConvNorm, avg_pool2, channels_first, channels_last, classify, conv2d, count_conv, make_divisible};
use crate::registry::{Architecture, CheckpointEntry, Family, InitOptions};
use crate::{AnyBackbone, init as initial, resample};

const EPSILON: f64 = 1e-5;
const RELU: Option<Activation> = Some(Activation::Relu);
/// What the stem and the strides make of a side.
const REDUCTION: usize = 32;

/// Configuration of [`ClipResNet`].
#[derive(Config, Debug)]
pub struct ClipResNetConfig {
    /// Blocks per stage.
    pub layers: [usize; 4],
    /// Width of the embedding.
    pub embed_dim: usize,
    /// Channels of the stem; the stages have 4, 8, 16 and 32 times as many.
    #[config(default = 64)]
    pub width: usize,
    /// Channels of an attention head.
    #[config(default = 64)]
    pub head_dim: usize,
    /// `[height, width]` in pixels of the images whose grid the stored position embedding has.
    #[config(default = "[224, 224]")]
    pub input_size: [usize; 2],
    /// Classes of a classifier on the embedding, 0 for none; CLIP has none.
    #[config(default = 0)]
    pub num_classes: usize,
}

impl ClipResNetConfig {
    /// Initialise on `device`; parameters are lazy.
    pub fn init(&self, device: &Device) -> ClipResNet {
        let conv = |conv| ConvNorm::new(conv, EPSILON, device);
        let half = self.width / 2;
        let mut in_channels = self.width;
        let stages = (0..4)
            .map(|stage| {
                let out_channels = (4 * self.width) << stage;
                (0..self.layers[stage])
                    .map(|index| {
                        let block = Block::new([in_channels, out_channels], index == 0, stage > 0, device);
                        in_channels = out_channels;
                        block
                    })
                    .collect()
            })
            .collect();
        ClipResNet {
            stem: Stem {
                conv1: conv(conv2d([3, half], 3).with_stride([2, 2])),
                conv2: conv(conv2d([half, half], 3)),
                conv3: conv(conv2d([half, self.width], 3)),
            },
            stages,
            head: AttentionPool::new(in_channels, self, device),
            fc: (self.num_classes > 0).then(|| initial::linear(self.embed_dim, self.num_classes, true, device)),
        }
    }
}

/// CLIP's residual network; see the module.
#[derive(Module, Debug)]
pub struct ClipResNet {
    stem: Stem,
    stages: Vec<Vec<Block>>,
    head: AttentionPool,
    /// Not in CLIP nor timm.
    fc: Option<Linear>,
}

#[derive(Module, Debug)]
struct Stem {
    conv1: ConvNorm,
    conv2: ConvNorm,
    conv3: ConvNorm,
}

/// A bottleneck that pools instead of striding.
#[derive(Module, Debug)]
struct Block {
    shortcut: Option<Shortcut>,
    conv1_1x1: ConvNorm,
    conv2_kxk: ConvNorm,
    conv3_1x1: ConvNorm,
    is_strided: bool,
}

#[derive(Module, Debug)]
struct Shortcut {
    conv: ConvNorm,
}

/// Attention of the mean of a map to its pixels and itself.
#[derive(Module, Debug)]
struct AttentionPool {
    pos_embed: Param<Tensor<2>>,
    q: Linear,
    k: Linear,
    v: Linear,
    proj: Linear,
    grid: [usize; 2],
    head_dim: usize,
}

impl Stem {
    /// # Shapes
    ///   - images: `[batch, 3, height, width]`
    ///   - output: `[batch, height / 2, width / 2, channels]`
    fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        [&self.conv1, &self.conv2, &self.conv3]
            .into_iter()
            .fold(channels_last(images), |x, conv| conv.forward(x, RELU))
    }
}

impl Block {
    fn new([inputs, outputs]: [usize; 2], is_first: bool, strided_stage: bool, device: &Device) -> Self {
        let inner = make_divisible(outputs as f64 / 4.0);
        let conv = |channels, kernel| ConvNorm::new(conv2d(channels, kernel), EPSILON, device);
        Self {
            shortcut: is_first.then(|| Shortcut {
                conv: conv([inputs, outputs], 1),
            }),
            conv1_1x1: conv([inputs, inner], 1),
            conv2_kxk: conv([inner, inner], 3),
            conv3_1x1: conv([inner, outputs], 1),
            is_strided: is_first && strided_stage,
        }
    }

    /// # Shapes
    ///   - x: `[batch, height, width, in]`
    ///   - output: `[batch, height / stride, width / stride, out]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let pooled = |x| if self.is_strided { avg_pool2(x, false) } else { x };
        let shortcut = match &self.shortcut {
            Some(shortcut) => shortcut.conv.forward(pooled(x.clone()), None),
            None => x.clone(),
        };
        let x = self.conv2_kxk.forward(self.conv1_1x1.forward(x, RELU), RELU);
        self.conv3_1x1.forward_add(pooled(x), shortcut, RELU)
    }

    fn convs_mut(&mut self) -> impl Iterator<Item = &mut ConvNorm> {
        let convs = [&mut self.conv1_1x1, &mut self.conv2_kxk, &mut self.conv3_1x1];
        convs
            .into_iter()
            .chain(self.shortcut.as_mut().map(|shortcut| &mut shortcut.conv))
    }

    fn count(&self, counter: &mut CostCounter, input: [usize; 2]) -> [usize; 2] {
        let size = count_conv(counter, &self.conv1_1x1.conv, input);
        let size = count_conv(counter, &self.conv2_kxk.conv, size);
        let size = if self.is_strided {
            size.map(|size| size / 2)
        } else {
            size
        };
        count_conv(counter, &self.conv3_1x1.conv, size);
        if let Some(shortcut) = &self.shortcut {
            count_conv(counter, &shortcut.conv.conv, size);
        }
        size
    }
}

impl AttentionPool {
    fn new(channels: usize, config: &ClipResNetConfig, device: &Device) -> Self {
        let grid = config.input_size.map(|size| size / REDUCTION);
        let normal = Initializer::Normal {
            mean: 0.0,
            std: (channels as f64).powf(-0.5),
        };
        let linear = |outputs| Linear {
            weight: normal.init([channels, outputs], device),
            bias: Some(initial::zeros(outputs, device)),
        };
        Self {
            pos_embed: normal.init([1 + grid[0] * grid[1], channels], device),
            q: linear(channels),
            k: linear(channels),
            v: linear(channels),
            proj: linear(config.embed_dim),
            grid,
            head_dim: config.head_dim,
        }
    }

    /// The position embedding for a map of `grid`, that of the mean first.
    fn position_embedding(&self, grid: [usize; 2]) -> Tensor<2> {
        let embedding = self.pos_embed.val();
        if grid == self.grid {
            return embedding;
        }
        let [_, channels] = embedding.dims();
        let pixels = embedding.clone().slice(s![1.., ..]);
        let pixels = resample::bicubic(pixels.reshape([self.grid[0], self.grid[1], channels]), grid);
        let mean = embedding.slice(s![0..1, ..]);
        Tensor::cat(vec![mean, pixels.reshape([grid[0] * grid[1], channels])], 0)
    }

    /// # Shapes
    ///   - x: `[batch, height, width, channels]`
    ///   - output: `[batch, embed_dim]`
    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let [batch, height, width, channels] = x.dims();
        let heads = channels / self.head_dim;
        let pixels = x.reshape([batch, height * width, channels]);
        let x = Tensor::cat(vec![pixels.clone().mean_dim(1), pixels], 1);
        let position = self.position_embedding([height, width]).cast(x.dtype());
        let x = x + position.unsqueeze();
        let project = |linear: &Linear, x: Tensor<3>| {
            let [_, tokens, _] = x.dims();
            nn::linear(linear, x, Epilogue::none())
                .reshape([batch, tokens, heads, self.head_dim])
                .swap_dims(1, 2)
        };
        // Only the mean asks.
        let query = project(&self.q, x.clone().slice(s![.., 0..1, ..]));
        let keys = project(&self.k, x.clone());
        let values = project(&self.v, x);
        let scores = query.matmul(keys.swap_dims(2, 3)) / (self.head_dim as f64).sqrt();
        let pooled = softmax(scores, 3).matmul(values); // [batch, heads, 1, head_dim]
        nn::linear(&self.proj, pooled.reshape([batch, channels]), Epilogue::none())
    }

    fn count(&self, counter: &mut CostCounter, size: [usize; 2]) {
        let tokens = 1 + size[0] * size[1];
        let [channels, _] = self.q.weight.lazy_shape().dims::<2>();
        let heads = channels / self.head_dim;
        counter.linear(&self.q, 1);
        counter.linear(&self.k, tokens);
        counter.linear(&self.v, tokens);
        counter.matmul(heads, 1, self.head_dim, tokens);
        counter.matmul(heads, 1, tokens, self.head_dim);
        counter.linear(&self.proj, 1);
    }
}

fn forward_stage(x: Tensor<4>, blocks: &[Block]) -> Tensor<4> {
    blocks.iter().fold(x, |x, block| block.forward(x))
}

impl Backbone for ClipResNet {
    fn feature_info(&self) -> Vec<FeatureInfo> {
        let stem = FeatureInfo::new(self.stem.conv3.out_channels(), 2, "stem.conv3");
        let stages = self.stages.iter().enumerate().map(|(stage, blocks)| {
            let channels = blocks.first().map_or(0, |block| block.conv3_1x1.out_channels());
            FeatureInfo::new(channels, 4 << stage, format!("stages.{stage}"))
        });
        std::iter::once(stem).chain(stages).collect()
    }

    fn num_features(&self) -> usize {
        self.head.proj.weight.lazy_shape()[1]
    }

    fn forward_intermediates(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let stem = self.stem.forward(images);
        let mut x = avg_pool2(stem.clone(), false);
        let mut maps = vec![channels_first(stem)];
        for blocks in &self.stages {
            x = forward_stage(x, blocks);
            maps.push(channels_first(x.clone()));
        }
        maps
    }

    fn forward_embedding(&self, images: Tensor<4>) -> Tensor<2> {
        let x = avg_pool2(self.stem.forward(images), false);
        self.head
            .forward(self.stages.iter().fold(x, |x, blocks| forward_stage(x, blocks)))
    }

    fn forward_classifier(&self, embedding: Tensor<2>) -> Option<Tensor<2>> {
        classify(&self.fc, embedding)
    }

    fn size_divisibility(&self) -> usize {
        REDUCTION
    }

    /// The stem, every block, the attention.
    fn layer_groups(&self) -> Vec<Vec<ParamId>> {
        std::iter::once(list_param_ids(&self.stem))
            .chain(self.stages.iter().flatten().map(list_param_ids))
            .chain(std::iter::once(list_param_ids(&self.head)))
            .collect()
    }

    fn fuse(mut self) -> Self {
        for conv in [&mut self.stem.conv1, &mut self.stem.conv2, &mut self.stem.conv3] {
            conv.fuse();
        }
        for block in self.stages.iter_mut().flatten() {
            block.convs_mut().for_each(ConvNorm::fuse);
        }
        self
    }

    fn count(&self, counter: &mut CostCounter, input_size: [usize; 2]) {
        let size = [&self.stem.conv1, &self.stem.conv2, &self.stem.conv3]
            .into_iter()
            .fold(input_size, |size, conv| count_conv(counter, &conv.conv, size));
        let size = self
            .stages
            .iter()
            .flatten()
            .fold(size.map(|size| size / 2), |size, block| block.count(counter, size));
        self.head.count(counter, size);
        if let Some(fc) = &self.fc {
            counter.linear(fc, 1);
        }
    }
}

/// OpenAI's key for the image tower in timm's names; a key already in timm's names stays.
fn remap(key: &str) -> String {
    /// The parts of a key that differ, in the order of the key.
    const ATTENTION: [[&str; 2]; 5] = [
        ["positional_embedding", "pos_embed"],
        ["q_proj.", "q."],
        ["k_proj.", "k."],
        ["v_proj.", "v."],
        ["c_proj.", "proj."],
    ];
    const LAYERS: [[&str; 2]; 8] = [
        ["conv1.", "conv1_1x1.conv."],
        ["bn1.", "conv1_1x1.bn."],
        ["conv2.", "conv2_kxk.conv."],
        ["bn2.", "conv2_kxk.bn."],
        ["conv3.", "conv3_1x1.conv."],
        ["bn3.", "conv3_1x1.bn."],
        ["downsample.0.", "shortcut.conv.conv."],
        ["downsample.1.", "shortcut.conv.bn."],
    ];
    let renamed = |rest: &str, names: &[[&str; 2]]| {
        names
            .iter()
            .find_map(|[from, to]| rest.strip_prefix(from).map(|rest| format!("{to}{rest}")))
    };
    let visual = |key: &str| {
        if let Some(rest) = key.strip_prefix("attnpool.") {
            return renamed(rest, &ATTENTION).map(|rest| format!("head.{rest}"));
        }
        if let Some(rest) = key.strip_prefix("layer") {
            let [stage, block, layer] = rest.splitn(3, '.').collect::<Vec<_>>().try_into().ok()?;
            let stage = stage.parse::<usize>().ok()?.checked_sub(1)?;
            return renamed(layer, &LAYERS).map(|layer| format!("stages.{stage}.{block}.{layer}"));
        }
        let (layer, rest) = key.split_once('.')?;
        let (kind, number) = layer.split_at_checked(layer.len().checked_sub(1)?)?;
        Some(format!("stem.conv{number}.{kind}.{rest}"))
    };
    key.strip_prefix("visual.")
        .and_then(visual)
        .unwrap_or_else(|| key.to_owned())
}

/// The tables of this family.
pub(crate) static FAMILY: Family = Family {
    architectures: &[
        clip("resnet50_clip", 224, |options, device| {
            init(ClipResNetConfig::new([3, 4, 6, 3], 1024), options, device)
        }),
        clip("resnet101_clip", 224, |options, device| {
            init(ClipResNetConfig::new([3, 4, 23, 3], 512), options, device)
        }),
        clip("resnet50x4_clip", 288, |options, device| {
            init(
                ClipResNetConfig::new([4, 6, 10, 6], 640).with_width(80),
                options,
                device,
            )
        }),
        clip("resnet50x16_clip", 384, |options, device| {
            init(
                ClipResNetConfig::new([6, 8, 18, 8], 768).with_width(96),
                options,
                device,
            )
        }),
        clip("resnet50x64_clip", 448, |options, device| {
            init(
                ClipResNetConfig::new([3, 15, 36, 10], 1024).with_width(128),
                options,
                device,
            )
        }),
    ],
    checkpoints,
    remap: str::to_owned,
};

const fn clip(name: &'static str, size: usize, init: fn(&InitOptions, &Device) -> AnyBackbone) -> Architecture {
    Architecture {
        name,
        input_size: [size, size],
        init,
    }
}

fn init(config: ClipResNetConfig, options: &InitOptions, device: &Device) -> AnyBackbone {
    config
        .with_input_size(options.input_size)
        .with_num_classes(options.num_classes)
        .init(device)
        .into()
}

fn checkpoints() -> Vec<CheckpointEntry> {
    let checkpoint = |name, size| {
        let checkpoint = TimmCheckpoint {
            name,
            preprocess: Preprocess {
                crop_pct: 0.9,
                mean: Preprocess::CLIP_MEAN,
                std: Preprocess::CLIP_STD,
                ..Preprocess::imagenet(size)
            },
            pretraining: openai_clip(),
            num_classes: 0,
            license: "MIT",
            paper: "2103.00020",
        };
        checkpoint
            .entry("resnet_clip", CLIP_IGNORED)
            .with_options(|options| options.with_remap(remap))
    };
    vec![
        checkpoint("resnet50_clip.openai", 224),
        checkpoint("resnet101_clip.openai", 224),
        checkpoint("resnet50x4_clip.openai", 288),
        checkpoint("resnet50x16_clip.openai", 384),
        checkpoint("resnet50x64_clip.openai", 448),
    ]
}

#[cfg(test)]
mod tests {
    use super::remap;

    #[test]
    fn openai_s_keys_become_timm_s() {
        let cases = [
            ["visual.conv2.weight", "stem.conv2.conv.weight"],
            ["visual.bn3.running_var", "stem.conv3.bn.running_var"],
            ["visual.layer1.0.conv1.weight", "stages.0.0.conv1_1x1.conv.weight"],
            ["visual.layer4.2.bn2.bias", "stages.3.2.conv2_kxk.bn.bias"],
            [
                "visual.layer3.0.downsample.0.weight",
                "stages.2.0.shortcut.conv.conv.weight",
            ],
            [
                "visual.layer3.0.downsample.1.weight",
                "stages.2.0.shortcut.conv.bn.weight",
            ],
            ["visual.attnpool.positional_embedding", "head.pos_embed"],
            ["visual.attnpool.q_proj.bias", "head.q.bias"],
            ["visual.attnpool.c_proj.weight", "head.proj.weight"],
            ["head.proj.weight", "head.proj.weight"],
        ];
        for [openai, timm] in cases {
            assert_eq!(remap(openai), timm);
        }
    }
}
