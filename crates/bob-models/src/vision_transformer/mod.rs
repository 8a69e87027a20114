//! Vision transformers: patches as tokens.
//!
//! Paper: Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929; reference
//! `timm/models/vision_transformer.py` (1.0.31). DeiT, DINO, DINOv2, MAE, MoCo v3 and CLIP's image tower are
//! checkpoints or settings of the same network.

use std::ops::Range;

use bob_core::{Backbone, CostCounter, FeatureInfo};
use bob_ops::{Epilogue, attention, linear, mean_pool, nn};
use burn::config::Config;
use burn::module::{Module, Param, ParamId, list_param_ids};
use burn::nn::{Initializer, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::{Device, Tensor, TensorData, activation, s};

use crate::layers::{classify, pass};
use crate::mlp::{Mlp, scale_outputs, scaled_linear};
use crate::patch_embed::PatchEmbed;
use crate::{init, resample};

mod table;

pub(crate) use table::FAMILY;

/// Blocks whose outputs timm's `features_only=True` gives: the last ones.
pub(crate) const OUT_INDICES: usize = 3;

/// How the tokens become one embedding.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum GlobalPool {
    /// The class token.
    Token,
    /// The mean of the patch tokens; the last norm comes after it (`fc_norm`).
    Avg,
}

/// Configuration of a [`VisionTransformer`]; the fields are timm's arguments.
#[derive(Config, Debug)]
pub struct VisionTransformerConfig {
    /// Width of the tokens.
    pub embed_dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads per block.
    pub num_heads: usize,
    /// `[height, width]` in pixels of the images whose grid the stored position embedding has.
    #[config(default = "[224, 224]")]
    pub input_size: [usize; 2],
    /// Side of a patch in pixels.
    #[config(default = 16)]
    pub patch_size: usize,
    /// Classes of the classifier, 0 for none.
    #[config(default = 1000)]
    pub num_classes: usize,
    /// Pooling.
    #[config(default = "GlobalPool::Token")]
    pub global_pool: GlobalPool,
    /// Register tokens after the class token.
    #[config(default = 0)]
    pub reg_tokens: usize,
    /// Whether class and register tokens go without a position embedding.
    #[config(default = false)]
    pub no_embed_class: bool,
    /// Whether a norm stands before the blocks and the patches lose their bias (CLIP).
    #[config(default = false)]
    pub pre_norm: bool,
    /// Initial value of the layer scale, or none for no layer scale.
    #[config(default = "None")]
    pub init_values: Option<f64>,
    /// Epsilon of every norm.
    #[config(default = 1e-6)]
    pub norm_epsilon: f64,
    /// Outputs of the first layer of a perceptron as a multiple of the width.
    #[config(default = 4.0)]
    pub mlp_ratio: f64,
    /// Whether the perceptrons are gated (timm: `mlp_layer=SwiGLUPacked`); their second layer then has half the inputs.
    #[config(default = false)]
    pub swiglu: bool,
    /// Whether the position embedding is the fixed one of MoCo v3 and not learnt.
    #[config(default = false)]
    pub sincos_pos_embed: bool,
    /// Whether the position embedding is resized for other images with antialiasing, as timm does; DINOv2's own code and
    /// Hugging Face's do it without.
    #[config(default = true)]
    pub antialias: bool,
    /// Blocks whose outputs are the maps, in order; nothing for the last three, as timm has it.
    #[config(default = "Vec::new()")]
    pub out_indices: Vec<usize>,
}

