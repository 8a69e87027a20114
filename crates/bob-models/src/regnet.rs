//! RegNet: networks of grouped bottlenecks whose widths follow a line.
//!
//! Paper: Radosavovic et al., "Designing Network Design Spaces" (arXiv:2003.13678).
//! Reference: `timm/models/regnet.py` of timm 1.0.31.
//! The reference counts the blocks of a stage `b1`, `b2`, ...; here they are a list, counted from 0, and [`remap`]
//! says so.

use bob_core::{Backbone, CostCounter, FeatureInfo, Preprocess};
use bob_ops::{Activation, gate_channels};
use burn::config::Config;
use burn::module::{Module, ParamId, list_param_ids};
use burn::nn::{Initializer, Linear};
use burn::tensor::{Device, Tensor};

use crate::hub::{TimmCheckpoint, imagenet_1k};
use crate::layers::{ConvNorm, channels_first, channels_last, classify, conv2d, count_conv, global_avg_pool};
use crate::registry::{Architecture, CheckpointEntry, Family, InitOptions};
use crate::squeeze_excite::SqueezeExcite;
use crate::{AnyBackbone, init as initial};

const EPSILON: f64 = 1e-5;
const RELU: Option<Activation> = Some(Activation::Relu);
/// Channels of the stem.
const STEM_WIDTH: usize = 32;

/// Configuration of [`RegNet`], with timm's names (`RegNetCfg`): the blocks' widths are `w0 + wa * i`, rounded to
/// `w0 * wm ^ k`.
#[derive(Config, Debug)]
pub struct RegNetConfig {
    /// Number of blocks.
    pub depth: usize,
    /// Width of the first block.
    pub w0: usize,
    /// By how much a block is wider than the one before.
    pub wa: f64,
    /// By what factor a stage is wider than the one before.
    pub wm: f64,
    /// Channels of a group of the 3×3 convolutions.
    pub group_size: usize,
    /// Width inside squeeze-and-excitation as a share of a block's input channels, 0 for none.
    #[config(default = 0.0)]
    pub se_ratio: f64,
    /// Classes of the classifier, 0 for none.
    #[config(default = 1000)]
    pub num_classes: usize,
}

impl RegNetConfig {
    /// Initialise on `device`; parameters are lazy.
    ///
    /// # Panics
    /// Where the widths do not make four stages.
    pub fn init(&self, device: &Device) -> RegNet {
        let stages = self.stages();
        assert_eq!(stages.len(), 4, "the widths of a RegNet make four stages: {stages:?}");
        let mut in_channels = STEM_WIDTH;
        let [s1, s2, s3, s4] = std::array::from_fn(|stage| {
            let (width, depth) = stages[stage];
            (0..depth)
                .map(|index| {
                    let stride = if index == 0 { 2 } else { 1 };
                    let block = self.init_block([in_channels, width], stride, device);
                    in_channels = width;
                    block
                })
                .collect()
        });
        let fc = (self.num_classes > 0).then(|| Linear {
            weight: Initializer::Normal { mean: 0.0, std: 0.01 }.init([in_channels, self.num_classes], device),
            bias: Some(initial::zeros(self.num_classes, device)),
        });
        RegNet {
            stem: ConvNorm::new(conv2d([3, STEM_WIDTH], 3).with_stride([2, 2]), EPSILON, device),
            s1,
            s2,
            s3,
            s4,
            head: Head { fc },
            num_features: in_channels,
        }
    }

    /// Width and number of blocks of every stage.
    fn stages(&self) -> Vec<(usize, usize)> {
        /// Widths are multiples of this.
        const QUANTUM: f64 = 8.0;
        let w0 = self.w0 as f64;
        let mut stages = Vec::<(f64, usize)>::new();
        for block in 0..self.depth {
            let exponent = ((w0 + self.wa * block as f64) / w0).ln() / self.wm.ln();
            let width = w0 * self.wm.powf(exponent.round_ties_even());
            let width = (width / QUANTUM).round_ties_even() * QUANTUM;
            match stages.last_mut() {
                Some((last, depth)) if *last == width => *depth += 1,
                _ => stages.push((width, 1)),
            }
        }
        let whole_groups = |width: f64| {
            let group = (self.group_size as f64).min(width);
            ((width / group).round_ties_even() * group) as usize
        };
        stages
            .into_iter()
            .map(|(width, depth)| (whole_groups(width), depth))
            .collect()
    }

