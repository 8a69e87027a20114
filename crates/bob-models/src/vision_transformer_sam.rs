//! The image encoder of Segment Anything: a vision transformer that attends inside windows in most blocks, knows where
//! tokens are relative to each other, and ends in a neck of convolutions.
//!
//! Papers: Kirillov et al., "Segment Anything" (arXiv:2304.02643), Li et al., "Exploring Plain Vision Transformer
//! Backbones for Object Detection" (arXiv:2203.16527) and, for the relative positions of rows and columns apart,
//! "MViTv2" (arXiv:2112.01526). Reference: `timm/models/vision_transformer_sam.py` of timm 1.0.31.

use bob_core::{Backbone, CostCounter, FeatureInfo, Preprocess};
use bob_ops::{Epilogue, attention, nn};
use burn::config::Config;
use burn::module::{Module, Param, ParamId, list_param_ids};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Initializer, LayerNorm, LayerNormConfig, Linear, PaddingConfig2d};
use burn::tensor::{Device, Int, Tensor, TensorData, s};

use crate::hub::{self, TimmCheckpoint};
use crate::layers::{channels_first, classify, count_conv, global_avg_pool};
use crate::mlp::{Mlp, scaled_linear};
use crate::patch_embed::PatchEmbed;
use crate::registry::{Architecture, CheckpointEntry, Family, InitOptions};
use crate::vision_transformer::out_indices;
use crate::{AnyBackbone, init as initial, resample};

/// Epsilon of the norms of the neck.
const NECK_EPSILON: f64 = 1e-6;

/// Configuration of a [`VisionTransformerSam`]; the fields are timm's arguments.
#[derive(Config, Debug)]
pub struct VisionTransformerSamConfig {
    /// Width of the tokens.
    pub embed_dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads per block.
    pub num_heads: usize,
    /// Blocks that attend to the whole image; the others attend inside windows.
    pub global_attn_indexes: Vec<usize>,
    /// `[height, width]` in pixels of the images whose grid the stored position embeddings have.
    #[config(default = "[1024, 1024]")]
    pub input_size: [usize; 2],
    /// Side of a patch in pixels.
    #[config(default = 16)]
    pub patch_size: usize,
    /// Side of a window in tokens.
    #[config(default = 14)]
    pub window_size: usize,
    /// Channels of the neck.
    #[config(default = 256)]
    pub neck_chans: usize,
    /// Epsilon of the norms of the blocks: PyTorch's, which timm takes; Facebook's own code has 1e-6.
    #[config(default = 1e-5)]
    pub norm_epsilon: f64,
    /// Blocks whose outputs are the maps, in order; nothing for the last three, as timm has it.
    #[config(default = "Vec::new()")]
    pub out_indices: Vec<usize>,
    /// Classes of the classifier, 0 for none.
    #[config(default = 1000)]
    pub num_classes: usize,
}

impl VisionTransformerSamConfig {
    /// Initialise the network on `device`.
    ///
    /// # Panics
    /// Where `out_indices` names a block that there is not.
    pub fn init(&self, device: &Device) -> VisionTransformerSam {
        let dim = self.embed_dim;
        let grid = self.input_size.map(|size| size / self.patch_size);
        let neck_conv = |channels, kernel: usize| {
            let pad = kernel / 2;
            let conv = Conv2dConfig::new(channels, [kernel, kernel])
                .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
                .with_bias(false);
            initial::conv2d(conv, device)
        };
        let neck_norm = || {
            LayerNormConfig::new(self.neck_chans)
                .with_epsilon(NECK_EPSILON)
                .init(device)
        };
        VisionTransformerSam {
            pos_embed: initial::NORMAL.init([1, grid[0], grid[1], dim], device),
            patch_embed: PatchEmbed::new(self.patch_size, dim, true, device),
            blocks: (0..self.depth)
                .map(|index| {
                    let window = (!self.global_attn_indexes.contains(&index)).then_some(self.window_size);
                    Block::new(self, window, grid, device)
                })
                .collect(),
            neck: (
                neck_conv([dim, self.neck_chans], 1),
                neck_norm(),
                neck_conv([self.neck_chans, self.neck_chans], 3),
                neck_norm(),
            ),
            head: Head {
                fc: (self.num_classes > 0).then(|| initial::linear(self.neck_chans, self.num_classes, true, device)),
            },
            out_indices: out_indices(&self.out_indices, self.depth),
        }
    }
}

