//! Normalisation by the moments of a batch, of groups of channels, or of a vector.

#[cfg(feature = "flex")]
use burn::backend::flex::FlexTensor;
use burn::tensor::Tensor;

use crate::Activation;
#[cfg(feature = "tch")]
use crate::aten::as_type_of;
#[cfg(feature = "flex")]
use crate::flex::norm as kernels;
#[cfg(feature = "flex")]
use crate::operation::FlexBackward;
use crate::operation::{Operation, apply, has_kernels};

/// What [`batch_norm`] gives.
#[derive(Clone, Debug)]
pub struct BatchNormOutput {
    /// The normalised map.
    pub output: Tensor<4>,
    /// Mean of every channel of the batch, without gradient.
    pub mean: Tensor<1>,
    /// Biased variance of every channel of the batch, without gradient; running statistics keep the unbiased one.
    pub variance: Tensor<1>,
}

/// Batch normalisation by the statistics of the batch itself, as it trains, and an activation after it
/// (Ioffe and Szegedy, arXiv:1502.03167).
///
/// # Shapes
///   - x, output: `[batch, height, width, channels]`
///   - gamma, beta: `[channels]`
///
/// # Panics
/// Where the shapes do not fit.
pub fn batch_norm(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
    activation: Option<Activation>,
) -> BatchNormOutput {
    let [.., channels] = x.dims();
    assert!(
        gamma.dims() == [channels] && beta.dims() == [channels],
        "batch_norm: {channels} channels, gamma {:?}, beta {:?}",
        gamma.dims(),
        beta.dims()
    );
    if !has_kernels(&x.device(), x.dtype()) {
        return reference(x, gamma, beta, epsilon, activation);
    }
    let moments: Tensor<2> = apply(Moments, vec![x.clone().detach().into_dispatch()]);
    let moments = moments.detach();
    let operation = BatchNorm { epsilon, activation };
    let inputs = vec![
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        moments.clone().into_dispatch(),
    ];
    BatchNormOutput {
        output: apply(operation, inputs),
        mean: moments.clone().narrow(0, 0, 1).squeeze_dim(0),
        variance: moments.narrow(0, 1, 1).squeeze_dim(0),
    }
}

/// The same composed of burn's own operations.
pub(crate) fn reference(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
    activation: Option<Activation>,
) -> BatchNormOutput {
    let [batch, height, width, channels] = x.dims();
    let x = x.reshape([batch * height * width, channels]);
    let mean = x.clone().mean_dim(0);
    let centred = x - mean.clone();
    let variance = centred.clone().square().mean_dim(0);
    let scale = (variance.clone() + epsilon).sqrt().recip() * gamma.unsqueeze();
    let output = (centred * scale + beta.unsqueeze()).reshape([batch, height, width, channels]);
    BatchNormOutput {
        output: match activation {
            Some(activation) => activation.reference(output),
            None => output,
        },
        mean: mean.squeeze_dim(0).detach(),
        variance: variance.squeeze_dim(0).detach(),
    }
}

/// Mean and biased variance of every channel, `[2, channels]`.
#[derive(Clone, Debug)]
struct Moments;

impl Operation for Moments {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn reads(&self, _index: usize) -> bool {
        false
    }

    #[cfg(feature = "flex")]
    fn flex(&self, inputs: Vec<FlexTensor>, _keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        (kernels::moments(&inputs[0]), Vec::new())
    }

    #[cfg(feature = "flex")]
    fn flex_backward(&self, _pass: FlexBackward) -> Vec<Option<FlexTensor>> {
        unreachable!("the map is detached")
    }

    #[cfg(feature = "tch")]
    fn aten(&self, inputs: &[tch::Tensor]) -> tch::Tensor {
        let none = None::<&tch::Tensor>;
        // Many times faster than `var_mean` over these dimensions.
        let x = match inputs[0].kind() {
            // Eight bits are too few for a statistic.
            tch::Kind::BFloat16 => inputs[0].to_kind(tch::Kind::Float),
            _ => inputs[0].shallow_clone(),
        };
        let x = x.contiguous().permute([0, 3, 1, 2]);
        let (mean, variance) = x.batch_norm_update_stats(none, none, 0.0);
        tch::Tensor::stack(&[mean, variance], 0)
    }
}

/// Inputs: x, gamma, beta, moments. The moments are functions of x; their share of the gradient is in that of x.
#[derive(Clone, Debug)]
struct BatchNorm {
    epsilon: f64,
    activation: Option<Activation>,
}

