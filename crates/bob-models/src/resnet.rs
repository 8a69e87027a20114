//! Residual networks.
//!
//! Papers: "Deep Residual Learning for Image Recognition" (arXiv:1512.03385) and, for the deep stem and the
//! pooling shortcut of the `d` variants, "Bag of Tricks for Image Classification" (arXiv:1812.01187).
//! Reference: `timm/models/resnet.py` of timm 1.0.31. With a descriptor it is the copy detector of "A Self-Supervised
//! Descriptor for Image Copy Detection" (arXiv:2202.10261).

use bob_core::{Backbone, Checkpoint, CostCounter, FeatureInfo, Interpolation, Preprocess};
use bob_ops::{Activation, max_pool2d};
use burn::config::Config;
use burn::module::{Module, ParamId, list_param_ids};
use burn::nn::conv::Conv2d;
use burn::nn::pool::{AvgPool2d, AvgPool2dConfig};
use burn::nn::{BatchNorm, Linear, LinearConfig, Relu};
use burn::tensor::{Device, Tensor};

use crate::hub::{self, TimmCheckpoint, imagenet_1k};
use crate::init::zeros;
use crate::layers::{
    batch_norm, channels_first, channels_last, classify, conv_norm, conv_norm_add, conv2d, count_conv, fold,
    global_avg_pool,
};
use crate::registry::{Architecture, CheckpointEntry, Family, InitOptions};

const EPSILON: f64 = 1e-5;
const RELU: Option<Activation> = Some(Activation::Relu);

/// The residual block a [`ResNet`] is made of.
#[derive(Config, Debug, PartialEq, Eq, Copy)]
pub enum BlockType {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1, 3×3, 1×1; four times as many channels out as within.
    Bottleneck,
}

impl BlockType {
    fn expansion(self) -> usize {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }
}

/// The first layers of a [`ResNet`], timm's `stem_type`.
#[derive(Config, Debug, PartialEq, Eq, Copy)]
pub enum StemType {
    /// One 7×7 convolution to 64 channels (timm: `''`).
    Conv,
    /// Three 3×3 convolutions to `stem_width`, `stem_width` and twice `stem_width` channels (timm: `deep`).
    Deep,
}

/// Configuration of [`ResNet`], with timm's names and defaults.
#[derive(Config, Debug)]
pub struct ResNetConfig {
    /// Residual block of every stage.
    pub block: [BlockType; 4],
    /// Number of blocks of every stage.
    pub layers: [usize; 4],
    /// Inner channels of every stage.
    #[config(default = "[64, 128, 256, 512]")]
    pub channels: [usize; 4],
    /// First layers.
    #[config(default = "StemType::Conv")]
    pub stem_type: StemType,
    /// Channels of a deep stem; the plain stem always has 64.
    #[config(default = 64)]
    pub stem_width: usize,
    /// Average-pool in the shortcut of a strided block instead of striding its convolution.
    #[config(default = false)]
    pub avg_down: bool,
    /// Width of the descriptor of a copy detector (SSCD): the means of the cubes, projected by `fc` and scaled to norm
    /// one; none for the plain means.
    #[config(default = "None")]
    pub descriptor: Option<usize>,
    /// Classes of the classifier, 0 for none.
    #[config(default = 1000)]
    pub num_classes: usize,
}

impl ResNetConfig {
    /// The `d` variant: a deep stem of width 32 and pooling shortcuts.
    pub fn variant_d(self) -> Self {
        self.with_stem_type(StemType::Deep)
            .with_stem_width(32)
            .with_avg_down(true)
    }

    /// Initialise on `device`; parameters are lazy.
    pub fn init(&self, device: &Device) -> ResNet {
        let (conv1, stem_channels) = match self.stem_type {
            StemType::Conv => (Stem::Conv(conv2d([3, 64], 7).with_stride([2, 2]).init(device)), 64),
            StemType::Deep => {
                let [width, channels] = [self.stem_width, 2 * self.stem_width];
                let stem = (
                    conv2d([3, width], 3).with_stride([2, 2]).init(device),
                    batch_norm(width, EPSILON, device),
                    Relu,
                    conv2d([width, width], 3).init(device),
                    batch_norm(width, EPSILON, device),
                    Relu,
                    conv2d([width, channels], 3).init(device),
                );
                (Stem::Deep(stem), channels)
            }
        };
        let mut in_channels = stem_channels;
        let [layer1, layer2, layer3, layer4] = std::array::from_fn(|stage| {
            let stride = if stage == 0 { 1 } else { 2 };
            let block = |in_channels, stride| self.init_block(stage, in_channels, stride, device);
            let first = block(in_channels, stride);
            in_channels = self.channels[stage] * self.block[stage].expansion();
            let others = (1..self.layers[stage]).map(|_| block(in_channels, 1));
            std::iter::once(first).chain(others).collect::<Vec<_>>()
        });
        let outputs = self.descriptor.unwrap_or(self.num_classes);
        ResNet {
            conv1,
            bn1: batch_norm(stem_channels, EPSILON, device),
            layer1,
            layer2,
            layer3,
            layer4,
            fc: (outputs > 0).then(|| LinearConfig::new(in_channels, outputs).init(device)),
            head: (self.descriptor.is_some() && self.num_classes > 0)
                .then(|| LinearConfig::new(outputs, self.num_classes).init(device)),
            has_descriptor: self.descriptor.is_some(),
            num_features: self.descriptor.unwrap_or(in_channels),
        }
    }

