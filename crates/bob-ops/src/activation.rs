//! Activations, each in one pass forward and one backward.

#[cfg(feature = "flex")]
use burn::backend::flex::FlexTensor;
use burn::tensor::{Tensor, activation};

#[cfg(feature = "flex")]
use crate::flex::{
    elementwise::{map, zip},
    math::{erf, exp, sigmoid, tanh},
};
#[cfg(feature = "flex")]
use crate::operation::FlexBackward;
use crate::operation::{Operation, apply, has_kernels};

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x · sigmoid(x)`, also called swish.
    Silu,
    /// `x · (1 + erf(x / √2)) / 2`, the exact form (Hendrycks and Gimpel, arXiv:1606.08415).
    Gelu,
    /// The same with `tanh(√(2/π) · (x + 0.044715 x³))` for the error function, as OpenAI's and SAM's relatives use it.
    GeluTanh,
}

/// `√(2/π)` and the weight of the cube in the approximation of GELU.
#[cfg(feature = "flex")]
const TANH: [f32; 2] = [0.797_884_6, 0.044_715];

impl Activation {
    /// The activation of every value of `x`.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        if has_kernels(&x.device(), x.dtype()) {
            apply(self, vec![x.into_dispatch()])
        } else {
            self.reference(x)
        }
    }

    /// The same by burn's own.
    pub(crate) fn reference<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Relu => activation::relu(x),
            Self::Relu6 => x.clamp(0.0, 6.0),
            Self::Silu => activation::silu(x),
            // burn's own differentiates the approximation by tanh, but on flex.
            Self::Gelu => x.clone() * ((x * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5,
            Self::GeluTanh => activation::gelu_approximate(x),
        }
    }

    /// Whether the gradient can be told from the result, so that the input need not be kept.
    pub(crate) fn is_told_by_output(self) -> bool {
        matches!(self, Self::Relu | Self::Relu6)
    }

    /// The function of one value.
    #[cfg(feature = "flex")]
    #[inline(always)]
    pub(crate) fn of(self, x: f32) -> f32 {
        match self {
            Self::Relu => relu(x),
            Self::Relu6 => x.clamp(0.0, 6.0),
            Self::Silu => {
                let x = above_underflow(x);
                x / (1.0 + exp(-x))
            }
            Self::Gelu => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
            Self::GeluTanh => 0.5 * x * (1.0 + tanh(TANH[0] * (x + TANH[1] * x * x * x))),
        }
    }

    /// Its derivative at `x`; for [`Self::is_told_by_output`] also where `x` is the result.
    #[cfg(feature = "flex")]
    #[inline(always)]
    pub(crate) fn slope(self, x: f32) -> f32 {
        match self {
            Self::Relu => f32::from(x > 0.0),
            Self::Relu6 => f32::from(x > 0.0 && x < 6.0),
            Self::Silu => {
                let x = above_underflow(x);
                let gate = sigmoid(x);
                gate * (1.0 + x * (1.0 - gate))
            }
            Self::Gelu => {
                /// `1 / √(2π)`.
                const DENSITY: f32 = 0.398_942_3;
                0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)) + x * DENSITY * exp(-0.5 * x * x)
            }
            Self::GeluTanh => {
                let t = tanh(TANH[0] * (x + TANH[1] * x * x * x));
                0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * TANH[0] * (1.0 + 3.0 * TANH[1] * x * x)
            }
        }
    }
}

/// `x`, or where a SiLU has no more bits a value near: the exponential there stays at its limit, and `x` would not.
#[cfg(feature = "flex")]
#[inline(always)]
fn above_underflow(x: f32) -> f32 {
    if x < -100.0 { -100.0 } else { x }
}

/// `max(x, 0)` that keeps what is not a number.
#[cfg(feature = "flex")]
#[inline(always)]
fn relu(x: f32) -> f32 {
    if x <= 0.0 { 0.0 } else { x }
}

/// One function per activation, so that each compiles to a loop of its own.
#[cfg(feature = "flex")]
macro_rules! each {
    ($activation:expr, $name:ident => $call:expr) => {
        match $activation {
            Activation::Relu => {
                const $name: Activation = Activation::Relu;
                $call
            }
            Activation::Relu6 => {
                const $name: Activation = Activation::Relu6;
                $call
            }
            Activation::Silu => {
                const $name: Activation = Activation::Silu;
                $call
            }
            Activation::Gelu => {
                const $name: Activation = Activation::Gelu;
                $call
            }
            Activation::GeluTanh => {
                const $name: Activation = Activation::GeluTanh;
                $call
            }
        }
    };
}
#[cfg(feature = "flex")]
pub(crate) use each;

impl Operation for Activation {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn reads(&self, _index: usize) -> bool {
        !self.is_told_by_output()
    }

    #[cfg(feature = "flex")]
    fn flex(&self, mut inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let x = inputs.remove(0);
        let output = each!(*self, A => map(x, |x| A.of(x)));
        let kept = if keep && self.is_told_by_output() {
            vec![output.clone()]
        } else {
            Vec::new()
        };
        (output, kept)
    }

    #[cfg(feature = "flex")]
    fn flex_backward(&self, mut pass: FlexBackward) -> Vec<Option<FlexTensor>> {
        let of = match pass.kept.pop() {
            Some(output) => output,
            None => pass.input(0).clone(),
        };
        let grad = each!(*self, A => zip(pass.grad, &of, |grad, x| grad * A.slope(x)));
        vec![Some(grad)]
    }

    #[cfg(feature = "tch")]
    fn aten(&self, inputs: &[tch::Tensor]) -> tch::Tensor {
        self.apply_aten(inputs[0].shallow_clone())
    }
}

#[cfg(feature = "tch")]
impl Activation {
    pub(crate) fn apply_aten(self, x: tch::Tensor) -> tch::Tensor {
        match self {
            Self::Relu => x.relu(),
            // Not a clamp, which passes the gradient at the bends.
            Self::Relu6 => x.relu6(),
            Self::Silu => x.silu(),
            Self::Gelu => x.gelu("none"),
            Self::GeluTanh => x.gelu("tanh"),
        }
    }
}

/// `max(x + shortcut, 0)`, the end of a residual block.
///
/// # Shapes
///   - x, shortcut, output: alike
///
/// # Panics
/// Where the shapes differ.
pub fn add_relu<const D: usize>(x: Tensor<D>, shortcut: Tensor<D>) -> Tensor<D> {
    assert_eq!(x.dims(), shortcut.dims(), "add_relu: x and the shortcut");
    if has_kernels(&x.device(), x.dtype()) {
        apply(AddRelu, vec![x.into_dispatch(), shortcut.into_dispatch()])
    } else {
        activation::relu(x + shortcut)
    }
}

#[derive(Clone, Debug)]
struct AddRelu;

impl Operation for AddRelu {
    fn name(&self) -> &'static str {
        "add"
    }

    fn reads(&self, _index: usize) -> bool {
        false
    }

    #[cfg(feature = "flex")]
    fn flex(&self, mut inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let shortcut = inputs.pop().expect("two inputs");
        let x = inputs.pop().expect("two inputs");
        let output = zip(x, &shortcut, |x, shortcut| relu(x + shortcut));
        let kept = if keep { vec![output.clone()] } else { Vec::new() };
        (output, kept)
    }

    #[cfg(feature = "flex")]
    fn flex_backward(&self, pass: FlexBackward) -> Vec<Option<FlexTensor>> {
        let grad = zip(pass.grad, &pass.kept[0], |grad, y| if y > 0.0 { grad } else { 0.0 });
        vec![Some(grad.clone()), Some(grad)]
    }

    #[cfg(feature = "tch")]
    fn aten(&self, inputs: &[tch::Tensor]) -> tch::Tensor {
        (&inputs[0] + &inputs[1]).relu_()
    }
}

/// `x + shortcut`, on all cores: burn's own is on one.
///
/// # Shapes
///   - x, shortcut, output: alike
///
/// # Panics
/// Where the shapes differ.
pub fn add<const D: usize>(x: Tensor<D>, shortcut: Tensor<D>) -> Tensor<D> {
    assert_eq!(x.dims(), shortcut.dims(), "add: the shortcut of x");
    if has_kernels(&x.device(), x.dtype()) {
        apply(Add, vec![x.into_dispatch(), shortcut.into_dispatch()])
    } else {
        x + shortcut
    }
}

#[derive(Clone, Debug)]
struct Add;

impl Operation for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn reads(&self, _index: usize) -> bool {
        false
    }

    #[cfg(feature = "flex")]
    fn flex(&self, inputs: Vec<FlexTensor>, _keep: bool) -> (FlexTensor, Vec<FlexTensor>) {
        let [x, shortcut] = inputs.try_into().expect("two inputs");
        (zip(x, &shortcut, |x, shortcut| x + shortcut), Vec::new())
    }

    #[cfg(feature = "flex")]
    fn flex_backward(&self, pass: FlexBackward) -> Vec<Option<FlexTensor>> {
        vec![Some(pass.grad.clone()), Some(pass.grad)]
    }

    #[cfg(feature = "tch")]
    fn aten(&self, inputs: &[tch::Tensor]) -> tch::Tensor {
        &inputs[0] + &inputs[1]
    }
}