/// The image encoder of Segment Anything; see the module.
///
/// It takes images of any size that is a multiple of its patch: position embeddings are resized on the way.
#[derive(Module, Debug)]
pub struct VisionTransformerSam {
    pos_embed: Param<Tensor<4>>,
    patch_embed: PatchEmbed,
    blocks: Vec<Block>,
    neck: (Conv2d, LayerNorm, Conv2d, LayerNorm),
    head: Head,
    #[module(skip)]
    out_indices: Vec<usize>,
}

#[derive(Module, Debug)]
struct Head {
    fc: Option<Linear>,
}

#[derive(Module, Debug)]
struct Block {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    mlp: Mlp,
    /// Side of the windows; none where the block attends to the whole image.
    window: Option<usize>,
    norm_epsilon: f64,
}

#[derive(Module, Debug)]
struct Attention {
    qkv: Linear,
    proj: Linear,
    rel_pos_h: Param<Tensor<2>>,
    rel_pos_w: Param<Tensor<2>>,
    num_heads: usize,
}

impl Block {
    fn new(config: &VisionTransformerSamConfig, window: Option<usize>, grid: [usize; 2], device: &Device) -> Self {
        let dim = config.embed_dim;
        let norm = || LayerNormConfig::new(dim).with_epsilon(config.norm_epsilon).init(device);
        let [height, width] = window.map_or(grid, |side| [side, side]);
        let offsets = |size: usize| Initializer::Zeros.init([2 * size - 1, dim / config.num_heads], device);
        Self {
            norm1: norm(),
            attn: Attention {
                qkv: initial::linear(dim, 3 * dim, true, device),
                proj: initial::linear(dim, dim, true, device),
                rel_pos_h: offsets(height),
                rel_pos_w: offsets(width),
                num_heads: config.num_heads,
            },
            norm2: norm(),
            mlp: Mlp::new(dim, 4 * dim, device),
            window,
            norm_epsilon: config.norm_epsilon,
        }
    }

    /// # Shapes
    ///   - x, output: `[batch, height, width, embed_dim]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let normed = nn::layer_norm(&self.norm1, self.norm_epsilon, x.clone());
        let x = match self.window {
            None => self.attn.forward_residual(normed, x),
            Some(side) => x + self.attn.forward_windows(normed, side),
        };
        let normed = nn::layer_norm(&self.norm2, self.norm_epsilon, x.clone());
        self.mlp.forward_residual(normed, None, x)
    }

    fn count(&self, counter: &mut CostCounter, grid: [usize; 2]) {
        let (windows, size) = match self.window {
            None => (1, grid),
            Some(side) => (grid.map(|size| size.div_ceil(side)).iter().product(), [side, side]),
        };
        let (heads, tokens) = (self.attn.num_heads, size[0] * size[1]);
        let [dim, _] = self.attn.proj.weight.lazy_shape().dims::<2>();
        let head_dim = dim / heads;
        counter.linear(&self.attn.qkv, windows * tokens);
        for side in size {
            counter.matmul(windows * heads * tokens, 1, head_dim, side);
        }
        counter.matmul(windows * heads, tokens, head_dim, tokens);
        counter.matmul(windows * heads, tokens, tokens, head_dim);
        counter.linear(&self.attn.proj, windows * tokens);
        self.mlp.count(counter, grid[0] * grid[1]);
    }
}

impl Attention {
    /// The attention inside windows of `side`, the last ones padded with zeros that are attended to as well.
    ///
    /// # Shapes
    ///   - x, output: `[batch, height, width, embed_dim]`
    fn forward_windows(&self, x: Tensor<4>, side: usize) -> Tensor<4> {
        let [batch, height, width, dim] = x.dims();
        let [rows, columns] = [height.div_ceil(side), width.div_ceil(side)];
        let missing = [rows * side - height, columns * side - width];
        let x = if missing == [0, 0] {
            x
        } else {
            x.pad([(0, missing[0]), (0, missing[1]), (0, 0)], 0.0)
        };
        let windows = x
            .reshape([batch, rows, side, columns, side, dim])
            .permute([0, 1, 3, 2, 4, 5])
            .reshape([batch * rows * columns, side, side, dim]);
        nn::linear(&self.proj, self.forward(windows), Epilogue::none())
            .reshape([batch, rows, columns, side, side, dim])
            .permute([0, 1, 3, 2, 4, 5])
            .reshape([batch, rows * side, columns * side, dim])
            .slice(s![.., 0..height, 0..width, ..])
    }

