//! ConvNeXt: a convolutional network with a transformer's proportions.
//!
//! Paper: Liu et al., "A ConvNet for the 2020s", arXiv 2201.03545; reference `timm/models/convnext.py` (1.0.31).
//! Maps run channels last between blocks, which is what every layer but the depthwise convolution wants.

use bob_core::{Backbone, CostCounter, FeatureInfo, Preprocess, Pretraining};
use bob_ops::{Activation, Epilogue, nn};
use burn::config::Config;
use burn::module::{Module, Param, ParamId, list_param_ids};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Initializer, LayerNorm, LayerNormConfig, Linear, PaddingConfig2d};
use burn::tensor::{Device, Tensor};

use crate::hub::{self, TimmCheckpoint};
use crate::layers::{channels_first, channels_last, classify, global_avg_pool, pass};
use crate::mlp::{Mlp, scale_outputs, scaled};
use crate::patch_embed::{grid_of, patches};
use crate::registry::{Architecture, Family};
use crate::{AnyBackbone, CheckpointEntry, InitOptions, init};

/// timm's default for every norm of this family.
const EPSILON: f64 = 1e-6;

/// Configuration of a [`ConvNext`]; the fields are timm's arguments.
#[derive(Config, Debug)]
pub struct ConvNextConfig {
    /// Blocks per stage.
    pub depths: [usize; 4],
    /// Channels per stage.
    pub dims: [usize; 4],
    /// Whether the perceptrons are 1x1 convolutions in the state dict; the function is the same.
    #[config(default = false)]
    pub conv_mlp: bool,
    /// Initial value of the layer scale, or none for no layer scale.
    #[config(default = "Some(1e-6)")]
    pub ls_init_value: Option<f64>,
    /// Whether the last norm acts on every pixel and the mean comes after it.
    #[config(default = false)]
    pub head_norm_first: bool,
    /// Classes of the classifier, 0 for none.
    #[config(default = 1000)]
    pub num_classes: usize,
}

impl ConvNextConfig {
    /// Initialise the network on `device`.
    pub fn init(&self, device: &Device) -> ConvNext {
        let [first, .., last] = self.dims;
        let stem = Conv2dConfig::new([3, first], [4, 4]).with_stride([4, 4]);
        let stages = (0..4)
            .map(|stage| {
                let dim = self.dims[stage];
                let downsample = (stage > 0).then(|| {
                    let before = self.dims[stage - 1];
                    let conv = Conv2dConfig::new([before, dim], [2, 2]).with_stride([2, 2]);
                    (norm(before, device), init::conv2d(conv, device))
                });
                let blocks = (0..self.depths[stage]).map(|_| Block::new(dim, self, device)).collect();
                Stage {
                    downsample,
                    blocks,
                    grad_checkpointing: false,
                }
            })
            .collect();
        ConvNext {
            stem: (init::conv2d(stem, device), norm(first, device)),
            stages,
            norm_pre: self.head_norm_first.then(|| norm(last, device)),
            head: Head {
                norm: (!self.head_norm_first).then(|| norm(last, device)),
                fc: (self.num_classes > 0).then(|| init::linear(last, self.num_classes, true, device)),
            },
        }
    }
}

fn norm(dim: usize, device: &Device) -> LayerNorm {
    LayerNormConfig::new(dim).with_epsilon(EPSILON).init(device)
}

/// A ConvNeXt; see the module.
#[derive(Module, Debug)]
pub struct ConvNext {
    stem: (Conv2d, LayerNorm),
    stages: Vec<Stage>,
    norm_pre: Option<LayerNorm>,
    head: Head,
}

#[derive(Module, Debug)]
struct Stage {
    downsample: Option<(LayerNorm, Conv2d)>,
    blocks: Vec<Block>,
    grad_checkpointing: bool,
}

#[derive(Module, Debug)]
struct Head {
    norm: Option<LayerNorm>,
    fc: Option<Linear>,
}

/// Depthwise 7x7, layer norm, inverted bottleneck.
#[derive(Module, Debug)]
struct Block {
    conv_dw: Conv2d,
    norm: LayerNorm,
    mlp: BlockMlp,
    gamma: Option<Param<Tensor<1>>>,
}

/// The perceptron under either shape that timm stores; the variant is no segment of a stored name.
#[derive(Module, Debug)]
enum BlockMlp {
    Dense(Mlp),
    Pointwise(PointwiseMlp),
}

/// A perceptron stored as 1x1 convolutions.
#[derive(Module, Debug)]
struct PointwiseMlp {
    fc1: Conv2d,
    fc2: Conv2d,
}

