//! Convolutions whose filters are standardised (`ScaledStdConv2d` and `ScaledStdConv2dSame` of
//! `timm/layers/std_conv.py`).

use bob_core::CostCounter;
use bob_ops::{Activation, Conv2dOptions, Epilogue, nn, standardize_weight};
use burn::module::{Module, Param};
use burn::nn::conv::Conv2d;
use burn::nn::{Initializer, PaddingConfig2d};
use burn::tensor::{Device, Tensor};

use crate::init;

/// What one convolution is.
#[derive(Clone, Debug)]
pub(super) struct ConvConfig {
    /// Channels in and out.
    pub(super) channels: [usize; 2],
    /// Side of the kernel, odd.
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) groups: usize,
    /// By how much the filters are larger than standard ones: the gain of the activation before.
    pub(super) gamma: f64,
    /// Initial value of the learnt gain.
    pub(super) gain_init: f64,
    /// Added to the variance of a filter.
    pub(super) epsilon: f64,
    /// Pad as TensorFlow does.
    pub(super) same_padding: bool,
}

impl ConvConfig {
    pub(super) fn init(&self, device: &Device) -> ScaledStdConv2d {
        let [inputs, outputs] = self.channels;
        let shape = [outputs, inputs / self.groups, self.kernel, self.kernel];
        let fan_in = (shape[1] * self.kernel * self.kernel) as f64;
        let weight = Initializer::Normal {
            mean: 0.0,
            std: fan_in.powf(-0.5),
        };
        let gain = Initializer::Constant { value: self.gain_init };
        let pad = (self.kernel - 1) / 2;
        // At stride 1 and an odd kernel both paddings are the same.
        let padding = if self.same_padding && self.stride > 1 {
            PaddingConfig2d::Same
        } else {
            PaddingConfig2d::Explicit(pad, pad, pad, pad)
        };
        ScaledStdConv2d::Learning(Standardized {
            weight: weight.init(shape, device),
            bias: init::zeros(outputs, device),
            gain: gain.init([outputs, 1, 1, 1], device),
            scale: self.gamma * fan_in.powf(-0.5),
            epsilon: self.epsilon,
            stride: [self.stride; 2],
            groups: self.groups,
            padding,
        })
    }
}

/// A convolution whose filters have mean zero and a norm that is learnt.
#[derive(Module, Debug)]
pub(super) enum ScaledStdConv2d {
    Learning(Standardized),
    /// Standardised once, for inference.
    Folded(Conv2d),
}

#[derive(Module, Debug)]
pub(super) struct Standardized {
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
    gain: Param<Tensor<4>>,
    scale: f64,
    epsilon: f64,
    stride: [usize; 2],
    groups: usize,
    #[module(skip)]
    padding: PaddingConfig2d,
}

impl Standardized {
    /// The filters as they act.
    fn filters(&self) -> Tensor<4> {
        let gain = self.gain.val();
        let [outputs, ..] = gain.dims();
        standardize_weight(self.weight.val(), gain.reshape([outputs]), self.scale, self.epsilon)
    }

    fn kernel(&self) -> [usize; 2] {
        let [_, _, height, width] = self.weight.lazy_shape().dims();
        [height, width]
    }

    fn options(&self, input: [usize; 2]) -> Conv2dOptions {
        let options = Conv2dOptions {
            stride: self.stride,
            groups: self.groups,
            ..Conv2dOptions::default()
        };
        options.padded(&self.padding, self.kernel(), input)
    }
}

impl ScaledStdConv2d {
    pub(super) fn out_channels(&self) -> usize {
        match self {
            Self::Learning(conv) => conv.weight.lazy_shape()[0],
            Self::Folded(conv) => conv.weight.lazy_shape()[0],
        }
    }

    /// # Shapes
    ///   - x: `[batch, height, width, in]`
    ///   - output: `[batch, height / stride, width / stride, out]`
    pub(super) fn forward(&self, x: Tensor<4>, activation: Option<Activation>) -> Tensor<4> {
        let epilogue = Epilogue {
            residual: None,
            activation,
        };
        match self {
            Self::Learning(conv) => {
                let [_, height, width, _] = x.dims();
                let options = conv.options([height, width]);
                bob_ops::conv2d(x, conv.filters(), Some(conv.bias.val()), options, epilogue)
            }
            Self::Folded(conv) => nn::conv2d(conv, x, epilogue),
        }
    }

    /// Standardise the filters once, for inference.
    pub(super) fn fuse(&mut self) {
        let Self::Learning(conv) = self else { return };
        let mut folded = Conv2d {
            weight: Param::from_tensor(conv.filters().detach()),
            bias: Some(conv.bias.clone()),
            stride: conv.stride,
            kernel_size: conv.kernel(),
            dilation: [1, 1],
            groups: conv.groups,
            padding: conv.padding.clone(),
        };
        nn::lay_out(&mut folded);
        *self = Self::Folded(folded);
    }

    /// Count a pass over a map of `[height, width]` and give the size of its output.
    pub(super) fn count(&self, counter: &mut CostCounter, input: [usize; 2]) -> [usize; 2] {
        match self {
            Self::Learning(conv) => {
                let [outputs, inputs, height, width] = conv.weight.lazy_shape().dims();
                let output = conv.options(input).output(input, conv.kernel());
                let pixels = output[0] * output[1];
                counter.matmul(conv.groups, pixels, inputs * height * width, outputs / conv.groups);
                output
            }
            Self::Folded(conv) => crate::layers::count_conv(counter, conv, input),
        }
    }
}
