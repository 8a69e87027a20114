//! Elementary functions that the compiler turns into vector code: no branches, no calls.
//!
//! The same operations in the same order run with every instruction set, so the bits do not depend on it.

/// The exponential to 2 units in the last place; what would underflow or overflow gives the value at the limit.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
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
pub(crate) fn erf(x: f32) -> f32 {
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

/// The logistic function.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    // Near zero the difference of the exponentials would cancel.
    let series = x * (1.0 - x * x * (1.0 / 3.0 - x * x * (2.0 / 15.0)));
    let quotient = 1.0 - 2.0 / (exp(2.0 * x) + 1.0);
    if x.abs() < 0.05 { series } else { quotient }
}

/// Values that are summed side by side, so that a sum fills vectors and has one order on every processor.
const LANES: usize = 16;

/// `Σ f(x[i], y[i], …)` over slices of one length, in a fixed order.
///
/// # Panics
/// Where a slice is shorter than the first.
#[inline(always)]
pub(crate) fn sum<const N: usize>(slices: [&[f32]; N], f: impl Fn([f32; N]) -> f32) -> f32 {
    let len = slices[0].len();
    let mut lanes = [0.0_f32; LANES];
    let whole = len / LANES * LANES;
    let mut i = 0;
    while i < whole {
        // One check for all lanes: with one for each, nothing would be a vector.
        let mut blocks = [[0.0_f32; LANES]; N];
        for (block, slice) in blocks.iter_mut().zip(slices) {
            block.copy_from_slice(&slice[i..i + LANES]);
        }
        for (lane, sum) in lanes.iter_mut().enumerate() {
            let mut values = [0.0; N];
            for (value, block) in values.iter_mut().zip(&blocks) {
                *value = block[lane];
            }
            *sum += f(values);
        }
        i += LANES;
    }
    let mut rest = 0.0;
    for i in whole..len {
        let mut values = [0.0; N];
        for (value, slice) in values.iter_mut().zip(slices) {
            *value = slice[i];
        }
        rest += f(values);
    }
    fold(lanes, |a, b| a + b) + rest
}

/// The largest value, `-inf` of none.
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    let largest = fold(lanes, f32::max);
    rest.iter().copied().fold(largest, f32::max)
}

#[inline(always)]
fn fold(lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = lanes;
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = f(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}
