//! The contract between a backbone and everything that measures it.

use burn::module::{Module, ModuleDisplay, ParamId};
use burn::tensor::Tensor;

use crate::CostCounter;

/// What one entry of [`Backbone::forward_intermediates`] is, in timm's words (`timm/models/_features.py`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureInfo {
    /// Channels of the map.
    pub num_chs: usize,
    /// Stride of the map against the input image.
    pub reduction: usize,
    /// Name of the module whose output the map is, as in the reference state dict.
    pub module: String,
}

impl FeatureInfo {
    /// A map of `num_chs` channels at stride `reduction`, the output of `module`.
    pub fn new(num_chs: usize, reduction: usize, module: impl Into<String>) -> Self {
        Self {
            num_chs,
            reduction,
            module: module.into(),
        }
    }
}

/// A vision backbone: images in, per-stage maps and one pooled embedding out.
///
/// Implement it for a model of your own and every task crate accepts it.
/// It is the contract, not the value: a program that chooses among backbones at run time holds an enum
/// that derives [`Module`] (`bob_models::AnyBackbone`).
pub trait Backbone: Module + ModuleDisplay {
    /// Channels and stride of every map of [`Self::forward_intermediates`], finest first.
    fn feature_info(&self) -> Vec<FeatureInfo>;

    /// Width of the pooled embedding.
    fn num_features(&self) -> usize;

    /// The maps of every stage, finest first, as timm's `forward_intermediates` gives them.
    ///
    /// # Shapes
    ///   - images: `[batch, 3, height, width]`, normalised
    ///   - output `i`: `[batch, num_chs, height / reduction, width / reduction]` of `feature_info()[i]`
    fn forward_intermediates(&self, images: Tensor<4>) -> Vec<Tensor<4>>;

    /// What the checkpoint's own classifier sees (timm: `forward_head(forward_features(x), pre_logits=True)`).
    ///
    /// # Shapes
    ///   - images: `[batch, 3, height, width]`, normalised
    ///   - output: `[batch, num_features]`
    fn forward_embedding(&self, images: Tensor<4>) -> Tensor<2>;

    /// The checkpoint's own classifier on an embedding, or `None` where it has no classifier.
    ///
    /// # Shapes
    ///   - embedding: `[batch, num_features]`
    ///   - output: `[batch, num_classes]`
    fn forward_classifier(&self, _embedding: Tensor<2>) -> Option<Tensor<2>> {
        None
    }

    /// Both sides of an image must be multiples of this.
    fn size_divisibility(&self) -> usize {
        32
    }

    /// The only input size `[height, width]` the weights accept, or `None` where any fitting size does.
    fn fixed_input_size(&self) -> Option<[usize; 2]> {
        None
    }

    /// Parameters from stem to last block, one group a block, for layer-wise learning-rate decay.
    ///
    /// Groups are ids and not names: a name changes with the module the backbone is wrapped in.
    fn layer_groups(&self) -> Vec<Vec<ParamId>>;

    /// The same function with batch norm folded into the convolutions, for inference.
    fn fuse(self) -> Self {
        self
    }

    /// Whether to compute the activations of every block again in the backward pass instead of keeping them: less
    /// memory for more time, the same gradients. Named after timm's.
    ///
    /// False where the backbone cannot, and nothing is changed: a batch norm's statistics would move twice.
    fn set_grad_checkpointing(&mut self, _enable: bool) -> bool {
        false
    }

    /// Walk the model once for an input of `[height, width]` and count into `counter`.
    ///
    /// The default counts nothing; [`CostCounter::finish`] then reports that nothing was counted.
    fn count(&self, _counter: &mut CostCounter, _input_size: [usize; 2]) {}
}

/// Why a backbone does not take images of a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("images of {height}x{width} pixels; expected {expected}")]
pub struct InputSizeError {
    /// Rows of the images.
    pub height: usize,
    /// Columns of the images.
    pub width: usize,
    /// What the backbone takes.
    pub expected: String,
}

/// Whether `backbone` takes images of `[height, width]` pixels, by [`Backbone::fixed_input_size`] and
/// [`Backbone::size_divisibility`].
///
/// # Errors
/// Where it does not, with what it takes.
pub fn check_input_size<B: Backbone>(backbone: &B, [height, width]: [usize; 2]) -> Result<(), InputSizeError> {
    let divisor = backbone.size_divisibility();
    let expected = match backbone.fixed_input_size() {
        Some(fixed) if fixed != [height, width] => {
            format!("{}x{}, the only size the weights accept", fixed[0], fixed[1])
        }
        _ if height == 0 || width == 0 || height % divisor != 0 || width % divisor != 0 => {
            format!("multiples of {divisor}")
        }
        _ => return Ok(()),
    };
    Err(InputSizeError {
        height,
        width,
        expected,
    })
}