    fn init_block(&self, stage: usize, in_channels: usize, stride: usize, device: &Device) -> Block {
        let (block, channels) = (self.block[stage], self.channels[stage]);
        let out_channels = channels * block.expansion();
        let downsample = (stride != 1 || in_channels != out_channels).then(|| {
            let norm = batch_norm(out_channels, EPSILON, device);
            let conv = conv2d([in_channels, out_channels], 1);
            if self.avg_down {
                let pool = AvgPool2dConfig::new([2, 2])
                    .with_ceil_mode(true)
                    .with_count_include_pad(false);
                Downsample::AvgPool(((stride != 1).then(|| pool.init()), conv.init(device), norm))
            } else {
                Downsample::Conv((conv.with_stride([stride, stride]).init(device), norm))
            }
        });
        let strides = [stride, stride];
        let (conv1, conv2, conv3) = match block {
            BlockType::Basic => (
                conv2d([in_channels, channels], 3).with_stride(strides),
                conv2d([channels, channels], 3),
                None,
            ),
            BlockType::Bottleneck => (
                conv2d([in_channels, channels], 1),
                conv2d([channels, channels], 3).with_stride(strides),
                Some(conv2d([channels, out_channels], 1)),
            ),
        };
        // timm's `zero_init_last`: every block starts as its shortcut.
        let last_norm = batch_norm(out_channels, EPSILON, device).map(|norm| BatchNorm {
            gamma: zeros(out_channels, device),
            ..norm
        });
        let (bn2, bn3) = match block {
            BlockType::Basic => (last_norm, None),
            BlockType::Bottleneck => (batch_norm(channels, EPSILON, device), last_norm),
        };
        Block {
            conv1: conv1.init(device),
            bn1: batch_norm(channels, EPSILON, device),
            conv2: conv2.init(device),
            bn2,
            bn3,
            conv3: conv3.map(|conv3| conv3.init(device)),
            downsample,
        }
    }
}

/// A residual network.
#[derive(Module, Debug)]
pub struct ResNet {
    conv1: Stem,
    bn1: Option<BatchNorm>,
    layer1: Vec<Block>,
    layer2: Vec<Block>,
    layer3: Vec<Block>,
    layer4: Vec<Block>,
    fc: Option<Linear>,
    /// A classifier on a descriptor.
    head: Option<Linear>,
    has_descriptor: bool,
    num_features: usize,
}

/// What comes before the first batch norm; members of the deep stem count as in timm's `Sequential`.
#[derive(Module, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a network has one stem, and a Box is no Module"
)]
enum Stem {
    Conv(Conv2d),
    Deep((Conv2d, Option<BatchNorm>, Relu, Conv2d, Option<BatchNorm>, Relu, Conv2d)),
}

/// A basic block, or with a third convolution a bottleneck.
#[derive(Module, Debug)]
struct Block {
    conv1: Conv2d,
    bn1: Option<BatchNorm>,
    conv2: Conv2d,
    bn2: Option<BatchNorm>,
    conv3: Option<Conv2d>,
    bn3: Option<BatchNorm>,
    downsample: Option<Downsample>,
}

/// The shortcut of a block that changes the shape; members count as in timm's `Sequential`.
#[derive(Module, Debug)]
enum Downsample {
    Conv((Conv2d, Option<BatchNorm>)),
    AvgPool((Option<AvgPool2d>, Conv2d, Option<BatchNorm>)),
}

impl Downsample {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Conv((conv, norm)) | Self::AvgPool((None, conv, norm)) => conv_norm(x, conv, norm, None),
            Self::AvgPool((Some(pool), conv, norm)) => {
                let x = channels_last(pool.forward(channels_first(x)));
                conv_norm(x, conv, norm, None)
            }
        }
    }
}