impl VisionTransformerConfig {
    /// Initialise the network on `device`.
    ///
    /// # Panics
    /// Where `out_indices` names a block that there is not, or the width is no multiple of 4 and the position embedding
    /// is fixed.
    pub fn init(&self, device: &Device) -> VisionTransformer {
        let dim = self.embed_dim;
        let norm = |wanted: bool| wanted.then(|| self.norm(device));
        let grid = self.input_size.map(|size| size / self.patch_size);
        let prefix = if self.no_embed_class { 0 } else { 1 + self.reg_tokens };
        let token = Initializer::Normal { mean: 0.0, std: 1e-6 };
        VisionTransformer {
            cls_token: token.init([1, 1, dim], device),
            reg_token: (self.reg_tokens > 0).then(|| token.init([1, self.reg_tokens, dim], device)),
            pos_embed: if self.sincos_pos_embed {
                let embedding = sincos_position_embedding(prefix, grid, dim, device);
                Param::from_tensor(embedding).set_require_grad(false)
            } else {
                init::NORMAL.init([1, prefix + grid[0] * grid[1], dim], device)
            },
            patch_embed: PatchEmbed::new(self.patch_size, dim, !self.pre_norm, device),
            norm_pre: norm(self.pre_norm),
            blocks: (0..self.depth).map(|_| Block::new(self, device)).collect(),
            norm: norm(self.global_pool == GlobalPool::Token),
            fc_norm: norm(self.global_pool == GlobalPool::Avg),
            head: (self.num_classes > 0).then(|| init::linear(dim, self.num_classes, true, device)),
            grid,
            no_embed_class: self.no_embed_class,
            is_pos_embed_fixed: self.sincos_pos_embed,
            antialias: self.antialias,
            norm_epsilon: self.norm_epsilon,
            grad_checkpointing: false,
            out_indices: out_indices(&self.out_indices, self.depth),
        }
    }

    fn norm(&self, device: &Device) -> LayerNorm {
        LayerNormConfig::new(self.embed_dim)
            .with_epsilon(self.norm_epsilon)
            .init(device)
    }
}

/// A vision transformer; see the module.
///
/// It takes images of any size that is a multiple of its patch: where the grid of patches is not that of the
/// position embedding, the embedding is resized on the way (timm's `dynamic_img_size=True`).
#[derive(Module, Debug)]
pub struct VisionTransformer {
    cls_token: Param<Tensor<3>>,
    reg_token: Option<Param<Tensor<3>>>,
    pos_embed: Param<Tensor<3>>,
    patch_embed: PatchEmbed,
    norm_pre: Option<LayerNorm>,
    blocks: Vec<Block>,
    norm: Option<LayerNorm>,
    fc_norm: Option<LayerNorm>,
    head: Option<Linear>,
    grid: [usize; 2],
    no_embed_class: bool,
    is_pos_embed_fixed: bool,
    antialias: bool,
    norm_epsilon: f64,
    grad_checkpointing: bool,
    #[module(skip)]
    out_indices: Vec<usize>,
}

/// The blocks whose outputs are maps, ascending: those asked for, or the last three of `depth`.
///
/// # Panics
/// Where a block asked for does not exist, or they do not ascend.
pub(crate) fn out_indices(wanted: &[usize], depth: usize) -> Vec<usize> {
    assert!(
        wanted.is_sorted_by(|a, b| a < b) && wanted.iter().all(|&block| block < depth),
        "out_indices {wanted:?} of {depth} blocks"
    );
    if wanted.is_empty() {
        (depth.saturating_sub(OUT_INDICES)..depth).collect()
    } else {
        wanted.to_vec()
    }
}

/// The fixed position embedding of MoCo v3 (arXiv:2104.02057; `vits.py` of github.com/facebookresearch/moco-v3): sine
/// and cosine of the row, then of the column, at a quarter of `dim` frequencies each, and zeros for the prefix.
///
/// # Shapes
///   - output: `[1, prefix + grid[0] * grid[1], dim]`
///
/// # Panics
/// Where `dim` is no multiple of 4.
fn sincos_position_embedding(prefix: usize, grid: [usize; 2], dim: usize, device: &Device) -> Tensor<3> {
    const TEMPERATURE: f64 = 10_000.0;
    assert_eq!(dim % 4, 0, "a fixed position embedding of width {dim}");
    let frequencies: Vec<f64> = (0..dim / 4)
        .map(|i| TEMPERATURE.powf(-(i as f64) / (dim / 4) as f64))
        .collect();
    let mut values = vec![0.0_f32; prefix * dim];
    for (row, column) in (0..grid[0]).flat_map(|row| (0..grid[1]).map(move |column| (row, column))) {
        for at in [row, column] {
            let angles = || frequencies.iter().map(|frequency| at as f64 * frequency);
            values.extend(angles().map(|angle| angle.sin() as f32));
            values.extend(angles().map(|angle| angle.cos() as f32));
        }
    }
    let tokens = prefix + grid[0] * grid[1];
    Tensor::from_data(TensorData::new(values, [1, tokens, dim]), device)
}

