//! Residual networks without normalisation: NFNet and NF-ResNet.
//!
//! Papers: Brock et al., "High-Performance Large-Scale Image Recognition Without Normalization" (arXiv:2102.06171) and
//! "Characterizing signal propagation to close the performance gap in unnormalized ResNets" (arXiv:2101.08692); the
//! wider F3+ and F7+ are of Smith et al., "ConvNets Match Vision Transformers at Scale" (arXiv:2310.16764).
//! Reference: `timm/models/nfnet.py` of timm 1.0.31.
//!
//! The reference multiplies activations by their gain and by the inverse deviation of a block's input. Here both act
//! on the filters of the convolution after it, which is the same function and a smaller product.

mod blocks;
mod conv;
mod table;

use bob_core::{Backbone, CostCounter, FeatureInfo};
use bob_ops::max_pool2d;
use burn::config::Config;
use burn::module::{Module, ParamId, list_param_ids};
use burn::nn::{Initializer, Linear};
use burn::tensor::{Device, Tensor};

use crate::init;
use crate::layers::{Activation, channels_first, channels_last, classify, global_avg_pool, make_divisible};
use blocks::{Block, BlockConfig};
use conv::{ConvConfig, ScaledStdConv2d};
pub(crate) use table::FAMILY;

/// The first layers of a [`NormFreeNet`], timm's `stem_type`.
#[derive(Config, Debug, PartialEq, Eq, Copy)]
pub enum NormFreeStem {
    /// Four 3×3 convolutions, the first and last strided (timm: `deep_quad`).
    DeepQuad,
    /// One 7×7 convolution and a max pool (timm: `7x7_pool`).
    Conv7x7Pool,
}

/// What gates the channels at the end of a residual branch of a [`NormFreeNet`], timm's `attn_layer`.
#[derive(Config, Debug, PartialEq, Copy)]
pub enum ChannelAttention {
    /// Nothing.
    None,
    /// Squeeze-and-excitation with this share of the channels inside.
    SqueezeExcite(f64),
    /// A convolution along the channels (arXiv:1910.03151).
    Eca,
}

/// Configuration of [`NormFreeNet`], with timm's names (`NfCfg`).
#[derive(Config, Debug)]
pub struct NormFreeNetConfig {
    /// Blocks per stage.
    pub depths: [usize; 4],
    /// Channels per stage.
    pub channels: [usize; 4],
    /// First layers.
    #[config(default = "NormFreeStem::DeepQuad")]
    pub stem_type: NormFreeStem,
    /// Channels of the stem.
    #[config(default = 128)]
    pub stem_chs: usize,
    /// Channels of the third of four convolutions of the stem, of which the second has half and the first a quarter;
    /// none for half of the stem's, as timm has it.
    #[config(default = "None")]
    pub stem_mid_chs: Option<usize>,
    /// Channels of a group of the 3×3 convolutions, which rounds their width down to whole groups; none for one group.
    #[config(default = "Some(128)")]
    pub group_size: Option<usize>,
    /// Width inside a block as a share of the width outside.
    #[config(default = 0.5)]
    pub bottle_ratio: f64,
    /// Channels of the last convolution, 0 for no such convolution.
    #[config(default = 0)]
    pub num_features: usize,
    /// A second 3×3 convolution in every block.
    #[config(default = true)]
    pub extra_conv: bool,
    /// Gate at the end of a branch.
    #[config(default = "ChannelAttention::SqueezeExcite(0.5)")]
    pub attn_layer: ChannelAttention,
    /// Gain after the gate, which halves its input on average.
    #[config(default = 2.0)]
    pub attn_gain: f64,
    /// Weight of every residual branch.
    #[config(default = 0.2)]
    pub alpha: f64,
    /// Whether the gain of the activation acts where there is one, as DeepMind has it, or in every convolution.
    #[config(default = false)]
    pub gamma_in_act: bool,
    /// Pad as TensorFlow does (`SAME`): to an output of `ceil(size / stride)`, the odd pixel after the image.
    #[config(default = false)]
    pub same_padding: bool,
    /// Added to the variance of a filter.
    #[config(default = 1e-5)]
    pub std_conv_eps: f64,
    /// A learnt scalar at the end of every branch, zero at first (SkipInit).
    #[config(default = false)]
    pub skipinit: bool,
    /// Activation function.
    #[config(default = "Activation::Gelu")]
    pub act_layer: Activation,
    /// Classes of the classifier, 0 for none.
    #[config(default = 1000)]
    pub num_classes: usize,
}

/// What an activation's output of a standard normal variable is to be multiplied by for a variance of one, as
/// DeepMind's code tabulates it (github.com/deepmind/deepmind-research, `nfnets/base.py`).
fn gamma(activation: Activation) -> f64 {
    match activation {
        Activation::Relu => 1.713_958_859_443_664_6,
        Activation::Relu6 => 1.713_148_474_693_298_3,
        Activation::Silu => 1.788_129_329_681_396_5,
        Activation::Gelu => 1.701_504_349_708_557_1,
    }
}

