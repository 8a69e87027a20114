//! How an operation of this crate becomes one of burn's: dispatched by backend, recorded by autodiff.
//!
//! An [`Operation`] says what it computes on each backend that has a kernel of it. Everything else is here, once: the
//! dispatch by the device of the tensors, the node in the graph of gradients, and what is kept for the backward pass.

use std::fmt::Debug;

#[cfg(feature = "tch")]
use burn::backend::LibTorch;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, DispatchDevice, DispatchTensor, backend_extension};
#[cfg(feature = "flex")]
use burn::backend::{Flex, flex::FlexTensor};
use burn::tensor::{DType, Device, Tensor};

use crate::profile::{Pass, timed};

/// A differentiable function of one to four tensors with kernels of its own.
///
/// Inputs come in one order everywhere; those that an instance does not use (a bias, say) are left out at the end.
pub(crate) trait Operation: Clone + Debug + Send + Sync + 'static {
    /// What a profile calls it.
    fn name(&self) -> &'static str;

    /// Whether the backward pass reads input `index`.
    fn reads(&self, index: usize) -> bool;

    /// The result, and, where `keep` says that a backward pass may follow, what it needs besides the inputs.
    #[cfg(feature = "flex")]
    fn flex(&self, inputs: Vec<FlexTensor>, keep: bool) -> (FlexTensor, Vec<FlexTensor>);

    /// The gradients of the inputs that `wanted` names, from that of the result.
    #[cfg(feature = "flex")]
    fn flex_backward(&self, pass: FlexBackward) -> Vec<Option<FlexTensor>>;

    /// The result by ATen, which differentiates it itself.
    #[cfg(feature = "tch")]
    fn aten(&self, inputs: &[tch::Tensor]) -> tch::Tensor;
}

/// What a backward pass on flex starts from.
#[cfg(feature = "flex")]
pub(crate) struct FlexBackward {
    /// The inputs that [`Operation::reads`] names.
    pub(crate) inputs: Vec<Option<FlexTensor>>,
    /// What the forward pass kept.
    pub(crate) kept: Vec<FlexTensor>,
    /// Gradient of the result.
    pub(crate) grad: FlexTensor,
    /// Whether the gradient of each input is wanted.
    pub(crate) wanted: Vec<bool>,
}

#[cfg(feature = "flex")]
impl FlexBackward {
    /// Input `index`, which the operation says it reads.
    pub(crate) fn input(&self, index: usize) -> &FlexTensor {
        self.inputs[index].as_ref().expect("the operation reads this input")
    }
}

/// A backend that has kernels.
pub(crate) trait Kernels: Backend {
    /// What a forward pass keeps for its backward pass.
    type Kept: Clone + Send + Debug + 'static;

    /// Whether the backward pass must be given the inputs again.
    const KEEPS_INPUTS: bool;

    fn run<O: Operation>(operation: &O, inputs: Vec<FloatTensor<Self>>) -> FloatTensor<Self>;

    fn run_and_keep<O: Operation>(operation: &O, inputs: Vec<FloatTensor<Self>>) -> (FloatTensor<Self>, Self::Kept);

    fn differentiate<O: Operation>(
        operation: &O,
        kept: Self::Kept,
        inputs: Vec<Option<FloatTensor<Self>>>,
        grad: FloatTensor<Self>,
        wanted: Vec<bool>,
    ) -> Vec<Option<FloatTensor<Self>>>;

    /// A tensor of this backend as everybody's.
    fn lift(x: FloatTensor<Self>) -> DispatchTensor;

    /// A tensor that is of this backend.
    fn lower(x: DispatchTensor) -> FloatTensor<Self>;
}

/// The two conversions of [`Kernels`] for a backend.
#[cfg(any(feature = "flex", feature = "tch"))]
macro_rules! conversions {
    ($backend:ty) => {
        // The rank is a type's alone and not looked at on the way.
        fn lift(x: FloatTensor<Self>) -> DispatchTensor {
            Tensor::<1>::from_primitive::<$backend>(x).into_dispatch()
        }

        fn lower(x: DispatchTensor) -> FloatTensor<Self> {
            Tensor::<1>::from_dispatch(x)
                .try_into_primitive::<$backend>()
                .expect("a tensor of this backend")
        }
    };
}
#[cfg(feature = "tch")]
pub(crate) use conversions;

