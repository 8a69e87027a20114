//! Swin Transformer V2: attention in shifted windows, with cosine similarity, norms after the residual
//! branches, and a position bias that a small network computes from relative coordinates.
//!
//! Paper: Liu et al., "Swin Transformer V2: Scaling Up Capacity and Resolution", arXiv 2111.09883; reference
//! `timm/models/swin_transformer_v2.py` (1.0.31).

use bob_core::{Backbone, CostCounter, FeatureInfo};
use bob_ops::{Epilogue, add, nn};
use burn::config::Config;
use burn::module::{Module, ParamId, list_param_ids};
use burn::nn::{LayerNorm, LayerNormConfig, Linear};
use burn::tensor::{Device, Tensor};

use crate::init;
use crate::layers::{classify, global_avg_pool, pass};
use crate::mlp::Mlp;
use crate::patch_embed::PatchEmbed;

mod table;
mod window;

pub(crate) use table::FAMILY;
use window::{Window, WindowAttention};

/// Side of a patch in pixels.
const PATCH_SIZE: usize = 4;
/// PyTorch's default, which timm keeps here.
const EPSILON: f64 = 1e-5;

/// Configuration of a [`SwinTransformerV2`]; the fields are timm's arguments.
#[derive(Config, Debug)]
pub struct SwinTransformerV2Config {
    /// Channels of the first stage; they double from stage to stage.
    pub embed_dim: usize,
    /// Blocks per stage.
    pub depths: Vec<usize>,
    /// Attention heads per stage.
    pub num_heads: Vec<usize>,
    /// Side of a window in tokens.
    pub window_size: usize,
    /// Side of the window that each stage was pretrained with, which scales the coordinates of the position
    /// bias; 0, or nothing, for the window it has.
    #[config(default = "Vec::new()")]
    pub pretrained_window_sizes: Vec<usize>,
    /// `[height, width]` of the images in pixels.
    #[config(default = "[256, 256]")]
    pub input_size: [usize; 2],
    /// Classes of the classifier, 0 for none.
    #[config(default = 1000)]
    pub num_classes: usize,
}

impl SwinTransformerV2Config {
    /// Initialise the network on `device`.
    ///
    /// As in timm the norms after the branches start at zero, so that every block starts as the identity.
    pub fn init(&self, device: &Device) -> SwinTransformerV2 {
        let mut resolution = self.input_size.map(|size| size / PATCH_SIZE);
        let mut dim = self.embed_dim;
        let layers = (0..self.depths.len())
            .map(|stage| {
                let downsample = (stage > 0).then(|| {
                    resolution = resolution.map(|size| size.div_ceil(2));
                    dim *= 2;
                    PatchMerging {
                        reduction: init::linear(2 * dim, dim, false, device),
                        norm: norm(dim, device),
                    }
                });
                let pretrained = self.pretrained_window_sizes.get(stage).copied().unwrap_or(0);
                let blocks = (0..self.depths[stage])
                    .map(|i| {
                        let window = Window::new(resolution, self.window_size, i % 2 == 1);
                        Block {
                            attn: WindowAttention::new(dim, self.num_heads[stage], window, pretrained, device),
                            norm1: norm_of_zeros(dim, device),
                            mlp: Mlp::new(dim, 4 * dim, device),
                            norm2: norm_of_zeros(dim, device),
                        }
                    })
                    .collect();
                Stage {
                    downsample,
                    blocks,
                    grad_checkpointing: false,
                }
            })
            .collect();
        SwinTransformerV2 {
            patch_embed: PatchEmbed::new(PATCH_SIZE, self.embed_dim, true, device).with_norm(EPSILON, device),
            layers,
            norm: norm(dim, device),
            head: Head {
                fc: (self.num_classes > 0).then(|| init::linear(dim, self.num_classes, true, device)),
            },
            input_size: self.input_size,
        }
    }
}

fn norm(dim: usize, device: &Device) -> LayerNorm {
    LayerNormConfig::new(dim).with_epsilon(EPSILON).init(device)
}

fn norm_of_zeros(dim: usize, device: &Device) -> LayerNorm {
    let mut norm = norm(dim, device);
    norm.gamma = init::zeros(dim, device);
    norm
}

/// A Swin Transformer V2; see the module. Windows and shifts are laid out for one input size.
#[derive(Module, Debug)]
pub struct SwinTransformerV2 {
    patch_embed: PatchEmbed,
    layers: Vec<Stage>,
    norm: LayerNorm,
    head: Head,
    input_size: [usize; 2],
}

#[derive(Module, Debug)]
struct Stage {
    downsample: Option<PatchMerging>,
    blocks: Vec<Block>,
    grad_checkpointing: bool,
}

#[derive(Module, Debug)]
struct Head {
    fc: Option<Linear>,
}

/// Four neighbours become one token of twice the width.
#[derive(Module, Debug)]
struct PatchMerging {
    reduction: Linear,
    norm: LayerNorm,
}

#[derive(Module, Debug)]
struct Block {
    attn: WindowAttention,
    norm1: LayerNorm,
    mlp: Mlp,
    norm2: LayerNorm,
}

