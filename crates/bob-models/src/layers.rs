//! Layers that families share.

use bob_core::CostCounter;
use bob_ops::{Conv2dOptions, Epilogue, add_relu, checkpoint, mean_pool, nn};
use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, Linear, PaddingConfig2d};
use burn::tensor::ops::AvgPoolOptions;
use burn::tensor::{Device, Tensor, module};

/// The activation function of a network.
#[derive(Config, Debug, PartialEq, Eq, Copy)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x * sigmoid(x)`, also called swish.
    Silu,
    /// `x * (1 + erf(x / sqrt(2))) / 2`.
    Gelu,
}

impl From<Activation> for bob_ops::Activation {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::Relu => Self::Relu,
            Activation::Relu6 => Self::Relu6,
            Activation::Silu => Self::Silu,
            Activation::Gelu => Self::Gelu,
        }
    }
}

/// A convolution with a square kernel and without bias, drawn as timm draws it: normal, scaled by its fan-out.
///
/// The padding is PyTorch's symmetric one, `(kernel - 1) / 2` on every side.
pub(crate) fn conv2d(channels: [usize; 2], kernel: usize) -> Conv2dConfig {
    let pad = (kernel - 1) / 2;
    Conv2dConfig::new(channels, [kernel, kernel])
        .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
        .with_bias(false)
        .with_initializer(Initializer::KaimingNormal {
            gain: std::f64::consts::SQRT_2,
            fan_out_only: true,
        })
}

/// A batch norm that [`fold`] can take away.
pub(crate) fn batch_norm(channels: usize, epsilon: f64, device: &Device) -> Option<BatchNorm> {
    Some(BatchNormConfig::new(channels).with_epsilon(epsilon).init(device))
}

/// The convolution, its batch norm unless it is folded, and an activation.
///
/// # Shapes
///   - x: `[batch, height, width, in]`
///   - output: `[batch, height / stride, width / stride, out]`
pub(crate) fn conv_norm(
    x: Tensor<4>,
    conv: &Conv2d,
    norm: &Option<BatchNorm>,
    activation: Option<bob_ops::Activation>,
) -> Tensor<4> {
    match norm {
        Some(norm) => nn::batch_norm(norm, nn::conv2d(conv, x, Epilogue::none()), activation),
        None => {
            let epilogue = Epilogue {
                residual: None,
                activation,
            };
            nn::conv2d(conv, x, epilogue)
        }
    }
}

/// The convolution, its batch norm unless it is folded, and the end of a residual block.
pub(crate) fn conv_norm_add(
    x: Tensor<4>,
    conv: &Conv2d,
    norm: &Option<BatchNorm>,
    shortcut: Tensor<4>,
    activation: Option<bob_ops::Activation>,
) -> Tensor<4> {
    match norm {
        Some(norm) => {
            let x = nn::batch_norm(norm, nn::conv2d(conv, x, Epilogue::none()), None);
            match activation {
                Some(bob_ops::Activation::Relu) => add_relu(x, shortcut),
                Some(activation) => activation.forward(x + shortcut),
                None => x + shortcut,
            }
        }
        None => {
            let epilogue = Epilogue {
                residual: Some(shortcut),
                activation,
            };
            nn::conv2d(conv, x, epilogue)
        }
    }
}

/// A convolution and its batch norm under timm's names (`ConvNormAct` of `timm/layers/conv_bn_act.py`).
#[derive(Module, Debug)]
pub(crate) struct ConvNorm {
    pub(crate) conv: Conv2d,
    bn: Option<BatchNorm>,
}

impl ConvNorm {
    /// Initialise on `device`.
    pub(crate) fn new(conv: Conv2dConfig, epsilon: f64, device: &Device) -> Self {
        Self {
            bn: batch_norm(conv.channels[1], epsilon, device),
            conv: conv.init(device),
        }
    }

    /// As [`conv_norm`].
    pub(crate) fn forward(&self, x: Tensor<4>, activation: Option<bob_ops::Activation>) -> Tensor<4> {
        conv_norm(x, &self.conv, &self.bn, activation)
    }

    /// As [`conv_norm_add`].
    pub(crate) fn forward_add(
        &self,
        x: Tensor<4>,
        shortcut: Tensor<4>,
        activation: Option<bob_ops::Activation>,
    ) -> Tensor<4> {
        conv_norm_add(x, &self.conv, &self.bn, shortcut, activation)
    }