impl ConvNext {
    /// # Shapes
    ///   - images: `[batch, 3, height, width]`
    ///   - output: `[batch, height / 4, width / 4, dims[0]]`
    fn forward_stem(&self, images: Tensor<4>) -> Tensor<4> {
        let (conv, norm) = &self.stem;
        nn::layer_norm(norm, EPSILON, patches(channels_last(images), conv))
    }
}

impl Stage {
    /// Channels of the output.
    fn dim(&self) -> usize {
        self.blocks.first().map_or(0, |block| block.conv_dw.groups)
    }

    /// # Shapes
    ///   - x: `[batch, height, width, channels]`
    ///   - output: the same, or half the size in the stage's channels
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = match &self.downsample {
            Some((norm, conv)) => patches(nn::layer_norm(norm, EPSILON, x), conv),
            None => x,
        };
        self.blocks
            .iter()
            .fold(x, |x, block| pass(block, x, Block::forward, self.grad_checkpointing))
    }
}

impl Block {
    fn new(dim: usize, config: &ConvNextConfig, device: &Device) -> Self {
        let conv_dw = Conv2dConfig::new([dim, dim], [7, 7])
            .with_groups(dim)
            .with_padding(PaddingConfig2d::Explicit(3, 3, 3, 3));
        let pointwise = |channels| init::conv2d(Conv2dConfig::new(channels, [1, 1]), device);
        let mlp = if config.conv_mlp {
            BlockMlp::Pointwise(PointwiseMlp {
                fc1: pointwise([dim, 4 * dim]),
                fc2: pointwise([4 * dim, dim]),
            })
        } else {
            BlockMlp::Dense(Mlp::new(dim, 4 * dim, device))
        };
        let gamma = config
            .ls_init_value
            .map(|value| Initializer::Constant { value }.init([dim], device));
        Self {
            conv_dw: init::conv2d(conv_dw, device),
            norm: norm(dim, device),
            mlp,
            gamma,
        }
    }

    /// # Shapes
    ///   - x, output: `[batch, height, width, dim]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let shortcut = x.clone();
        let x = nn::conv2d(&self.conv_dw, x, Epilogue::none());
        let x = nn::layer_norm(&self.norm, EPSILON, x);
        self.mlp
            .forward_residual(x, self.gamma.as_ref().map(|gamma| gamma.val()), shortcut)
    }

    fn fuse(self) -> Self {
        let mut mlp = self.mlp.into_dense();
        let mut conv_dw = self.conv_dw;
        nn::lay_out(&mut conv_dw);
        if let Some(gamma) = self.gamma {
            scale_outputs(&mut mlp.fc2, gamma.val());
        }
        Self {
            conv_dw,
            norm: self.norm,
            mlp: BlockMlp::Dense(mlp),
            gamma: None,
        }
    }
}

impl BlockMlp {
    fn forward_residual(&self, x: Tensor<4>, gamma: Option<Tensor<1>>, shortcut: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Dense(mlp) => mlp.forward_residual(x, gamma, shortcut),
            Self::Pointwise(mlp) => {
                let parameters = |conv: &Conv2d| (matrix(conv), conv.bias.as_ref().map(|bias| bias.val()));
                let fc2 = scaled(parameters(&mlp.fc2), gamma);
                bob_ops::mlp(
                    x,
                    parameters(&mlp.fc1),
                    Activation::Gelu,
                    fc2,
                    Epilogue::residual(shortcut),
                )
            }
        }
    }

    fn into_dense(self) -> Mlp {
        let dense = |conv: Conv2d| Linear {
            weight: Param::from_tensor((matrix(&conv) * 1.0).detach()),
            bias: conv.bias,
        };
        match self {
            Self::Dense(mlp) => mlp,
            Self::Pointwise(mlp) => Mlp {
                fc1: dense(mlp.fc1),
                fc2: dense(mlp.fc2),
                is_gated: false,
            },
        }
    }

    fn count(&self, counter: &mut CostCounter, size: [usize; 2]) {
        match self {
            Self::Dense(mlp) => mlp.count(counter, size[0] * size[1]),
            Self::Pointwise(mlp) => {
                counter.conv2d(&mlp.fc1, size);
                counter.conv2d(&mlp.fc2, size);
            }
        }
    }
}

/// The matrix `[in, out]` of a 1x1 convolution.
fn matrix(conv: &Conv2d) -> Tensor<2> {
    conv.weight.val().flatten::<2>(1, 3).transpose()
}

