//! The blocks of an EfficientNet, with the names of `timm/models/_efficientnet_blocks.py`.

use bob_core::CostCounter;
use bob_ops::{Activation, Epilogue, gate_channels, mean_pool, nn};
use burn::module::Module;
use burn::nn::BatchNorm;
use burn::nn::conv::Conv2d;
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor};

use super::{EfficientNetConfig, StageConfig};
use crate::init::zeros;
use crate::layers::{batch_norm, conv_norm, conv_norm_add, conv2d, count_conv, fold};

/// Either block; the shortcut is added where the shape stays.
#[derive(Module, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "all blocks but the first are of the large kind"
)]
pub(super) enum Block {
    DepthwiseSeparable(DepthwiseSeparableConv),
    InvertedResidual(InvertedResidual),
}

/// Depthwise, then a linear 1×1 projection.
#[derive(Module, Debug)]
pub(super) struct DepthwiseSeparableConv {
    conv_dw: Conv2d,
    bn1: Option<BatchNorm>,
    se: Option<SqueezeExcite>,
    conv_pw: Conv2d,
    bn2: Option<BatchNorm>,
}

/// 1×1 expansion, depthwise, then a linear 1×1 projection.
#[derive(Module, Debug)]
pub(super) struct InvertedResidual {
    conv_pw: Conv2d,
    bn1: Option<BatchNorm>,
    conv_dw: Conv2d,
    bn2: Option<BatchNorm>,
    se: Option<SqueezeExcite>,
    conv_pwl: Conv2d,
    bn3: Option<BatchNorm>,
}

/// Scales every channel by a gate that sees the means of all (arXiv:1709.01507).
#[derive(Module, Debug)]
pub(super) struct SqueezeExcite {
    conv_reduce: Conv2d,
    conv_expand: Conv2d,
}

impl Block {
    /// A block of `stage` in the network of `config`.
    pub(super) fn init(
        config: &EfficientNetConfig,
        stage: &StageConfig,
        in_channels: usize,
        stride: usize,
        device: &Device,
    ) -> Self {
        let channels = in_channels * stage.expansion;
        let norm = |channels| batch_norm(channels, config.epsilon, device);
        let conv_dw = config.conv([channels, channels], stage.kernel_size, stride, channels, device);
        let se = (config.se_ratio > 0.0).then(|| {
            let reduced = (in_channels as f64 * config.se_ratio).round_ties_even() as usize;
            SqueezeExcite::init(channels, reduced, device)
        });
        let project = config.conv([channels, stage.channels], 1, 1, 1, device);
        if stage.expansion == 1 {
            Self::DepthwiseSeparable(DepthwiseSeparableConv {
                conv_dw,
                bn1: norm(channels),
                se,
                conv_pw: project,
                bn2: norm(stage.channels),
            })
        } else {
            Self::InvertedResidual(InvertedResidual {
                conv_pw: config.conv([in_channels, channels], 1, 1, 1, device),
                bn1: norm(channels),
                conv_dw,
                bn2: norm(channels),
                se,
                conv_pwl: project,
                bn3: norm(stage.channels),
            })
        }
    }

    pub(super) fn stride(&self) -> usize {
        match self {
            Self::DepthwiseSeparable(block) => block.conv_dw.stride[0],
            Self::InvertedResidual(block) => block.conv_dw.stride[0],
        }
    }

    pub(super) fn out_channels(&self) -> usize {
        match self {
            Self::DepthwiseSeparable(block) => block.conv_pw.weight.lazy_shape()[0],
            Self::InvertedResidual(block) => block.conv_pwl.weight.lazy_shape()[0],
        }
    }

