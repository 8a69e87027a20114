//! A tensor of a file: what is known of it before its data are read, and the reading of them.

use std::io::{self, Read};

use burn::store::bridge;
use burn::store::burn_pack::Tensor as PackTensor;
use burn::tensor::{DType, Shape, TensorData};

use super::WeightsErrorKind;
use super::error::damaged;

/// Values that are read and judged at a time: few enough to stay in the cache between the two.
const BLOCK: usize = 1 << 14;

/// A tensor of a file whose data are unread.
pub(super) struct Stored {
    /// The file's key.
    pub(super) name: String,
    /// The file's type.
    pub(super) dtype: DType,
    /// The file's shape.
    pub(super) shape: Shape,
    data: Box<Data>,
}

/// Opens the data and gives them to a visitor: the values in row-major order, little-endian.
type Data = dyn Fn(&mut Visitor) -> Result<(), WeightsErrorKind> + Send + Sync;
pub(super) type Visitor<'a> = dyn FnMut(&mut dyn Read) -> Result<(), WeightsErrorKind> + 'a;

impl Stored {
    /// A tensor whose data `data` gives to its visitor, which reads them from first to last.
    pub(super) fn new(
        name: String,
        dtype: DType,
        shape: impl Into<Shape>,
        data: impl Fn(&mut Visitor) -> Result<(), WeightsErrorKind> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            dtype,
            shape: shape.into(),
            data: Box::new(data),
        }
    }

    /// A tensor of a type that no parameter has: it has a name and a shape, and no data.
    pub(super) fn opaque(name: String, what: &'static str) -> Self {
        Self::new(name, DType::U8, vec![0], move |_| Err(damaged(what)))
    }

    /// A tensor that burn reads.
    pub(super) fn of_burn(tensor: PackTensor) -> Self {
        let (name, dtype, shape) = (tensor.name.clone(), tensor.dtype, tensor.shape.clone());
        Self::new(name, dtype, shape, move |visit| {
            let data = bridge::to_data(&tensor).map_err(|error| damaged(error.to_string()))?;
            visit(&mut data.as_bytes())
        })
    }

    /// Bytes that its shape and type ask for.
    pub(super) fn byte_len(&self) -> Option<u64> {
        num_bytes(self.dtype, &self.shape)
    }

    /// What is wrong with it.
    pub(super) fn fault(&self, reason: String) -> WeightsErrorKind {
        WeightsErrorKind::Tensor {
            key: self.name.clone(),
            reason,
        }
    }

    /// Give `visit` its values, from first to last.
    pub(super) fn read<T>(
        &self,
        visit: impl FnOnce(&mut Values) -> Result<T, WeightsErrorKind>,
    ) -> Result<T, WeightsErrorKind> {
        let (mut visit, mut found) = (Some(visit), None);
        let read = (self.data)(&mut |data| {
            let mut values = Values {
                of: self,
                data,
                given: 0,
            };
            found = visit.take().map(|visit| visit(&mut values)).transpose()?;
            Ok(())
        });
        match read {
            Err(fault @ WeightsErrorKind::NotFinite { .. }) => Err(fault),
            Err(fault) => Err(self.fault(fault.to_string())),
            Ok(()) => found.ok_or_else(|| self.fault("its data were not given".to_owned())),
        }
    }

    /// All its values.
    pub(super) fn values(&self) -> Result<Vec<f32>, WeightsErrorKind> {
        self.read(|values| {
            let mut all = vec![0.0; self.shape.num_elements()];
            values.fill(&mut all)?;
            Ok(all)
        })
    }
}

/// The values of a tensor on their way from the file.
pub(super) struct Values<'a> {
    of: &'a Stored,
    data: &'a mut dyn Read,
    given: usize,
}

impl Values<'_> {
    /// The next values as float32, all of them finite.
    pub(super) fn fill(&mut self, to: &mut [f32]) -> Result<(), WeightsErrorKind> {
        for block in to.chunks_mut(BLOCK) {
            self.next(block).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => damaged("its data end early"),
                _ => error.into(),
            })?;
            if let Some((at, value)) = first_not_finite(block) {
                return Err(WeightsErrorKind::NotFinite {
                    key: self.of.name.clone(),
                    index: unravel(self.given + at, &self.of.shape),
                    value,
                });
            }
            self.given += block.len();
        }
        Ok(())
    }

    fn next(&mut self, block: &mut [f32]) -> io::Result<()> {
        let dtype = self.of.dtype;
        if dtype == DType::F32 {
            return self.data.read_exact(bytemuck::cast_slice_mut(block));
        }
        let mut bytes = vec![0; block.len() * dtype.size()];
        self.data.read_exact(&mut bytes)?;
        let read = TensorData::from_bytes_vec(bytes, [block.len()], dtype);
        for (to, value) in block.iter_mut().zip(read.iter::<f32>()) {
            *to = value;
        }
        Ok(())
    }
}

/// The first of `values` that is NaN or infinite, and its place.
fn first_not_finite(values: &[f32]) -> Option<(usize, f32)> {
    // Judged together first, which the compiler does several at a time.
    let is_broken = values.iter().fold(false, |broken, value| broken | !value.is_finite());
    let place = || values.iter().position(|value| !value.is_finite());
    let at = is_broken.then(place).flatten()?;
    Some((at, values[at]))
}

/// The index of every dimension of the element `at` of a row-major tensor.
fn unravel(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = shape
        .iter()
        .rev()
        .map(|&dim| (at % dim, at /= dim).0)
        .collect::<Vec<_>>();
    index.reverse();
    index
}

/// Bytes of a contiguous tensor, where they can be counted.
pub(super) fn num_bytes(dtype: DType, shape: &[usize]) -> Option<u64> {
    let size = shape
        .iter()
        .try_fold(dtype.size(), |size, &dim| size.checked_mul(dim))?;
    u64::try_from(size).ok()
}
