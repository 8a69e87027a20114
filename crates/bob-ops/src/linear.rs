//! Linear layers.

#[cfg(feature = "flex")]
use burn::backend::TensorMetadata;
#[cfg(feature = "flex")]
use burn::backend::flex::FlexTensor;
use burn::tensor::{Tensor, module};

use crate::Activation;
#[cfg(feature = "tch")]
use crate::aten::as_type_of;
use crate::epilogue::{Epilogue, Finish, Slope};
#[cfg(feature = "flex")]
use crate::flex::{
    dense,
    elementwise::multiply_by,
    product::{Dense, Right, product, product_and_sums},
    strides,
    sums::column_sums,
    tensor, unflipped, values,
};
#[cfg(feature = "flex")]
use crate::operation::FlexBackward;
use crate::operation::{Operation, apply, check_size, has_kernels};

/// `x · weight + bias` over the last dimension, and what follows it.
///
/// # Shapes
///   - x: `[..., in]`
///   - weight: `[in, out]`
///   - bias: `[out]`
///   - residual, output: `[..., out]`
///
/// # Panics
/// Where the shapes do not fit, or the output has more values than can be addressed.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    epilogue: Epilogue<D>,
) -> Tensor<D> {
    linked(x, weight, bias, epilogue, Link::None)
}

/// `activation(x · weight + bias) · weight + bias` with the weights and biases of `fc1` and `fc2`, and what follows it.
/// On `flex` the gradient between the two is multiplied by the activation's slope where it is made, not in a pass of its
/// own, so it is never that of the activated values.
///
/// # Shapes
///   - x: `[..., in]`
///   - fc1: `[in, hidden]`, `[hidden]`
///   - fc2: `[hidden, out]`, `[out]`
///   - residual, output: `[..., out]`
///
/// # Panics
/// As [`linear`].
pub fn mlp<const D: usize>(
    x: Tensor<D>,
    fc1: (Tensor<2>, Option<Tensor<1>>),
    activation: Activation,
    fc2: (Tensor<2>, Option<Tensor<1>>),
    epilogue: Epilogue<D>,
) -> Tensor<D> {
    let [gives, takes] = match activation.is_told_by_output() {
        true => [Link::None, Link::None],
        false => {
            let slope = Slope::default();
            [Link::Gives(slope.clone()), Link::Takes(slope)]
        }
    };
    let hidden = linked(x, fc1.0, fc1.1, Epilogue::activation(activation), gives);
    linked(hidden, fc2.0, fc2.1, epilogue, takes)
}

fn linked<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    epilogue: Epilogue<D>,
    link: Link,
) -> Tensor<D> {
    let [inner, outer] = weight.dims();
    let mut shape = x.dims();
    assert_eq!(
        shape[D - 1],
        inner,
        "linear: x has {shape:?}, the weight {:?}",
        weight.dims()
    );
    if let Some(bias) = &bias {
        assert_eq!(bias.dims(), [outer], "linear: the weight has {:?}", weight.dims());
    }
    shape[D - 1] = outer;
    check_size("linear", &shape);
    if let Some(residual) = &epilogue.residual {
        assert_eq!(residual.dims(), shape, "linear: the residual of an output of {shape:?}");
    }
    if !has_kernels(&x.device(), x.dtype()) {
        return epilogue.reference(module::linear(x, weight, bias));
    }
    let (finish, inputs) = epilogue.into_inputs(x, weight.into_dispatch(), bias);
    apply(Linear { finish, link }, inputs)
}

#[derive(Clone, Debug)]
struct Linear {
    finish: Finish,
    #[cfg_attr(not(feature = "flex"), expect(dead_code, reason = "only flex has a slope to share"))]
    link: Link,
}

/// How a layer shares the slope of an activation with the one before or behind it.
#[derive(Clone, Debug)]
enum Link {
    None,
    /// The slope of its own activation, which the gradient of its output is multiplied by already.
    Gives(Slope),
    /// The slope at its input, which it multiplies the gradient of that by.
    Takes(Slope),
}

