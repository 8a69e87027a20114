//! Kernels for the processor.

pub(crate) mod adamw;
pub(crate) mod attention;
mod bands;
pub(crate) mod buffer;
pub(crate) mod conv;
pub(crate) mod cross_entropy;
mod depthwise;
pub(crate) mod elementwise;
pub(crate) mod isa;
pub(crate) mod math;
pub(crate) mod norm;
mod patches;
pub(crate) mod pool;
pub(crate) mod product;
pub(crate) mod sums;
mod tensor;
mod turn;
mod vector;
pub(crate) mod windows;

pub(crate) use tensor::{dense, strides, tensor, unflipped, values};
