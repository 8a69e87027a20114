//! What follows a product in the same pass: a residual is added, an activation applied.
#![cfg_attr(
    feature = "flex",
    expect(unsafe_code, reason = "tasks write their parts of a second output")
)]

#[cfg(feature = "flex")]
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::DispatchTensor;
#[cfg(feature = "flex")]
use burn::backend::flex::FlexTensor;
#[cfg(feature = "flex")]
use burn::tensor::Shape;
use burn::tensor::Tensor;

use crate::Activation;
#[cfg(feature = "flex")]
use crate::activation::each;
#[cfg(feature = "tch")]
use crate::aten::as_type_of;
#[cfg(feature = "flex")]
use crate::flex::{
    buffer::{Shared, filled},
    dense,
    elementwise::update,
    isa::vectorized,
    sums::add_bias,
    tensor, values,
};
#[cfg(feature = "flex")]
use crate::operation::FlexBackward;

/// What [`crate::linear`] and [`crate::conv2d`] do with their result: `activation(result + residual)`.
#[derive(Clone, Debug, Default)]
pub struct Epilogue<const D: usize> {
    /// Added to the result, of the same shape.
    pub residual: Option<Tensor<D>>,
    /// Applied last.
    pub activation: Option<Activation>,
}

impl<const D: usize> Epilogue<D> {
    /// Nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// An activation.
    pub fn activation(activation: Activation) -> Self {
        Self {
            activation: Some(activation),
            ..Self::default()
        }
    }

    /// A residual to add.
    pub fn residual(residual: Tensor<D>) -> Self {
        Self {
            residual: Some(residual),
            ..Self::default()
        }
    }

    /// The inputs of a product in their order, and which of them there are.
    pub(crate) fn into_inputs(
        self,
        x: Tensor<D>,
        weight: DispatchTensor,
        bias: Option<Tensor<1>>,
    ) -> (Finish, Vec<DispatchTensor>) {
        let finish = Finish {
            bias: bias.is_some(),
            residual: self.residual.is_some(),
            activation: self.activation,
        };
        let mut inputs = vec![x.into_dispatch(), weight];
        inputs.extend(bias.map(Tensor::into_dispatch));
        inputs.extend(self.residual.map(Tensor::into_dispatch));
        (finish, inputs)
    }

    /// The same by burn's own operations.
    pub(crate) fn reference(self, x: Tensor<D>) -> Tensor<D> {
        let x = match self.residual {
            Some(residual) => x + residual,
            None => x,
        };
        match self.activation {
            Some(activation) => activation.reference(x),
            None => x,
        }
    }
}

/// The slope of an activation, where it lies between two products: the one before it makes it in its forward pass, the one
/// behind it needs it in its backward pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slope {
    #[cfg(feature = "flex")]
    values: Arc<Mutex<Option<FlexTensor>>>,
}

#[cfg(feature = "flex")]
impl Slope {
    pub(crate) fn put(&self, slope: FlexTensor) {
        *self.values.lock().unwrap_or_else(PoisonError::into_inner) = Some(slope);
    }

    /// Nothing where the product before it records no backward pass.
    pub(crate) fn get(&self) -> Option<FlexTensor> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Which inputs a product has after `x` and the weight, in order, and what follows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finish {
    pub(crate) bias: bool,
    pub(crate) residual: bool,
    pub(crate) activation: Option<Activation>,
}

impl Finish {
    fn bias_index(self) -> Option<usize> {
        self.bias.then_some(2)
    }

    fn residual_index(self) -> Option<usize> {
        self.residual.then_some(2 + usize::from(self.bias))
    }

