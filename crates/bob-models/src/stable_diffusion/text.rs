//! The text encoder of CLIP ViT-L/14 on one constant prompt (`FrozenCLIPEmbedder` of `ldm/modules/encoders/modules.py`,
//! `CLIPTextModel` of Hugging Face's transformers).
//!
//! Paper: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (arXiv:2103.00020).

use bob_ops::{Activation, Epilogue, attention, nn};
use burn::config::Config;
use burn::module::Module;
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::init;
use crate::mlp::scaled_linear;

/// Epsilon of every norm here.
const EPSILON: f64 = 1e-5;

/// What is added to the similarity to a later token; its exponential is zero.
const MASKED: f32 = -1e9;

/// "image classification" in CLIP's byte-pair encoding, from the start of the text to its end: the ids that the
/// vocabulary of open_clip_torch 3.3.0 gives, as `fixtures/make_models_diffusion.py` asserts.
const IMAGE_CLASSIFICATION: [usize; 4] = [49406, 2867, 26612, 49407];

/// Configuration of the text encoder of a [`super::StableDiffusion`]; the fields are those of transformers'
/// `CLIPTextConfig`, the defaults those of CLIP ViT-L/14.
#[derive(Config, Debug)]
pub struct TextConfig {
    /// Number of different tokens.
    #[config(default = 49408)]
    pub vocab_size: usize,
    /// Width of the tokens.
    #[config(default = 768)]
    pub hidden_size: usize,
    /// Width between the layers of a perceptron.
    #[config(default = 3072)]
    pub intermediate_size: usize,
    /// Number of blocks.
    #[config(default = 12)]
    pub num_hidden_layers: usize,
    /// Attention heads per block.
    #[config(default = 12)]
    pub num_attention_heads: usize,
    /// Tokens of a text.
    #[config(default = 77)]
    pub max_position_embeddings: usize,
    /// Ids of the prompt's tokens, "image classification" by default; the last, which ends the text, also fills the
    /// rest of its places.
    #[config(default = "IMAGE_CLASSIFICATION.to_vec()")]
    pub prompt: Vec<usize>,
}

impl TextConfig {
    /// Initialise on `device`, with parameters that do not train.
    pub(super) fn init(&self, device: &Device) -> Prompt {
        let Self {
            vocab_size,
            max_position_embeddings: places,
            ref prompt,
            ..
        } = *self;
        assert!(
            (1..=places).contains(&prompt.len()) && prompt.iter().all(|id| *id < vocab_size),
            "the prompt {prompt:?}; expected 1 to {places} ids below {vocab_size}"
        );
        let embedding = |count| {
            let config = EmbeddingConfig::new(count, self.hidden_size);
            config.with_initializer(init::NORMAL).init(device)
        };
        let encoder = TextEmbedder {
            transformer: Transformer {
                text_model: TextModel {
                    embeddings: Embeddings {
                        token_embedding: embedding(vocab_size),
                        position_embedding: embedding(places),
                    },
                    encoder: Encoder {
                        layers: (0..self.num_hidden_layers).map(|_| Block::new(self, device)).collect(),
                    },
                    final_layer_norm: self.norm(device),
                },
            },
            prompt: (0..places).map(|place| prompt[place.min(prompt.len() - 1)]).collect(),
        };
        Prompt::Text(encoder.no_grad())
    }

    fn norm(&self, device: &Device) -> LayerNorm {
        LayerNormConfig::new(self.hidden_size)
            .with_epsilon(EPSILON)
            .init(device)
    }
}

/// What the network is told of the task; the variant is no segment of a stored name.
#[derive(Module, Debug)]
pub(super) enum Prompt {
    /// The text encoder, run once a batch.
    Text(TextEmbedder),
    /// What it gave, once and for all.
    Embedding(Tensor<2>),
}

#[derive(Module, Debug)]
pub(super) struct TextEmbedder {
    transformer: Transformer,
    /// An id for every place.
    #[module(skip)]
    prompt: Vec<usize>,
}

#[derive(Module, Debug)]
struct Transformer {
    text_model: TextModel,
}

#[derive(Module, Debug)]
struct TextModel {
    embeddings: Embeddings,
    encoder: Encoder,
    final_layer_norm: LayerNorm,
}

#[derive(Module, Debug)]
struct Embeddings {
    token_embedding: Embedding,
    position_embedding: Embedding,
}

#[derive(Module, Debug)]
struct Encoder {
    layers: Vec<Block>,
}