impl Backbone for ConvNext {
    fn feature_info(&self) -> Vec<FeatureInfo> {
        self.stages
            .iter()
            .enumerate()
            .map(|(i, stage)| FeatureInfo::new(stage.dim(), 4 << i, format!("stages.{i}")))
            .collect()
    }

    fn num_features(&self) -> usize {
        self.stages.last().map_or(0, Stage::dim)
    }

    fn forward_intermediates(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let mut x = self.forward_stem(images);
        self.stages
            .iter()
            .map(|stage| {
                x = stage.forward(x.clone());
                channels_first(x.clone())
            })
            .collect()
    }

    fn forward_embedding(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.forward_stem(images);
        let x = self.stages.iter().fold(x, |x, stage| stage.forward(x));
        let x = match &self.norm_pre {
            Some(norm) => nn::layer_norm(norm, EPSILON, x),
            None => x,
        };
        let x = global_avg_pool(x);
        match &self.head.norm {
            Some(norm) => nn::layer_norm(norm, EPSILON, x),
            None => x,
        }
    }

    fn set_grad_checkpointing(&mut self, enable: bool) -> bool {
        for stage in &mut self.stages {
            stage.grad_checkpointing = enable;
        }
        true
    }

    fn forward_classifier(&self, embedding: Tensor<2>) -> Option<Tensor<2>> {
        classify(&self.head.fc, embedding)
    }

    /// As timm's `group_matcher`: the stem, every block (a downsampling belongs to the block after it), the
    /// last norm.
    fn layer_groups(&self) -> Vec<Vec<ParamId>> {
        let mut groups = vec![list_param_ids(&self.stem)];
        for stage in &self.stages {
            let first = groups.len();
            groups.extend(stage.blocks.iter().map(list_param_ids));
            if let Some(group) = groups.get_mut(first) {
                group.extend(list_param_ids(&stage.downsample));
            }
        }
        let mut last = list_param_ids(&self.norm_pre);
        last.extend(list_param_ids(&self.head.norm));
        groups.push(last);
        groups
    }

    /// The layer scale folded into the perceptron before it.
    fn fuse(mut self) -> Self {
        nn::lay_out(&mut self.stem.0);
        for stage in &mut self.stages {
            if let Some((_, conv)) = &mut stage.downsample {
                nn::lay_out(conv);
            }
            stage.blocks = stage.blocks.drain(..).map(Block::fuse).collect();
        }
        self
    }

    fn count(&self, counter: &mut CostCounter, input_size: [usize; 2]) {
        let mut size = grid_of(input_size, &self.stem.0);
        counter.conv2d(&self.stem.0, size);
        for stage in &self.stages {
            if let Some((_, conv)) = &stage.downsample {
                size = grid_of(size, conv);
                counter.conv2d(conv, size);
            }
            for block in &stage.blocks {
                counter.conv2d(&block.conv_dw, size);
                block.mlp.count(counter, size);
            }
        }
        if let Some(fc) = &self.head.fc {
            counter.linear(fc, 1);
        }
    }
}

/// The family's tables.
pub(crate) static FAMILY: Family = Family {
    architectures: &[
        Architecture {
            name: "convnext_micro",
            input_size: [224, 224],
            init: |options, device| init(ConvNextConfig::micro(), options, device),
        },
        Architecture {
            name: "convnext_atto",
            input_size: [224, 224],
            init: |options, device| init(ConvNextConfig::atto(), options, device),
        },
        Architecture {
            name: "convnext_femto",
            input_size: [224, 224],
            init: |options, device| init(ConvNextConfig::femto(), options, device),
        },
        Architecture {
            name: "convnext_tiny",
            input_size: [224, 224],
            init: |options, device| init(ConvNextConfig::tiny(), options, device),
        },
        Architecture {
            name: "convnext_small",
            input_size: [224, 224],
            init: |options, device| init(ConvNextConfig::small(), options, device),
        },
        Architecture {
            name: "convnext_base",
            input_size: [224, 224],
            init: |options, device| init(ConvNextConfig::base(), options, device),
        },
        Architecture {
            name: "convnext_large",
            input_size: [224, 224],
            init: |options, device| init(ConvNextConfig::large(), options, device),
        },
        Architecture {
            name: "convnext_xlarge",
            input_size: [224, 224],
            init: |options, device| init(ConvNextConfig::xlarge(), options, device),
        },
        // Not timm's names: VICRegL's networks, without layer scale and with the norm before the mean.
        Architecture {
            name: "convnext_small_vicregl",
            input_size: [224, 224],
            init: |options, device| init(ConvNextConfig::small().vicregl(), options, device),
        },
        Architecture {
            name: "convnext_base_vicregl",
            input_size: [224, 224],
            init: |options, device| init(ConvNextConfig::base().vicregl(), options, device),
        },
        Architecture {
            name: "convnext_xlarge_vicregl",
            input_size: [224, 224],
            init: |options, device| init(ConvNextConfig::xlarge().vicregl(), options, device),
        },
    ],
    checkpoints,
    remap: str::to_owned,
};