impl Operation for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn reads(&self, index: usize) -> bool {
        index < 2
    }

    #[cfg(feature = "flex")]
    fn flex(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let weight = unflipped(&inputs[1]);
        let weight = Weight::of(&weight);
        let x = dense(&inputs[0]);
        let mut shape = x.shape();
        let rank = shape.num_dims();
        let rows = shape[..rank - 1].iter().product();
        shape[rank - 1] = weight.outer;
        let (output, kept) = self.finish.flex(&inputs, shape.clone(), keep, |finish| {
            let left = Dense::rows(rows, weight.inner);
            tensor(product(values(&x), &left, &weight.right(), finish), shape)
        });
        match (&self.link, kept.as_slice()) {
            (Link::Gives(slope), [kept]) => {
                slope.put(kept.clone());
                (output, Vec::new())
            }
            _ => (output, kept),
        }
    }

    #[cfg(feature = "flex")]
    fn flex_backward(&self, mut pass: FlexBackward) -> Vec<Option<FlexTensor>> {
        let grad = match &self.link {
            Link::Gives(_) => dense(&pass.grad),
            _ => self.finish.flex_backward(&mut pass),
        };
        let weight = unflipped(pass.input(1));
        let weight = Weight::of(&weight);
        let (inner, outer) = (weight.inner, weight.outer);
        let shape = pass.input(0).shape();
        let rows = shape[..shape.num_dims() - 1].iter().product();
        let nothing = |_: usize, _: usize, _: &mut [f32]| {};
        let x_grad = pass.wanted[0].then(|| {
            let left = Dense::rows(rows, outer);
            let slope = match &self.link {
                Link::Takes(slope) => slope.get(),
                _ => None,
            };
            let found = match slope.as_ref().map(values) {
                None => product(values(&grad), &left, &weight.transposed(), &nothing),
                Some(slope) => product(values(&grad), &left, &weight.transposed(), &|row, first, found| {
                    multiply_by(found, &slope[row * inner + first..][..found.len()]);
                }),
            };
            tensor(found, shape.clone())
        });
        let mut bias_grad = None;
        let weight_grad = pass.wanted[1].then(|| {
            let x = dense(pass.input(0));
            let (left, right) = (Dense::columns(rows, inner), Right::rows(values(&grad), outer));
            let found = if rows.min(inner).min(outer) > 0 && self.finish.wants_bias(&pass) {
                let (found, sums) = product_and_sums(values(&x), &left, &right);
                bias_grad = Some(sums);
                found
            } else {
                product(values(&x), &left, &right, &nothing)
            };
            tensor(found, [inner, outer])
        });
        let bias = || tensor(bias_grad.unwrap_or_else(|| column_sums(values(&grad), outer)), [outer]);
        self.finish.in_order(&pass, [x_grad, weight_grad], bias, grad.clone())
    }

    #[cfg(feature = "tch")]
    fn aten(&self, inputs: &[tch::Tensor]) -> tch::Tensor {
        // burn keeps `[in, out]`, ATen takes `[out, in]`.
        let weight = as_type_of(&inputs[0], &inputs[1]).tr();
        let x = inputs[0].linear(&weight, self.finish.aten_bias(inputs));
        self.finish.aten(x, inputs)
    }
}

/// A weight `[in, out]` with any strides that are not negative.
#[cfg(feature = "flex")]
struct Weight<'a> {
    values: &'a [f32],
    start: [usize; 1],
    strides: [usize; 2],
    inner: usize,
    outer: usize,
}

#[cfg(feature = "flex")]
impl<'a> Weight<'a> {
    fn of(tensor: &'a FlexTensor) -> Self {
        let layout = tensor.layout();
        let [inner, outer] = layout.shape().dims();
        Self {
            values: values(tensor),
            start: [layout.start_offset()],
            strides: strides(tensor),
            inner,
            outer,
        }
    }

    fn right(&self) -> Right<'_> {
        Right {
            values: self.values,
            starts: &self.start,
            row_stride: self.strides[0],
            column_stride: self.strides[1],
            columns: self.outer,
        }
    }

    fn transposed(&self) -> Right<'_> {
        Right {
            row_stride: self.strides[1],
            column_stride: self.strides[0],
            columns: self.inner,
            ..self.right()
        }
    }
}
