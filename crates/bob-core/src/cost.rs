//! Multiply-accumulates and activations of one forward pass, counted by walking the model.
//!
//! The convention is that of timm's `benchmark.py` with fvcore (`results/benchmark-*.csv`, columns
//! `infer_gmacs` and `infer_macts`): one multiply-accumulate counts once, only convolutions, linear
//! layers and matrix products count, and activations are the elements of their outputs. (fvcore also counts
//! five operations for every element that a layer norm norms, 0.1 to 0.6 % in all; we do not.)

use burn::nn::Linear;
use burn::nn::conv::Conv2d;

/// The cost of one image's forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Multiply-accumulates.
    pub macs: u64,
    /// Elements written by convolutions, linear layers and matrix products.
    pub activations: u64,
}

/// Adds up the cost of the layers a backbone walks through.
#[derive(Clone, Debug, Default)]
pub struct CostCounter {
    macs: u64,
    activations: u64,
}

impl CostCounter {
    /// A counter at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// A convolution whose *output* map is `[height, width]`.
    pub fn conv2d(&mut self, conv: &Conv2d, output: [usize; 2]) {
        let [out_channels, in_per_group, kernel_h, kernel_w] = conv.weight.lazy_shape().dims();
        let positions = (output[0] * output[1]) as u64;
        self.macs += positions * (out_channels * in_per_group * kernel_h * kernel_w) as u64;
        self.activations += positions * out_channels as u64;
    }

    /// A linear layer applied to `tokens` vectors.
    pub fn linear(&mut self, linear: &Linear, tokens: usize) {
        let [inputs, outputs] = linear.weight.lazy_shape().dims();
        self.macs += (tokens * inputs * outputs) as u64;
        self.activations += (tokens * outputs) as u64;
    }

    /// A product of `batch` pairs of matrices `[m, k] x [k, n]`, as in attention.
    pub fn matmul(&mut self, batch: usize, m: usize, k: usize, n: usize) {
        self.macs += (batch * m * k * n) as u64;
        self.activations += (batch * m * n) as u64;
    }

    /// What was counted, or `None` where the backbone counted nothing.
    pub fn finish(self) -> Option<Cost> {
        (self.macs > 0).then_some(Cost {
            macs: self.macs,
            activations: self.activations,
        })
    }
}
