//! Counting parameters as papers do, and drawing them from a seed.

use std::sync::{Mutex, PoisonError};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Bool, Device, Int, Tensor};

/// Number of trainable parameters: PyTorch's `sum(p.numel() for p in model.parameters())`.
///
/// burn's own `Module::num_params` also counts the running statistics of batch norm, which are buffers.
pub fn num_parameters<M: Module>(module: &M) -> usize {
    let mut count = Count::default();
    module.visit(&mut count);
    count.parameters
}

#[derive(Default)]
struct Count {
    path: Vec<String>,
    parameters: usize,
}

impl ModuleVisitor for Count {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let is_buffer = self
            .path
            .last()
            .is_some_and(|name| name == "running_mean" || name == "running_var");
        if !is_buffer {
            self.parameters += param.lazy_shape().num_elements();
        }
    }

    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }
}

/// Held while parameters are drawn: the generator is one per backend, not per module.
static DRAWING: Mutex<()> = Mutex::new(());

/// The module that `init` makes on `device`, with every lazy parameter drawn from `seed`.
///
/// Parameters are drawn in the order of the module's fields by one thread, so the same seed gives the same bits
/// whatever the number of threads, as long as nothing else draws random numbers at the same time.
pub fn initialize<M: Module>(seed: u64, device: &Device, init: impl FnOnce() -> M) -> M {
    let _drawing = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    device.seed(seed);
    let module = init();
    module.visit(&mut Materialize);
    module
}

struct Materialize;

impl ModuleVisitor for Materialize {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        param.val();
    }
    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        param.val();
    }
    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        param.val();
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::nn::BatchNormConfig;

    use super::*;

    #[test]
    fn running_statistics_are_no_parameters() {
        let norm = BatchNormConfig::new(7).init(&burn::tensor::Device::flex());
        assert_eq!(num_parameters(&norm), 14);
    }
}
