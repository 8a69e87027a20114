//! Activations in one vectorised pass over all cores, where tensors lie in this process's memory.
//!
//! burn-flex takes activations on one core, and `exp` and `erf` one value at a time, which costs an EfficientNet or a
//! transformer about as much as its matrix products. Other backends, and every backend while it tracks gradients, use
//! burn's own. The same operations in the same order run with every instruction set, so the bits do not depend on it.

use bob_core::device::is_host;
use burn::tensor::{DType, Tensor, activation};
use pulp::Arch;
use rayon::prelude::*;

/// Values a task takes at a time: large against the cost of a task, small against a cache.
const CHUNK: usize = 1 << 14;

/// `x * sigmoid(x)`, also called swish.
pub(crate) fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    map(x, |x| x / (1.0 + exp(-x)), activation::silu)
}

/// `x * (1 + erf(x / sqrt(2))) / 2`, the exact form.
pub(crate) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    map(
        x,
        |x| 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
        activation::gelu,
    )
}

/// `max(x, 0)`.
pub(crate) fn relu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    map(x, |x| if x <= 0.0 { 0.0 } else { x }, activation::relu)
}

/// `min(max(x, 0), 6)`.
pub(crate) fn relu6<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    map(x, |x| x.clamp(0.0, 6.0), |x| x.clamp(0.0, 6.0))
}

/// `f` of every value of `x`, or `burn` of `x` where the values are not at hand.
fn map<const D: usize>(
    x: Tensor<D>,
    f: impl Fn(f32) -> f32 + Sync,
    burn: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Tensor<D> {
    let device = x.device();
    if !is_host(&device) || x.dtype() != DType::F32 {
        return burn(x);
    }
    let mut data = x.into_data();
    let arch = Arch::new();
    data.as_mut_slice::<f32>()
        .expect("the type of the values is checked above")
        .par_chunks_mut(CHUNK)
        .for_each(|chunk| {
            arch.dispatch(
                #[inline(always)]
                || chunk.iter_mut().for_each(|x| *x = f(*x)),
            );
        });
    Tensor::from_data(data, (&device, DType::F32))
}

/// The exponential to 2 units in the last place; what would underflow or overflow gives the value at the limit.
#[inline(always)]
fn exp(x: f32) -> f32 {
    /// A sum with 1.5 · 2²³ has no bits left for a fraction: its low bits are the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts, the first with so few bits that its product with the integer is exact.
    const LN_2: [f32; 2] = [355.0 / 512.0, -2.121_944_4e-4];
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    let r = x - n * LN_2[0] - n * LN_2[1];
    // Taylor's series; at |r| < 0.35 the next term is below 1e-8.
    let series = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    series.into_iter().fold(1.0 / 5040.0, |sum, term| sum * r + term) * power
}

/// The error function to 4e-7.
#[inline(always)]
fn erf(x: f32) -> f32 {
    /// `erf(x) / x` over `x²` as a quotient of polynomials, fitted to [0, 4] with a relative error of 2.5e-8;
    /// beyond, erf is 1 in float32.
    const NUMERATOR: [f32; 6] = [
        1.986_771_e-6,
        2.845_672_3e-4,
        3.883_405_8e-3,
        5.310_194e-2,
        1.935_465e-1,
        std::f32::consts::FRAC_2_SQRT_PI,
    ];
    const DENOMINATOR: [f32; 6] = [
        3.742_012_6e-5,
        1.185_586e-3,
        1.520_737_6e-2,
        1.153_506e-1,
        5.048_587e-1,
        1.0,
    ];
    let square = x * x;
    let polynomial = |terms: [f32; 6]| terms.into_iter().fold(0.0, |sum, term| sum * square + term);
    let quotient = x * polynomial(NUMERATOR) / polynomial(DENOMINATOR);
    // Exactly 1 at the ends, so that a GELU far below zero is zero.
    if x.abs() < 4.0 {
        quotient.clamp(-1.0, 1.0)
    } else {
        x.clamp(-1.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    /// Largest error against `burn`'s own, over the larger of the value and 1.
    fn check(ours: fn(Tensor<1>) -> Tensor<1>, burn: fn(Tensor<1>) -> Tensor<1>, tolerance: f32) {
        // More than one chunk, and a last one that fills no vector.
        let mut values: Vec<f32> = (0..40_001).map(|i| (i as f32 - 20_000.0) / 1000.0).collect();
        values.extend([0.0, -0.0, 1e-30, -1e-30, 100.0, -100.0, 1e30, -1e30]);
        let x = Tensor::<1>::from_data(TensorData::from(values.as_slice()), &Device::flex());
        let error = (ours(x.clone()) - burn(x.clone())).abs() / burn(x).abs().clamp_min(1.0);
        let error = error.max().into_scalar::<f32>();
        assert!(error < tolerance, "{error:e}");
    }

    #[test]
    fn activations_equal_burns() {
        check(silu, activation::silu, 3e-7);
        // burn's own is 1e-6 from the truth, where 1 + erf cancels.
        check(gelu, activation::gelu, 2e-6);
        check(relu, activation::relu, f32::MIN_POSITIVE);
        check(relu6, |x| x.clamp(0.0, 6.0), f32::MIN_POSITIVE);
    }

    #[test]
    fn not_a_number_stays() {
        for activation in [silu::<1>, gelu::<1>, relu::<1>, relu6::<1>] {
            let y = activation(Tensor::from_data([f32::NAN], &Device::flex()));
            assert!(y.into_scalar::<f32>().is_nan());
        }
    }

    #[test]
    fn gradients_flow() {
        let x = Tensor::<1>::from_data([0.5, -1.5], &Device::flex().autodiff()).require_grad();
        for activation in [silu::<1>, gelu::<1>, relu::<1>, relu6::<1>] {
            let gradients = activation(x.clone()).sum().backward();
            assert!(x.grad(&gradients).is_some());
        }
    }

    #[test]
    fn a_shared_tensor_keeps_its_values() {
        let x = Tensor::<1>::from_data([1.0, 2.0], &Device::flex());
        let _ = silu(x.clone());
        assert_eq!(x.into_data(), TensorData::from([1.0_f32, 2.0]));
    }
}
