//! Initial values as timm draws them for its transformers: weights normal with deviation 0.02, biases zero.
//!
//! timm's `trunc_normal_` cuts at ±2, a hundred deviations away, so it draws a plain normal.

use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Initializer, Linear};
use burn::tensor::{Device, Tensor};

/// Normal with mean 0 and deviation 0.02.
pub(crate) const NORMAL: Initializer = Initializer::Normal { mean: 0.0, std: 0.02 };

/// A linear layer from `d_input` to `d_output`.
pub(crate) fn linear(d_input: usize, d_output: usize, bias: bool, device: &Device) -> Linear {
    Linear {
        weight: NORMAL.init([d_input, d_output], device),
        bias: bias.then(|| zeros(d_output, device)),
    }
}

/// A convolution of `config`, whose initializer is not asked.
pub(crate) fn conv2d(config: Conv2dConfig, device: &Device) -> Conv2d {
    let channels = config.channels[1];
    let bias = config.bias.then(|| zeros(channels, device));
    Conv2d {
        bias,
        ..config.with_bias(false).with_initializer(NORMAL).init(device)
    }
}

/// A vector of zeros.
pub(crate) fn zeros(size: usize, device: &Device) -> Param<Tensor<1>> {
    Initializer::Zeros.init([size], device)
}
