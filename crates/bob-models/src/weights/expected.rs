//! What a module expects of a file, known before any parameter is drawn or read.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::store::burn_pack::Error as PackError;
use burn::store::{BurnToPyTorchAdapter, ModuleAdapter, ModuleContext, bridge};
use burn::tensor::{DType, Shape, Tensor};

use super::{Keyed, Misfit, WeightsErrorKind};

/// One tensor that a module expects, in the file's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Name in a PyTorch state dict: `weight` for burn's `gamma`, no enum variants.
    pub name: String,
    /// Shape in a PyTorch state dict: `[out, in]` for a linear layer.
    pub shape: Shape,
    /// Whether the module has it the other way around: `[in, out]`.
    pub is_transposed: bool,
}

/// The tensors of a file that are what a module expects.
pub(super) struct Matched {
    pub(super) keyed: Keyed,
    pub(super) expected: Expected,
}

/// What the state dict of `module` must have, in the order of its fields. Lazy parameters stay lazy.
pub fn expected<M: Module>(module: &M) -> Vec<Expected> {
    let mut visitor = Visitor::default();
    module.visit(&mut visitor);
    visitor.expected
}

#[derive(Default)]
struct Visitor {
    path: Vec<String>,
    containers: Vec<String>,
    expected: Vec<Expected>,
}

fn is_variant(container_type: &str) -> bool {
    container_type.starts_with("Enum:")
}

impl ModuleVisitor for Visitor {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // burn's own rules for names and transposes, on a tensor without data.
        let nothing = || Err(PackError::ValidationError("a tensor without data".to_owned()));
        let adapted = |shape| {
            let tensor = bridge::deferred(self.path.join("."), DType::F32, shape, None, nothing);
            BurnToPyTorchAdapter.adapt(tensor, ModuleContext::new(&self.containers))
        };
        let tensor = adapted(param.lazy_shape());
        self.expected.push(Expected {
            name: tensor.name,
            shape: tensor.shape,
            // A square weight would not show it.
            is_transposed: D == 2 && *adapted(Shape::from(vec![1, 2])).shape == [2, 1],
        });
    }

    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.containers.push(container_type.to_owned());
        if !is_variant(container_type) {
            self.path.push(name.to_owned());
        }
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        self.containers.pop();
        if !is_variant(container_type) {
            self.path.pop();
        }
    }
}

/// The tensors of `named` that `expected` asks for, in its order, where they are all there and nothing is left over that
/// `is_explained` does not know.
pub(super) fn fit(
    expected: Vec<Expected>,
    named: &mut BTreeMap<String, Keyed>,
    mut is_explained: impl FnMut(&str) -> bool,
) -> Result<Vec<Matched>, WeightsErrorKind> {
    let mut misfit = Misfit::default();
    let mut matched = Vec::with_capacity(expected.len());
    for expected in expected {
        let Expected { name, shape, .. } = &expected;
        let Some(keyed) = named.remove(name) else {
            misfit.missing.push(name.clone());
            continue;
        };
        let lacking = keyed.lacking();
        if !lacking.is_empty() {
            let (count, lacking) = (keyed.count(), lacking.into_iter());
            misfit
                .missing
                .extend(lacking.map(|index| format!("{name} (part {} of {count})", index + 1)));
            continue;
        }
        let found = keyed.shape()?;
        let other = keyed.dtypes().find(|dtype| !dtype.is_float());
        match other {
            _ if !fits(&found, shape) => misfit.shapes.push((name.clone(), found, shape.clone())),
            Some(dtype) => misfit.dtypes.push((name.clone(), dtype)),
            None => matched.push(Matched { keyed, expected }),
        }
    }
    misfit.unexpected = named.keys().filter(|name| !is_explained(name)).cloned().collect();
    if misfit.is_empty() {
        Ok(matched)
    } else {
        Err(WeightsErrorKind::Misfit(misfit))
    }
}

/// Whether a tensor of `found` is one of `expected`: PyTorch has tensors without a dimension, burn's have at least one.
fn fits(found: &Shape, expected: &Shape) -> bool {
    found == expected || (found.num_dims() == 0 && expected.num_dims() == 1 && expected.num_elements() == 1)
}
