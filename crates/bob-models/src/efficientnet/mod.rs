//! EfficientNet, its Lite variants and MobileNetV2: one skeleton of inverted residual blocks.
//!
//! Papers: "EfficientNet: Rethinking Model Scaling" (arXiv:1905.11946) and "MobileNetV2: Inverted Residuals
//! and Linear Bottlenecks" (arXiv:1801.04381).
//! Reference: `timm/models/efficientnet.py`, `_efficientnet_builder.py` and `_efficientnet_blocks.py` of timm 1.0.31.

mod blocks;
mod checkpoints;

use bob_core::{Backbone, CostCounter, FeatureInfo};
use burn::config::Config;
use burn::module::{Module, ParamId, list_param_ids};
use burn::nn::conv::Conv2d;
use burn::nn::{BatchNorm, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor};

use crate::layers::{
    Activation, batch_norm, channels_first, channels_last, classify, conv_norm, conv2d, count_conv, fold,
    global_avg_pool, make_divisible,
};
use crate::registry::{Architecture, Family, InitOptions};
use blocks::Block;

/// A stage of an [`EfficientNet`]: a run of like blocks, of which the first may change the shape.
#[derive(Config, Debug, PartialEq, Eq)]
pub struct StageConfig {
    /// Number of blocks.
    pub repeats: usize,
    /// Side of the depthwise kernel, odd.
    pub kernel_size: usize,
    /// Stride of the first block.
    pub stride: usize,
    /// Factor by which a block widens its input; 1 makes depthwise-separable blocks, more inverted residuals.
    pub expansion: usize,
    /// Output channels.
    pub channels: usize,
}

/// Configuration of [`EfficientNet`].
#[derive(Config, Debug)]
pub struct EfficientNetConfig {
    /// Stages from fine to coarse, already scaled.
    pub stages: Vec<StageConfig>,
    /// Activation function.
    pub activation: Activation,
    /// Channels of the stem.
    #[config(default = 32)]
    pub stem_size: usize,
    /// Channels of the last convolution, the width of the embedding.
    #[config(default = 1280)]
    pub num_features: usize,
    /// Inner channels of squeeze-and-excitation as a share of a block's input channels, 0 for none.
    #[config(default = 0.0)]
    pub se_ratio: f64,
    /// Epsilon of batch norm.
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Pad as TensorFlow does (`SAME`): to an output of `ceil(size / stride)`, the odd pixel after the image.
    #[config(default = false)]
    pub same_padding: bool,
    /// Classes of the classifier, 0 for none.
    #[config(default = 1000)]
    pub num_classes: usize,
}

impl EfficientNetConfig {
    /// EfficientNet-B0.
    pub fn efficientnet_b0() -> Self {
        Self::new(efficientnet_stages(1.0, 1.0), Activation::Silu).with_se_ratio(0.25)
    }

    /// EfficientNet-Lite as TensorFlow trained it: no squeeze-and-excitation, ReLU6, `SAME` padding, and stem, head
    /// and the depth of the first and last stage not scaled.
    pub fn efficientnet_lite(width: f64, depth: f64) -> Self {
        Self::new(efficientnet_stages(width, depth), Activation::Relu6)
            .with_epsilon(1e-3)
            .with_same_padding(true)
    }

    /// MobileNetV2 of width 1.
    pub fn mobilenet_v2() -> Self {
        let stages = [
            StageConfig::new(1, 3, 1, 1, 16),
            StageConfig::new(2, 3, 2, 6, 24),
            StageConfig::new(3, 3, 2, 6, 32),
            StageConfig::new(4, 3, 2, 6, 64),
            StageConfig::new(3, 3, 1, 6, 96),
            StageConfig::new(3, 3, 2, 6, 160),
            StageConfig::new(1, 3, 1, 6, 320),
        ];
        Self::new(stages.to_vec(), Activation::Relu6)
    }