#[derive(Module, Debug)]
struct Block {
    norm1: LayerNorm,
    attn: Attention,
    ls1: Option<LayerScale>,
    norm2: LayerNorm,
    mlp: Mlp,
    ls2: Option<LayerScale>,
    norm_epsilon: f64,
}

#[derive(Module, Debug)]
struct Attention {
    qkv: Linear,
    proj: Linear,
    num_heads: usize,
}

/// A learnt scale per channel.
#[derive(Module, Debug)]
struct LayerScale {
    gamma: Param<Tensor<1>>,
}

impl VisionTransformer {
    /// The same network with its position embedding resized, once, for images of `input_size` (timm's
    /// `set_input_size`).
    ///
    /// Images of that size then cost no resize, and the function is the same.
    pub fn set_input_size(mut self, input_size: [usize; 2]) -> Self {
        let [_, _, patch_h, patch_w] = self.patch_embed.proj.weight.lazy_shape().dims::<4>();
        let grid = [input_size[0] / patch_h, input_size[1] / patch_w];
        if grid != self.grid {
            let resized = Param::from_tensor(self.position_embedding(grid).detach());
            self.pos_embed = resized.set_require_grad(!self.is_pos_embed_fixed);
            self.grid = grid;
        }
        self
    }

    /// Tokens before the patches.
    fn num_prefix_tokens(&self) -> usize {
        1 + self.reg_token.as_ref().map_or(0, |token| token.lazy_shape()[1])
    }

    /// The position embedding for a grid of patches.
    fn position_embedding(&self, grid: [usize; 2]) -> Tensor<3> {
        let embedding = self.pos_embed.val();
        if grid == self.grid {
            return embedding;
        }
        let [_, tokens, dim] = embedding.dims();
        let prefix = tokens - self.grid[0] * self.grid[1];
        let patches = embedding.clone().slice(s![.., prefix.., ..]);
        let patches = patches.reshape([self.grid[0], self.grid[1], dim]);
        let patches = if self.antialias {
            resample::bicubic(patches, grid)
        } else {
            resample::bicubic_plain(patches, grid)
        };
        let patches = patches.reshape([1, grid[0] * grid[1], dim]);
        if prefix == 0 {
            return patches;
        }
        Tensor::cat(vec![embedding.slice(s![.., 0..prefix, ..]), patches], 1)
    }

    /// The tokens before the first block, and the grid of their patches.
    ///
    /// # Shapes
    ///   - images: `[batch, 3, height, width]`
    ///   - output: `[batch, prefix + grid[0] * grid[1], embed_dim]`
    fn forward_embed(&self, images: Tensor<4>) -> (Tensor<3>, [usize; 2]) {
        let patches = self.patch_embed.forward(images);
        let [batch, height, width, dim] = patches.dims();
        let patches = patches.reshape([batch, height * width, dim]);
        let dtype = patches.dtype();
        let position = self.position_embedding([height, width]).cast(dtype);
        let with_prefix = |patches: Tensor<3>| {
            let prefix = std::iter::once(&self.cls_token).chain(&self.reg_token);
            let mut tokens: Vec<_> = prefix
                .map(|token| token.val().cast(dtype).expand([batch as i32, -1, -1]))
                .collect();
            tokens.push(patches);
            Tensor::cat(tokens, 1)
        };
        let x = if self.no_embed_class {
            with_prefix(patches + position)
        } else {
            with_prefix(patches) + position
        };
        let x = match &self.norm_pre {
            Some(norm) => nn::layer_norm(norm, self.norm_epsilon, x),
            None => x,
        };
        (x, [height, width])
    }
}

impl Block {
    fn new(config: &VisionTransformerConfig, device: &Device) -> Self {
        let dim = config.embed_dim;
        let hidden = (dim as f64 * config.mlp_ratio) as usize;
        let scale = || {
            config.init_values.map(|value| LayerScale {
                gamma: Initializer::Constant { value }.init([dim], device),
            })
        };
        Self {
            norm1: config.norm(device),
            attn: Attention {
                qkv: init::linear(dim, 3 * dim, true, device),
                proj: init::linear(dim, dim, true, device),
                num_heads: config.num_heads,
            },
            ls1: scale(),
            norm2: config.norm(device),
            mlp: if config.swiglu {
                Mlp::gated(dim, hidden, device)
            } else {
                Mlp::new(dim, hidden, device)
            },
            ls2: scale(),
            norm_epsilon: config.norm_epsilon,
        }
    }

