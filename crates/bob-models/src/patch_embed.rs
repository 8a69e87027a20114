//! Convolutions whose stride is their kernel, and the patch embedding made of one
//! (`timm/layers/patch_embed.py`).
//!
//! Such a convolution sees every pixel once, so it is one matrix product over patches; on flex that takes
//! about two thirds of the convolution's time.

use bob_core::CostCounter;
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::{Device, Tensor, module, s};

/// Patches of the images through one linear layer.
#[derive(Module, Debug)]
pub(crate) struct PatchEmbed {
    pub(crate) proj: Conv2d,
    pub(crate) norm: Option<LayerNorm>,
}

impl PatchEmbed {
    /// Initialise for square patches of `patch_size` pixels, without a norm.
    pub(crate) fn new(patch_size: usize, embed_dim: usize, bias: bool, device: &Device) -> Self {
        let proj = Conv2dConfig::new([3, embed_dim], [patch_size; 2])
            .with_stride([patch_size; 2])
            .with_bias(bias)
            .init(device);
        Self { proj, norm: None }
    }

    /// The same, with a layer norm after the projection.
    pub(crate) fn with_norm(self, epsilon: f64, device: &Device) -> Self {
        let [embed_dim, ..] = self.proj.weight.lazy_shape().dims::<4>();
        let norm = LayerNormConfig::new(embed_dim).with_epsilon(epsilon).init(device);
        Self {
            norm: Some(norm),
            ..self
        }
    }

    /// # Shapes
    ///   - images: `[batch, 3, height, width]`
    ///   - output: `[batch, height / patch, width / patch, embed_dim]`
    pub(crate) fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let x = patches_of_maps(images, &self.proj);
        match &self.norm {
            Some(norm) => norm.forward(x),
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

/// A convolution whose stride is its kernel, from channels first to channels last.
///
/// # Shapes
///   - x: `[batch, in, height, width]`
///   - output: `[batch, height / kernel, width / kernel, out]`
pub(crate) fn patches_of_maps(x: Tensor<4>, conv: &Conv2d) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let [kernel_h, kernel_w] = conv.kernel_size;
    let [grid_h, grid_w] = grid_of([height, width], conv);
    let patch = channels * kernel_h * kernel_w;
    let x = x
        .slice(s![.., .., 0..grid_h * kernel_h, 0..grid_w * kernel_w])
        .reshape([batch, channels, grid_h, kernel_h, grid_w, kernel_w])
        .permute([0, 2, 4, 1, 3, 5])
        .reshape([batch, grid_h, grid_w, patch]);
    let weight = conv.weight.val();
    let weight = weight.reshape([-1, patch as i32]).transpose();
    module::linear(x, weight, conv.bias.as_ref().map(|bias| bias.val()))
}

/// A convolution whose stride is its kernel, with channels last on both sides.
///
/// # Shapes
///   - x: `[batch, height, width, in]`
///   - output: `[batch, height / kernel, width / kernel, out]`
pub(crate) fn patches_of_tokens(x: Tensor<4>, conv: &Conv2d) -> Tensor<4> {
    let [batch, height, width, channels] = x.dims();
    let [kernel_h, kernel_w] = conv.kernel_size;
    let [grid_h, grid_w] = grid_of([height, width], conv);
    let patch = channels * kernel_h * kernel_w;
    let x = x
        .slice(s![.., 0..grid_h * kernel_h, 0..grid_w * kernel_w, ..])
        .reshape([batch, grid_h, kernel_h, grid_w, kernel_w, channels])
        .permute([0, 1, 3, 2, 4, 5])
        .reshape([batch, grid_h, grid_w, patch]);
    let weight = conv.weight.val().permute([2, 3, 1, 0]).reshape([patch as i32, -1]);
    module::linear(x, weight, conv.bias.as_ref().map(|bias| bias.val()))
}
