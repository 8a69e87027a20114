//! The half of the denoising network that looks: its input blocks and its middle block, at one timestep and for one
//! prompt (`UNetModel` of `ldm/modules/diffusionmodules/openaimodel.py`, `SpatialTransformer` of
//! `ldm/modules/attention.py`).

use bob_core::CostCounter;
use bob_ops::{Activation, Conv2dOptions, Epilogue, attention, checkpoint, nn};
use burn::config::Config;
use burn::module::{Module, ParamId, list_param_ids};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{GroupNorm, Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};

use super::{SILU, conv, group_norm};
use crate::layers::count_conv;
use crate::mlp::scaled_linear;

/// Epsilon of the norms of the residual blocks, and of the layer norms.
const EPSILON: f64 = 1e-5;
/// Epsilon of the norm before a transformer.
const TRANSFORMER_EPSILON: f64 = 1e-6;

/// Configuration of the denoising network of a [`super::StableDiffusion`]; the fields are ldm's arguments, the defaults
/// those of Stable Diffusion v1.
#[derive(Config, Debug)]
pub struct UnetConfig {
    /// Channels before the first level.
    #[config(default = 320)]
    pub model_channels: usize,
    /// Channels of every level, as multiples of `model_channels`; between levels the sides halve.
    #[config(default = "vec![1, 2, 4, 4]")]
    pub channel_mult: Vec<usize>,
    /// Residual blocks per level.
    #[config(default = 2)]
    pub num_res_blocks: usize,
    /// The levels with transformers, by what they make of a side of the latent.
    #[config(default = "vec![4, 2, 1]")]
    pub attention_resolutions: Vec<usize>,
    /// Attention heads.
    #[config(default = 8)]
    pub num_heads: usize,
    /// Groups of every group norm.
    #[config(default = 32)]
    pub num_groups: usize,
}

impl UnetConfig {
    /// Initialise on `device`, for latents of `in_channels` and prompts of `context_dim`.
    pub(super) fn init(&self, in_channels: usize, context_dim: usize, device: &Device) -> Unet {
        let levels = self.channel_mult.len();
        let width = self.model_channels;
        let res = |channels| Layer::Res(ResBlock::new(self, channels, device));
        let transformer = |channels| Layer::Transformer(SpatialTransformer::new(self, [channels, context_dim], device));
        let mut channels = width;
        let mut input_blocks = vec![vec![Layer::Conv(conv([in_channels, width], 3, device))]];
        for (level, multiple) in self.channel_mult.iter().enumerate() {
            for _ in 0..self.num_res_blocks {
                let inputs = std::mem::replace(&mut channels, multiple * width);
                let mut block = vec![res([inputs, channels])];
                if self.attention_resolutions.contains(&(1 << level)) {
                    block.push(transformer(channels));
                }
                input_blocks.push(block);
            }
            if level + 1 < levels {
                input_blocks.push(vec![Layer::Downsample(Downsample::new(channels, device))]);
            }
        }
        let linear = |inputs| LinearConfig::new(inputs, self.time_dim()).init(device);
        Unet {
            time_embed: (linear(width), Place, linear(self.time_dim())),
            input_blocks,
            middle_block: vec![res([channels; 2]), transformer(channels), res([channels; 2])],
            grad_checkpointing: false,
        }
    }

    /// Width of the embedding of the timestep.
    fn time_dim(&self) -> usize {
        4 * self.model_channels
    }
}

/// A layer without parameters, which takes a place in its sequence: SiLU, or dropout, which is zero here.
#[derive(Module, Debug)]
struct Place;

/// The network up to its middle.
#[derive(Module, Debug)]
pub(super) struct Unet {
    time_embed: (Linear, Place, Linear),
    input_blocks: Vec<Vec<Layer>>,
    middle_block: Vec<Layer>,
    grad_checkpointing: bool,
}

/// A layer of a block; the variant is no segment of a stored name.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "most layers are of the large kinds")]
enum Layer {
    Conv(Conv2d),
    Res(ResBlock),
    Transformer(SpatialTransformer),
    Downsample(Downsample),
}