    /// # Shapes
    ///   - x, output: `[batch, tokens, embed_dim]`
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let normed = nn::layer_norm(&self.norm1, self.norm_epsilon, x.clone());
        let x = self.attn.forward_residual(normed, gamma(&self.ls1), x);
        self.forward_mlp(x)
    }

    /// The first token of [`Block::forward`]'s output, for which only the keys and values of the others are computed.
    ///
    /// # Shapes
    ///   - x: `[batch, tokens, embed_dim]`
    ///   - output: `[batch, 1, embed_dim]`
    fn forward_token(&self, x: Tensor<3>) -> Tensor<3> {
        let token = x.clone().narrow(1, 0, 1);
        let normed = nn::layer_norm(&self.norm1, self.norm_epsilon, x);
        let token = self.attn.forward_token(normed, gamma(&self.ls1), token);
        self.forward_mlp(token)
    }

    fn forward_mlp(&self, x: Tensor<3>) -> Tensor<3> {
        let normed = nn::layer_norm(&self.norm2, self.norm_epsilon, x.clone());
        self.mlp.forward_residual(normed, gamma(&self.ls2), x)
    }

    fn fuse(&mut self) {
        for (linear, scale) in [(&mut self.attn.proj, &mut self.ls1), (&mut self.mlp.fc2, &mut self.ls2)] {
            if let Some(scale) = scale.take() {
                scale_outputs(linear, scale.gamma.val());
            }
        }
    }
}

fn gamma(scale: &Option<LayerScale>) -> Option<Tensor<1>> {
    scale.as_ref().map(|scale| scale.gamma.val())
}

impl Attention {
    /// The attention's output, times `gamma` where there is one, added to `shortcut`.
    ///
    /// # Shapes
    ///   - x, shortcut, output: `[batch, tokens, embed_dim]`
    fn forward_residual(&self, x: Tensor<3>, gamma: Option<Tensor<1>>, shortcut: Tensor<3>) -> Tensor<3> {
        let qkv = nn::linear(&self.qkv, x, Epilogue::none());
        scaled_linear(&self.proj, attention(qkv, self.num_heads, None), gamma, shortcut)
    }

    /// [`Attention::forward_residual`] for the first token alone.
    ///
    /// # Shapes
    ///   - x: `[batch, tokens, embed_dim]`
    ///   - shortcut, output: `[batch, 1, embed_dim]`
    fn forward_token(&self, x: Tensor<3>, gamma: Option<Tensor<1>>, shortcut: Tensor<3>) -> Tensor<3> {
        let [batch, _, dim] = x.dims();
        let part = |x: Tensor<3>, parts: Range<usize>| {
            let [from, width] = [parts.start * dim, parts.len() * dim];
            let weight = self.qkv.weight.val().narrow(1, from, width);
            let bias = self.qkv.bias.as_ref().map(|bias| bias.val().narrow(0, from, width));
            linear(x, weight, bias, Epilogue::none())
        };
        let head_dim = dim / self.num_heads;
        let by_head = |x: Tensor<3>| {
            let [_, tokens, _] = x.dims();
            x.reshape([batch, tokens, self.num_heads, head_dim]).swap_dims(1, 2)
        };
        let query = by_head(part(x.clone().narrow(1, 0, 1), 0..1)) * (head_dim as f64).powf(-0.5);
        let keys_values = part(x, 1..3);
        let keys = by_head(keys_values.clone().narrow(2, 0, dim));
        let values = by_head(keys_values.narrow(2, dim, dim));
        let scores = activation::softmax(query.matmul(keys.swap_dims(2, 3)), 3);
        let token = scores.matmul(values).swap_dims(1, 2).reshape([batch, 1, dim]);
        scaled_linear(&self.proj, token, gamma, shortcut)
    }