impl Block {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let shortcut = match &self.downsample {
            Some(downsample) => downsample.forward(x.clone()),
            None => x.clone(),
        };
        let x = conv_norm(x, &self.conv1, &self.bn1, RELU);
        match &self.conv3 {
            Some(conv3) => {
                let x = conv_norm(x, &self.conv2, &self.bn2, RELU);
                conv_norm_add(x, conv3, &self.bn3, shortcut, RELU)
            }
            None => conv_norm_add(x, &self.conv2, &self.bn2, shortcut, RELU),
        }
    }

    fn fuse(&mut self) {
        fold(&mut self.conv1, &mut self.bn1);
        fold(&mut self.conv2, &mut self.bn2);
        if let Some(conv3) = &mut self.conv3 {
            fold(conv3, &mut self.bn3);
        }
        match &mut self.downsample {
            Some(Downsample::Conv((conv, norm)) | Downsample::AvgPool((_, conv, norm))) => fold(conv, norm),
            None => {}
        }
    }

    fn count(&self, counter: &mut CostCounter, input: [usize; 2]) -> [usize; 2] {
        let size = count_conv(counter, &self.conv1, input);
        let size = count_conv(counter, &self.conv2, size);
        if let Some(conv3) = &self.conv3 {
            count_conv(counter, conv3, size);
        }
        match &self.downsample {
            Some(Downsample::Conv((conv, _)) | Downsample::AvgPool((_, conv, _))) => counter.conv2d(conv, size),
            None => {}
        }
        size
    }
}

impl ResNet {
    /// # Shapes
    ///   - images: `[batch, 3, height, width]`
    ///   - output: `[batch, height / 2, width / 2, channels]`
    fn forward_stem(&self, images: Tensor<4>) -> Tensor<4> {
        let x = channels_last(images);
        match &self.conv1 {
            Stem::Conv(conv) => conv_norm(x, conv, &self.bn1, RELU),
            Stem::Deep((conv0, norm0, _, conv1, norm1, _, conv2)) => {
                let x = conv_norm(x, conv0, norm0, RELU);
                let x = conv_norm(x, conv1, norm1, RELU);
                conv_norm(x, conv2, &self.bn1, RELU)
            }
        }
    }

    fn pool(&self, x: Tensor<4>) -> Tensor<4> {
        max_pool2d(x, 3, 2, 1)
    }

    fn stages(&self) -> [&Vec<Block>; 4] {
        [&self.layer1, &self.layer2, &self.layer3, &self.layer4]
    }
}

fn forward_stage(x: Tensor<4>, blocks: &[Block]) -> Tensor<4> {
    blocks.iter().fold(x, |x, block| block.forward(x))
}

/// The descriptor of SSCD (`sscd/models/model.py` and `gem_pooling.py` of github.com/facebookresearch/sscd-copy-detection).
///
/// # Shapes
///   - x: `[batch, height, width, channels]`
///   - output: `[batch, dims]`
fn descriptor(x: Tensor<4>, fc: &Linear) -> Tensor<2> {
    let x = x.clamp_min(1e-6);
    let pooled = global_avg_pool(x.clone() * x.clone() * x).powf_scalar(1.0 / 3.0);
    let x = fc.forward(pooled);
    let norm = x.clone().square().sum_dim(1).sqrt().clamp_min(1e-12);
    x / norm
}

impl Backbone for ResNet {
    fn feature_info(&self) -> Vec<FeatureInfo> {
        let stem = match &self.conv1 {
            Stem::Conv(conv) | Stem::Deep((.., conv)) => FeatureInfo::new(conv.weight.lazy_shape()[0], 2, "act1"),
        };
        let stages = self.stages().into_iter().enumerate().map(|(stage, blocks)| {
            let last = &blocks[blocks.len() - 1];
            let conv = last.conv3.as_ref().unwrap_or(&last.conv2);
            FeatureInfo::new(conv.weight.lazy_shape()[0], 4 << stage, format!("layer{}", stage + 1))
        });
        std::iter::once(stem).chain(stages).collect()
    }

    fn num_features(&self) -> usize {
        self.num_features
    }

    fn forward_intermediates(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let stem = self.forward_stem(images);
        let mut x = self.pool(stem.clone());
        let mut maps = vec![channels_first(stem)];
        for blocks in self.stages() {
            x = forward_stage(x, blocks);
            maps.push(channels_first(x.clone()));
        }
        maps
    }

