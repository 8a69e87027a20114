//! Layers that the convolutional families share.

use bob_core::CostCounter;
use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Initializer, PaddingConfig2d};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, module, s};

/// A convolution with a square kernel and without bias, drawn as timm draws it: normal, scaled by its fan-out.
///
/// The padding is PyTorch's symmetric one, `(kernel - 1) / 2` on every side.
pub(crate) fn conv2d(channels: [usize; 2], kernel: usize) -> Conv2dConfig {
    let pad = (kernel - 1) / 2;
    Conv2dConfig::new(channels, [kernel, kernel])
        .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
        .with_bias(false)
        .with_initializer(Initializer::KaimingNormal {
            gain: std::f64::consts::SQRT_2,
            fan_out_only: true,
        })
}

/// A batch norm that [`fold`] can take away.
pub(crate) fn batch_norm(channels: usize, epsilon: f64, device: &Device) -> Option<BatchNorm> {
    Some(BatchNormConfig::new(channels).with_epsilon(epsilon).init(device))
}

/// The convolution and, unless it is folded, its batch norm.
///
/// # Shapes
///   - x: `[batch, in, height, width]`
///   - output: `[batch, out, height / stride, width / stride]`
pub(crate) fn conv_norm(x: Tensor<4>, conv: &Conv2d, norm: &Option<BatchNorm>) -> Tensor<4> {
    let x = if conv.kernel_size == [1, 1] && conv.stride == [2, 2] {
        // The same products in the same order as the strided convolution, for which flex has no fast path.
        let options = ConvOptions::new([1, 1], [0, 0], [1, 1], conv.groups);
        let bias = conv.bias.as_ref().map(|bias| bias.val());
        module::conv2d(x.slice(s![.., .., ..;2, ..;2]), conv.weight.val(), bias, options)
    } else {
        conv.forward(x)
    };
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}

/// Fold a batch norm, as it acts at inference, into the convolution before it.
pub(crate) fn fold(conv: &mut Conv2d, norm: &mut Option<BatchNorm>) {
    let Some(norm) = norm.take() else { return };
    let scale = norm.gamma.val() / (norm.running_var.value() + norm.epsilon).sqrt();
    let shift = norm.beta.val() - norm.running_mean.value() * scale.clone();
    let bias = match &conv.bias {
        Some(bias) => bias.val() * scale.clone() + shift,
        None => shift,
    };
    let channels = scale.dims()[0];
    let weight = conv.weight.val() * scale.reshape([channels, 1, 1, 1]);
    // Only a leaf can be a parameter on a device that tracks gradients.
    conv.weight = Param::from_tensor(weight.detach());
    conv.bias = Some(Param::from_tensor(bias.detach()));
}

/// Count a convolution over a map of `[height, width]` and give the size of its output.
pub(crate) fn count_conv(counter: &mut CostCounter, conv: &Conv2d, [height, width]: [usize; 2]) -> [usize; 2] {
    let size = |axis: usize, size: usize| match &conv.padding {
        PaddingConfig2d::Same => size.div_ceil(conv.stride[axis]),
        PaddingConfig2d::Valid => (size - conv.kernel_size[axis]) / conv.stride[axis] + 1,
        PaddingConfig2d::Explicit(top, left, bottom, right) => {
            let pad = [top + bottom, left + right][axis];
            (size + pad - conv.kernel_size[axis]) / conv.stride[axis] + 1
        }
    };
    let output = [size(0, height), size(1, width)];
    counter.conv2d(conv, output);
    output
}

/// The mean over height and width.
///
/// # Shapes
///   - x: `[batch, channels, height, width]`
///   - output: `[batch, channels]`
pub(crate) fn global_avg_pool(x: Tensor<4>) -> Tensor<2> {
    x.flatten::<3>(2, 3).mean_dim(2).squeeze_dim(2)
}