#[derive(Module, Debug)]
struct ResBlock {
    in_layers: (GroupNorm, Place, Conv2d),
    emb_layers: (Place, Linear),
    out_layers: (GroupNorm, Place, Place, Conv2d),
    skip_connection: Option<Conv2d>,
}

#[derive(Module, Debug)]
struct Downsample {
    op: Conv2d,
}

/// Transformer blocks over the pixels of a map.
#[derive(Module, Debug)]
struct SpatialTransformer {
    norm: GroupNorm,
    proj_in: Conv2d,
    transformer_blocks: Vec<TransformerBlock>,
    proj_out: Conv2d,
}

#[derive(Module, Debug)]
struct TransformerBlock {
    attn1: Attention,
    ff: FeedForward,
    attn2: Attention,
    norm1: LayerNorm,
    norm2: LayerNorm,
    norm3: LayerNorm,
}

#[derive(Module, Debug)]
struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: (Linear, Place),
    heads: usize,
}

#[derive(Module, Debug)]
struct FeedForward {
    net: (GatedGelu, Place, Linear),
}

/// Half of the outputs times GELU of the other half (GEGLU: Shazeer, arXiv:2002.05202).
#[derive(Module, Debug)]
struct GatedGelu {
    proj: Linear,
}

/// What every layer is told besides its map.
#[derive(Clone)]
struct Condition {
    /// SiLU of the embedding of the timestep, `[1, time_dim]`.
    time: Tensor<2>,
    /// The embedding of the prompt, `[tokens, width]`.
    context: Tensor<2>,
}

impl Condition {
    fn new(time_embed: &(Linear, Place, Linear), context: Tensor<2>) -> Self {
        let (first, _, second) = time_embed;
        let [width, _] = first.weight.lazy_shape().dims::<2>();
        // Cosines and sines of zero.
        let (device, half) = (context.device(), width / 2);
        let time = Tensor::cat(
            vec![Tensor::ones([1, half], &device), Tensor::zeros([1, half], &device)],
            1,
        );
        let silu = Activation::Silu;
        let time = nn::linear(first, time, Epilogue::activation(silu));
        Self {
            time: nn::linear(second, time, Epilogue::activation(silu)),
            context,
        }
    }
}

impl Layer {
    fn forward(&self, x: Tensor<4>, condition: &Condition) -> Tensor<4> {
        match self {
            Self::Conv(conv) => nn::conv2d(conv, x, Epilogue::none()),
            Self::Res(block) => block.forward(x, &condition.time),
            Self::Transformer(transformer) => transformer.forward(x, &condition.context),
            Self::Downsample(Downsample { op }) => nn::conv2d(op, x, Epilogue::none()),
        }
    }

    /// Channels of the output.
    fn out_channels(&self) -> usize {
        let conv = match self {
            Self::Conv(conv) => conv,
            Self::Res(block) => &block.out_layers.3,
            Self::Transformer(transformer) => &transformer.proj_out,
            Self::Downsample(Downsample { op }) => op,
        };
        conv.weight.lazy_shape()[0]
    }

    fn convs_mut(&mut self) -> Vec<&mut Conv2d> {
        match self {
            Self::Conv(conv) => vec![conv],
            Self::Res(block) => [&mut block.in_layers.2, &mut block.out_layers.3]
                .into_iter()
                .chain(&mut block.skip_connection)
                .collect(),
            Self::Transformer(transformer) => vec![&mut transformer.proj_in, &mut transformer.proj_out],
            Self::Downsample(Downsample { op }) => vec![op],
        }
    }

    fn count(&self, counter: &mut CostCounter, size: [usize; 2], context: usize) -> [usize; 2] {
        match self {
            Self::Conv(conv) => count_conv(counter, conv, size),
            Self::Res(block) => {
                let convs = [&block.in_layers.2, &block.out_layers.3];
                for conv in convs.into_iter().chain(&block.skip_connection) {
                    count_conv(counter, conv, size);
                }
                size
            }
            Self::Transformer(transformer) => {
                transformer.count(counter, size, context);
                size
            }
            Self::Downsample(Downsample { op }) => count_conv(counter, op, size),
        }
    }
}

impl Downsample {
    fn new(channels: usize, device: &Device) -> Self {
        let op = Conv2dConfig::new([channels, channels], [3, 3])
            .with_stride([2, 2])
            .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1));
        Self { op: op.init(device) }
    }
}