    /// Run a product into a new tensor of `shape`: `product` is given what is to be done once with every finished piece of
    /// a row, as `(row, first column, values)`. Gives the output, and what the backward pass needs.
    #[cfg(feature = "flex")]
    pub(crate) fn flex(
        self,
        inputs: &[FlexTensor],
        shape: Shape,
        keep: bool,
        product: impl FnOnce(&(dyn Fn(usize, usize, &mut [f32]) + Sync)) -> FlexTensor,
    ) -> (FlexTensor, Vec<FlexTensor>) {
        let columns = shape[shape.num_dims() - 1];
        let bias = self.bias_index().map(|index| dense(&inputs[index]));
        let residual = self.residual_index().map(|index| dense(&inputs[index]));
        let bias = bias.as_ref().map(values);
        let residual = residual.as_ref().map(values);
        let finished = |activated: Option<&Shared>| {
            product(&|row, first, out| {
                let start = row * columns + first;
                let count = out.len();
                vectorized(
                    #[inline(always)]
                    || {
                        add_bias(out, bias.map(|bias| &bias[first..first + count]));
                        add_bias(out, residual.map(|residual| &residual[start..][..count]));
                        match (self.activation, activated) {
                            (None, _) => {}
                            (Some(activation), None) => {
                                each!(activation, A => for x in out.iter_mut() { *x = A.of(*x); });
                            }
                            (Some(activation), Some(activated)) => {
                                // SAFETY: a product finishes every value once, so nobody else has these.
                                let to = unsafe { activated.slice(start..start + count) };
                                each!(activation, A => for (to, x) in to.iter_mut().zip(out.iter_mut()) {
                                    (*to, *x) = (A.of(*x), A.slope(*x));
                                });
                            }
                        }
                    },
                );
            })
        };
        match self.activation {
            // The slope shares most of its work with the activation, and takes the room that its input would.
            Some(activation) if keep && !activation.is_told_by_output() => {
                let mut slope = Vec::new();
                let output = filled(shape.num_elements(), |output| {
                    slope.push(finished(Some(&Shared::new(output))));
                });
                (tensor(output, shape), slope)
            }
            Some(_) if keep => {
                let output = finished(None);
                (output.clone(), vec![output])
            }
            _ => (finished(None), Vec::new()),
        }
    }

    /// The gradient of the product itself, its values side by side, from that of the output.
    #[cfg(feature = "flex")]
    pub(crate) fn flex_backward(self, pass: &mut FlexBackward) -> FlexTensor {
        if let Some(activation) = self.activation {
            // In place, which a second handle to the gradient would prevent.
            if activation.is_told_by_output() {
                each!(activation, A => update(&mut pass.grad, &pass.kept[0], |grad, output| grad * A.slope(output)));
            } else {
                update(&mut pass.grad, &pass.kept[0], |grad, slope| grad * slope);
            }
        }
        dense(&pass.grad)
    }

    /// Whether there is a bias whose gradient is wanted.
    #[cfg(feature = "flex")]
    pub(crate) fn wants_bias(self, pass: &FlexBackward) -> bool {
        self.bias_index().is_some_and(|index| pass.wanted[index])
    }

    /// The gradients in the order of the inputs.
    #[cfg(feature = "flex")]
    pub(crate) fn in_order(
        self,
        pass: &FlexBackward,
        [x, weight]: [Option<FlexTensor>; 2],
        bias: impl FnOnce() -> FlexTensor,
        residual: FlexTensor,
    ) -> Vec<Option<FlexTensor>> {
        let mut grads = vec![x, weight];
        if let Some(index) = self.bias_index() {
            grads.push(pass.wanted[index].then(bias));
        }
        if let Some(index) = self.residual_index() {
            grads.push(pass.wanted[index].then_some(residual));
        }
        grads
    }

    /// What follows the product, by ATen.
    #[cfg(feature = "tch")]
    pub(crate) fn aten(self, x: tch::Tensor, inputs: &[tch::Tensor]) -> tch::Tensor {
        let x = match self.residual_index() {
            Some(index) => x + &inputs[index],
            None => x,
        };
        match self.activation {
            Some(activation) => activation.apply_aten(x),
            None => x,
        }
    }

    /// The bias among the inputs of ATen.
    #[cfg(feature = "tch")]
    pub(crate) fn aten_bias(self, inputs: &[tch::Tensor]) -> Option<tch::Tensor> {
        self.bias_index().map(|index| as_type_of(&inputs[0], &inputs[index]))
    }
}