/// An operation on as many tensors as it takes.
#[backend_extension(Flex: cfg(feature = "flex"), LibTorch: cfg(feature = "tch"), Autodiff)]
pub(crate) trait Apply: Backend {
    fn apply1<O: Operation>(operation: O, a: FloatTensor<Self>) -> FloatTensor<Self>;
    fn apply2<O: Operation>(operation: O, a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self>;
    fn apply3<O: Operation>(
        operation: O,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
    fn apply4<O: Operation>(
        operation: O,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: FloatTensor<Self>,
        d: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

macro_rules! apply {
    ([$($generics:tt)*] $backend:ty, $run:path) => {
        impl<$($generics)*> Apply for $backend {
            fn apply1<O: Operation>(operation: O, a: FloatTensor<Self>) -> FloatTensor<Self> {
                $run(operation, [a])
            }
            fn apply2<O: Operation>(operation: O, a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
                $run(operation, [a, b])
            }
            fn apply3<O: Operation>(
                operation: O,
                a: FloatTensor<Self>,
                b: FloatTensor<Self>,
                c: FloatTensor<Self>,
            ) -> FloatTensor<Self> {
                $run(operation, [a, b, c])
            }
            fn apply4<O: Operation>(
                operation: O,
                a: FloatTensor<Self>,
                b: FloatTensor<Self>,
                c: FloatTensor<Self>,
                d: FloatTensor<Self>,
            ) -> FloatTensor<Self> {
                $run(operation, [a, b, c, d])
            }
        }
    };
}

#[cfg(feature = "flex")]
apply!([] Flex, plain::<Flex, O, _>);
#[cfg(feature = "tch")]
apply!([] LibTorch, plain::<LibTorch, O, _>);
apply!([B: Kernels + Apply, C: CheckpointStrategy] Autodiff<B, C>, recorded::<B, C, O, _>);

fn plain<B: Kernels, O: Operation, const N: usize>(operation: O, inputs: [FloatTensor<B>; N]) -> FloatTensor<B> {
    timed(operation.name(), Pass::Forward, || B::run(&operation, inputs.into()))
}

fn recorded<B: Kernels, C: CheckpointStrategy, O: Operation, const N: usize>(
    operation: O,
    inputs: [FloatTensor<Autodiff<B, C>>; N],
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = inputs.each_ref().map(|input| input.node());
    match (Rule {
        operation: std::marker::PhantomData::<O>,
    })
    .prepare::<C>(nodes)
    .compute_bound()
    .stateful()
    {
        OpsKind::Tracked(mut prep) => {
            let read: [Option<NodeId>; N] = std::array::from_fn(|index| {
                (B::KEEPS_INPUTS && operation.reads(index)).then(|| prep.checkpoint(&inputs[index]))
            });
            let inputs = inputs.map(|input| input.into_primitive()).into();
            let (output, kept) = timed(operation.name(), Pass::Forward, || B::run_and_keep(&operation, inputs));
            let state = State { operation, read, kept };
            prep.finish(state, output)
        }
        OpsKind::UnTracked(prep) => {
            let inputs = inputs.map(|input| input.into_primitive()).into();
            prep.finish(timed(operation.name(), Pass::Forward, || B::run(&operation, inputs)))
        }
    }
}

/// The backward step of an operation.
struct Rule<O> {
    operation: std::marker::PhantomData<O>,
}

impl<O> Debug for Rule<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::any::type_name::<O>())
    }
}

#[derive(Clone, Debug)]
struct State<O, K, const N: usize> {
    operation: O,
    read: [Option<NodeId>; N],
    kept: K,
}

impl<B: Kernels, O: Operation, const N: usize> Backward<B, N> for Rule<O> {
    type State = State<O, B::Kept, N>;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let State { operation, read, kept } = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        let inputs = read
            .map(|node| node.map(|node| checkpointer.retrieve_node_output::<FloatTensor<B>>(node)))
            .into();
        let wanted = ops.parents.each_ref().map(Option::is_some).into();
        let found = timed(operation.name(), Pass::Backward, || {
            B::differentiate(&operation, kept, inputs, grad, wanted)
        });
        for (parent, grad) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(grad)) = (parent, grad) {
                grads.register::<B>(parent.id, grad);
            }
        }
    }
}