    fn forward_embedding(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.pool(self.forward_stem(images));
        let x = self.stages().into_iter().fold(x, |x, blocks| forward_stage(x, blocks));
        match &self.fc {
            Some(fc) if self.has_descriptor => descriptor(x, fc),
            _ => global_avg_pool(x),
        }
    }

    fn forward_classifier(&self, embedding: Tensor<2>) -> Option<Tensor<2>> {
        classify(if self.has_descriptor { &self.head } else { &self.fc }, embedding)
    }

    /// Any size fits.
    fn size_divisibility(&self) -> usize {
        1
    }

    fn layer_groups(&self) -> Vec<Vec<ParamId>> {
        let mut stem = list_param_ids(&self.conv1);
        stem.extend(list_param_ids(&self.bn1));
        let projection = self.has_descriptor.then(|| list_param_ids(&self.fc));
        std::iter::once(stem)
            .chain(self.stages().into_iter().flatten().map(list_param_ids))
            .chain(projection)
            .collect()
    }

    fn fuse(mut self) -> Self {
        match &mut self.conv1 {
            Stem::Conv(conv) => fold(conv, &mut self.bn1),
            Stem::Deep((conv0, norm0, _, conv1, norm1, _, conv2)) => {
                fold(conv0, norm0);
                fold(conv1, norm1);
                fold(conv2, &mut self.bn1);
            }
        }
        for blocks in [&mut self.layer1, &mut self.layer2, &mut self.layer3, &mut self.layer4] {
            blocks.iter_mut().for_each(Block::fuse);
        }
        self
    }

    fn count(&self, counter: &mut CostCounter, input_size: [usize; 2]) {
        let size = match &self.conv1 {
            Stem::Conv(conv) => count_conv(counter, conv, input_size),
            Stem::Deep((conv0, _, _, conv1, _, _, conv2)) => [conv0, conv1, conv2]
                .into_iter()
                .fold(input_size, |size, conv| count_conv(counter, conv, size)),
        };
        let pooled = size.map(|size| size.div_ceil(2));
        self.stages()
            .into_iter()
            .flatten()
            .fold(pooled, |size, block| block.count(counter, size));
        for linear in self.fc.iter().chain(&self.head) {
            counter.linear(linear, 1);
        }
    }
}

/// The tables of this family.
pub(crate) static FAMILY: Family = Family {
    architectures: &ARCHITECTURES,
    checkpoints,
    remap: str::to_owned,
};

static ARCHITECTURES: [Architecture; 10] = [
    architecture("resnet18", |options, device| init(resnet18(), options, device)),
    architecture("resnet34", |options, device| init(resnet34(), options, device)),
    architecture("resnet50", |options, device| init(resnet50(), options, device)),
    architecture("resnet101", |options, device| init(resnet101(), options, device)),
    architecture("resnet18d", |options, device| {
        init(resnet18().variant_d(), options, device)
    }),
    architecture("resnet34d", |options, device| {
        init(resnet34().variant_d(), options, device)
    }),
    architecture("resnet50d", |options, device| {
        init(resnet50().variant_d(), options, device)
    }),
    architecture("resnet101d", |options, device| {
        init(resnet101().variant_d(), options, device)
    }),
    architecture("test_resnet", |options, device| init(test_resnet(), options, device)),
    // Not timm's: the model of SSCD.
    architecture("resnet50_sscd", |options, device| {
        init(resnet50().with_descriptor(Some(512)), options, device)
    }),
];

const fn architecture(name: &'static str, init: fn(&InitOptions, &Device) -> crate::AnyBackbone) -> Architecture {
    Architecture {
        name,
        input_size: [224, 224],
        init,
    }
}

fn init(config: ResNetConfig, options: &InitOptions, device: &Device) -> crate::AnyBackbone {
    config.with_num_classes(options.num_classes).init(device).into()
}

fn resnet18() -> ResNetConfig {
    ResNetConfig::new([BlockType::Basic; 4], [2, 2, 2, 2])
}

fn resnet34() -> ResNetConfig {
    ResNetConfig::new([BlockType::Basic; 4], [3, 4, 6, 3])
}

fn resnet50() -> ResNetConfig {
    ResNetConfig::new([BlockType::Bottleneck; 4], [3, 4, 6, 3])
}

fn resnet101() -> ResNetConfig {
    ResNetConfig::new([BlockType::Bottleneck; 4], [3, 4, 23, 3])
}

