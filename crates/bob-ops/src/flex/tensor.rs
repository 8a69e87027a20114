//! Between burn's tensors in this process's memory and slices.

use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{Bytes, DType, Shape};

/// The same values side by side in the order of the shape; free where they are.
pub(crate) fn dense(tensor: &FlexTensor) -> FlexTensor {
    tensor.to_contiguous()
}

/// The values of a tensor that [`dense`] gave.
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.storage::<f32>()
}

/// A tensor of `values` in the order of `shape`.
pub(crate) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape.into()), DType::F32)
}

/// The same values with no stride below zero, as burn flips; free where none is.
pub(crate) fn unflipped(tensor: &FlexTensor) -> FlexTensor {
    if tensor.layout().strides().iter().any(|stride| *stride < 0) {
        dense(tensor)
    } else {
        tensor.clone()
    }
}

/// The strides of a tensor of `N` dimensions that [`unflipped`] gave.
///
/// # Panics
/// Where one is negative.
pub(crate) fn strides<const N: usize>(tensor: &FlexTensor) -> [usize; N] {
    let strides = tensor.layout().strides();
    std::array::from_fn(|axis| usize::try_from(strides[axis]).expect("strides are not negative"))
}