/// A convolution that begins as zero, so that its block begins as the identity.
fn zero_conv([inputs, outputs]: [usize; 2], kernel: usize, device: &Device) -> Conv2d {
    let pad = kernel / 2;
    Conv2dConfig::new([inputs, outputs], [kernel, kernel])
        .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
        .with_initializer(Initializer::Zeros)
        .init(device)
}

impl ResBlock {
    fn new(config: &UnetConfig, [inputs, outputs]: [usize; 2], device: &Device) -> Self {
        let norm = |channels| group_norm(config.num_groups, channels, EPSILON, device);
        let emb = LinearConfig::new(config.time_dim(), outputs).init(device);
        Self {
            in_layers: (norm(inputs), Place, conv([inputs, outputs], 3, device)),
            emb_layers: (Place, emb),
            out_layers: (norm(outputs), Place, Place, zero_conv([outputs, outputs], 3, device)),
            skip_connection: (inputs != outputs).then(|| conv([inputs, outputs], 1, device)),
        }
    }

    /// # Shapes
    ///   - x: `[batch, height, width, in]`
    ///   - time: `[1, time_dim]`
    ///   - output: `[batch, height, width, out]`
    fn forward(&self, x: Tensor<4>, time: &Tensor<2>) -> Tensor<4> {
        let (norm_in, _, conv_in) = &self.in_layers;
        let (norm_out, _, _, conv_out) = &self.out_layers;
        let shortcut = match &self.skip_connection {
            Some(conv) => nn::conv2d(conv, x.clone(), Epilogue::none()),
            None => x.clone(),
        };
        // The timestep is that of every image, so what it adds to a channel is a bias.
        let bias = nn::linear(&self.emb_layers.1, time.clone(), Epilogue::none()).squeeze_dim(0);
        let bias = match &conv_in.bias {
            Some(own) => own.val() + bias,
            None => bias,
        };
        let [_, height, width, _] = x.dims();
        let options = Conv2dOptions::of(conv_in, [height, width]);
        let x = nn::group_norm(norm_in, x, SILU);
        let x = bob_ops::conv2d(x, conv_in.weight.val(), Some(bias), options, Epilogue::none());
        nn::conv2d(
            conv_out,
            nn::group_norm(norm_out, x, SILU),
            Epilogue::residual(shortcut),
        )
    }
}

impl SpatialTransformer {
    fn new(config: &UnetConfig, [channels, context_dim]: [usize; 2], device: &Device) -> Self {
        Self {
            norm: group_norm(config.num_groups, channels, TRANSFORMER_EPSILON, device),
            proj_in: conv([channels, channels], 1, device),
            transformer_blocks: vec![TransformerBlock::new(config.num_heads, [channels, context_dim], device)],
            proj_out: zero_conv([channels, channels], 1, device),
        }
    }

    /// # Shapes
    ///   - x, output: `[batch, height, width, channels]`
    ///   - context: `[tokens, context_dim]`
    fn forward(&self, x: Tensor<4>, context: &Tensor<2>) -> Tensor<4> {
        let shape = x.dims();
        let [batch, height, width, channels] = shape;
        let tokens = nn::conv2d(
            &self.proj_in,
            nn::group_norm(&self.norm, x.clone(), None),
            Epilogue::none(),
        )
        .reshape([batch, height * width, channels]);
        let tokens = (self.transformer_blocks.iter()).fold(tokens, |x, block| block.forward(x, context));
        nn::conv2d(&self.proj_out, tokens.reshape(shape), Epilogue::residual(x))
    }

    fn count(&self, counter: &mut CostCounter, size: [usize; 2], context: usize) {
        count_conv(counter, &self.proj_in, size);
        for block in &self.transformer_blocks {
            block.count(counter, size[0] * size[1], context);
        }
        count_conv(counter, &self.proj_out, size);
    }
}