/// timm's network for tests: under half a million parameters.
fn test_resnet() -> ResNetConfig {
    use BlockType::{Basic, Bottleneck};
    ResNetConfig::new([Basic, Basic, Bottleneck, Basic], [1, 1, 1, 1])
        .with_channels([32, 48, 48, 96])
        .with_stem_type(StemType::Deep)
        .with_stem_width(16)
        .with_avg_down(true)
}

fn checkpoints() -> Vec<CheckpointEntry> {
    const RESNET: &str = "1512.03385";
    const BAG_OF_TRICKS: &str = "1812.01187";
    const STRIKES_BACK: &str = "2110.00476";
    let checkpoint = |name, preprocess, license, paper| {
        TimmCheckpoint {
            name,
            preprocess,
            pretraining: imagenet_1k(),
            num_classes: 1000,
            license,
            paper,
        }
        .entry("resnet", &["*.num_batches_tracked"])
    };
    let torchvision = |name| {
        let preprocess = Preprocess {
            interpolation: Interpolation::Bilinear,
            ..Preprocess::imagenet(224)
        };
        checkpoint(name, preprocess, "BSD-3-Clause", RESNET)
    };
    let self_supervised = |name, license, paper, file| {
        TimmCheckpoint {
            name,
            preprocess: Preprocess::imagenet(224),
            pretraining: hub::imagenet_1k_self_supervised(),
            num_classes: 0,
            license,
            paper,
        }
        .elsewhere("resnet", file, &["*.num_batches_tracked"])
    };
    let sscd = |name, pretraining, file| {
        let entry = self_supervised(name, "CC-BY-NC-4.0", "2202.10261", file);
        CheckpointEntry {
            checkpoint: Checkpoint {
                pretraining,
                ..entry.checkpoint
            },
            options: entry
                .options
                .with_remap(|key| key.strip_prefix("backbone.").unwrap_or(key).to_owned()),
        }
    };
    let crop_95 = |size| Preprocess {
        crop_pct: 0.95,
        ..Preprocess::imagenet(size)
    };
    let strikes_back = |name| checkpoint(name, crop_95(224), "Apache-2.0", STRIKES_BACK);
    let bag_of_tricks = |name, preprocess| checkpoint(name, preprocess, "Apache-2.0", BAG_OF_TRICKS);
    vec![
        strikes_back("resnet18.a1_in1k"),
        torchvision("resnet18.tv_in1k"),
        strikes_back("resnet34.a1_in1k"),
        torchvision("resnet34.tv_in1k"),
        strikes_back("resnet50.a1_in1k"),
        torchvision("resnet50.tv_in1k"),
        strikes_back("resnet101.a1h_in1k"),
        torchvision("resnet101.tv_in1k"),
        bag_of_tricks("resnet18d.ra2_in1k", Preprocess::imagenet(224)),
        bag_of_tricks("resnet34d.ra2_in1k", Preprocess::imagenet(224)),
        bag_of_tricks("resnet50d.ra2_in1k", Preprocess::imagenet(224)),
        strikes_back("resnet50d.a1_in1k"),
        bag_of_tricks("resnet101d.ra2_in1k", crop_95(256)),
        // https://dl.fbaipublicfiles.com/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth
        self_supervised(
            "resnet50.dino_in1k",
            "Apache-2.0",
            "2104.14294",
            "dino_resnet50_pretrain.pth",
        ),
        // https://dl.fbaipublicfiles.com/vicreg/resnet50.pth
        // Its stem pads by 1 and then by 2, which are the 3 zeros of everybody else.
        self_supervised("resnet50.vicreg_in1k", "MIT", "2105.04906", "resnet50.pth"),
        // https://dl.fbaipublicfiles.com/moco-v3/r-50-1000ep/r-50-1000ep.pth.tar
        self_supervised(
            "resnet50.mocov3_in1k",
            "CC-BY-NC-4.0",
            "2104.02057",
            "r-50-1000ep.pth.tar",
        )
        .with_options(|options| {
            options
                .with_top_level_key("state_dict")
                .with_remap(hub::remap_moco_v3)
                .with_ignored(&[
                    "*.num_batches_tracked",
                    "fc.*",
                    "module.momentum_encoder.*",
                    "module.predictor.*",
                ])
        }),
        // https://dl.fbaipublicfiles.com/sscd-copy-detection/
        sscd(
            "resnet50_sscd.imagenet_mixup",
            hub::imagenet_1k_self_supervised(),
            "sscd_imagenet_mixup.torchvision.pt",
        ),
        sscd(
            "resnet50_sscd.disc_mixup",
            hub::disc_2021(),
            "sscd_disc_mixup.torchvision.pt",
        ),
    ]
}