impl ConvNextConfig {
    /// A network of under a million parameters, which timm has no name for: it gives it as
    /// `ConvNeXt(depths=(2, 2, 2, 2), dims=(32, 64, 96, 128))`.
    pub fn micro() -> Self {
        Self::new([2, 2, 2, 2], [32, 64, 96, 128])
    }

    /// `convnext_atto`.
    pub fn atto() -> Self {
        Self::new([2, 2, 6, 2], [40, 80, 160, 320]).with_conv_mlp(true)
    }

    /// `convnext_femto`.
    pub fn femto() -> Self {
        Self::new([2, 2, 6, 2], [48, 96, 192, 384]).with_conv_mlp(true)
    }

    /// `convnext_tiny`.
    pub fn tiny() -> Self {
        Self::new([3, 3, 9, 3], [96, 192, 384, 768])
    }

    /// `convnext_small`.
    pub fn small() -> Self {
        Self::new([3, 3, 27, 3], [96, 192, 384, 768])
    }

    /// `convnext_base`.
    pub fn base() -> Self {
        Self::new([3, 3, 27, 3], [128, 256, 512, 1024])
    }

    /// `convnext_large`.
    pub fn large() -> Self {
        Self::new([3, 3, 27, 3], [192, 384, 768, 1536])
    }

    /// `convnext_xlarge`.
    pub fn xlarge() -> Self {
        Self::new([3, 3, 27, 3], [256, 512, 1024, 2048])
    }

    /// As VICRegL has it (arXiv:2210.01571): no layer scale, the mean after the norm.
    pub fn vicregl(self) -> Self {
        self.with_ls_init_value(None).with_head_norm_first(true)
    }
}

fn init(config: ConvNextConfig, options: &InitOptions, device: &Device) -> AnyBackbone {
    config.with_num_classes(options.num_classes).init(device).into()
}

fn checkpoints() -> Vec<CheckpointEntry> {
    let checkpoint = |name, pretraining: Pretraining, num_classes| {
        TimmCheckpoint {
            name,
            preprocess: Preprocess::imagenet(224),
            pretraining,
            num_classes,
            license: "Apache-2.0",
            paper: "2201.03545",
        }
        .entry("convnext", &[])
    };
    vec![
        checkpoint("convnext_atto.d2_in1k", hub::imagenet_1k(), 1000),
        checkpoint("convnext_femto.d1_in1k", hub::imagenet_1k(), 1000),
        checkpoint("convnext_tiny.fb_in1k", hub::imagenet_1k(), 1000),
        checkpoint("convnext_tiny.fb_in22k", hub::imagenet_22k(), 21_841),
        checkpoint("convnext_tiny.fb_in22k_ft_in1k", hub::imagenet_22k(), 1000),
        checkpoint("convnext_small.fb_in1k", hub::imagenet_1k(), 1000),
        checkpoint("convnext_small.fb_in22k", hub::imagenet_22k(), 21_841),
        checkpoint("convnext_small.fb_in22k_ft_in1k", hub::imagenet_22k(), 1000),
        checkpoint("convnext_base.fb_in1k", hub::imagenet_1k(), 1000),
        checkpoint("convnext_base.fb_in22k", hub::imagenet_22k(), 21_841),
        checkpoint("convnext_base.fb_in22k_ft_in1k", hub::imagenet_22k(), 1000),
        checkpoint("convnext_large.fb_in1k", hub::imagenet_1k(), 1000),
        checkpoint("convnext_large.fb_in22k", hub::imagenet_22k(), 21_841),
        checkpoint("convnext_large.fb_in22k_ft_in1k", hub::imagenet_22k(), 1000),
        checkpoint("convnext_xlarge.fb_in22k", hub::imagenet_22k(), 21_841),
        checkpoint("convnext_xlarge.fb_in22k_ft_in1k", hub::imagenet_22k(), 1000),
        // https://dl.fbaipublicfiles.com/convnext/
        no_ema("convnext_tiny.fb_in1k_no_ema", "convnext_tiny_1k_224.pth"),
        no_ema("convnext_base.fb_in1k_no_ema", "convnext_base_1k_224.pth"),
        // https://dl.fbaipublicfiles.com/vicregl/
        vicregl(
            "convnext_small_vicregl.alpha0p9_in1k",
            "convnext_small_alpha0.9.pth",
            hub::imagenet_1k_self_supervised(),
        ),
        vicregl(
            "convnext_small_vicregl.alpha0p75_in1k",
            "convnext_small_alpha0.75.pth",
            hub::imagenet_1k_self_supervised(),
        ),
        vicregl(
            "convnext_base_vicregl.alpha0p9_in1k",
            "convnext_base_alpha0.9.pth",
            hub::imagenet_1k_self_supervised(),
        ),
        vicregl(
            "convnext_base_vicregl.alpha0p75_in1k",
            "convnext_base_alpha0.75.pth",
            hub::imagenet_1k_self_supervised(),
        ),
        vicregl(
            "convnext_xlarge_vicregl.alpha0p75_in22k",
            "convnext_xlarge_alpha0.75.pth",
            hub::imagenet_22k_self_supervised(),
        ),
    ]
}

