//! The residual block and its gates (`NormFreeBlock` of the reference).

use bob_core::CostCounter;
use bob_ops::{Activation, add, gate_channels, mean_pool};
use burn::module::{Module, Param};
use burn::nn::conv::{Conv1d, Conv1dConfig};
use burn::nn::{Initializer, PaddingConfig1d};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor};

use super::conv::{ConvConfig, ScaledStdConv2d};
use super::{ChannelAttention, NormFreeNetConfig};
use crate::layers::{avg_pool2, make_divisible, nearest_multiple_of_8};
use crate::squeeze_excite::SqueezeExcite;

/// What tells one block from the others of its network.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockConfig {
    /// Channels in and out.
    pub(super) channels: [usize; 2],
    pub(super) stride: usize,
    /// The inverse of the deviation that the input is expected to have.
    pub(super) beta: f64,
}

/// Activation first, then 1×1, one or two grouped 3×3, 1×1 and a gate.
#[derive(Module, Debug)]
pub(super) struct Block {
    downsample: Option<Downsample>,
    conv1: ScaledStdConv2d,
    conv2: ScaledStdConv2d,
    conv2b: Option<ScaledStdConv2d>,
    conv3: ScaledStdConv2d,
    attn_last: Option<Gate>,
    skipinit_gain: Option<Param<Tensor<1>>>,
    /// Weight of the branch.
    weight: f64,
}

/// The shortcut where the shape changes.
#[derive(Module, Debug)]
struct Downsample {
    conv: ScaledStdConv2d,
    is_strided: bool,
}

#[derive(Module, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the gates of a network are all of one kind, and a Box is no Module"
)]
enum Gate {
    SqueezeExcite(SqueezeExcite),
    Eca(Eca),
}

/// Efficient channel attention (arXiv:1910.03151): the gates are a convolution of the means along the channels.
#[derive(Module, Debug)]
struct Eca {
    conv: Conv1d,
}

impl Block {
    pub(super) fn new(network: &NormFreeNetConfig, config: &BlockConfig, device: &Device) -> Self {
        let BlockConfig {
            channels: [inputs, outputs],
            stride,
            beta,
        } = *config;
        let wanted = make_divisible(outputs as f64 * network.bottle_ratio);
        let (inner, groups) = match network.group_size {
            Some(size) => (wanted / size * size, wanted / size),
            None => (wanted, 1),
        };
        let after_input = |conv: ConvConfig| ConvConfig {
            gamma: conv.gamma * beta,
            ..conv
        };
        let grouped = |stride| ConvConfig {
            stride,
            groups,
            ..network.conv([inner, inner], 3)
        };
        let last = ConvConfig {
            // A branch starts at zero, by one gain or the other.
            gain_init: if network.skipinit { 1.0 } else { 0.0 },
            ..network.conv([inner, outputs], 1)
        };
        let gate = match network.attn_layer {
            ChannelAttention::None => None,
            ChannelAttention::SqueezeExcite(ratio) => {
                let reduced = nearest_multiple_of_8(outputs as f64 * ratio);
                Some(Gate::SqueezeExcite(SqueezeExcite::new(outputs, reduced, device)))
            }
            ChannelAttention::Eca => Some(Gate::Eca(Eca::new(outputs, device))),
        };
        Self {
            downsample: (inputs != outputs || stride != 1).then(|| Downsample {
                conv: after_input(network.conv([inputs, outputs], 1)).init(device),
                is_strided: stride > 1,
            }),
            conv1: after_input(network.conv([inputs, inner], 1)).init(device),
            conv2: grouped(stride).init(device),
            conv2b: network.extra_conv.then(|| grouped(1).init(device)),
            conv3: last.init(device),
            skipinit_gain: network.skipinit.then(|| Initializer::Zeros.init([1], device)),
            weight: network.alpha * if gate.is_some() { network.attn_gain } else { 1.0 },
            attn_last: gate,
        }
    }

    pub(super) fn out_channels(&self) -> usize {
        self.conv3.out_channels()
    }

    /// # Shapes
    ///   - x: `[batch, height, width, in]`
    ///   - output: `[batch, height / stride, width / stride, out]`
    pub(super) fn forward(&self, x: Tensor<4>, activation: Activation) -> Tensor<4> {
        let activated = activation.forward(x.clone());
        let shortcut = match &self.downsample {
            Some(Downsample { conv, is_strided: true }) => conv.forward(avg_pool2(activated.clone(), true), None),
            Some(Downsample { conv, .. }) => conv.forward(activated.clone(), None),
            None => x,
        };
        let x = self.conv1.forward(activated, Some(activation));
        let x = self.conv2.forward(x, Some(activation));
        let x = match &self.conv2b {
            Some(conv) => conv.forward(x, Some(activation)),
            None => x,
        };
        let x = self.conv3.forward(x, None);
        let skip = self.skipinit_gain.as_ref().map(|gain| gain.val().cast(x.dtype()));
        let x = match &self.attn_last {
            Some(gate) => {
                let [batch, height, width, channels] = x.dims();
                let x = x.reshape([batch, height * width, channels]);
                let gate = gate.forward(x.clone()) * self.weight;
                let gate = match skip {
                    Some(skip) => gate * skip.unsqueeze(),
                    None => gate,
                };
                gate_channels(x, gate).reshape([batch, height, width, channels])
            }
            None => match skip {
                Some(skip) => x * (skip * self.weight).unsqueeze(),
                None => x * self.weight,
            },
        };
        add(x, shortcut)
    }

    pub(super) fn fuse(&mut self) {
        if let Some(downsample) = &mut self.downsample {
            downsample.conv.fuse();
        }
        let convs = [&mut self.conv1, &mut self.conv2, &mut self.conv3];
        convs
            .into_iter()
            .chain(&mut self.conv2b)
            .for_each(ScaledStdConv2d::fuse);
    }

    pub(super) fn count(&self, counter: &mut CostCounter, input: [usize; 2]) -> [usize; 2] {
        let size = self.conv1.count(counter, input);
        let size = self.conv2.count(counter, size);
        if let Some(conv) = &self.conv2b {
            conv.count(counter, size);
        }
        self.conv3.count(counter, size);
        if let Some(downsample) = &self.downsample {
            downsample.conv.count(counter, size);
        }
        match &self.attn_last {
            Some(Gate::SqueezeExcite(gate)) => gate.count(counter),
            Some(Gate::Eca(gate)) => counter.matmul(1, self.out_channels(), gate.conv.kernel_size, 1),
            None => {}
        }
        size
    }
}

impl Gate {
    /// # Shapes
    ///   - x: `[batch, pixels, channels]`
    ///   - output: `[batch, channels]`
    fn forward(&self, x: Tensor<3>) -> Tensor<2> {
        match self {
            Self::SqueezeExcite(gate) => gate.gate(x),
            Self::Eca(gate) => {
                let means = mean_pool(x);
                let dtype = means.dtype();
                let means = means.cast(gate.conv.weight.val().dtype()).unsqueeze_dim(1);
                sigmoid(gate.conv.forward(means)).squeeze_dim(1).cast(dtype)
            }
        }
    }
}

impl Eca {
    /// The kernel grows with the logarithm of the channels, and is odd.
    fn new(channels: usize, device: &Device) -> Self {
        let length = (((channels as f64).log2() + 1.0) / 2.0) as usize;
        let kernel = (length + 1 - length % 2).max(3);
        let pad = kernel / 2;
        let conv = Conv1dConfig::new(1, 1, kernel)
            .with_padding(PaddingConfig1d::Explicit(pad, pad))
            .with_bias(false);
        Self {
            conv: conv.init(device),
        }
    }
}
