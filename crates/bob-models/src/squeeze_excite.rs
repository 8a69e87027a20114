//! Squeeze-and-excitation: a gate for every channel that sees the means of all.
//!
//! Paper: Hu et al., "Squeeze-and-Excitation Networks", arXiv:1709.01507; reference `timm/layers/squeeze_excite.py`
//! (1.0.31).

use bob_core::CostCounter;
use bob_ops::{Activation, Epilogue, mean_pool, nn};
use burn::module::Module;
use burn::nn::Initializer;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor};

use crate::init;

/// timm's `SEModule` with ReLU between its layers.
#[derive(Module, Debug)]
pub(crate) struct SqueezeExcite {
    fc1: Conv2d,
    fc2: Conv2d,
}

impl SqueezeExcite {
    /// Initialise for maps of `channels` with `reduced` values between.
    pub(crate) fn new(channels: usize, reduced: usize, device: &Device) -> Self {
        let conv = |channels: [usize; 2]| {
            let initializer = Initializer::KaimingNormal {
                gain: 1.0,
                fan_out_only: false,
            };
            Conv2d {
                bias: Some(init::zeros(channels[1], device)),
                ..Conv2dConfig::new(channels, [1, 1])
                    .with_bias(false)
                    .with_initializer(initializer)
                    .init(device)
            }
        };
        Self {
            fc1: conv([channels, reduced]),
            fc2: conv([reduced, channels]),
        }
    }

    /// The gates, between 0 and 1.
    ///
    /// # Shapes
    ///   - x: `[batch, pixels, channels]`
    ///   - output: `[batch, channels]`
    pub(crate) fn gate(&self, x: Tensor<3>) -> Tensor<2> {
        let [batch, _, channels] = x.dims();
        let mean = mean_pool(x).reshape([batch, 1, 1, channels]);
        let hidden = nn::conv2d(&self.fc1, mean, Epilogue::activation(Activation::Relu));
        sigmoid(nn::conv2d(&self.fc2, hidden, Epilogue::none())).reshape([batch, channels])
    }

    /// Count the gates of one image.
    pub(crate) fn count(&self, counter: &mut CostCounter) {
        counter.conv2d(&self.fc1, [1, 1]);
        counter.conv2d(&self.fc2, [1, 1]);
    }
}
