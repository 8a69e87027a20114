//! The clock on training, on a backbone small enough to see through.

use bob_core::device::{BackendName, select};
use bob_core::{Backbone, FeatureInfo};
use bob_efficiency::{LEARNING_RATE, Protocol, StepSeconds, measure_training, protocols, training};
use bob_stats::Bootstrap;
use burn::module::{Module, ParamId};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};

/// A convolution, and a classifier where it has one.
#[derive(Module, Debug)]
struct Small {
    conv: Conv2d,
    head: Option<Linear>,
}

impl Backbone for Small {
    fn feature_info(&self) -> Vec<FeatureInfo> {
        vec![FeatureInfo::new(4, 32, "conv")]
    }
    fn num_features(&self) -> usize {
        4
    }
    fn forward_intermediates(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        vec![self.conv.forward(images)]
    }
    fn forward_embedding(&self, images: Tensor<4>) -> Tensor<2> {
        self.conv.forward(images).mean_dim(3).mean_dim(2).flatten(1, 3)
    }
    fn forward_classifier(&self, embedding: Tensor<2>) -> Option<Tensor<2>> {
        self.head.as_ref().map(|head| head.forward(embedding))
    }
    fn layer_groups(&self) -> Vec<Vec<ParamId>> {
        Vec::new()
    }
}

fn device() -> Device {
    select(BackendName::Flex).expect("linked for tests").autodiff()
}

fn small(classes: Option<usize>) -> Small {
    let device = device();
    Small {
        conv: Conv2dConfig::new([3, 4], [32, 32]).with_stride([32, 32]).init(&device),
        head: classes.map(|classes| LinearConfig::new(4, classes).init(&device)),
    }
}

fn quick() -> Protocol {
    let mut protocol = protocols().remove(0);
    protocol.warmup_seconds = 0.0;
    protocol.throughput_seconds = 0.0;
    protocol
}

const CONV: u64 = 4 * 3 * 32 * 32 + 4;

#[test]
fn the_parts_of_a_step_are_timed() {
    let check = |classes: Option<usize>, parameters: u64| {
        let measurement = measure_training(small(classes), [64, 64], &quick(), &device()).expect("runs");
        assert_eq!((measurement.batch, measurement.input_size), (8, [64, 64]));
        assert_eq!(
            (measurement.warmup_steps, measurement.steps.len()),
            (2, quick().min_runs)
        );
        assert_eq!(measurement.parameters, parameters);
        for step in &measurement.steps {
            assert!(
                step.forward > 0.0 && step.backward > 0.0 && step.optimizer > 0.0,
                "{step:?}"
            );
        }
        let chance = (classes.unwrap_or(1000) as f32).ln();
        assert!(
            (measurement.loss - chance).abs() < 1.5,
            "{} against {chance}",
            measurement.loss
        );
        assert!(measurement.images_per_second() > 0.0);
        if let (Some(above), Some(whole)) = (measurement.peak_memory_bytes, measurement.peak_process_bytes) {
            assert!(above < whole, "{above} of {whole}");
        }

        let metrics = measurement.metrics(0.5, &Bootstrap::default()).expect("metrics");
        let names: Vec<_> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        let expected = [
            "images_per_second",
            "forward_seconds",
            "backward_seconds",
            "optimizer_seconds",
            "step_seconds",
            "load_seconds",
            "peak_memory_bytes",
            "peak_process_bytes",
            "parameters",
            "steps",
            "warmup_steps",
        ];
        assert_eq!(names, expected);
        assert_eq!(metrics[4].value, measurement.median_seconds(StepSeconds::total));
    };
    check(Some(7), CONV + 4 * 7 + 7);
    check(None, CONV + 4 * 1000 + 1000);
}

#[test]
fn a_step_is_one_of_adamw() {
    let device = device();
    let backbone = small(Some(2));
    let before = backbone.conv.weight.val();
    let images = Tensor::ones([2, 3, 64, 64], &device);
    let targets = Tensor::from_floats([[1.0, 0.0], [1.0, 0.0]], &device);
    let before_step = training(backbone, &device);
    assert_eq!(before_step.num_classes(), 2);
    let (after_step, first) = before_step.step(images.clone(), targets.clone(), LEARNING_RATE, 0.0);
    let trained = after_step.into_backbone();
    // The first step of Adam is the learning rate in the direction of the sign, whatever the gradient's size.
    let decayed = before.inner() * (1.0 - 1e-4 * 0.05);
    let moved = (trained.conv.weight.val() - decayed).abs().into_data();
    for moved in moved.try_to_vec::<f32>().expect("floats") {
        assert!((moved - 1e-4).abs() < 2e-7, "{moved}");
    }
    let (_, second) = training(trained.train(), &device).step(images, targets, LEARNING_RATE, 0.0);
    let [first, second] = [first, second].map(Tensor::into_scalar::<f32>);
    assert!(second < first, "{second} after {first}");
}

#[test]
fn what_cannot_be_trained_on_is_refused() {
    let check = |size: [usize; 2], batch: usize, expected: &str| {
        let mut protocol = quick();
        protocol.batch = batch;
        let error = measure_training(small(None), size, &protocol, &device()).expect_err("must be refused");
        assert_eq!(error.to_string(), expected);
    };
    check([48, 64], 8, "images of 48x64 pixels; expected multiples of 32");
    check([0, 64], 8, "images of 0x64 pixels; expected multiples of 32");
    check(
        [32, 32],
        1,
        "a training step on one image of 32x32 pixels: its last map has one value per channel, too few for batch norm; \
         expected a larger batch or larger images",
    );
}

#[test]
fn a_loss_that_is_no_number_is_no_measurement() {
    let mut broken = small(None);
    broken.conv.weight = broken
        .conv
        .weight
        .map(|weight| (weight * f32::NAN).detach().require_grad());
    let error = measure_training(broken, [32, 32], &quick(), &device()).expect_err("must be refused");
    assert_eq!(error.to_string(), "the loss is NaN after 7 training steps");
}