#[derive(Module, Debug)]
struct Block {
    self_attn: Attention,
    layer_norm1: LayerNorm,
    mlp: TextMlp,
    layer_norm2: LayerNorm,
}

#[derive(Module, Debug)]
struct Attention {
    k_proj: Linear,
    v_proj: Linear,
    q_proj: Linear,
    out_proj: Linear,
    heads: usize,
}

#[derive(Module, Debug)]
struct TextMlp {
    fc1: Linear,
    fc2: Linear,
}

impl Block {
    fn new(config: &TextConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        let linear = |inputs, outputs| init::linear(inputs, outputs, true, device);
        Self {
            self_attn: Attention {
                k_proj: linear(width, width),
                v_proj: linear(width, width),
                q_proj: linear(width, width),
                out_proj: linear(width, width),
                heads: config.num_attention_heads,
            },
            layer_norm1: config.norm(device),
            mlp: TextMlp {
                fc1: linear(width, config.intermediate_size),
                fc2: linear(config.intermediate_size, width),
            },
            layer_norm2: config.norm(device),
        }
    }

    /// # Shapes
    ///   - x, output: `[1, tokens, width]`
    ///   - mask: `[1, heads, tokens, tokens]`
    fn forward(&self, x: Tensor<3>, mask: Tensor<4>) -> Tensor<3> {
        let attn = &self.self_attn;
        let normed = nn::layer_norm(&self.layer_norm1, EPSILON, x.clone());
        let parts = [&attn.q_proj, &attn.k_proj, &attn.v_proj]
            .map(|linear| nn::linear(linear, normed.clone(), Epilogue::none()));
        let found = attention(Tensor::cat(parts.into(), 2), attn.heads, Some(mask));
        let x = scaled_linear(&attn.out_proj, found, None, x);
        let normed = nn::layer_norm(&self.layer_norm2, EPSILON, x.clone());
        let hidden = quick_gelu(nn::linear(&self.mlp.fc1, normed, Epilogue::none()));
        scaled_linear(&self.mlp.fc2, hidden, None, x)
    }
}

/// `x * sigmoid(1.702 x)`.
fn quick_gelu(x: Tensor<3>) -> Tensor<3> {
    Activation::Silu.forward(x * 1.702) / 1.702
}

impl TextEmbedder {
    /// # Shapes
    ///   - output: `[tokens, width]`
    fn forward(&self) -> Tensor<2> {
        let TextModel {
            embeddings,
            encoder,
            final_layer_norm,
        } = &self.transformer.text_model;
        let position = embeddings.position_embedding.weight.val();
        let device = position.device();
        let tokens = self.prompt.len();
        let ids: Vec<i32> = self.prompt.iter().map(|id| *id as i32).collect();
        let ids: Tensor<1, Int> = Tensor::from_data(TensorData::new(ids, [tokens]), &device);
        let x = embeddings.token_embedding.weight.val().select(0, ids) + position;
        let heads = encoder.layers.first().map_or(1, |block| block.self_attn.heads);
        let mask = causal_mask(tokens, &device).repeat_dim(1, heads);
        let x = (encoder.layers.iter()).fold(x.unsqueeze(), |x, block| block.forward(x, mask.clone()));
        nn::layer_norm(final_layer_norm, EPSILON, x).squeeze_dim(0)
    }
}

/// # Shapes
///   - output: `[1, 1, tokens, tokens]`
fn causal_mask(tokens: usize, device: &Device) -> Tensor<4> {
    let values: Vec<f32> = (0..tokens)
        .flat_map(|query| (0..tokens).map(move |key| if key > query { MASKED } else { 0.0 }))
        .collect();
    Tensor::from_data(TensorData::new(values, [1, 1, tokens, tokens]), device)
}

impl Prompt {
    /// The embedding of the prompt, without gradient.
    ///
    /// # Shapes
    ///   - output: `[tokens, width]`
    pub(super) fn forward(&self) -> Tensor<2> {
        match self {
            Self::Text(encoder) => encoder.forward().detach(),
            Self::Embedding(embedding) => embedding.clone(),
        }
    }

    /// Number of tokens.
    pub(super) fn tokens(&self) -> usize {
        match self {
            Self::Text(encoder) => encoder.prompt.len(),
            Self::Embedding(embedding) => embedding.dims()[0],
        }
    }

    /// The embedding instead of the encoder.
    pub(super) fn fuse(self) -> Self {
        Self::Embedding(self.forward())
    }
}