impl NormFreeNetConfig {
    /// Initialise on `device`; parameters are lazy.
    pub fn init(&self, device: &Device) -> NormFreeNet {
        let stem_channels = make_divisible(self.stem_chs as f64);
        let mut in_channels = stem_channels;
        let mut variance = 1.0_f64;
        let stages = (0..4)
            .map(|stage| {
                let out_channels = make_divisible(self.channels[stage] as f64);
                (0..self.depths[stage])
                    .map(|index| {
                        let config = BlockConfig {
                            channels: [in_channels, out_channels],
                            stride: if index == 0 && stage > 0 { 2 } else { 1 },
                            beta: variance.powf(-0.5),
                        };
                        in_channels = out_channels;
                        // The shortcut of a first block is of variance one again.
                        if index == 0 {
                            variance = 1.0;
                        }
                        variance += self.alpha * self.alpha;
                        Block::new(self, &config, device)
                    })
                    .collect()
            })
            .collect();
        let final_conv = (self.num_features > 0).then(|| {
            let outputs = make_divisible(self.num_features as f64);
            self.conv_without_activation([in_channels, outputs], 1).init(device)
        });
        let num_features = final_conv.as_ref().map_or(in_channels, ScaledStdConv2d::out_channels);
        NormFreeNet {
            stem: self.init_stem(stem_channels, device),
            stages,
            final_conv,
            head: Head {
                fc: (self.num_classes > 0).then(|| Linear {
                    weight: Initializer::Normal { mean: 0.0, std: 0.01 }.init([num_features, self.num_classes], device),
                    bias: Some(init::zeros(self.num_classes, device)),
                }),
            },
            num_features,
            final_gain: if self.gamma_in_act { gamma(self.act_layer) } else { 1.0 },
            act_layer: self.act_layer,
        }
    }

    fn init_stem(&self, channels: usize, device: &Device) -> Stem {
        let first = |channels, kernel| ConvConfig {
            stride: 2,
            ..self.conv_without_activation(channels, kernel)
        };
        let third = self.stem_mid_chs.unwrap_or(channels / 2);
        match self.stem_type {
            NormFreeStem::DeepQuad => Stem::DeepQuad(DeepQuad {
                conv1: first([3, third / 4], 3).init(device),
                conv2: self.conv([third / 4, third / 2], 3).init(device),
                conv3: self.conv([third / 2, third], 3).init(device),
                conv4: ConvConfig {
                    stride: 2,
                    ..self.conv([third, channels], 3)
                }
                .init(device),
            }),
            NormFreeStem::Conv7x7Pool => Stem::Conv7x7Pool(Conv7x7Pool {
                conv: first([3, channels], 7).init(device),
            }),
        }
    }

    /// A dense convolution of stride 1 after an activation.
    fn conv(&self, channels: [usize; 2], kernel: usize) -> ConvConfig {
        ConvConfig {
            channels,
            kernel,
            stride: 1,
            groups: 1,
            gamma: gamma(self.act_layer),
            gain_init: 1.0,
            epsilon: self.std_conv_eps,
            same_padding: self.same_padding,
        }
    }

    /// The same where no activation comes before it.
    fn conv_without_activation(&self, channels: [usize; 2], kernel: usize) -> ConvConfig {
        ConvConfig {
            gamma: if self.gamma_in_act { 1.0 } else { gamma(self.act_layer) },
            ..self.conv(channels, kernel)
        }
    }
}

/// A residual network without normalisation; see the module.
#[derive(Module, Debug)]
pub struct NormFreeNet {
    stem: Stem,
    stages: Vec<Vec<Block>>,
    final_conv: Option<ScaledStdConv2d>,
    head: Head,
    num_features: usize,
    /// Gain of the last activation.
    final_gain: f64,
    #[module(skip)]
    act_layer: Activation,
}

#[derive(Module, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a network has one stem, and a Box is no Module"
)]
enum Stem {
    DeepQuad(DeepQuad),
    Conv7x7Pool(Conv7x7Pool),
}

#[derive(Module, Debug)]
struct DeepQuad {
    conv1: ScaledStdConv2d,
    conv2: ScaledStdConv2d,
    conv3: ScaledStdConv2d,
    conv4: ScaledStdConv2d,
}

#[derive(Module, Debug)]
struct Conv7x7Pool {
    conv: ScaledStdConv2d,
}

#[derive(Module, Debug)]
struct Head {
    fc: Option<Linear>,
}

impl Stem {
    /// The map at half the size, before its activation, and the input of the first block.
    ///
    /// # Shapes
    ///   - images: `[batch, 3, height, width]`
    ///   - output: `[batch, height / 2, width / 2, channels]` and `[batch, height / 4, width / 4, stem_chs]`
    fn forward(&self, images: Tensor<4>, activation: bob_ops::Activation) -> [Tensor<4>; 2] {
        let x = channels_last(images);
        match self {
            Self::DeepQuad(stem) => {
                let x = stem.conv1.forward(x, Some(activation));
                let x = stem.conv2.forward(x, Some(activation));
                let map = stem.conv3.forward(x, None);
                let x = stem.conv4.forward(activation.forward(map.clone()), None);
                [map, x]
            }
            Self::Conv7x7Pool(stem) => {
                let map = stem.conv.forward(x, None);
                [map.clone(), max_pool2d(map, 3, 2, 1)]
            }
        }
    }