impl Operation for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn reads(&self, _index: usize) -> bool {
        true
    }

    #[cfg(feature = "flex")]
    fn flex(&self, inputs: Vec<FlexTensor>, _keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let [x, gamma, beta, moments] = inputs.try_into().expect("four inputs");
        let map = kernels::ChannelMap::new(&moments, &gamma, &beta, self.epsilon);
        (kernels::scale_and_shift(x, &map, self.activation), Vec::new())
    }

    #[cfg(feature = "flex")]
    fn flex_backward(&self, pass: FlexBackward) -> Vec<Option<FlexTensor>> {
        let map = kernels::ChannelMap::new(pass.input(3), pass.input(1), pass.input(2), self.epsilon);
        let [x, gamma, beta] = kernels::batch_norm_backward(pass.input(0), pass.grad.clone(), &map, self.activation);
        vec![Some(x), Some(gamma), Some(beta), None]
    }

    #[cfg(feature = "tch")]
    fn aten(&self, inputs: &[tch::Tensor]) -> tch::Tensor {
        let none = None::<&tch::Tensor>;
        let y = inputs[0]
            .contiguous()
            .permute([0, 3, 1, 2])
            .batch_norm(
                Some(&inputs[1]),
                Some(&inputs[2]),
                none,
                none,
                true,
                0.0,
                self.epsilon,
                false,
            )
            .permute([0, 2, 3, 1]);
        match self.activation {
            Some(activation) => activation.aten(&[y]),
            None => y,
        }
    }
}

/// Group normalisation of maps, each image by the moments of groups of its channels, and an activation after it (Wu and
/// He, arXiv:1803.08494).
///
/// # Shapes
///   - x, output: `[batch, height, width, channels]`
///   - gamma, beta: `[channels]`
///
/// # Panics
/// Where the shapes do not fit, or `groups` does not divide the channels.
pub fn group_norm(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    groups: usize,
    epsilon: f64,
    activation: Option<Activation>,
) -> Tensor<4> {
    let [.., channels] = x.dims();
    assert!(
        groups > 0 && channels % groups == 0 && gamma.dims() == [channels] && beta.dims() == [channels],
        "group_norm: {channels} channels in {groups} groups, gamma {:?}, beta {:?}",
        gamma.dims(),
        beta.dims()
    );
    if !has_kernels(&x.device(), x.dtype()) {
        return group_norm_reference(x, gamma, beta, groups, epsilon, activation);
    }
    let operation = GroupNorm {
        groups,
        epsilon,
        activation,
    };
    let inputs = vec![x.into_dispatch(), gamma.into_dispatch(), beta.into_dispatch()];
    apply(operation, inputs)
}

/// The same composed of burn's own operations.
pub(crate) fn group_norm_reference(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    groups: usize,
    epsilon: f64,
    activation: Option<Activation>,
) -> Tensor<4> {
    let shape = x.dims();
    let [batch, height, width, channels] = shape;
    let x = x.reshape([batch, height * width, groups, channels / groups]);
    let mean = x.clone().mean_dim(1).mean_dim(3);
    let centred = x - mean;
    let variance = centred.clone().square().mean_dim(1).mean_dim(3);
    let normalised = (centred * (variance + epsilon).sqrt().recip()).reshape(shape);
    let output = normalised * gamma.unsqueeze() + beta.unsqueeze();
    match activation {
        Some(activation) => activation.reference(output),
        None => output,
    }
}

/// Inputs: x, gamma, beta.
#[derive(Clone, Debug)]
struct GroupNorm {
    groups: usize,
    epsilon: f64,
    activation: Option<Activation>,
}

impl Operation for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm"
    }

    fn reads(&self, _index: usize) -> bool {
        true
    }

    #[cfg(feature = "flex")]
    fn flex(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let [x, gamma, beta] = inputs.try_into().expect("three inputs");
        let moments = kernels::group_moments(&x, self.groups);
        let output = kernels::group_norm(&x, &moments, &gamma, &beta, self.epsilon, self.activation);
        (output, if keep { vec![moments] } else { Vec::new() })
    }

    #[cfg(feature = "flex")]
    fn flex_backward(&self, pass: FlexBackward) -> Vec<Option<FlexTensor>> {
        let grads = kernels::group_norm_backward(
            pass.input(0),
            &pass.grad,
            &pass.kept[0],
            pass.input(1),
            pass.input(2),
            self.groups,
            self.epsilon,
            self.activation,
        );
        grads.map(Some).into()
    }

    #[cfg(feature = "tch")]
    fn aten(&self, inputs: &[tch::Tensor]) -> tch::Tensor {
        let [gamma, beta] = [1, 2].map(|index| as_type_of(&inputs[0], &inputs[index]));
        // ATen 2.9's own writes the gradient of x through a null pointer where only the parameters have one.
        let x = inputs[0].permute([0, 3, 1, 2]);
        let shape = x.size();
        let members = shape[1..].iter().product::<i64>() / self.groups as i64;
        let x = x.reshape([shape[0], self.groups as i64, members]);
        let none = None::<&tch::Tensor>;
        let x = x.layer_norm([members], none, none, self.epsilon, false).reshape(shape);
        let y = x.permute([0, 2, 3, 1]) * gamma + beta;
        match self.activation {
            Some(activation) => activation.aten(&[y]),
            None => y,
        }
    }
}

