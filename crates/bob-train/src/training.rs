//! One training step.

use bob_core::{Backbone, initialize, num_parameters};
use bob_ops::AdamW;
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Gradients, Tensor};

/// A backbone with a linear classifier, and the optimizer that trains both on the cross-entropy.
pub struct Training<B: Backbone> {
    model: Classified<B>,
    optimizer: ModuleOptimizer,
    num_classes: usize,
}

/// A backbone and the classifier that it lacks.
#[derive(Module, Debug)]
struct Classified<B: Module> {
    backbone: B,
    /// Absent where the backbone has its own.
    head: Option<Linear>,
}

impl<B: Backbone> Training<B> {
    /// Train `backbone`, which lies on `device`, by its own classifier, or where it has none by a new one of
    /// `num_classes`, drawn from `seed` as PyTorch draws a linear layer.
    ///
    /// # Panics
    /// Where the device does not track gradients.
    pub fn new(backbone: B, num_classes: usize, optimizer: AdamW, seed: u64, device: &Device) -> Self {
        assert!(
            device.is_autodiff(),
            "training on {device:?}, which tracks no gradients"
        );
        let own = own_classes(&backbone, device);
        let head = || LinearConfig::new(backbone.num_features(), num_classes).init(device);
        let head = own.is_none().then(|| initialize(seed, device, head));
        Self {
            model: Classified { backbone, head },
            optimizer: optimizer.init(),
            num_classes: own.unwrap_or(num_classes),
        }
    }

    /// Classes that are told apart.
    pub fn num_classes(&self) -> usize {
        self.num_classes
    }

    /// Number of trained parameters, the classifier's included.
    pub fn num_parameters(&self) -> usize {
        num_parameters(&self.model)
    }

    /// The cross-entropy of the model as it trains, against `targets` smoothed by `smoothing` (in `0..=1`).
    ///
    /// # Shapes
    ///   - images: `[batch, 3, height, width]`, normalised
    ///   - targets: `[batch, num_classes]`, rows that add up to one
    ///   - output: `[1]`
    pub fn loss(&self, images: Tensor<4>, targets: Tensor<2>, smoothing: f64) -> Tensor<1> {
        bob_ops::cross_entropy(self.model.forward(images), targets, smoothing)
    }

    /// The training after the optimizer's step along `gradients`, which [`Self::loss`]'s `backward` gave.
    pub fn update(mut self, gradients: Gradients, learning_rate: f64) -> Self {
        let gradients = GradientsParams::from_grads(gradients, &self.model);
        self.model = self.optimizer.step(learning_rate, self.model, gradients);
        self
    }

    /// One step: [`Self::loss`], its gradients, [`Self::update`]. The loss is that before the step, without its graph.
    ///
    /// Take all steps on one thread, best within one [`bob_ops::on_cores`]: burn keeps the running statistics of a batch
    /// norm per thread, and steps on several would leave the mean of what each saw.
    pub fn step(self, images: Tensor<4>, targets: Tensor<2>, learning_rate: f64, smoothing: f64) -> (Self, Tensor<1>) {
        let loss = self.loss(images, targets, smoothing);
        let gradients = loss.backward();
        (self.update(gradients, learning_rate), loss.detach())
    }

    /// A function that scores images with the model as it is now, on a plain device, in inference.
    ///
    /// # Shapes
    ///   - its input: `[batch, 3, height, width]`, normalised, on the plain device
    ///   - its output: `[batch, num_classes]`, logits
    pub fn classifier(&self) -> impl Fn(Tensor<4>) -> Tensor<2> + use<B> {
        let model = self.model.valid();
        move |images| model.forward(images)
    }

    /// The backbone as it is now trained, on a plain device, its running statistics up to date.
    pub fn into_backbone(self) -> B {
        self.model.backbone.valid()
    }
}

/// Classes of the backbone's own classifier.
fn own_classes<B: Backbone>(backbone: &B, device: &Device) -> Option<usize> {
    let embedding = Tensor::zeros([1, backbone.num_features()], device);
    let [_, classes] = backbone.forward_classifier(embedding)?.dims();
    Some(classes)
}

impl<B: Backbone> Classified<B> {
    /// # Shapes
    ///   - images: `[batch, 3, height, width]`
    ///   - output: `[batch, classes]`
    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let embedding = self.backbone.forward_embedding(images);
        match &self.head {
            Some(head) => bob_ops::nn::linear(head, embedding, bob_ops::Epilogue::none()),
            None => self
                .backbone
                .forward_classifier(embedding)
                .expect("without a head the backbone has a classifier"),
        }
    }
}
