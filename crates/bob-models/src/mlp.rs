//! The two-layer perceptron of a transformer block (`timm/layers/mlp.py`).

use bob_core::CostCounter;
use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};

use crate::host::gelu;
use crate::init;

/// Linear, exact GELU, linear.
#[derive(Module, Debug)]
pub(crate) struct Mlp {
    pub(crate) fc1: Linear,
    pub(crate) fc2: Linear,
}

impl Mlp {
    /// Initialise for vectors of `dim` with `hidden` units between.
    pub(crate) fn new(dim: usize, hidden: usize, device: &Device) -> Self {
        Self {
            fc1: init::linear(dim, hidden, true, device),
            fc2: init::linear(hidden, dim, true, device),
        }
    }

    /// # Shapes
    ///   - x, output: `[..., dim]`
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.fc2.forward(gelu(self.fc1.forward(x)))
    }

    /// Count a pass over `tokens` vectors.
    pub(crate) fn count(&self, counter: &mut CostCounter, tokens: usize) {
        counter.linear(&self.fc1, tokens);
        counter.linear(&self.fc2, tokens);
    }
}

/// Fold a scale of the outputs into the layer that makes them, for inference.
pub(crate) fn scale_outputs(linear: &mut Linear, gamma: Tensor<1>) {
    let weight = linear.weight.val() * gamma.clone().unsqueeze();
    linear.weight = Param::from_tensor(weight.detach());
    linear.bias = linear
        .bias
        .take()
        .map(|bias| Param::from_tensor((bias.val() * gamma).detach()));
}