/// Layer normalisation over the last dimension (Ba et al., arXiv:1607.06450).
///
/// # Shapes
///   - x, output: `[..., channels]`
///   - gamma, beta: `[channels]`
///
/// # Panics
/// Where the shapes do not fit.
pub fn layer_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, beta: Option<Tensor<1>>, epsilon: f64) -> Tensor<D> {
    let channels = x.dims()[D - 1];
    assert_eq!(gamma.dims(), [channels], "layer_norm: x has {:?}", x.dims());
    if let Some(beta) = &beta {
        assert_eq!(beta.dims(), [channels], "layer_norm: x has {:?}", x.dims());
    }
    if !has_kernels(&x.device(), x.dtype()) {
        return layer_norm_reference(x, gamma, beta, epsilon);
    }
    let mut inputs = vec![x.into_dispatch(), gamma.into_dispatch()];
    inputs.extend(beta.map(Tensor::into_dispatch));
    apply(LayerNorm { epsilon }, inputs)
}

/// Layer normalisation over the channels of maps that have them first.
///
/// # Shapes
///   - x, output: `[batch, channels, height, width]`
///   - gamma, beta: `[channels]`
///
/// # Panics
/// Where the shapes do not fit.
pub fn layer_norm_2d(x: Tensor<4>, gamma: Tensor<1>, beta: Option<Tensor<1>>, epsilon: f64) -> Tensor<4> {
    layer_norm(x.permute([0, 2, 3, 1]), gamma, beta, epsilon).permute([0, 3, 1, 2])
}

/// The same composed of burn's own operations.
pub(crate) fn layer_norm_reference<const D: usize>(
    x: Tensor<D>,
    gamma: Tensor<1>,
    beta: Option<Tensor<1>>,
    epsilon: f64,
) -> Tensor<D> {
    let mean = x.clone().mean_dim(D - 1);
    let centred = x - mean;
    let variance = centred.clone().square().mean_dim(D - 1);
    let normalised = centred * (variance + epsilon).sqrt().recip() * gamma.unsqueeze();
    match beta {
        Some(beta) => normalised + beta.unsqueeze(),
        None => normalised,
    }
}

/// Inputs: x, gamma and, where there is one, beta.
#[derive(Clone, Debug)]
struct LayerNorm {
    epsilon: f64,
}

impl Operation for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn reads(&self, index: usize) -> bool {
        index < 2
    }

    #[cfg(feature = "flex")]
    fn flex(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let (output, moments) = kernels::layer_norm(&inputs[0], &inputs[1], inputs.get(2), self.epsilon);
        (output, if keep { vec![moments] } else { Vec::new() })
    }

    #[cfg(feature = "flex")]
    fn flex_backward(&self, pass: FlexBackward) -> Vec<Option<FlexTensor>> {
        let [x, gamma, beta] = kernels::layer_norm_backward(pass.input(0), pass.input(1), &pass.kept[0], &pass.grad);
        let mut grads = vec![Some(x), Some(gamma), Some(beta)];
        grads.truncate(pass.wanted.len());
        grads
    }

    #[cfg(feature = "tch")]
    fn aten(&self, inputs: &[tch::Tensor]) -> tch::Tensor {
        let shape = inputs[1].size();
        inputs[0].layer_norm(shape, Some(&inputs[1]), inputs.get(2), self.epsilon, false)
    }
}

/// The weight of a convolution with each filter at mean zero and a fixed norm, times a gain: the scaled weight
/// standardisation of NFNets (Brock et al., arXiv:2101.08692).
///
/// The filter becomes `gain · scale · (w - mean) / sqrt(var + epsilon)`, with the biased variance, and NFNets take
/// `scale = 1.7868 / sqrt(fan_in)` or the constant of their activation.
///
/// # Shapes
///   - weight, output: `[out, in, kernel_height, kernel_width]`
///   - gain: `[out]`
///
/// # Panics
/// Where the shapes do not fit.
pub fn standardize_weight(weight: Tensor<4>, gain: Tensor<1>, scale: f64, epsilon: f64) -> Tensor<4> {
    let shape @ [outer, inner, height, width] = weight.dims();
    assert_eq!(gain.dims(), [outer], "standardize_weight: the weight has {shape:?}");
    let fan_in = inner * height * width;
    // Layer norm of each filter without learnt parameters, then the gain.
    let device = weight.device();
    let ones = Tensor::<1>::ones([fan_in], (&device, weight.dtype()));
    let filters = layer_norm(weight.reshape([outer, fan_in]), ones, None, epsilon);
    (filters * (gain * scale).reshape([outer, 1])).reshape(shape)
}