    fn count(&self, counter: &mut CostCounter, tokens: usize) {
        let [dim, _] = self.proj.weight.lazy_shape().dims::<2>();
        let head_dim = dim / self.num_heads;
        counter.linear(&self.qkv, tokens);
        counter.matmul(self.num_heads, tokens, head_dim, tokens);
        counter.matmul(self.num_heads, tokens, tokens, head_dim);
        counter.linear(&self.proj, tokens);
    }
}

impl Backbone for VisionTransformer {
    fn feature_info(&self) -> Vec<FeatureInfo> {
        let [patch, _] = self.patch_embed.proj.kernel_size;
        self.out_indices
            .iter()
            .map(|i| FeatureInfo::new(self.num_features(), patch, format!("blocks.{i}")))
            .collect()
    }

    fn num_features(&self) -> usize {
        self.cls_token.lazy_shape()[2]
    }

    /// The patch tokens of the blocks of `out_indices` as maps, without the final norm.
    fn forward_intermediates(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let (mut x, [height, width]) = self.forward_embed(images);
        let [batch, _, dim] = x.dims();
        let mut maps = Vec::with_capacity(self.out_indices.len());
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x);
            if self.out_indices.contains(&i) {
                let patches = x.clone().slice(s![.., self.num_prefix_tokens().., ..]);
                maps.push(patches.swap_dims(1, 2).reshape([batch, dim, height, width]));
            }
        }
        maps
    }

    fn forward_embedding(&self, images: Tensor<4>) -> Tensor<2> {
        let (x, _) = self.forward_embed(images);
        let through = |blocks: &[Block]| {
            blocks
                .iter()
                .fold(x, |x, block| pass(block, x, Block::forward, self.grad_checkpointing))
        };
        match &self.fc_norm {
            Some(fc_norm) => {
                let x = through(&self.blocks);
                let patches = x.slice(s![.., self.num_prefix_tokens().., ..]);
                nn::layer_norm(fc_norm, self.norm_epsilon, mean_pool(patches))
            }
            None => {
                // Of the last block and the norm, only the token that is used need pass.
                let token = match self.blocks.split_last() {
                    Some((last, others)) => pass(last, through(others), Block::forward_token, self.grad_checkpointing),
                    None => through(&[]).narrow(1, 0, 1),
                };
                let token = token.squeeze_dim::<2>(1);
                match &self.norm {
                    Some(norm) => nn::layer_norm(norm, self.norm_epsilon, token),
                    None => token,
                }
            }
        }
    }

    fn forward_classifier(&self, embedding: Tensor<2>) -> Option<Tensor<2>> {
        classify(&self.head, embedding)
    }

    fn set_grad_checkpointing(&mut self, enable: bool) -> bool {
        self.grad_checkpointing = enable;
        true
    }

    fn size_divisibility(&self) -> usize {
        self.patch_embed.proj.kernel_size[0]
    }

    /// As timm's `group_matcher`: tokens and embeddings, every block, the last norm.
    fn layer_groups(&self) -> Vec<Vec<ParamId>> {
        let mut stem = vec![self.cls_token.id, self.pos_embed.id];
        stem.extend(self.reg_token.as_ref().map(|token| token.id));
        stem.extend(list_param_ids(&self.patch_embed));
        stem.extend(list_param_ids(&self.norm_pre));
        let mut last = list_param_ids(&self.norm);
        last.extend(list_param_ids(&self.fc_norm));
        std::iter::once(stem)
            .chain(self.blocks.iter().map(list_param_ids))
            .chain(std::iter::once(last))
            .collect()
    }

    /// The layer scales folded into the layers before them.
    fn fuse(mut self) -> Self {
        nn::lay_out(&mut self.patch_embed.proj);
        self.blocks.iter_mut().for_each(Block::fuse);
        self
    }

    fn count(&self, counter: &mut CostCounter, input_size: [usize; 2]) {
        let grid = self.patch_embed.count(counter, input_size);
        let tokens = self.num_prefix_tokens() + grid[0] * grid[1];
        for block in &self.blocks {
            block.attn.count(counter, tokens);
            block.mlp.count(counter, tokens);
        }
        if let Some(head) = &self.head {
            counter.linear(head, 1);
        }
    }
}