    fn convs(&self) -> Vec<&ScaledStdConv2d> {
        match self {
            Self::DeepQuad(stem) => vec![&stem.conv1, &stem.conv2, &stem.conv3, &stem.conv4],
            Self::Conv7x7Pool(stem) => vec![&stem.conv],
        }
    }

    fn fuse(&mut self) {
        match self {
            Self::DeepQuad(stem) => {
                for conv in [&mut stem.conv1, &mut stem.conv2, &mut stem.conv3, &mut stem.conv4] {
                    conv.fuse();
                }
            }
            Self::Conv7x7Pool(stem) => stem.conv.fuse(),
        }
    }
}

impl NormFreeNet {
    fn forward_stage(&self, x: Tensor<4>, blocks: &[Block]) -> Tensor<4> {
        let activation = self.act_layer.into();
        blocks.iter().fold(x, |x, block| block.forward(x, activation))
    }
}

impl Backbone for NormFreeNet {
    fn feature_info(&self) -> Vec<FeatureInfo> {
        let stem = match &self.stem {
            Stem::DeepQuad(stem) => FeatureInfo::new(stem.conv3.out_channels(), 2, "stem.conv3"),
            Stem::Conv7x7Pool(stem) => FeatureInfo::new(stem.conv.out_channels(), 2, "stem.conv"),
        };
        let stages = self.stages.iter().enumerate().map(|(stage, blocks)| {
            let channels = blocks.first().map_or(0, Block::out_channels);
            FeatureInfo::new(channels, 4 << stage, format!("stages.{stage}"))
        });
        let mut info: Vec<_> = std::iter::once(stem).chain(stages).collect();
        if let (Some(conv), Some(last)) = (&self.final_conv, info.last_mut()) {
            *last = FeatureInfo::new(conv.out_channels(), last.reduction, "final_conv");
        }
        info
    }

    fn num_features(&self) -> usize {
        self.num_features
    }

    /// The maps before their activation; the last one after the last convolution.
    fn forward_intermediates(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let [stem, mut x] = self.stem.forward(images, self.act_layer.into());
        let mut maps = vec![channels_first(stem)];
        for (stage, blocks) in self.stages.iter().enumerate() {
            x = self.forward_stage(x, blocks);
            if stage + 1 == self.stages.len()
                && let Some(conv) = &self.final_conv
            {
                x = conv.forward(x, None);
            }
            maps.push(channels_first(x.clone()));
        }
        maps
    }

    fn forward_embedding(&self, images: Tensor<4>) -> Tensor<2> {
        let [_, x] = self.stem.forward(images, self.act_layer.into());
        let x = self.stages.iter().fold(x, |x, blocks| self.forward_stage(x, blocks));
        let activation: bob_ops::Activation = self.act_layer.into();
        let x = match &self.final_conv {
            Some(conv) => conv.forward(x, Some(activation)),
            None => activation.forward(x),
        };
        global_avg_pool(x) * self.final_gain
    }

    fn forward_classifier(&self, embedding: Tensor<2>) -> Option<Tensor<2>> {
        classify(&self.head.fc, embedding)
    }

    /// Any size fits.
    fn size_divisibility(&self) -> usize {
        1
    }

    /// As timm's `group_matcher`: the stem, every block, the last convolution.
    fn layer_groups(&self) -> Vec<Vec<ParamId>> {
        std::iter::once(list_param_ids(&self.stem))
            .chain(self.stages.iter().flatten().map(list_param_ids))
            .chain(self.final_conv.iter().map(list_param_ids))
            .collect()
    }

    /// Every filter standardised once.
    fn fuse(mut self) -> Self {
        self.stem.fuse();
        self.stages.iter_mut().flatten().for_each(Block::fuse);
        if let Some(conv) = &mut self.final_conv {
            conv.fuse();
        }
        self
    }

    fn count(&self, counter: &mut CostCounter, input_size: [usize; 2]) {
        let size = self
            .stem
            .convs()
            .into_iter()
            .fold(input_size, |size, conv| conv.count(counter, size));
        let size = match &self.stem {
            Stem::DeepQuad(_) => size,
            Stem::Conv7x7Pool(_) => size.map(|size| size.div_ceil(2)),
        };
        let size = self
            .stages
            .iter()
            .flatten()
            .fold(size, |size, block| block.count(counter, size));
        if let Some(conv) = &self.final_conv {
            conv.count(counter, size);
        }
        if let Some(fc) = &self.head.fc {
            counter.linear(fc, 1);
        }
    }
}
