//! Differentiable operations that burn lacks or does slowly, with one signature and a kernel per backend.
//!
//! On `flex` they have kernels of their own, on `tch` they are ATen's, forward and backward; everywhere else they are
//! composed of burn's operations. The device of the tensors chooses. Maps have their channels last throughout:
//! `[batch, height, width, channels]`, which is what products over pixels, norms and vectors want.
//!
//! An operation is one file here with its kernel under `flex/`; `operation.rs` makes it one of burn's.
//! [`nn`] runs burn's modules, which go on holding the parameters.

mod activation;
#[cfg_attr(
    not(any(feature = "flex", feature = "tch")),
    expect(unused_variables, reason = "no backend is left to hand them to")
)]
#[cfg_attr(
    feature = "tch",
    expect(deprecated, reason = "0.22 is the last line of burn with LibTorch")
)]
mod adamw;
#[cfg(feature = "tch")]
#[expect(deprecated, reason = "0.22 is the last line of burn with LibTorch")]
mod aten;
mod attention;
#[cfg_attr(
    feature = "tch",
    expect(deprecated, reason = "0.22 is the last line of burn with LibTorch")
)]
mod checkpoint;
mod conv;
mod cores;
mod cross_entropy;
mod epilogue;
#[cfg(feature = "flex")]
mod flex;
mod linear;
mod norm;
#[cfg_attr(
    feature = "tch",
    expect(deprecated, reason = "0.22 is the last line of burn with LibTorch")
)]
mod operation;
mod pool;
mod windows;

pub use activation::{Activation, add, add_relu};
pub use adamw::AdamW;
pub use attention::{attention, cosine_attention};
pub use checkpoint::checkpoint;
pub use conv::{Conv2dOptions, conv2d};
pub use cores::on_cores;
pub use cross_entropy::cross_entropy;
pub use epilogue::Epilogue;
pub use linear::{linear, mlp};
pub use norm::{BatchNormOutput, batch_norm, group_norm, layer_norm, layer_norm_2d, standardize_weight};
pub use pool::{gate_channels, max_pool2d, mean_pool};
pub use windows::Windows;

pub mod nn;
pub mod profile;

#[cfg(all(test, feature = "flex"))]
mod tests;
