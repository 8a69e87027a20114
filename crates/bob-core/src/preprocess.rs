//! How an image becomes a checkpoint's input: timm's evaluation transform, described.
//!
//! Reference: `timm/data/transforms_factory.py` (`transforms_imagenet_eval`) and `timm/data/config.py`.
//! The transform itself is `bob_data`'s.

use serde::{Deserialize, Serialize};

/// The resampling filter of the resize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interpolation {
    /// Pillow's antialiased bilinear (triangle) filter.
    Bilinear,
    /// Pillow's antialiased bicubic filter, a = -0.5.
    Bicubic,
}

/// What happens to an image that is not square.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CropMode {
    /// Resize by the shorter side, crop the centre.
    #[default]
    Center,
    /// Resize both sides, losing the aspect ratio, crop the centre.
    Squash,
    /// Resize by the longer side, pad with the mean colour.
    Border,
}

/// The evaluation preprocessing of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// `[height, width]` in pixels.
    pub input_size: [usize; 2],
    /// Resampling filter.
    pub interpolation: Interpolation,
    /// Share of the resized image that the crop keeps, in (0, 1].
    pub crop_pct: f64,
    /// What happens to an image that is not square.
    #[serde(default)]
    pub crop_mode: CropMode,
    /// Mean per channel, of values in [0, 1].
    pub mean: [f64; 3],
    /// Standard deviation per channel, of values in [0, 1].
    pub std: [f64; 3],
}

impl Preprocess {
    /// ImageNet's mean.
    pub const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
    /// ImageNet's standard deviation.
    pub const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];
    /// OpenAI CLIP's mean.
    pub const CLIP_MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
    /// OpenAI CLIP's standard deviation.
    pub const CLIP_STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];
    /// Inception's mean and deviation: values in [-1, 1].
    pub const HALF: [f64; 3] = [0.5, 0.5, 0.5];

    /// Bicubic, 0.875, centre crop, ImageNet statistics, at `size` pixels: timm's defaults.
    pub const fn imagenet(size: usize) -> Self {
        Self {
            input_size: [size, size],
            interpolation: Interpolation::Bicubic,
            crop_pct: 0.875,
            crop_mode: CropMode::Center,
            mean: Self::IMAGENET_MEAN,
            std: Self::IMAGENET_STD,
        }
    }
}