/// The inputs, all of which must be what the first is known to be.
#[cfg(feature = "flex")]
fn float32<O: Operation>(operation: &O, inputs: Vec<FlexTensor>) -> Vec<FlexTensor> {
    for (index, input) in inputs.iter().enumerate() {
        let (name, dtype) = (operation.name(), input.dtype());
        assert!(
            dtype == DType::F32,
            "{name}: input {index} is {dtype:?} and the first F32"
        );
    }
    inputs
}

#[cfg(feature = "flex")]
impl Kernels for Flex {
    type Kept = Vec<FlexTensor>;
    const KEEPS_INPUTS: bool = true;

    fn run<O: Operation>(operation: &O, inputs: Vec<FlexTensor>) -> FlexTensor {
        operation.flex(float32(operation, inputs), false).0
    }

    fn run_and_keep<O: Operation>(operation: &O, inputs: Vec<FlexTensor>) -> (FlexTensor, Self::Kept) {
        operation.flex(float32(operation, inputs), true)
    }

    fn differentiate<O: Operation>(
        operation: &O,
        kept: Self::Kept,
        inputs: Vec<Option<FlexTensor>>,
        grad: FlexTensor,
        wanted: Vec<bool>,
    ) -> Vec<Option<FlexTensor>> {
        operation.flex_backward(FlexBackward {
            inputs,
            kept,
            grad,
            wanted,
        })
    }

    conversions!(Flex);
}

/// That a tensor of `shape` has as many values of float32 as can be addressed.
///
/// # Panics
/// Where it has more.
pub(crate) fn check_size(operation: &str, shape: &[usize]) {
    let values = shape.iter().try_fold(1_usize, |values, size| values.checked_mul(*size));
    assert!(
        values.is_some_and(|values| values <= isize::MAX as usize / size_of::<f32>()),
        "{operation}: a tensor of {shape:?} has more values than can be addressed"
    );
}

/// The backend's device, below what tracks gradients.
fn innermost(device: &Device) -> DispatchDevice {
    match device.as_dispatch() {
        DispatchDevice::Autodiff(device) => device.clone().inner(),
        device => device.clone(),
    }
}

/// Whether `device` is flex's.
#[cfg(feature = "flex")]
pub(crate) fn is_flex(device: &Device) -> bool {
    matches!(innermost(device), DispatchDevice::Flex(_))
}

/// Whether tensors of `dtype` on `device` have kernels here; else the caller composes burn's own operations.
pub(crate) fn has_kernels(device: &Device, dtype: DType) -> bool {
    match innermost(device) {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => dtype == DType::F32,
        #[cfg(feature = "tch")]
        DispatchDevice::LibTorch(_) => matches!(dtype, DType::F32 | DType::BF16 | DType::F64),
        _ => {
            let _ = dtype;
            false
        }
    }
}

/// Apply `operation` to one to four tensors, given as they are dispatched.
pub(crate) fn apply<O: Operation, const D: usize>(operation: O, inputs: Vec<DispatchTensor>) -> Tensor<D> {
    let mut inputs = inputs.into_iter();
    let mut next = || inputs.next();
    let output = match (next(), next(), next(), next()) {
        (Some(a), None, None, None) => Dispatch::apply1(operation, a),
        (Some(a), Some(b), None, None) => Dispatch::apply2(operation, a, b),
        (Some(a), Some(b), Some(c), None) => Dispatch::apply3(operation, a, b, c),
        (Some(a), Some(b), Some(c), Some(d)) => Dispatch::apply4(operation, a, b, c, d),
        _ => unreachable!("an operation has one to four inputs, in order"),
    };
    Tensor::from_dispatch(output)
}