impl TransformerBlock {
    fn new(heads: usize, [channels, context_dim]: [usize; 2], device: &Device) -> Self {
        let norm = || LayerNormConfig::new(channels).with_epsilon(EPSILON).init(device);
        let inner = 4 * channels;
        Self {
            attn1: Attention::new(heads, [channels, channels], device),
            ff: FeedForward {
                net: (
                    GatedGelu {
                        proj: LinearConfig::new(channels, 2 * inner).init(device),
                    },
                    Place,
                    LinearConfig::new(inner, channels).init(device),
                ),
            },
            attn2: Attention::new(heads, [channels, context_dim], device),
            norm1: norm(),
            norm2: norm(),
            norm3: norm(),
        }
    }

    /// # Shapes
    ///   - x, output: `[batch, tokens, channels]`
    ///   - context: `[context tokens, context_dim]`
    fn forward(&self, x: Tensor<3>, context: &Tensor<2>) -> Tensor<3> {
        let x = self.attn1.forward(nn::layer_norm(&self.norm1, EPSILON, x.clone()), x);
        let x = (self.attn2).forward_context(nn::layer_norm(&self.norm2, EPSILON, x.clone()), context, x);
        self.ff.forward(nn::layer_norm(&self.norm3, EPSILON, x.clone()), x)
    }

    fn count(&self, counter: &mut CostCounter, tokens: usize, context: usize) {
        let Self { attn1, ff, attn2, .. } = self;
        counter.linear(&attn1.to_k, tokens);
        counter.linear(&attn1.to_v, tokens);
        attn1.count(counter, tokens, tokens);
        attn2.count(counter, tokens, context);
        counter.linear(&ff.net.0.proj, tokens);
        counter.linear(&ff.net.2, tokens);
    }
}

impl Attention {
    fn new(heads: usize, [channels, context_dim]: [usize; 2], device: &Device) -> Self {
        let linear = |inputs, bias| LinearConfig::new(inputs, channels).with_bias(bias).init(device);
        Self {
            to_q: linear(channels, false),
            to_k: linear(context_dim, false),
            to_v: linear(context_dim, false),
            to_out: (linear(channels, true), Place),
            heads,
        }
    }

    /// The attention of `x` to itself, added to `shortcut`.
    ///
    /// # Shapes
    ///   - x, shortcut, output: `[batch, tokens, channels]`
    fn forward(&self, x: Tensor<3>, shortcut: Tensor<3>) -> Tensor<3> {
        let parts = [&self.to_q, &self.to_k, &self.to_v].map(|linear| nn::linear(linear, x.clone(), Epilogue::none()));
        let found = attention(Tensor::cat(parts.into(), 2), self.heads, None);
        scaled_linear(&self.to_out.0, found, None, shortcut)
    }

    /// The attention of `x` to the `context` of all images, added to `shortcut`.
    ///
    /// # Shapes
    ///   - x, shortcut, output: `[batch, tokens, channels]`
    ///   - context: `[context tokens, context_dim]`
    fn forward_context(&self, x: Tensor<3>, context: &Tensor<2>, shortcut: Tensor<3>) -> Tensor<3> {
        let [batch, tokens, channels] = x.dims();
        let dim = channels / self.heads;
        let dtype = x.dtype();
        // The tokens of all images are queries side by side: keys and values are the same for each.
        let by_head = |linear: &Linear, x: Tensor<2>| {
            let [count, _] = x.dims();
            nn::linear(linear, x, Epilogue::none())
                .cast(dtype)
                .reshape([count, self.heads, dim])
        };
        let queries = by_head(&self.to_q, x.reshape([batch * tokens, channels])).swap_dims(0, 1);
        let keys = by_head(&self.to_k, context.clone()).permute([1, 2, 0]);
        let values = by_head(&self.to_v, context.clone()).swap_dims(0, 1);
        let scores = queries.matmul(keys) / (dim as f64).sqrt(); // [heads, batch * tokens, context tokens]
        let found = softmax(scores, 2).matmul(values).swap_dims(0, 1);
        scaled_linear(&self.to_out.0, found.reshape([batch, tokens, channels]), None, shortcut)
    }

    /// All but the projections of what is attended to.
    fn count(&self, counter: &mut CostCounter, tokens: usize, attended: usize) {
        let [channels, _] = self.to_out.0.weight.lazy_shape().dims::<2>();
        let dim = channels / self.heads;
        counter.linear(&self.to_q, tokens);
        counter.matmul(self.heads, tokens, dim, attended);
        counter.matmul(self.heads, tokens, attended, dim);
        counter.linear(&self.to_out.0, tokens);
    }
}

