//! Gradient checkpointing: what a block computes is computed again in the backward pass instead of kept.

use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, PoisonError};

#[cfg(feature = "flex")]
use burn::backend::Flex;
#[cfg(feature = "tch")]
use burn::backend::LibTorch;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, DispatchTensor, backend_extension};
use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;

use crate::operation::{Kernels, has_kernels};

/// `forward(block, x)`, of which only `x` is kept for the backward pass, which runs `forward` again (Chen et al.,
/// arXiv:1604.06174; PyTorch's `torch.utils.checkpoint`). Values and gradients are the same.
///
/// On a backend without kernels of this crate, and where no gradients are tracked, it is `forward(block, x)`.
///
/// # Panics
/// Where the block holds a batch norm: its running statistics would move twice.
pub fn checkpoint<M: Module + 'static, const D: usize>(
    block: &M,
    x: Tensor<D>,
    forward: fn(&M, Tensor<D>) -> Tensor<D>,
) -> Tensor<D> {
    let device = x.device();
    if !device.is_autodiff() || !has_kernels(&device, x.dtype()) {
        return forward(block, x);
    }
    let mut parameters = Parameters::default();
    block.visit(&mut parameters);
    let Parameters { ids, nodes, first } = parameters;
    let nodes = std::mem::take(&mut *nodes.lock().unwrap_or_else(PoisonError::into_inner));
    let owners: Vec<(ParamId, NodeId)> = ids.into_iter().zip(nodes).collect();

    let block = block.valid();
    let output = forward(&block, x.clone().inner());
    // A module may be sent to another thread but not shared.
    let block = Mutex::new(block);
    let again = Again(Arc::new(move |x: DispatchTensor, grad: DispatchTensor| {
        let block = block.lock().unwrap_or_else(PoisonError::into_inner).clone().train();
        let x = Tensor::<D>::from_dispatch(x).autodiff().require_grad();
        let grad = Tensor::<D>::from_dispatch(grad).autodiff();
        // The only gradient whose backward pass burn starts is that of a number.
        let mut grads = (forward(&block, x.clone()) * grad).sum().backward();
        let x_grad = x.grad_remove(&mut grads).map(Tensor::into_dispatch);
        let mut found = Found { grads, of: Vec::new() };
        block.visit(&mut found);
        let of = found.of.into_iter().filter_map(|(id, grad)| {
            let (_, node) = owners.iter().find(|(owner, _)| *owner == id)?;
            Some((*node, grad))
        });
        (x_grad, of.collect())
    }));
    let x = x.into_dispatch();
    // A parameter beside `x` makes the result one that is tracked, even where `x` is not.
    let first = first.unwrap_or_else(|| x.clone());
    Tensor::from_dispatch(Dispatch::recomputed(again, x, first, output.autodiff().into_dispatch()))
}

/// The parameters of a block that are trained.
#[derive(Default)]
struct Parameters {
    ids: Vec<ParamId>,
    /// Their nodes in the graph, in the same order.
    nodes: Arc<Mutex<Vec<NodeId>>>,
    first: Option<DispatchTensor>,
}

impl ModuleVisitor for Parameters {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        assert!(
            container_type != "Struct:BatchNorm",
            "checkpoint: the batch norm `{name}` would move its running statistics twice"
        );
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        if tensor.is_require_grad() {
            let tensor = Dispatch::note_node(self.nodes.clone(), tensor.into_dispatch());
            self.ids.push(param.id);
            self.first.get_or_insert(tensor);
        }
    }
}

/// The gradients of a block's parameters.
struct Found {
    grads: burn::tensor::Gradients,
    of: Vec<(ParamId, DispatchTensor)>,
}

impl ModuleVisitor for Found {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = param.val().grad_remove(&mut self.grads) {
            self.of.push((param.id, grad.into_dispatch()));
        }
    }
}

/// The gradient of a block's input, where it has one, and of its parameters by their nodes.
type BlockGrads = (Option<DispatchTensor>, Vec<(NodeId, DispatchTensor)>);

/// Runs a block again, on its input, and gives the gradients for that of its output.
#[derive(Clone)]
struct Again(Arc<dyn Fn(DispatchTensor, DispatchTensor) -> BlockGrads + Send + Sync>);

impl Debug for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Again")
    }
}

#[backend_extension(Flex: cfg(feature = "flex"), LibTorch: cfg(feature = "tch"), Autodiff)]
trait Recompute: Backend {
    /// `output`, whose gradient goes to `x` and to parameters through `again`.
    fn recomputed(
        again: Again,
        x: FloatTensor<Self>,
        parameter: FloatTensor<Self>,
        output: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// Add the node of `x` to `nodes`.
    fn note_node(nodes: Arc<Mutex<Vec<NodeId>>>, x: FloatTensor<Self>) -> FloatTensor<Self>;
}

macro_rules! untracked {
    ($backend:ty) => {
        impl Recompute for $backend {
            fn recomputed(
                _again: Again,
                _x: FloatTensor<Self>,
                _parameter: FloatTensor<Self>,
                output: FloatTensor<Self>,
            ) -> FloatTensor<Self> {
                output
            }

            fn note_node(_nodes: Arc<Mutex<Vec<NodeId>>>, x: FloatTensor<Self>) -> FloatTensor<Self> {
                x
            }
        }
    };
}

#[cfg(feature = "flex")]
untracked!(Flex);
#[cfg(feature = "tch")]
untracked!(LibTorch);

impl<B: Kernels + Recompute, C: CheckpointStrategy> Recompute for Autodiff<B, C> {
    fn recomputed(
        again: Again,
        x: FloatTensor<Self>,
        parameter: FloatTensor<Self>,
        output: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let output = output.into_primitive();
        match Rule
            .prepare::<C>([x.node(), parameter.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut prep) => {
                let x = prep.checkpoint(&x);
                prep.finish((x, again), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn note_node(nodes: Arc<Mutex<Vec<NodeId>>>, x: FloatTensor<Self>) -> FloatTensor<Self> {
        nodes.lock().unwrap_or_else(PoisonError::into_inner).push(x.node().id());
        x
    }
}

/// The backward step of a block that is computed again.
#[derive(Debug)]
struct Rule;

impl<B: Kernels> Backward<B, 2> for Rule {
    type State = (NodeId, Again);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let (x, again) = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        let x = checkpointer.retrieve_node_output::<FloatTensor<B>>(x);
        let (x_grad, of) = (again.0)(B::lift(x), B::lift(grad));
        let [parent, _] = ops.parents;
        if let (Some(parent), Some(grad)) = (parent, x_grad) {
            grads.register::<B>(parent.id, B::lower(grad));
        }
        for (node, grad) in of {
            grads.register::<B>(node, B::lower(grad));
        }
    }
}
