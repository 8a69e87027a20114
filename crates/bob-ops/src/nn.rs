//! The forward passes of burn's modules, which hold the parameters, by the operations of this crate.
//!
//! Names and loading of the parameters stay burn's; only the computation changes.

use burn::module::Param;
use burn::nn::conv::Conv2d;
use burn::nn::{BatchNorm, GroupNorm, LayerNorm, Linear};
use burn::tensor::Tensor;

use bob_core::device::is_host;

use crate::operation::has_kernels;
use crate::{Activation, BatchNormOutput, Conv2dOptions, Epilogue};

/// A linear layer; as [`crate::linear`].
pub fn linear<const D: usize>(layer: &Linear, x: Tensor<D>, epilogue: Epilogue<D>) -> Tensor<D> {
    let bias = layer.bias.as_ref().map(|bias| bias.val());
    crate::linear(x, layer.weight.val(), bias, epilogue)
}

/// A convolution over maps with channels last; as [`crate::conv2d`].
pub fn conv2d(layer: &Conv2d, x: Tensor<4>, epilogue: Epilogue<4>) -> Tensor<4> {
    let [_, height, width, _] = x.dims();
    let bias = layer.bias.as_ref().map(|bias| bias.val());
    let options = Conv2dOptions::of(layer, [height, width]);
    crate::conv2d(x, layer.weight.val(), bias, options, epilogue)
}

/// A layer norm; as [`crate::layer_norm`]. The epsilon is the one the layer was made with, which burn keeps to itself.
pub fn layer_norm<const D: usize>(layer: &LayerNorm, epsilon: f64, x: Tensor<D>) -> Tensor<D> {
    let beta = layer.beta.as_ref().map(|beta| beta.val());
    crate::layer_norm(x, layer.gamma.val(), beta, epsilon)
}

/// A group norm over maps with channels last, and an activation after it; as [`crate::group_norm`].
///
/// # Panics
/// Where the layer has no parameters.
pub fn group_norm(layer: &GroupNorm, x: Tensor<4>, activation: Option<Activation>) -> Tensor<4> {
    let [gamma, beta] = [&layer.gamma, &layer.beta].map(|parameter| {
        let parameter = parameter
            .as_ref()
            .expect("group_norm: a layer that was made with affine");
        parameter.val()
    });
    crate::group_norm(x, gamma, beta, layer.num_groups, layer.epsilon, activation)
}

/// A batch norm over maps with channels last, and an activation after it.
///
/// It takes the statistics of the batch, and moves its own towards them, where the device tracks gradients and the
/// layer is training, as burn's does; the running variance is the unbiased one, as PyTorch's.
///
/// # Shapes
///   - x, output: `[batch, height, width, channels]`
pub fn batch_norm(layer: &BatchNorm, x: Tensor<4>, activation: Option<Activation>) -> Tensor<4> {
    let (gamma, beta) = (layer.gamma.val(), layer.beta.val());
    if !(x.device().is_autodiff() && layer.training.is_enabled()) {
        let scale = gamma / (layer.running_var.value() + layer.epsilon).sqrt();
        let shift = beta - layer.running_mean.value() * scale.clone();
        let dtype = x.dtype();
        let x = x * scale.cast(dtype).unsqueeze() + shift.cast(dtype).unsqueeze();
        return match activation {
            Some(activation) => activation.forward(x),
            None => x,
        };
    }
    let [batch, height, width, _] = x.dims();
    let count = (batch * height * width) as f64;
    let BatchNormOutput { output, mean, variance } = crate::batch_norm(x, gamma, beta, layer.epsilon, activation);
    // One value has no unbiased variance; PyTorch refuses such a batch.
    assert!(
        count > 1.0,
        "batch_norm: a batch of one value per channel has no variance to train with"
    );
    let unbiased = variance * (count / (count - 1.0));
    for (state, found) in [(&layer.running_mean, mean), (&layer.running_var, unbiased)] {
        let moved = state.value_sync() * (1.0 - layer.momentum) + found * layer.momentum;
        state.update(moved.detach());
    }
    output
}

/// Lay the weight of a convolution out in memory as its kernel reads it, so that no forward pass has to; its shape and
/// values stay. For inference: an optimizer would lay it back.
pub fn lay_out(layer: &mut Conv2d) {
    let weight = layer.weight.val();
    let device = weight.device();
    if device.is_autodiff() || !has_kernels(&device, weight.dtype()) {
        return;
    }
    let weight = if is_host(&device) {
        in_order(weight, [2, 3, 1, 0])
    } else {
        in_order(weight, [0, 2, 3, 1])
    };
    layer.weight = Param::from_tensor(weight);
}

/// The same tensor with its axes in memory in the order of `axes`, outermost first.
fn in_order(x: Tensor<4>, axes: [usize; 4]) -> Tensor<4> {
    let shape = x.dims();
    let count: usize = shape.iter().product();
    let moved = x.permute(axes.map(|axis| axis as isize)).reshape([count]);
    let mut back = [0; 4];
    for (place, axis) in axes.into_iter().enumerate() {
        back[axis] = place as isize;
    }
    moved.reshape(axes.map(|axis| shape[axis])).permute(back)
}