    /// The attention over all of a map, added to `shortcut`.
    ///
    /// # Shapes
    ///   - x, shortcut, output: `[batch, height, width, embed_dim]`
    fn forward_residual(&self, x: Tensor<4>, shortcut: Tensor<4>) -> Tensor<4> {
        let shape = shortcut.dims();
        let [batch, height, width, dim] = shape;
        let shortcut = shortcut.reshape([batch, height * width, dim]);
        scaled_linear(&self.proj, self.forward(x), None, shortcut).reshape(shape)
    }

    /// Everything but the last projection.
    ///
    /// # Shapes
    ///   - x: `[batch, height, width, embed_dim]`
    ///   - output: `[batch, height * width, embed_dim]`
    fn forward(&self, x: Tensor<4>) -> Tensor<3> {
        let [batch, height, width, dim] = x.dims();
        let qkv = nn::linear(&self.qkv, x.reshape([batch, height * width, dim]), Epilogue::none());
        let queries = qkv.clone().slice(s![.., .., 0..dim]);
        let bias = self.relative_bias(queries, [height, width]);
        attention(qkv, self.num_heads, Some(bias))
    }

    /// What each query adds to its similarities by where the keys are: a value of its row and one of its column.
    ///
    /// # Shapes
    ///   - queries: `[batch, height * width, embed_dim]`
    ///   - output: `[batch, heads, height * width, height * width]`
    fn relative_bias(&self, queries: Tensor<3>, [height, width]: [usize; 2]) -> Tensor<4> {
        let [batch, tokens, dim] = queries.dims();
        let heads = self.num_heads;
        let head_dim = dim / heads;
        let dtype = queries.dtype();
        let queries = queries.reshape([batch, height, width, heads, head_dim]);
        let rows = queries
            .clone()
            .permute([1, 0, 3, 2, 4])
            .reshape([height, batch * heads * width, head_dim])
            .matmul(offsets(self.rel_pos_h.val(), height).cast(dtype).swap_dims(1, 2))
            .reshape([height, batch, heads, width, height])
            .permute([1, 2, 0, 3, 4]); // [batch, heads, height, width, key row]
        let columns = queries
            .permute([2, 0, 3, 1, 4])
            .reshape([width, batch * heads * height, head_dim])
            .matmul(offsets(self.rel_pos_w.val(), width).cast(dtype).swap_dims(1, 2))
            .reshape([width, batch, heads, height, width])
            .permute([1, 2, 3, 0, 4]); // [batch, heads, height, width, key column]
        let bias =
            rows.reshape([batch * heads, tokens, height, 1]) + columns.reshape([batch * heads, tokens, 1, width]);
        bias.reshape([batch, heads, tokens, tokens])
    }
}

/// The embedding of the offset of every key from every query along one axis, the embeddings resized where the axis is of
/// another length.
///
/// # Shapes
///   - embeddings: `[2 * length - 1, dim]` of any length
///   - output: `[length, length, dim]`, queries first
fn offsets(embeddings: Tensor<2>, length: usize) -> Tensor<3> {
    let [stored, dim] = embeddings.dims();
    let embeddings = if stored == 2 * length - 1 {
        embeddings
    } else {
        resample::linear(embeddings, 2 * length - 1)
    };
    let index: Vec<i32> = (0..length)
        .flat_map(|query| (0..length).map(move |key| (query + length - 1 - key) as i32))
        .collect();
    let index: Tensor<1, Int> = Tensor::from_data(TensorData::new(index, [length * length]), &embeddings.device());
    embeddings.select(0, index).reshape([length, length, dim])
}

impl VisionTransformerSam {
    /// # Shapes
    ///   - images: `[batch, 3, height, width]`
    ///   - output: `[batch, height / patch, width / patch, embed_dim]`
    fn forward_embed(&self, images: Tensor<4>) -> Tensor<4> {
        let x = self.patch_embed.forward(images);
        let [_, height, width, dim] = x.dims();
        let position = self.pos_embed.val();
        let [_, rows, columns, _] = position.dims();
        if [rows, columns] == [height, width] {
            let position = position.cast(x.dtype());
            return x + position;
        }
        let position = resample::bicubic(position.reshape([rows, columns, dim]), [height, width]);
        let position = position.cast(x.dtype());
        x + position.unsqueeze()
    }
}

impl Backbone for VisionTransformerSam {
    fn feature_info(&self) -> Vec<FeatureInfo> {
        let [patch, _] = self.patch_embed.proj.kernel_size;
        let [dim, ..] = self.patch_embed.proj.weight.lazy_shape().dims::<4>();
        self.out_indices
            .iter()
            .map(|i| FeatureInfo::new(dim, patch, format!("blocks.{i}")))
            .collect()
    }