    /// Initialise on `device`; parameters are lazy.
    pub fn init(&self, device: &Device) -> EfficientNet {
        let mut in_channels = self.stem_size;
        let mut blocks = Vec::with_capacity(self.stages.len());
        for stage in &self.stages {
            let first = Block::init(self, stage, in_channels, stage.stride, device);
            in_channels = stage.channels;
            let others = (1..stage.repeats).map(|_| Block::init(self, stage, in_channels, 1, device));
            blocks.push(std::iter::once(first).chain(others).collect());
        }
        EfficientNet {
            conv_stem: self.conv([3, self.stem_size], 3, 2, 1, device),
            bn1: batch_norm(self.stem_size, self.epsilon, device),
            blocks,
            conv_head: self.conv([in_channels, self.num_features], 1, 1, 1, device),
            bn2: batch_norm(self.num_features, self.epsilon, device),
            classifier: (self.num_classes > 0)
                .then(|| LinearConfig::new(self.num_features, self.num_classes).init(device)),
            activation: self.activation,
        }
    }

    /// A convolution with this network's padding.
    fn conv(&self, channels: [usize; 2], kernel: usize, stride: usize, groups: usize, device: &Device) -> Conv2d {
        let conv = conv2d(channels, kernel)
            .with_stride([stride, stride])
            .with_groups(groups);
        // At stride 1 and an odd kernel both paddings are the same, and the symmetric one needs no copy.
        let asymmetric = self.same_padding && stride > 1;
        if asymmetric {
            conv.with_padding(PaddingConfig2d::Same).init(device)
        } else {
            conv.init(device)
        }
    }
}

/// The stages of EfficientNet-B0, scaled; the first and the last keep their depth, as they do in every variant.
fn efficientnet_stages(width: f64, depth: f64) -> Vec<StageConfig> {
    let stage = |repeats: usize, kernel_size, stride, expansion, channels: usize| {
        let repeats = if repeats == 1 {
            1
        } else {
            (repeats as f64 * depth).ceil() as usize
        };
        StageConfig::new(
            repeats,
            kernel_size,
            stride,
            expansion,
            make_divisible(channels as f64 * width),
        )
    };
    vec![
        stage(1, 3, 1, 1, 16),
        stage(2, 3, 2, 6, 24),
        stage(2, 5, 2, 6, 40),
        stage(3, 3, 2, 6, 80),
        stage(3, 5, 1, 6, 112),
        stage(4, 5, 2, 6, 192),
        stage(1, 3, 1, 6, 320),
    ]
}

/// A network of inverted residual blocks.
#[derive(Module, Debug)]
pub struct EfficientNet {
    conv_stem: Conv2d,
    bn1: Option<BatchNorm>,
    blocks: Vec<Vec<Block>>,
    conv_head: Conv2d,
    bn2: Option<BatchNorm>,
    classifier: Option<Linear>,
    #[module(skip)]
    activation: Activation,
}

impl EfficientNet {
    /// # Shapes
    ///   - images: `[batch, 3, height, width]`
    ///   - output: `[batch, height / 2, width / 2, stem_size]`
    fn forward_stem(&self, images: Tensor<4>) -> Tensor<4> {
        let x = channels_last(images);
        conv_norm(x, &self.conv_stem, &self.bn1, Some(self.activation.into()))
    }

    fn forward_stage(&self, x: Tensor<4>, blocks: &[Block]) -> Tensor<4> {
        let activation = self.activation.into();
        blocks.iter().fold(x, |x, block| block.forward(x, activation))
    }

    /// Whether the map after the stem (0) or after stage `end` (from 1) is the last of its stride.
    fn is_stage_end(&self, end: usize) -> bool {
        self.blocks.get(end).is_none_or(|next| next[0].stride() > 1)
    }
}

impl Backbone for EfficientNet {
    fn feature_info(&self) -> Vec<FeatureInfo> {
        let mut info = Vec::new();
        let mut reduction = 2;
        if self.is_stage_end(0) {
            info.push(FeatureInfo::new(
                self.conv_stem.weight.lazy_shape()[0],
                reduction,
                "bn1",
            ));
        }
        for (stage, blocks) in self.blocks.iter().enumerate() {
            reduction *= blocks[0].stride();
            if self.is_stage_end(stage + 1) {
                info.push(FeatureInfo::new(
                    blocks[0].out_channels(),
                    reduction,
                    format!("blocks.{stage}"),
                ));
            }
        }
        info
    }