/// The last weights of a training whose averaged ones timm has.
fn no_ema(name: &'static str, file: &str) -> CheckpointEntry {
    let checkpoint = TimmCheckpoint {
        name,
        preprocess: Preprocess::imagenet(224),
        pretraining: hub::imagenet_1k(),
        num_classes: 1000,
        license: "MIT",
        paper: "2201.03545",
    };
    checkpoint
        .elsewhere("convnext", file, &[])
        .with_options(|options| options.with_top_level_key("model").with_remap(remap_last))
}

fn vicregl(name: &'static str, file: &str, pretraining: Pretraining) -> CheckpointEntry {
    let checkpoint = TimmCheckpoint {
        name,
        preprocess: Preprocess::imagenet(224),
        pretraining,
        num_classes: 0,
        license: "CC-BY-NC-4.0",
        paper: "2210.01571",
    };
    checkpoint
        .elsewhere("convnext", file, &[])
        .with_options(|options| options.with_remap(remap_facebook))
}

/// A key of Facebook's own code, with the last norm after the mean, in timm's names; a key already in those stays.
fn remap_last(key: &str) -> String {
    match key.split_once('.') {
        Some(("norm", name)) => format!("head.norm.{name}"),
        Some(("head", name @ ("weight" | "bias"))) => format!("head.fc.{name}"),
        _ => remap_facebook(key),
    }
}

/// A key of Facebook's own code, with the last norm before the mean, in timm's names; a key already in those stays.
fn remap_facebook(key: &str) -> String {
    let key = key.replace("dwconv.", "conv_dw.").replace("pwconv", "mlp.fc");
    let parts: Vec<&str> = key.split('.').collect();
    match parts.as_slice() {
        ["downsample_layers", "0", rest @ ..] => format!("stem.{}", rest.join(".")),
        ["downsample_layers", stage, rest @ ..] => format!("stages.{stage}.downsample.{}", rest.join(".")),
        ["stages", stage, block, rest @ ..] if block.parse::<usize>().is_ok() => {
            format!("stages.{stage}.blocks.{block}.{}", rest.join("."))
        }
        ["norm", name] => format!("norm_pre.{name}"),
        _ => key,
    }
}

#[cfg(test)]
mod tests {
    use super::{remap_facebook, remap_last};

    #[test]
    fn facebook_s_keys_become_timm_s() {
        let cases = [
            ["downsample_layers.0.1.bias", "stem.1.bias"],
            ["downsample_layers.3.1.weight", "stages.3.downsample.1.weight"],
            ["stages.2.26.dwconv.weight", "stages.2.blocks.26.conv_dw.weight"],
            ["stages.2.26.norm.bias", "stages.2.blocks.26.norm.bias"],
            ["stages.0.1.pwconv2.bias", "stages.0.blocks.1.mlp.fc2.bias"],
            ["norm.weight", "norm_pre.weight"],
            ["stages.0.blocks.1.mlp.fc2.bias", "stages.0.blocks.1.mlp.fc2.bias"],
        ];
        for [facebook, timm] in cases {
            assert_eq!(remap_facebook(facebook), timm);
        }
        let cases = [
            ["norm.weight", "head.norm.weight"],
            ["head.bias", "head.fc.bias"],
            ["head.fc.bias", "head.fc.bias"],
            ["head.norm.weight", "head.norm.weight"],
            ["stages.0.1.gamma", "stages.0.blocks.1.gamma"],
            ["downsample_layers.1.0.weight", "stages.1.downsample.0.weight"],
        ];
        for [facebook, timm] in cases {
            assert_eq!(remap_last(facebook), timm);
        }
    }
}