    fn init_block(&self, [inputs, outputs]: [usize; 2], stride: usize, device: &Device) -> Block {
        let groups = outputs / self.group_size.min(outputs);
        let conv = |conv| ConvNorm::new(conv, EPSILON, device);
        let strides = [stride, stride];
        Block {
            conv1: conv(conv2d([inputs, outputs], 1)),
            conv2: conv(conv2d([outputs, outputs], 3).with_stride(strides).with_groups(groups)),
            se: (self.se_ratio > 0.0).then(|| {
                let reduced = (inputs as f64 * self.se_ratio).round_ties_even() as usize;
                SqueezeExcite::new(outputs, reduced, device)
            }),
            conv3: conv(conv2d([outputs, outputs], 1)),
            downsample: (stride != 1 || inputs != outputs)
                .then(|| conv(conv2d([inputs, outputs], 1).with_stride(strides))),
        }
    }
}

/// A RegNet; see the module.
#[derive(Module, Debug)]
pub struct RegNet {
    stem: ConvNorm,
    s1: Vec<Block>,
    s2: Vec<Block>,
    s3: Vec<Block>,
    s4: Vec<Block>,
    head: Head,
    num_features: usize,
}

#[derive(Module, Debug)]
struct Head {
    fc: Option<Linear>,
}

/// 1×1, grouped 3×3, a gate, 1×1, all of one width.
#[derive(Module, Debug)]
struct Block {
    conv1: ConvNorm,
    conv2: ConvNorm,
    se: Option<SqueezeExcite>,
    conv3: ConvNorm,
    downsample: Option<ConvNorm>,
}

impl Block {
    /// # Shapes
    ///   - x: `[batch, height, width, in]`
    ///   - output: `[batch, height / stride, width / stride, out]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let shortcut = match &self.downsample {
            Some(downsample) => downsample.forward(x.clone(), None),
            None => x.clone(),
        };
        let x = self.conv2.forward(self.conv1.forward(x, RELU), RELU);
        let x = match &self.se {
            Some(se) => {
                let [batch, height, width, channels] = x.dims();
                let x = x.reshape([batch, height * width, channels]);
                let gate = se.gate(x.clone());
                gate_channels(x, gate).reshape([batch, height, width, channels])
            }
            None => x,
        };
        self.conv3.forward_add(x, shortcut, RELU)
    }

    fn fuse(&mut self) {
        let convs = [&mut self.conv1, &mut self.conv2, &mut self.conv3];
        convs.into_iter().chain(&mut self.downsample).for_each(ConvNorm::fuse);
    }

    fn count(&self, counter: &mut CostCounter, input: [usize; 2]) -> [usize; 2] {
        let size = count_conv(counter, &self.conv1.conv, input);
        let size = count_conv(counter, &self.conv2.conv, size);
        if let Some(se) = &self.se {
            se.count(counter);
        }
        count_conv(counter, &self.conv3.conv, size);
        if let Some(downsample) = &self.downsample {
            counter.conv2d(&downsample.conv, size);
        }
        size
    }
}

impl RegNet {
    fn stages(&self) -> [&Vec<Block>; 4] {
        [&self.s1, &self.s2, &self.s3, &self.s4]
    }
}

fn forward_stage(x: Tensor<4>, blocks: &[Block]) -> Tensor<4> {
    blocks.iter().fold(x, |x, block| block.forward(x))
}

impl Backbone for RegNet {
    fn feature_info(&self) -> Vec<FeatureInfo> {
        let stem = FeatureInfo::new(self.stem.out_channels(), 2, "stem");
        let stages = self.stages().into_iter().enumerate().map(|(stage, blocks)| {
            let channels = blocks.first().map_or(0, |block| block.conv3.out_channels());
            FeatureInfo::new(channels, 4 << stage, format!("s{}", stage + 1))
        });
        std::iter::once(stem).chain(stages).collect()
    }

    fn num_features(&self) -> usize {
        self.num_features
    }

    fn forward_intermediates(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let mut x = self.stem.forward(channels_last(images), RELU);
        let mut maps = vec![channels_first(x.clone())];
        for blocks in self.stages() {
            x = forward_stage(x, blocks);
            maps.push(channels_first(x.clone()));
        }
        maps
    }

    fn forward_embedding(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.stem.forward(channels_last(images), RELU);
        global_avg_pool(self.stages().into_iter().fold(x, |x, blocks| forward_stage(x, blocks)))
    }

