//! The learning rate over a training.

use std::f64::consts::PI;

/// The share of the highest learning rate at `step`, below `steps`: a linear rise to 1 over the first `warmup` steps, then a
/// cosine to 0 (Loshchilov and Hutter, arXiv:1608.03983; Goyal et al., arXiv:1706.02677).
///
/// The first step has `1 / warmup`, so that none is without effect; the cosine would reach 0 at the step after the last.
pub fn warmup_cosine(step: usize, warmup: usize, steps: usize) -> f64 {
    match step.checked_sub(warmup) {
        None => (step + 1) as f64 / warmup as f64,
        Some(step) => 0.5 * (1.0 + (PI * step as f64 / (steps - warmup) as f64).cos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PyTorch 2.9.1: the learning rates of `SequentialLR([LinearLR(o, 1 / 4, 1, 3), CosineAnnealingLR(o, 6)], [4])` on
    /// an optimizer of learning rate 1, one before each of ten steps. `LinearLR` holds 1 for one step more than it rises.
    const TORCH: [f64; 10] = [
        0.25,
        0.5,
        0.75,
        1.0,
        1.0,
        0.933_012_701_892_219_3,
        0.75,
        0.5,
        0.25,
        0.066_987_298_107_780_7,
    ];

    #[test]
    fn rates_are_those_of_pytorch() {
        for (step, expected) in TORCH.into_iter().enumerate() {
            let found = warmup_cosine(step, 4, 10);
            assert!((found - expected).abs() < 1e-12, "step {step}: {found}");
        }
    }

    #[test]
    fn without_warm_up_the_cosine_begins_at_once_and_warm_up_can_be_all() {
        assert_eq!(warmup_cosine(0, 0, 10), 1.0);
        assert!((warmup_cosine(5, 0, 10) - 0.5).abs() < 1e-12);
        assert!(warmup_cosine(999, 0, 1000) < 1e-5);
        assert_eq!(warmup_cosine(9, 10, 10), 1.0);
    }
}