    /// # Shapes
    ///   - x: `[batch, height, width, in]`
    ///   - output: `[batch, height / stride, width / stride, out]`
    pub(super) fn forward(&self, x: Tensor<4>, activation: Activation) -> Tensor<4> {
        let has_skip = self.stride() == 1 && x.dims()[3] == self.out_channels();
        let shortcut = has_skip.then(|| x.clone());
        match self {
            Self::DepthwiseSeparable(block) => block.forward(x, activation, shortcut),
            Self::InvertedResidual(block) => block.forward(x, activation, shortcut),
        }
    }

    pub(super) fn fuse(&mut self) {
        match self {
            Self::DepthwiseSeparable(block) => {
                fold(&mut block.conv_dw, &mut block.bn1);
                fold(&mut block.conv_pw, &mut block.bn2);
            }
            Self::InvertedResidual(block) => {
                fold(&mut block.conv_pw, &mut block.bn1);
                fold(&mut block.conv_dw, &mut block.bn2);
                fold(&mut block.conv_pwl, &mut block.bn3);
            }
        }
    }

    pub(super) fn count(&self, counter: &mut CostCounter, input: [usize; 2]) -> [usize; 2] {
        let (convs, se) = match self {
            Self::DepthwiseSeparable(block) => (vec![&block.conv_dw, &block.conv_pw], &block.se),
            Self::InvertedResidual(block) => (vec![&block.conv_pw, &block.conv_dw, &block.conv_pwl], &block.se),
        };
        if let Some(se) = se {
            counter.conv2d(&se.conv_reduce, [1, 1]);
            counter.conv2d(&se.conv_expand, [1, 1]);
        }
        convs
            .into_iter()
            .fold(input, |size, conv| count_conv(counter, conv, size))
    }
}

impl DepthwiseSeparableConv {
    fn forward(&self, x: Tensor<4>, activation: Activation, shortcut: Option<Tensor<4>>) -> Tensor<4> {
        let x = conv_norm(x, &self.conv_dw, &self.bn1, Some(activation));
        project(
            SqueezeExcite::apply(&self.se, x, activation),
            &self.conv_pw,
            &self.bn2,
            shortcut,
        )
    }
}

impl InvertedResidual {
    fn forward(&self, x: Tensor<4>, activation: Activation, shortcut: Option<Tensor<4>>) -> Tensor<4> {
        let x = conv_norm(x, &self.conv_pw, &self.bn1, Some(activation));
        let x = conv_norm(x, &self.conv_dw, &self.bn2, Some(activation));
        project(
            SqueezeExcite::apply(&self.se, x, activation),
            &self.conv_pwl,
            &self.bn3,
            shortcut,
        )
    }
}

/// The last convolution of a block, and its shortcut where the shape stays.
fn project(x: Tensor<4>, conv: &Conv2d, norm: &Option<BatchNorm>, shortcut: Option<Tensor<4>>) -> Tensor<4> {
    match shortcut {
        Some(shortcut) => conv_norm_add(x, conv, norm, shortcut, None),
        None => conv_norm(x, conv, norm, None),
    }
}

impl SqueezeExcite {
    fn init(channels: usize, reduced: usize, device: &Device) -> Self {
        let conv = |channels: [usize; 2]| {
            let mut conv = conv2d(channels, 1).init(device);
            conv.bias = Some(zeros(channels[1], device));
            conv
        };
        Self {
            conv_reduce: conv([channels, reduced]),
            conv_expand: conv([reduced, channels]),
        }
    }

    fn apply(se: &Option<Self>, x: Tensor<4>, activation: Activation) -> Tensor<4> {
        let Some(se) = se else { return x };
        let [batch, height, width, channels] = x.dims();
        let x = x.reshape([batch, height * width, channels]);
        let mean = mean_pool(x.clone()).reshape([batch, 1, 1, channels]);
        let gate = nn::conv2d(&se.conv_reduce, mean, Epilogue::activation(activation));
        let gate = sigmoid(nn::conv2d(&se.conv_expand, gate, Epilogue::none()));
        gate_channels(x, gate.reshape([batch, channels])).reshape([batch, height, width, channels])
    }
}
