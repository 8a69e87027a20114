//! The two-layer perceptron of a transformer block (`timm/layers/mlp.py`).

use bob_core::CostCounter;
use bob_ops::{Activation, Epilogue, nn};
use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};

use crate::init;

/// Linear, exact GELU, linear; or gated, where half of the first layer's outputs pass SiLU and multiply the other half
/// (timm's `SwiGLUPacked`, arXiv:2002.05202).
#[derive(Module, Debug)]
pub(crate) struct Mlp {
    pub(crate) fc1: Linear,
    pub(crate) fc2: Linear,
    pub(crate) is_gated: bool,
}

impl Mlp {
    /// Initialise for vectors of `dim` with `hidden` units between.
    pub(crate) fn new(dim: usize, hidden: usize, device: &Device) -> Self {
        Self {
            fc1: init::linear(dim, hidden, true, device),
            fc2: init::linear(hidden, dim, true, device),
            is_gated: false,
        }
    }

    /// The gated form, with `hidden` outputs of the first layer.
    pub(crate) fn gated(dim: usize, hidden: usize, device: &Device) -> Self {
        Self {
            fc1: init::linear(dim, hidden, true, device),
            fc2: init::linear(hidden / 2, dim, true, device),
            is_gated: true,
        }
    }

    /// # Shapes
    ///   - x, output: `[..., dim]`
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.forward_to(x, parameters(&self.fc2), Epilogue::none())
    }

    /// The same, each output times `gamma` where there is one, added to `shortcut`.
    pub(crate) fn forward_residual<const D: usize>(
        &self,
        x: Tensor<D>,
        gamma: Option<Tensor<1>>,
        shortcut: Tensor<D>,
    ) -> Tensor<D> {
        let fc2 = scaled(parameters(&self.fc2), gamma);
        self.forward_to(x, fc2, Epilogue::residual(shortcut))
    }

    fn forward_to<const D: usize>(&self, x: Tensor<D>, fc2: Parameters, epilogue: Epilogue<D>) -> Tensor<D> {
        if !self.is_gated {
            return bob_ops::mlp(x, parameters(&self.fc1), Activation::Gelu, fc2, epilogue);
        }
        let x = nn::linear(&self.fc1, x, Epilogue::none());
        let half = x.dims()[D - 1] / 2;
        let hidden = Activation::Silu.forward(x.clone().narrow(D - 1, 0, half)) * x.narrow(D - 1, half, half);
        bob_ops::linear(hidden, fc2.0, fc2.1, epilogue)
    }

    /// Count a pass over `tokens` vectors.
    pub(crate) fn count(&self, counter: &mut CostCounter, tokens: usize) {
        counter.linear(&self.fc1, tokens);
        counter.linear(&self.fc2, tokens);
    }
}

/// Weight and bias of a linear layer.
pub(crate) type Parameters = (Tensor<2>, Option<Tensor<1>>);

fn parameters(linear: &Linear) -> Parameters {
    (linear.weight.val(), linear.bias.as_ref().map(|bias| bias.val()))
}

/// `shortcut + gamma * linear(x)`; as [`scaled`].
pub(crate) fn scaled_linear<const D: usize>(
    linear: &Linear,
    x: Tensor<D>,
    gamma: Option<Tensor<1>>,
    shortcut: Tensor<D>,
) -> Tensor<D> {
    let (weight, bias) = scaled(parameters(linear), gamma);
    bob_ops::linear(x, weight, bias, Epilogue::residual(shortcut))
}

/// The layer whose every output is `gamma` times as large, where there is a scale. It acts on the weight, which is smaller
/// than the output; the function and its gradients are the same.
pub(crate) fn scaled((weight, bias): Parameters, gamma: Option<Tensor<1>>) -> Parameters {
    match gamma {
        Some(gamma) => {
            let scale = gamma.clone().cast(weight.dtype()).unsqueeze();
            let weight = bob_ops::gate_channels(weight.unsqueeze(), scale).squeeze_dim(0);
            (weight, bias.map(|bias| bias * gamma))
        }
        None => (weight, bias),
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
