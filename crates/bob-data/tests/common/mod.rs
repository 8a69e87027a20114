//! What the tests of loading and caching share: a set of images in memory and a tiny backbone.

use std::sync::atomic::{AtomicUsize, Ordering};

use bob_core::{Backbone, FeatureInfo, Interpolation, Preprocess};
use bob_data::{DataError, EvalTransform, ImageSet, PassOrder, RgbImage};
use burn::module::{Module, ParamId};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

/// Noise of odd sizes, the same for the same index.
pub struct Noise {
    pub len: usize,
    /// The image that cannot be read.
    pub broken: Option<usize>,
    pub decoded: AtomicUsize,
}

impl Noise {
    pub fn new(len: usize) -> Self {
        Self {
            len,
            broken: None,
            decoded: AtomicUsize::new(0),
        }
    }
}

impl ImageSet for Noise {
    fn len(&self) -> usize {
        self.len
    }

    fn name(&self, index: usize) -> String {
        format!("noise{index}")
    }

    fn label(&self, index: usize) -> u32 {
        index as u32 % 3
    }

    fn bytes(&self, index: usize) -> Result<Vec<u8>, DataError> {
        Ok(self.image(index)?.pixels)
    }

    fn image(&self, index: usize) -> Result<RgbImage, DataError> {
        self.decoded.fetch_add(1, Ordering::SeqCst);
        if self.broken == Some(index) {
            let source = bob_data::decode(&[], &bob_data::Limits::default()).expect_err("nothing is no image");
            return Err(DataError::Decode {
                name: self.name(index),
                source,
            });
        }
        let (width, height) = (9 + index % 5, 7 + index % 11);
        let mut state = index as u32 + 1;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        Ok(RgbImage {
            width,
            height,
            pixels: (0..width * height * 3).map(|_| next()).collect(),
        })
    }
}

/// 16 x 16 pixels.
pub fn transform() -> EvalTransform {
    let preprocess = Preprocess {
        interpolation: Interpolation::Bilinear,
        ..Preprocess::imagenet(16)
    };
    EvalTransform::new(&preprocess, PassOrder::default())
}

/// A convolution, the mean, a linear layer; wide enough for the device's fast paths.
#[derive(Module, Debug)]
pub struct Tiny {
    conv: Conv2d,
    head: Linear,
}

/// Passes of any [`Tiny`] of this program.
pub static PASSES: AtomicUsize = AtomicUsize::new(0);

impl Tiny {
    pub fn new(device: &Device) -> Self {
        device.seed(7);
        let padding = PaddingConfig2d::Explicit(1, 1, 1, 1);
        Self {
            conv: Conv2dConfig::new([3, 48], [3, 3])
                .with_stride([2, 2])
                .with_padding(padding)
                .init(device),
            head: LinearConfig::new(48, 24).init(device),
        }
    }

    /// One weight is infinite.
    pub fn spoilt(device: &Device) -> Self {
        let mut tiny = Self::new(device);
        tiny.head.weight = tiny.head.weight.map(|weight| weight * f32::INFINITY);
        tiny
    }
}

impl Backbone for Tiny {
    fn feature_info(&self) -> Vec<FeatureInfo> {
        vec![FeatureInfo::new(48, 2, "conv")]
    }

    fn num_features(&self) -> usize {
        24
    }

    fn forward_intermediates(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        vec![relu(self.conv.forward(images))]
    }

    fn forward_embedding(&self, images: Tensor<4>) -> Tensor<2> {
        PASSES.fetch_add(1, Ordering::SeqCst);
        let map = relu(self.conv.forward(images));
        self.head.forward(map.mean_dim(3).mean_dim(2).flatten::<2>(1, 3))
    }

    fn layer_groups(&self) -> Vec<Vec<ParamId>> {
        Vec::new()
    }
}
