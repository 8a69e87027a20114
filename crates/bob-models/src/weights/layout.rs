//! How a file of another library lays out a tensor, and how PyTorch's comes of it.

use burn::tensor::Shape;

/// What is done to a tensor of a file to make the tensor, or a part of the tensor, that PyTorch has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The file's axes in PyTorch's order; nothing where that is the file's.
    pub axes: &'static [usize],
    /// Axes of length one that PyTorch has before those of the file.
    pub leading: usize,
    /// Axes of length one that PyTorch has behind those of the file.
    pub trailing: usize,
    /// Which part of PyTorch's tensor it is, where the file has several tensors for one.
    pub part: Option<Part>,
}

/// One of several tensors of a file that are one tensor in PyTorch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its place among the parts, from 0.
    pub index: usize,
    /// How many there are.
    pub count: usize,
    /// PyTorch's axis along which they are joined.
    pub axis: usize,
}

impl Layout {
    /// PyTorch's own.
    pub const PYTORCH: Self = Self::permuted(&[]);
    /// A matrix `[in, out]`.
    pub const TRANSPOSED: Self = Self::permuted(&[1, 0]);
    /// A kernel `[height, width, in, out]`: TensorFlow's and JAX's.
    pub const HWIO: Self = Self::permuted(&[3, 2, 0, 1]);
    /// A depthwise kernel `[height, width, channels, 1]`: Keras's.
    pub const HWC1: Self = Self::permuted(&[2, 3, 0, 1]);

    const fn permuted(axes: &'static [usize]) -> Self {
        Self {
            axes,
            leading: 0,
            trailing: 0,
            part: None,
        }
    }

    /// The same with `leading` axes of length one before the others.
    pub const fn with_leading(self, leading: usize) -> Self {
        Self { leading, ..self }
    }

    /// The same with `trailing` axes of length one behind the others.
    pub const fn with_trailing(self, trailing: usize) -> Self {
        Self { trailing, ..self }
    }

    /// The same for part `index` of `count` along `axis`.
    pub const fn with_part(self, index: usize, count: usize, axis: usize) -> Self {
        Self {
            part: Some(Part { index, count, axis }),
            ..self
        }
    }

    /// PyTorch's shape of the file's `shape`, where it has as many axes as the layout.
    pub(super) fn shape(&self, shape: &[usize]) -> Option<Shape> {
        let is_in_order = self.axes.is_empty();
        if !is_in_order && self.axes.len() != shape.len() {
            return None;
        }
        let ones = |count| std::iter::repeat_n(1, count);
        let own = (0..shape.len()).map(|i| shape[if is_in_order { i } else { self.axes[i] }]);
        Some(Shape::from(
            ones(self.leading)
                .chain(own)
                .chain(ones(self.trailing))
                .collect::<Vec<_>>(),
        ))
    }

    /// The `values` of the file's `shape` in PyTorch's order.
    pub(super) fn values(&self, values: Vec<f32>, shape: &[usize]) -> Vec<f32> {
        if self.axes.is_empty() {
            values
        } else {
            permute(&values, shape, self.axes)
        }
    }
}

/// The row-major `values` of `shape` with their axes in the order `axes`.
pub(super) fn permute<T: Copy>(values: &[T], shape: &[usize], axes: &[usize]) -> Vec<T> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    let mut permuted = Vec::with_capacity(values.len());
    let sizes: Vec<_> = axes.iter().map(|&axis| shape[axis]).collect();
    let strides: Vec<_> = axes.iter().map(|&axis| strides[axis]).collect();
    gather(&sizes, &strides, 0, &mut |at| permuted.push(values[at]));
    permuted
}

/// Give `visit` the place of every element of a strided tensor, in row-major order.
pub(super) fn gather(sizes: &[usize], strides: &[usize], at: usize, visit: &mut impl FnMut(usize)) {
    match (sizes, strides) {
        ([size, sizes @ ..], [stride, strides @ ..]) => {
            for i in 0..*size {
                gather(sizes, strides, at + i * stride, visit);
            }
        }
        _ => visit(at),
    }
}

/// The row-major `parts`, each with its shape, joined along `axis`; their shapes differ along that axis only.
pub(super) fn join(parts: &[(Vec<f32>, Shape)], axis: usize) -> Vec<f32> {
    let rows = parts.first().map_or(0, |(_, shape)| shape[..axis].iter().product());
    let mut joined = Vec::with_capacity(parts.iter().map(|(values, _)| values.len()).sum());
    for row in 0..rows {
        for (values, shape) in parts {
            let width: usize = shape[axis..].iter().product();
            joined.extend_from_slice(&values[row * width..(row + 1) * width]);
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_those_of_numpy_s_transpose() {
        // numpy.arange(12).reshape(1, 2, 3, 2).transpose(3, 2, 0, 1).ravel()
        let values: Vec<f32> = (0..12_u8).map(f32::from).collect();
        let shape = [1, 2, 3, 2];
        assert_eq!(
            Layout::HWIO.values(values, &shape),
            [0.0, 6.0, 2.0, 8.0, 4.0, 10.0, 1.0, 7.0, 3.0, 9.0, 5.0, 11.0]
        );
        assert_eq!(Layout::HWIO.shape(&shape), Some(Shape::from(vec![2, 3, 1, 2])));
        assert_eq!(Layout::HWIO.shape(&[2, 3]), None);
        let gain = Layout::PYTORCH.with_trailing(3);
        assert_eq!(gain.shape(&[4]), Some(Shape::from(vec![4, 1, 1, 1])));
        let token = Layout::PYTORCH.with_leading(2);
        assert_eq!(token.shape(&[4]), Some(Shape::from(vec![1, 1, 4])));
    }

    #[test]
    fn parts_are_joined_along_their_axis() {
        let first = (vec![0.0, 1.0], Shape::from(vec![2, 1]));
        let second = (vec![2.0, 3.0, 4.0, 5.0], Shape::from(vec![2, 2]));
        assert_eq!(join(&[first.clone(), second], 1), [0.0, 2.0, 3.0, 1.0, 4.0, 5.0]);
        assert_eq!(join(&[first.clone(), first], 0), [0.0, 1.0, 0.0, 1.0]);
    }
}