impl SwinTransformerV2 {
    /// # Shapes
    ///   - images: `[batch, 3, height, width]`
    ///   - output: `[batch, height / 4, width / 4, embed_dim]`
    fn forward_embed(&self, images: Tensor<4>) -> Tensor<4> {
        let [_, _, height, width] = images.dims();
        assert_eq!(
            [height, width],
            self.input_size,
            "the windows are laid out for one input size"
        );
        self.patch_embed.forward(images)
    }
}

impl Stage {
    /// # Shapes
    ///   - x: `[batch, height, width, channels]`
    ///   - output: the same, or half the size in twice the channels
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = match &self.downsample {
            Some(downsample) => downsample.forward(x),
            None => x,
        };
        self.blocks
            .iter()
            .fold(x, |x, block| pass(block, x, Block::forward, self.grad_checkpointing))
    }
}

impl PatchMerging {
    /// # Shapes
    ///   - x: `[batch, height, width, channels]`
    ///   - output: `[batch, ceil(height / 2), ceil(width / 2), 2 * channels]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, height, width, channels] = x.dims();
        let x = window::pad(x, [height % 2, width % 2]);
        let [height, width] = [height.div_ceil(2), width.div_ceil(2)];
        let x = x
            .reshape([batch, height, 2, width, 2, channels])
            .permute([0, 1, 3, 4, 2, 5])
            .reshape([batch, height, width, 4 * channels]);
        nn::layer_norm(&self.norm, EPSILON, nn::linear(&self.reduction, x, Epilogue::none()))
    }
}

impl Block {
    /// # Shapes
    ///   - x, output: `[batch, height, width, channels]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let branch = nn::layer_norm(&self.norm1, EPSILON, self.attn.forward(x.clone()));
        let x = add(branch, x);
        let branch = nn::layer_norm(&self.norm2, EPSILON, self.mlp.forward(x.clone()));
        add(branch, x)
    }
}

impl Backbone for SwinTransformerV2 {
    fn feature_info(&self) -> Vec<FeatureInfo> {
        let dim = |stage: &Stage| {
            stage
                .blocks
                .first()
                .map_or(0, |block| block.norm1.gamma.lazy_shape()[0])
        };
        self.layers
            .iter()
            .enumerate()
            .map(|(i, stage)| FeatureInfo::new(dim(stage), PATCH_SIZE << i, format!("layers.{i}")))
            .collect()
    }

    fn num_features(&self) -> usize {
        self.norm.gamma.lazy_shape()[0]
    }

    /// # Panics
    /// Where the images are not of [`Backbone::fixed_input_size`].
    fn forward_intermediates(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let mut x = self.forward_embed(images);
        self.layers
            .iter()
            .map(|stage| {
                x = stage.forward(x.clone());
                x.clone().permute([0, 3, 1, 2])
            })
            .collect()
    }

    /// # Panics
    /// Where the images are not of [`Backbone::fixed_input_size`].
    fn forward_embedding(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.forward_embed(images);
        let x = self.layers.iter().fold(x, |x, stage| stage.forward(x));
        global_avg_pool(nn::layer_norm(&self.norm, EPSILON, x))
    }

    fn set_grad_checkpointing(&mut self, enable: bool) -> bool {
        for stage in &mut self.layers {
            stage.grad_checkpointing = enable;
        }
        true
    }

    fn forward_classifier(&self, embedding: Tensor<2>) -> Option<Tensor<2>> {
        classify(&self.head.fc, embedding)
    }

    fn size_divisibility(&self) -> usize {
        PATCH_SIZE
    }

    fn fixed_input_size(&self) -> Option<[usize; 2]> {
        Some(self.input_size)
    }

    /// As timm's `group_matcher`: the patch embedding, every block (a merging belongs to the block after it),
    /// the last norm.
    fn layer_groups(&self) -> Vec<Vec<ParamId>> {
        let mut groups = vec![list_param_ids(&self.patch_embed)];
        for stage in &self.layers {
            let first = groups.len();
            groups.extend(stage.blocks.iter().map(list_param_ids));
            if let Some(group) = groups.get_mut(first) {
                group.extend(list_param_ids(&stage.downsample));
            }
        }
        groups.push(list_param_ids(&self.norm));
        groups
    }

    /// The position biases, masks and temperatures computed once.
    fn fuse(mut self) -> Self {
        nn::lay_out(&mut self.patch_embed.proj);
        for block in self.layers.iter_mut().flat_map(|stage| &mut stage.blocks) {
            block.attn.fuse();
        }
        self
    }

    /// The size counted is the one that the windows are laid out for.
    fn count(&self, counter: &mut CostCounter, _input_size: [usize; 2]) {
        let mut size = self.patch_embed.count(counter, self.input_size);
        for stage in &self.layers {
            if let Some(downsample) = &stage.downsample {
                size = size.map(|size| size.div_ceil(2));
                counter.linear(&downsample.reduction, size[0] * size[1]);
            }
            for block in &stage.blocks {
                block.attn.count(counter);
                block.mlp.count(counter, size[0] * size[1]);
            }
        }
        if let Some(fc) = &self.head.fc {
            counter.linear(fc, 1);
        }
    }
}
