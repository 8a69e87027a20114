//! AdamW in one pass over every parameter.

#[cfg(any(feature = "flex", feature = "tch"))]
use burn::backend::DispatchDevice;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, backend_extension};
#[cfg(feature = "flex")]
use burn::backend::{Flex, flex::FlexTensor};
#[cfg(feature = "tch")]
use burn::backend::{LibTorch, libtorch::TchTensor};
use burn::optim::{AdaptiveMomentumState, ModuleOptimizer, Optimizer};
use burn::tensor::{DType, Device, Tensor};

#[cfg(feature = "flex")]
use crate::flex::adamw as kernels;
use crate::profile::{Pass, timed};

/// AdamW (Loshchilov and Hutter, arXiv:1711.05101) with PyTorch's arithmetic and defaults.
///
/// burn's own makes about a dozen passes over the parameters and as many new tensors; this makes one pass on `flex`, and
/// eight as PyTorch's does on `tch`, in place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay of the mean of the gradients.
    pub beta_1: f32,
    /// Decay of the mean of their squares.
    pub beta_2: f32,
    /// Added to the root of the squares.
    pub epsilon: f32,
    /// Share of a parameter that a step takes away, times the learning rate.
    pub weight_decay: f32,
}

impl Default for AdamW {
    /// PyTorch's: 0.9, 0.999, 1e-8, 0.01.
    fn default() -> Self {
        Self {
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.01,
        }
    }
}

impl AdamW {
    /// The optimizer of a whole module.
    pub fn init(self) -> ModuleOptimizer {
        ModuleOptimizer::from(self)
    }

    /// What one step multiplies with.
    pub(crate) fn factors(self, lr: f64, time: usize) -> Factors {
        let correction = |beta: f32| 1.0 - f64::from(beta).powi(i32::try_from(time).unwrap_or(i32::MAX));
        Factors {
            beta_1: self.beta_1,
            beta_2: self.beta_2,
            epsilon: self.epsilon,
            keep: (1.0 - lr * f64::from(self.weight_decay)) as f32,
            step: (lr / correction(self.beta_1)) as f32,
            root: correction(self.beta_2).sqrt() as f32,
        }
    }
}

/// The numbers of one step: `p = keep · p - step · m / (√v / root + epsilon)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Factors {
    pub(crate) beta_1: f32,
    pub(crate) beta_2: f32,
    pub(crate) epsilon: f32,
    pub(crate) keep: f32,
    pub(crate) step: f32,
    pub(crate) root: f32,
}

impl Optimizer for AdamW {
    type State<const D: usize> = AdaptiveMomentumState<D>;

    fn step<const D: usize>(
        &self,
        lr: f64,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<AdaptiveMomentumState<D>>,
    ) -> (Tensor<D>, Option<AdaptiveMomentumState<D>>) {
        let state = state.unwrap_or_else(|| AdaptiveMomentumState::new(0, grad.zeros_like(), grad.zeros_like()));
        let time = state.time + 1;
        let factors = self.factors(lr, time);
        let step = || {
            if has_kernel(&tensor.device(), tensor.dtype()) {
                let (tensor, moment_1, moment_2) = Dispatch::adamw(
                    factors,
                    tensor.into_dispatch(),
                    grad.into_dispatch(),
                    state.moment_1.into_dispatch(),
                    state.moment_2.into_dispatch(),
                );
                (
                    Tensor::from_dispatch(tensor),
                    Tensor::from_dispatch(moment_1),
                    Tensor::from_dispatch(moment_2),
                )
            } else {
                reference(factors, tensor, grad, state.moment_1, state.moment_2)
            }
        };
        let (tensor, moment_1, moment_2) = timed("adamw", Pass::Forward, step);
        (tensor, Some(AdaptiveMomentumState::new(time, moment_1, moment_2)))
    }

    fn to_device<const D: usize>(state: AdaptiveMomentumState<D>, device: &Device) -> AdaptiveMomentumState<D> {
        state.to_device(device)
    }
}

/// The same composed of burn's own operations.
pub(crate) fn reference<const D: usize>(
    factors: Factors,
    tensor: Tensor<D>,
    grad: Tensor<D>,
    moment_1: Tensor<D>,
    moment_2: Tensor<D>,
) -> (Tensor<D>, Tensor<D>, Tensor<D>) {
    let moment_1 = moment_1 * factors.beta_1 + grad.clone() * (1.0 - factors.beta_1);
    let moment_2 = moment_2 * factors.beta_2 + grad.square() * (1.0 - factors.beta_2);
    let root = moment_2.clone().sqrt() / factors.root + factors.epsilon;
    (
        tensor * factors.keep - moment_1.clone() / root * factors.step,
        moment_1,
        moment_2,
    )
}

fn has_kernel(device: &Device, dtype: DType) -> bool {
    match device.as_dispatch() {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => dtype == DType::F32,
        #[cfg(feature = "tch")]
        DispatchDevice::LibTorch(_) => matches!(dtype, DType::F32 | DType::F64),
        _ => {
            let _ = dtype;
            false
        }
    }
}

/// The step where it has a kernel.
#[backend_extension(Flex: cfg(feature = "flex"), LibTorch: cfg(feature = "tch"))]
pub(crate) trait Step: Backend {
    /// Parameter, mean and mean of squares after a step.
    fn adamw(
        factors: Factors,
        tensor: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        moment_1: FloatTensor<Self>,
        moment_2: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

#[cfg(feature = "flex")]
impl Step for Flex {
    fn adamw(
        factors: Factors,
        tensor: FlexTensor,
        grad: FlexTensor,
        moment_1: FlexTensor,
        moment_2: FlexTensor,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        kernels::step(factors, tensor, &grad, moment_1, moment_2)
    }
}

#[cfg(feature = "tch")]
impl Step for LibTorch {
    fn adamw(
        factors: Factors,
        tensor: TchTensor,
        grad: TchTensor,
        moment_1: TchTensor,
        moment_2: TchTensor,
    ) -> (TchTensor, TchTensor, TchTensor) {
        let Factors {
            beta_1,
            beta_2,
            epsilon,
            keep,
            step,
            root,
        } = factors;
        let grad = &grad.tensor;
        let [mut tensor, mut moment_1, mut moment_2] = [tensor, moment_1, moment_2].map(owned);
        tch::no_grad(|| {
            let _ = moment_1.lerp_(grad, f64::from(1.0 - beta_1));
            let mut squares = grad * grad;
            let _ = moment_2.lerp_(&squares, f64::from(1.0 - beta_2));
            let divisor = moment_2.sqrt_out(&mut squares).g_add_scalar_(f64::from(epsilon * root));
            // tch's quotient that is added takes no factor.
            let change = &moment_1 * f64::from(-step * root);
            let _ = tensor.g_mul_scalar_(f64::from(keep)).addcdiv_(&change, &divisor);
        });
        (
            TchTensor::new(tensor),
            TchTensor::new(moment_1),
            TchTensor::new(moment_2),
        )
    }
}

/// A tensor to write over: itself where nobody else has it, else a copy.
#[cfg(feature = "tch")]
fn owned(x: TchTensor) -> tch::Tensor {
    if x.can_mut() { x.tensor } else { x.tensor.copy() }
}
