//! Operations by ATen, which keeps its own graph of each for the backward pass: tch exports few of the backward
//! functions themselves.

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::libtorch::TchTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{DispatchTensor, LibTorch};
use burn::tensor::Tensor;

use crate::operation::{Kernels, Operation, conversions};

/// ATen's graph of one operation.
#[derive(Debug)]
pub(crate) struct Graph {
    output: tch::Tensor,
    leaves: Vec<tch::Tensor>,
    /// burn decides by its own handles whether it may write over a tensor; while these live it does not.
    _held: Vec<TchTensor>,
}

/// `parameter` in the type of what it meets: activations may be bfloat16 beside parameters in float32.
pub(crate) fn as_type_of(x: &tch::Tensor, parameter: &tch::Tensor) -> tch::Tensor {
    parameter.to_kind(x.kind())
}

impl Kernels for LibTorch {
    // A tensor of tch may be sent to another thread but not shared.
    type Kept = Arc<Mutex<Graph>>;
    const KEEPS_INPUTS: bool = false;

    fn run<O: Operation>(operation: &O, inputs: Vec<TchTensor>) -> TchTensor {
        let tensors: Vec<tch::Tensor> = inputs.iter().map(|input| input.tensor.shallow_clone()).collect();
        TchTensor::new(tch::no_grad(|| operation.aten(&tensors)))
    }

    fn run_and_keep<O: Operation>(operation: &O, inputs: Vec<TchTensor>) -> (TchTensor, Self::Kept) {
        let leaves: Vec<tch::Tensor> = inputs
            .iter()
            .map(|input| input.tensor.detach().set_requires_grad(true))
            .collect();
        let output = tch::with_grad(|| operation.aten(&leaves));
        let given = TchTensor::new(output.detach());
        let mut held = inputs;
        held.push(given.clone());
        let graph = Graph {
            output,
            leaves,
            _held: held,
        };
        (given, Arc::new(Mutex::new(graph)))
    }

    fn differentiate<O: Operation>(
        _operation: &O,
        kept: Self::Kept,
        _inputs: Vec<Option<TchTensor>>,
        grad: TchTensor,
        wanted: Vec<bool>,
    ) -> Vec<Option<TchTensor>> {
        let graph = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let leaves: Vec<&tch::Tensor> = graph
            .leaves
            .iter()
            .zip(&wanted)
            .filter_map(|(leaf, wanted)| wanted.then_some(leaf))
            .collect();
        // tch takes the gradient of a number only: the output's product with its gradient has the same.
        let number = tch::with_grad(|| match graph.output.kind() {
            tch::Kind::Float | tch::Kind::Double => graph.output.flatten(0, -1).dot(&grad.tensor.flatten(0, -1)),
            // ATen has no fast dot product of these.
            _ => (&graph.output * &grad.tensor).sum(None),
        });
        let mut found = tch::Tensor::run_backward(&[number], &leaves, false, false).into_iter();
        wanted
            .iter()
            .map(|wanted| {
                if *wanted {
                    found.next().map(TchTensor::new)
                } else {
                    None
                }
            })
            .collect()
    }

    conversions!(LibTorch);
}