    /// As [`fold`].
    pub(crate) fn fuse(&mut self) {
        fold(&mut self.conv, &mut self.bn);
    }

    /// Channels of the output.
    pub(crate) fn out_channels(&self) -> usize {
        self.conv.weight.lazy_shape()[0]
    }
}

/// Fold a batch norm, as it acts at inference, into the convolution before it.
pub(crate) fn fold(conv: &mut Conv2d, norm: &mut Option<BatchNorm>) {
    let Some(norm) = norm.take() else { return };
    let scale = norm.gamma.val() / (norm.running_var.value() + norm.epsilon).sqrt();
    let shift = norm.beta.val() - norm.running_mean.value() * scale.clone();
    let bias = match &conv.bias {
        Some(bias) => bias.val() * scale.clone() + shift,
        None => shift,
    };
    let channels = scale.dims()[0];
    let weight = conv.weight.val() * scale.reshape([channels, 1, 1, 1]);
    // Only a leaf can be a parameter on a device that tracks gradients.
    conv.weight = Param::from_tensor(weight.detach());
    conv.bias = Some(Param::from_tensor(bias.detach()));
    nn::lay_out(conv);
}

/// Count a convolution over a map of `[height, width]` and give the size of its output.
pub(crate) fn count_conv(counter: &mut CostCounter, conv: &Conv2d, input: [usize; 2]) -> [usize; 2] {
    let output = Conv2dOptions::of(conv, input).output(input, conv.kernel_size);
    counter.conv2d(conv, output);
    output
}

/// The mean over height and width.
///
/// # Shapes
///   - x: `[batch, height, width, channels]`
///   - output: `[batch, channels]`
pub(crate) fn global_avg_pool(x: Tensor<4>) -> Tensor<2> {
    mean_pool(x.flatten(1, 2))
}

/// The mean of every square of two by two pixels. An odd last row or column is averaged over what there is of it where
/// `ceil_mode` is on, and dropped where it is off.
///
/// # Shapes
///   - x: `[batch, height, width, channels]`
///   - output: `[batch, height / 2, width / 2, channels]`, rounded up or down
pub(crate) fn avg_pool2(x: Tensor<4>, ceil_mode: bool) -> Tensor<4> {
    let options = AvgPoolOptions {
        kernel_size: [2, 2],
        stride: [2, 2],
        padding: [(0, 0); 2],
        count_include_pad: false,
        ceil_mode,
    };
    channels_last(module::avg_pool2d(channels_first(x), options))
}

/// The multiple of 8 nearest to `channels`, but not more than a tenth below it (`timm/layers/helpers.py`).
pub(crate) fn make_divisible(channels: f64) -> usize {
    let nearest = nearest_multiple_of_8(channels);
    if (nearest as f64) < 0.9 * channels {
        nearest + 8
    } else {
        nearest
    }
}

/// The multiple of 8 nearest to `channels`, at least 8 (`make_divisible(channels, 8, round_limit=0)`).
pub(crate) fn nearest_multiple_of_8(channels: f64) -> usize {
    (((channels + 4.0) / 8.0) as usize * 8).max(8)
}

/// The classes' scores by a classifier that may be absent.
///
/// # Shapes
///   - embedding: `[batch, num_features]`
///   - output: `[batch, num_classes]`
pub(crate) fn classify(classifier: &Option<Linear>, embedding: Tensor<2>) -> Option<Tensor<2>> {
    let classifier = classifier.as_ref()?;
    Some(nn::linear(classifier, embedding, Epilogue::none()))
}

/// `forward(block, x)`, computed again in the backward pass where `again` says so.
pub(crate) fn pass<B: Module + 'static, const D: usize>(
    block: &B,
    x: Tensor<D>,
    forward: fn(&B, Tensor<D>) -> Tensor<D>,
    again: bool,
) -> Tensor<D> {
    if again {
        checkpoint(block, x, forward)
    } else {
        forward(block, x)
    }
}

/// Maps with channels last, as images come with them first.
pub(crate) fn channels_last(x: Tensor<4>) -> Tensor<4> {
    x.permute([0, 2, 3, 1])
}

/// Maps with channels first, as everybody else has them.
pub(crate) fn channels_first(x: Tensor<4>) -> Tensor<4> {
    x.permute([0, 3, 1, 2])
}
