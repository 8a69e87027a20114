//! Mixed precision around any backbone.

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{DType, Tensor};

use crate::device::{BackendName, DeviceError, Precision};
use crate::{Backbone, CostCounter, FeatureInfo};

/// A backbone that computes in a [`Precision`] with float32 parameters, as under PyTorch's `torch.autocast`; in float32 it
/// is the backbone itself.
///
/// In bfloat16 images become bfloat16, and the operations of `bob-ops` take a parameter in the type of what it meets; gradients of
/// parameters are float32. Embedding and maps are given out in float32, which the classifier sees.
/// [`Backbone::fuse`] also turns the weights of linear layers and convolutions to bfloat16, once.
///
/// A backbone of your own must take bfloat16 images beside float32 parameters: burn's own layers do not.
#[derive(Module, Debug)]
pub struct Autocast<B: Module> {
    backbone: B,
    #[module(skip)]
    precision: Precision,
}

impl<B: Backbone> Autocast<B> {
    /// Wrap `backbone`, which lies on a device of `backend`.
    ///
    /// # Errors
    /// Where the backend does not compute in `precision`; see [`BackendName::computes_in`].
    pub fn new(backbone: B, backend: BackendName, precision: Precision) -> Result<Self, DeviceError> {
        backend.check(precision)?;
        Ok(Self { backbone, precision })
    }

    fn cast(&self, images: Tensor<4>) -> Tensor<4> {
        match self.precision {
            Precision::F32 => images,
            Precision::Bf16 => images.cast(DType::BF16),
        }
    }
}

impl<B: Backbone> Backbone for Autocast<B> {
    fn feature_info(&self) -> Vec<FeatureInfo> {
        self.backbone.feature_info()
    }

    fn num_features(&self) -> usize {
        self.backbone.num_features()
    }

    fn forward_intermediates(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        let maps = self.backbone.forward_intermediates(self.cast(images));
        maps.into_iter().map(|map| map.cast(DType::F32)).collect()
    }

    fn forward_embedding(&self, images: Tensor<4>) -> Tensor<2> {
        self.backbone.forward_embedding(self.cast(images)).cast(DType::F32)
    }

    fn forward_classifier(&self, embedding: Tensor<2>) -> Option<Tensor<2>> {
        self.backbone.forward_classifier(embedding)
    }

    fn size_divisibility(&self) -> usize {
        self.backbone.size_divisibility()
    }

    fn fixed_input_size(&self) -> Option<[usize; 2]> {
        self.backbone.fixed_input_size()
    }

    fn layer_groups(&self) -> Vec<Vec<ParamId>> {
        self.backbone.layer_groups()
    }

    fn fuse(self) -> Self {
        let backbone = self.backbone.fuse();
        Self {
            backbone: match self.precision {
                Precision::F32 => backbone,
                Precision::Bf16 => backbone.map(&mut Weights::default()),
            },
            precision: self.precision,
        }
    }

    fn set_grad_checkpointing(&mut self, enable: bool) -> bool {
        self.backbone.set_grad_checkpointing(enable)
    }

    fn count(&self, counter: &mut CostCounter, input_size: [usize; 2]) {
        self.backbone.count(counter, input_size);
    }
}

/// Turns the weights of linear layers and convolutions to bfloat16.
#[derive(Default)]
struct Weights {
    /// Type and field of every module on the way.
    path: Vec<(String, String)>,
}

impl ModuleMapper for Weights {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.push((container_type.to_owned(), name.to_owned()));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let is_weight = self.path.last().is_some_and(|(container, name)| {
            name == "weight" && matches!(container.as_str(), "Struct:Linear" | "Struct:Conv2d")
        });
        if is_weight {
            param.map(|weight| weight.cast(DType::BF16))
        } else {
            param
        }
    }
}