impl FeedForward {
    /// # Shapes
    ///   - x, shortcut, output: `[batch, tokens, channels]`
    fn forward(&self, x: Tensor<3>, shortcut: Tensor<3>) -> Tensor<3> {
        let (gelu, _, linear) = &self.net;
        let x = nn::linear(&gelu.proj, x, Epilogue::none());
        let half = x.dims()[2] / 2;
        let x = x.clone().narrow(2, 0, half) * Activation::Gelu.forward(x.narrow(2, half, half));
        scaled_linear(linear, x, None, shortcut)
    }
}

/// A block and all that it is computed from besides its map, to be computed again.
#[derive(Module, Debug)]
struct Conditioned {
    layers: Vec<Layer>,
    time_embed: (Linear, Place, Linear),
    context: Tensor<2>,
}

impl Conditioned {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        forward(&self.layers, x, &Condition::new(&self.time_embed, self.context.clone()))
    }
}

fn forward(layers: &[Layer], x: Tensor<4>, condition: &Condition) -> Tensor<4> {
    layers.iter().fold(x, |x, layer| layer.forward(x, condition))
}

fn is_downsample(layers: &[Layer]) -> bool {
    matches!(layers, [Layer::Downsample(_)])
}

impl Unet {
    /// The last map of every level but the lowest, and the map of the middle block.
    ///
    /// # Shapes
    ///   - latent: `[batch, height, width, in_channels]`
    ///   - context: `[tokens, context_dim]`
    ///   - output `i`: `[batch, height >> i, width >> i, channels]`
    pub(super) fn forward(&self, latent: Tensor<4>, context: Tensor<2>) -> Vec<Tensor<4>> {
        let condition = Condition::new(&self.time_embed, context);
        let block = |layers: &Vec<Layer>, x| {
            if !self.grad_checkpointing {
                return forward(layers, x, &condition);
            }
            let block = Conditioned {
                layers: layers.clone(),
                time_embed: self.time_embed.clone(),
                context: condition.context.clone(),
            };
            checkpoint(&block, x, Conditioned::forward)
        };
        let mut maps = Vec::new();
        let mut x = latent;
        for layers in &self.input_blocks {
            if is_downsample(layers) {
                maps.push(x.clone());
            }
            x = block(layers, x);
        }
        maps.push(block(&self.middle_block, x));
        maps
    }

    /// Channels and name of every map.
    pub(super) fn maps(&self) -> Vec<(usize, String)> {
        let channels = |layers: &[Layer]| layers.last().map_or(0, Layer::out_channels);
        let pairs = self.input_blocks.windows(2).enumerate();
        let levels = pairs
            .filter(|(_, pair)| is_downsample(&pair[1]))
            .map(|(index, pair)| (channels(&pair[0]), format!("input_blocks.{index}")));
        let middle = (channels(&self.middle_block), "middle_block".to_owned());
        levels.chain(std::iter::once(middle)).collect()
    }

    pub(super) fn set_grad_checkpointing(&mut self, enable: bool) {
        self.grad_checkpointing = enable;
    }

    /// The embedding of the timestep, every input block, the middle block.
    pub(super) fn layer_groups(&self) -> Vec<Vec<ParamId>> {
        std::iter::once(list_param_ids(&self.time_embed))
            .chain(self.input_blocks.iter().map(list_param_ids))
            .chain(std::iter::once(list_param_ids(&self.middle_block)))
            .collect()
    }

    /// Lay the convolutions out for inference.
    pub(super) fn lay_out(&mut self) {
        let layers = self.input_blocks.iter_mut().flatten().chain(&mut self.middle_block);
        layers.flat_map(Layer::convs_mut).for_each(nn::lay_out);
    }

    /// Count a pass over a latent of `size`, without what no image changes: the embedding of the timestep and what is
    /// made of the prompt's tokens, of which there are `context`.
    pub(super) fn count(&self, counter: &mut CostCounter, size: [usize; 2], context: usize) {
        let layers = self.input_blocks.iter().flatten().chain(&self.middle_block);
        layers.fold(size, |size, layer| layer.count(counter, size, context));
    }
}
