//! What the tests of training share: images whose class can be learnt, and a backbone small enough to learn it.

use bob_core::device::{BackendName, select};
use bob_core::{Backbone, CropMode, FeatureInfo, Interpolation, Preprocess, initialize};
use bob_data::{DataError, EvalTransform, ImageSet, PassOrder, RgbImage};
use bob_ops::{Activation, Epilogue, mean_pool, nn};
use burn::module::{Module, ParamId};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor};

/// Classes of [`Colours`].
pub const CLASSES: usize = 3;

/// Noise of odd sizes, a little brighter in the channel of its label.
pub struct Colours {
    pub len: usize,
    /// The image that cannot be read.
    pub broken: Option<usize>,
}

impl ImageSet for Colours {
    fn len(&self) -> usize {
        self.len
    }

    fn name(&self, index: usize) -> String {
        format!("colour{index}")
    }

    fn label(&self, index: usize) -> u32 {
        (index % CLASSES) as u32
    }

    fn bytes(&self, index: usize) -> Result<Vec<u8>, DataError> {
        Ok(self.image(index)?.pixels)
    }

    fn image(&self, index: usize) -> Result<RgbImage, DataError> {
        if self.broken == Some(index) {
            let source = bob_data::decode(&[], &bob_data::Limits::default()).expect_err("nothing is no image");
            let name = self.name(index);
            return Err(DataError::Decode { name, source });
        }
        let (width, height) = (16 + index % 5, 16 + index % 3);
        let mut state = index as u32 + 1;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 25) as u8
        };
        let bright = |channel| if channel == index % CLASSES { 60 } else { 0 };
        Ok(RgbImage {
            width,
            height,
            pixels: (0..width * height * 3).map(|at| noise() + bright(at % 3)).collect(),
        })
    }
}

/// 16 x 16 pixels.
pub fn transform() -> EvalTransform {
    let preprocess = Preprocess {
        interpolation: Interpolation::Bilinear,
        crop_mode: CropMode::Squash,
        crop_pct: 1.0,
        ..Preprocess::imagenet(16)
    };
    EvalTransform::new(&preprocess, PassOrder::default())
}

/// A convolution, batch norm, the mean, and a classifier where it has one.
#[derive(Module, Debug)]
pub struct Tiny {
    pub conv: Conv2d,
    pub norm: BatchNorm,
    head: Option<Linear>,
}

const WIDTH: usize = 24;

/// flex, with gradients.
pub fn device() -> Device {
    select(BackendName::Flex).expect("linked for tests").autodiff()
}

impl Tiny {
    /// Drawn from a fixed seed, with a classifier of `classes` where they are given.
    pub fn new(classes: Option<usize>) -> Self {
        let device = device();
        let padding = PaddingConfig2d::Explicit(1, 1, 1, 1);
        let conv = Conv2dConfig::new([3, WIDTH], [3, 3])
            .with_stride([2, 2])
            .with_padding(padding);
        initialize(7, &device, || Self {
            conv: conv.init(&device),
            norm: BatchNormConfig::new(WIDTH).init(&device),
            head: classes.map(|classes| LinearConfig::new(WIDTH, classes).init(&device)),
        })
    }
}

impl Backbone for Tiny {
    fn feature_info(&self) -> Vec<FeatureInfo> {
        vec![FeatureInfo::new(WIDTH, 2, "conv")]
    }
    fn num_features(&self) -> usize {
        WIDTH
    }
    fn forward_intermediates(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let x = nn::conv2d(&self.conv, images.permute([0, 2, 3, 1]), Epilogue::none());
        let x = nn::batch_norm(&self.norm, x, Some(Activation::Relu));
        vec![x.permute([0, 3, 1, 2])]
    }
    fn forward_embedding(&self, images: Tensor<4>) -> Tensor<2> {
        let map = self.forward_intermediates(images).remove(0);
        mean_pool(map.permute([0, 2, 3, 1]).flatten(1, 2))
    }
    fn forward_classifier(&self, embedding: Tensor<2>) -> Option<Tensor<2>> {
        self.head.as_ref().map(|head| head.forward(embedding))
    }
    fn size_divisibility(&self) -> usize {
        2
    }
    fn layer_groups(&self) -> Vec<Vec<ParamId>> {
        Vec::new()
    }
}
