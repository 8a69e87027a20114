//! Convolutions whose stride is their kernel, and the patch embedding made of one
//! (`timm/layers/patch_embed.py`).

use bob_core::CostCounter;
use bob_ops::{Epilogue, nn};
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Tensor};

use crate::layers::channels_last;

/// Patches of the images through one linear layer.
#[derive(Module, Debug)]
pub(crate) struct PatchEmbed {
    pub(crate) proj: Conv2d,
    pub(crate) norm: Option<LayerNorm>,
    norm_epsilon: f64,
}

impl PatchEmbed {
    /// Initialise for square patches of `patch_size` pixels, without a norm.
    pub(crate) fn new(patch_size: usize, embed_dim: usize, bias: bool, device: &Device) -> Self {
        let proj = Conv2dConfig::new([3, embed_dim], [patch_size; 2])
            .with_stride([patch_size; 2])
            .with_bias(bias)
            .init(device);
        Self {
            proj,
            norm: None,
            norm_epsilon: 0.0,
        }
    }

    /// The same, with a layer norm after the projection.
    pub(crate) fn with_norm(self, epsilon: f64, device: &Device) -> Self {
        let [embed_dim, ..] = self.proj.weight.lazy_shape().dims::<4>();
        let norm = LayerNormConfig::new(embed_dim).with_epsilon(epsilon).init(device);
        Self {
            norm: Some(norm),
            norm_epsilon: epsilon,
            ..self
        }
    }

    /// # Shapes
    ///   - images: `[batch, 3, height, width]`
    ///   - output: `[batch, height / patch, width / patch, embed_dim]`
    pub(crate) fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let x = patches(channels_last(images), &self.proj);
        match &self.norm {
            Some(norm) => nn::layer_norm(norm, self.norm_epsilon, x),
            None => x,
        }
    }

    /// Count a pass over an image of `input_size` and give the size of its grid of patches.
    pub(crate) fn count(&self, counter: &mut CostCounter, input_size: [usize; 2]) -> [usize; 2] {
        let grid = grid_of(input_size, &self.proj);
        counter.conv2d(&self.proj, grid);
        grid
    }
}

/// Size of what a convolution whose stride is its kernel makes of a map; what is left over is dropped.
pub(crate) fn grid_of(size: [usize; 2], conv: &Conv2d) -> [usize; 2] {
    [size[0] / conv.kernel_size[0], size[1] / conv.kernel_size[1]]
}

/// A convolution whose stride is its kernel, with channels last on both sides.
///
/// # Shapes
///   - x: `[batch, height, width, in]`
///   - output: `[batch, height / kernel, width / kernel, out]`
pub(crate) fn patches(x: Tensor<4>, conv: &Conv2d) -> Tensor<4> {
    nn::conv2d(conv, x, Epilogue::none())
}