    /// The channels of the neck.
    fn num_features(&self) -> usize {
        self.neck.3.gamma.lazy_shape()[0]
    }

    /// The outputs of the blocks of `out_indices`, before the neck.
    fn forward_intermediates(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let mut x = self.forward_embed(images);
        let mut maps = Vec::with_capacity(self.out_indices.len());
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x);
            if self.out_indices.contains(&i) {
                maps.push(channels_first(x.clone()));
            }
        }
        maps
    }

    /// The mean of the neck's map.
    fn forward_embedding(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.forward_embed(images);
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        let (conv1, norm1, conv2, norm2) = &self.neck;
        let x = nn::layer_norm(norm1, NECK_EPSILON, nn::conv2d(conv1, x, Epilogue::none()));
        let x = nn::layer_norm(norm2, NECK_EPSILON, nn::conv2d(conv2, x, Epilogue::none()));
        global_avg_pool(x)
    }

    fn forward_classifier(&self, embedding: Tensor<2>) -> Option<Tensor<2>> {
        classify(&self.head.fc, embedding)
    }

    fn size_divisibility(&self) -> usize {
        self.patch_embed.proj.kernel_size[0]
    }

    /// The embeddings, every block, the neck.
    fn layer_groups(&self) -> Vec<Vec<ParamId>> {
        let mut stem = vec![self.pos_embed.id];
        stem.extend(list_param_ids(&self.patch_embed));
        std::iter::once(stem)
            .chain(self.blocks.iter().map(list_param_ids))
            .chain(std::iter::once(list_param_ids(&self.neck)))
            .collect()
    }

    fn fuse(mut self) -> Self {
        nn::lay_out(&mut self.patch_embed.proj);
        nn::lay_out(&mut self.neck.0);
        nn::lay_out(&mut self.neck.2);
        self
    }

    fn count(&self, counter: &mut CostCounter, input_size: [usize; 2]) {
        let grid = self.patch_embed.count(counter, input_size);
        for block in &self.blocks {
            block.count(counter, grid);
        }
        count_conv(counter, &self.neck.0, grid);
        count_conv(counter, &self.neck.2, grid);
        if let Some(fc) = &self.head.fc {
            counter.linear(fc, 1);
        }
    }
}

/// Facebook's key in timm's names; a key already in timm's names stays.
fn remap(key: &str) -> String {
    key.strip_prefix("image_encoder.")
        .map_or_else(|| key.to_owned(), |key| key.replace("mlp.lin", "mlp.fc"))
}

/// The tables of this family.
pub(crate) static FAMILY: Family = Family {
    architectures: &[
        sam("samvit_base_patch16", |options, device| {
            let config = VisionTransformerSamConfig::new(768, 12, 12, vec![2, 5, 8, 11]);
            init(config, options, device)
        }),
        sam("samvit_large_patch16", |options, device| {
            let config = VisionTransformerSamConfig::new(1024, 24, 16, vec![5, 11, 17, 23]);
            init(config, options, device)
        }),
        sam("samvit_huge_patch16", |options, device| {
            let config = VisionTransformerSamConfig::new(1280, 32, 16, vec![7, 15, 23, 31]);
            init(config, options, device)
        }),
    ],
    checkpoints,
    remap: str::to_owned,
};

const fn sam(name: &'static str, init: fn(&InitOptions, &Device) -> AnyBackbone) -> Architecture {
    Architecture {
        name,
        input_size: [1024, 1024],
        init,
    }
}

fn init(config: VisionTransformerSamConfig, options: &InitOptions, device: &Device) -> AnyBackbone {
    config
        .with_input_size(options.input_size)
        .with_num_classes(options.num_classes)
        .init(device)
        .into()
}

fn checkpoints() -> Vec<CheckpointEntry> {
    let checkpoint = |name| {
        let checkpoint = TimmCheckpoint {
            name,
            preprocess: Preprocess {
                crop_pct: 1.0,
                ..Preprocess::imagenet(1024)
            },
            pretraining: hub::sa_1b(),
            num_classes: 0,
            license: "Apache-2.0",
            paper: "2304.02643",
        };
        checkpoint
            .entry("vision_transformer_sam", &["prompt_encoder.*", "mask_decoder.*"])
            .with_options(|options| options.with_remap(remap))
    };
    vec![
        checkpoint("samvit_base_patch16.sa1b"),
        checkpoint("samvit_large_patch16.sa1b"),
        checkpoint("samvit_huge_patch16.sa1b"),
    ]
}
