//! Giving a module the values of a file, which all cores read a few tensors at a time.

use std::collections::VecDeque;
use std::vec;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Shape, Tensor, TensorData};
use rayon::prelude::*;

use super::expected::Matched;
use super::{WeightsErrorKind, floats};

/// Bytes that are read at once, or one tensor that has more: work for all cores, and little beside a model.
const GROUP: usize = 32 << 20;

/// Rows and columns of the tiles by which a matrix is turned around: whole lines of memory on both sides.
const TILE: usize = 128;

/// Values from one row of a turned tile to the next: rows at a power of two would want the same places of the cache.
const PITCH: usize = TILE + 16;

/// `module` with the values of `matched`, which are in the order of its fields.
pub(super) fn fill<M: Module>(module: M, matched: Vec<Matched>) -> Result<M, WeightsErrorKind> {
    let mut filler = Filler {
        matched: matched.into_iter(),
        read: VecDeque::new(),
        fault: None,
    };
    let module = module.map(&mut filler);
    match filler.fault {
        Some(fault) => Err(fault),
        None => Ok(module),
    }
}

struct Filler {
    matched: vec::IntoIter<Matched>,
    /// What was read ahead.
    read: VecDeque<Result<TensorData, WeightsErrorKind>>,
    /// The first that was met, in the order of the fields.
    fault: Option<WeightsErrorKind>,
}

impl Filler {
    /// The values of the next field, which has `shape`.
    fn next(&mut self, shape: &Shape) -> Result<TensorData, WeightsErrorKind> {
        if self.read.is_empty() {
            let mut group = Vec::new();
            let mut bytes = 0;
            while bytes < GROUP
                && let Some(matched) = self.matched.next()
            {
                bytes += matched.expected.shape.num_elements() * size_of::<f32>();
                group.push(matched);
            }
            self.read = group.par_iter().map(read).collect::<Vec<_>>().into();
        }
        let refused = |found: &dyn std::fmt::Debug| WeightsErrorKind::Refused(format!("{found:?} for {shape:?}"));
        match self.read.pop_front() {
            Some(Ok(data)) if data.shape() != shape => Err(refused(data.shape())),
            Some(read) => read,
            None => Err(refused(&"nothing")),
        }
    }
}

impl ModuleMapper for Filler {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.fault.is_some() {
            return param;
        }
        match self.next(&param.lazy_shape()) {
            Ok(data) => {
                let tensor = Tensor::from_data(data, (&param.lazy_device(), DType::F32));
                let id = param.id;
                param.transform_for_load(tensor, id)
            }
            Err(fault) => {
                self.fault = Some(fault);
                param
            }
        }
    }
}

/// The values in the module's layout.
fn read(matched: &Matched) -> Result<TensorData, WeightsErrorKind> {
    let Matched { keyed, expected } = matched;
    let data = keyed.read(&expected.shape)?;
    Ok(match *expected.shape {
        [rows, columns] if expected.is_transposed => {
            TensorData::new(transposed(data.as_bytes(), rows, columns), [columns, rows])
        }
        _ => data,
    })
}

/// The matrix `[rows, columns]` of the float32 in `bytes` as `[columns, rows]`.
fn transposed(bytes: &[u8], rows: usize, columns: usize) -> Vec<f32> {
    let mut turned = vec![0.0; rows * columns];
    let mut tile = [[0.0; PITCH]; TILE];
    for first_row in (0..rows).step_by(TILE) {
        let height = TILE.min(rows - first_row);
        for first_column in (0..columns).step_by(TILE) {
            let width = TILE.min(columns - first_column);
            for i in 0..height {
                let start = ((first_row + i) * columns + first_column) * size_of::<f32>();
                for (turned, value) in tile.iter_mut().zip(floats(&bytes[start..][..width * size_of::<f32>()])) {
                    turned[i] = value;
                }
            }
            for (j, turned_row) in tile[..width].iter().enumerate() {
                turned[(first_column + j) * rows + first_row..][..height].copy_from_slice(&turned_row[..height]);
            }
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_turned_around_whatever_its_sides() {
        for (rows, columns) in [
            (0, 3),
            (3, 0),
            (1, 1),
            (2, 3),
            (TILE, TILE),
            (TILE + 1, 2 * TILE + 3),
            (200, 1),
        ] {
            let value = |i: usize, j: usize| (i * columns + j) as f32;
            let bytes: Vec<u8> = (0..rows)
                .flat_map(|i| (0..columns).flat_map(move |j| value(i, j).to_ne_bytes()))
                .collect();
            let expected: Vec<f32> = (0..columns).flat_map(|j| (0..rows).map(move |i| value(i, j))).collect();
            assert_eq!(transposed(&bytes, rows, columns), expected, "{rows} x {columns}");
        }
    }
}