    fn num_features(&self) -> usize {
        self.conv_head.weight.lazy_shape()[0]
    }

    fn forward_intermediates(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let mut maps = Vec::new();
        let mut x = self.forward_stem(images);
        if self.is_stage_end(0) {
            maps.push(channels_first(x.clone()));
        }
        for (stage, blocks) in self.blocks.iter().enumerate() {
            x = self.forward_stage(x, blocks);
            if self.is_stage_end(stage + 1) {
                maps.push(channels_first(x.clone()));
            }
        }
        maps
    }

    fn forward_embedding(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self
            .blocks
            .iter()
            .fold(self.forward_stem(images), |x, blocks| self.forward_stage(x, blocks));
        global_avg_pool(conv_norm(x, &self.conv_head, &self.bn2, Some(self.activation.into())))
    }

    fn forward_classifier(&self, embedding: Tensor<2>) -> Option<Tensor<2>> {
        classify(&self.classifier, embedding)
    }

    /// Any size fits: EfficientNet-Lite2 was trained at 260 pixels.
    fn size_divisibility(&self) -> usize {
        1
    }

    fn layer_groups(&self) -> Vec<Vec<ParamId>> {
        let with_norm = |conv: &Conv2d, norm: &Option<BatchNorm>| {
            let mut ids = list_param_ids(conv);
            ids.extend(list_param_ids(norm));
            ids
        };
        let stem = with_norm(&self.conv_stem, &self.bn1);
        let head = with_norm(&self.conv_head, &self.bn2);
        let blocks = self.blocks.iter().flatten().map(list_param_ids);
        std::iter::once(stem)
            .chain(blocks)
            .chain(std::iter::once(head))
            .collect()
    }

    fn fuse(mut self) -> Self {
        fold(&mut self.conv_stem, &mut self.bn1);
        self.blocks.iter_mut().flatten().for_each(Block::fuse);
        fold(&mut self.conv_head, &mut self.bn2);
        self
    }

    fn count(&self, counter: &mut CostCounter, input_size: [usize; 2]) {
        let size = count_conv(counter, &self.conv_stem, input_size);
        let size = self
            .blocks
            .iter()
            .flatten()
            .fold(size, |size, block| block.count(counter, size));
        count_conv(counter, &self.conv_head, size);
        if let Some(classifier) = &self.classifier {
            counter.linear(classifier, 1);
        }
    }
}

/// The tables of this family.
pub(crate) static FAMILY: Family = Family {
    architectures: &ARCHITECTURES,
    checkpoints: checkpoints::checkpoints,
    remap: str::to_owned,
};

static ARCHITECTURES: [Architecture; 6] = [
    architecture("efficientnet_b0", 224, |options, device| {
        init(EfficientNetConfig::efficientnet_b0(), options, device)
    }),
    architecture("tf_efficientnet_lite0", 224, |options, device| {
        init(EfficientNetConfig::efficientnet_lite(1.0, 1.0), options, device)
    }),
    architecture("tf_efficientnet_lite1", 240, |options, device| {
        init(EfficientNetConfig::efficientnet_lite(1.0, 1.1), options, device)
    }),
    architecture("tf_efficientnet_lite2", 260, |options, device| {
        init(EfficientNetConfig::efficientnet_lite(1.1, 1.2), options, device)
    }),
    architecture("mobilenetv2_100", 224, |options, device| {
        init(EfficientNetConfig::mobilenet_v2(), options, device)
    }),
    // Not timm's name, but after its rule: `tf_` for TensorFlow's padding and epsilon.
    architecture("tf_mobilenetv2_100", 224, |options, device| {
        let config = EfficientNetConfig::mobilenet_v2();
        init(config.with_epsilon(1e-3).with_same_padding(true), options, device)
    }),
];

const fn architecture(
    name: &'static str,
    size: usize,
    init: fn(&InitOptions, &Device) -> crate::AnyBackbone,
) -> Architecture {
    Architecture {
        name,
        input_size: [size, size],
        init,
    }
}

fn init(config: EfficientNetConfig, options: &InitOptions, device: &Device) -> crate::AnyBackbone {
    config.with_num_classes(options.num_classes).init(device).into()
}