    fn forward_classifier(&self, embedding: Tensor<2>) -> Option<Tensor<2>> {
        classify(&self.head.fc, embedding)
    }

    /// Any size fits.
    fn size_divisibility(&self) -> usize {
        1
    }

    /// As timm's `group_matcher`: the stem, every block.
    fn layer_groups(&self) -> Vec<Vec<ParamId>> {
        std::iter::once(list_param_ids(&self.stem))
            .chain(self.stages().into_iter().flatten().map(list_param_ids))
            .collect()
    }

    fn fuse(mut self) -> Self {
        self.stem.fuse();
        for blocks in [&mut self.s1, &mut self.s2, &mut self.s3, &mut self.s4] {
            blocks.iter_mut().for_each(Block::fuse);
        }
        self
    }

    fn count(&self, counter: &mut CostCounter, input_size: [usize; 2]) {
        let size = count_conv(counter, &self.stem.conv, input_size);
        self.stages()
            .into_iter()
            .flatten()
            .fold(size, |size, block| block.count(counter, size));
        if let Some(fc) = &self.head.fc {
            counter.linear(fc, 1);
        }
    }
}

/// timm's key in our names: `s2.b1.` becomes `s2.0.`; a key already in ours stays.
fn remap(key: &str) -> String {
    let renamed = key.split_once(".b").and_then(|(stage, rest)| {
        let (block, layer) = rest.split_once('.')?;
        let block = block.parse::<usize>().ok()?.checked_sub(1)?;
        Some(format!("{stage}.{block}.{layer}"))
    });
    renamed.unwrap_or_else(|| key.to_owned())
}

/// The tables of this family.
pub(crate) static FAMILY: Family = Family {
    architectures: &[
        regnet("regnetx_002", |options, device| {
            init(RegNetConfig::new(13, 24, 36.44, 2.49, 8), options, device)
        }),
        regnet("regnetx_004", |options, device| {
            init(RegNetConfig::new(22, 24, 24.48, 2.54, 16), options, device)
        }),
        regnet("regnetx_006", |options, device| {
            init(RegNetConfig::new(16, 48, 36.97, 2.24, 24), options, device)
        }),
        regnet("regnetx_008", |options, device| {
            init(RegNetConfig::new(16, 56, 35.73, 2.28, 16), options, device)
        }),
        regnet("regnety_002", |options, device| {
            init(with_se(RegNetConfig::new(13, 24, 36.44, 2.49, 8)), options, device)
        }),
        regnet("regnety_004", |options, device| {
            init(with_se(RegNetConfig::new(16, 48, 27.89, 2.09, 8)), options, device)
        }),
        regnet("regnety_006", |options, device| {
            init(with_se(RegNetConfig::new(15, 48, 32.54, 2.32, 16)), options, device)
        }),
        regnet("regnety_008", |options, device| {
            init(with_se(RegNetConfig::new(14, 56, 38.84, 2.4, 16)), options, device)
        }),
    ],
    checkpoints,
    remap,
};

const fn regnet(name: &'static str, init: fn(&InitOptions, &Device) -> AnyBackbone) -> Architecture {
    Architecture {
        name,
        input_size: [224, 224],
        init,
    }
}

fn with_se(config: RegNetConfig) -> RegNetConfig {
    config.with_se_ratio(0.25)
}

fn init(config: RegNetConfig, options: &InitOptions, device: &Device) -> AnyBackbone {
    config.with_num_classes(options.num_classes).init(device).into()
}

fn checkpoints() -> Vec<CheckpointEntry> {
    let checkpoint = |name| {
        let checkpoint = TimmCheckpoint {
            name,
            preprocess: Preprocess::imagenet(224),
            pretraining: imagenet_1k(),
            num_classes: 1000,
            license: "MIT",
            paper: "2003.13678",
        };
        checkpoint.entry("regnet", &["*.num_batches_tracked"])
    };
    vec![
        checkpoint("regnetx_002.pycls_in1k"),
        checkpoint("regnetx_004.pycls_in1k"),
        checkpoint("regnetx_006.pycls_in1k"),
        checkpoint("regnetx_008.pycls_in1k"),
        checkpoint("regnety_002.pycls_in1k"),
        checkpoint("regnety_004.pycls_in1k"),
        checkpoint("regnety_006.pycls_in1k"),
        checkpoint("regnety_008.pycls_in1k"),
    ]
}
