//! Giving a module the values of a file, which all cores read a few tensors at a time.

use std::collections::VecDeque;
use std::vec;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Shape, Tensor, TensorData};
use rayon::prelude::*;

use super::WeightsErrorKind;
use super::expected::Matched;
use super::turn::turned;

/// Bytes that are read at once, or one tensor that has more: work for all cores, and little beside a model.
const GROUP: usize = 64 << 20;

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
            self.read = group
                .par_iter()
                .with_max_len(1)
                .map_init(Vec::new, read)
                .collect::<Vec<_>>()
                .into();
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

/// The values in the module's layout; `strip` is room that the next tensor can have too.
fn read(strip: &mut Vec<f32>, matched: &Matched) -> Result<TensorData, WeightsErrorKind> {
    let Matched { keyed, expected } = matched;
    let [rows, columns] = match *expected.shape {
        [rows, columns] if expected.is_transposed => [rows, columns],
        _ => return Ok(TensorData::new(keyed.values()?, expected.shape.clone())),
    };
    let values = match keyed.plain() {
        Some(tensor) => tensor.read(|values| turned(rows, columns, strip, |to| values.fill(to)))?,
        None => {
            let values = keyed.values()?;
            let mut rest = values.as_slice();
            turned(rows, columns, strip, |to| {
                let (next, after) = rest.split_at(to.len());
                to.copy_from_slice(next);
                rest = after;
                Ok::<_, WeightsErrorKind>(())
            })?
        }
    };
    Ok(TensorData::new(values, [columns, rows]))
}
