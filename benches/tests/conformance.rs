//! The same code on every backend: a tiny member of every family runs forward, and takes one training step, on each
//! backend that is linked, and must agree with `flex`.
//!
//! `cargo test --profile conformance -p bob-benches --features flex,wgpu,tch --test conformance`

#![expect(clippy::print_stderr, reason = "a test says what it saw")]

use std::path::PathBuf;

use bob_core::Backbone;
use bob_core::device::{self, BackendName};
use bob_models::{
    Activation, AnyBackbone, BlockType, ConvNextConfig, EfficientNetConfig, ResNetConfig, StageConfig, StemType,
    SwinTransformerV2Config, VisionTransformerConfig,
};
use burn::optim::{GradientsParams, SgdConfig};
use burn::store::{ModuleSnapshot, ModuleStore, PyTorchToBurnAdapter, SafetensorsStore, bridge};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};

/// Learning rate of the one step: large enough that a wrong gradient shows in the outputs after it.
const LEARNING_RATE: f64 = 0.05;

/// How a backbone is initialised on a device.
type Init = fn(&Device) -> AnyBackbone;

/// A tiny member of every family: the fixture with its weights and images, and how it is initialised.
fn members() -> Vec<(&'static str, Init)> {
    vec![
        ("resnet_bottleneck_d", |device| {
            ResNetConfig::new([BlockType::Bottleneck; 4], [1, 1, 1, 2])
                .with_channels([4, 4, 8, 8])
                .with_stem_type(StemType::Deep)
                .with_stem_width(8)
                .with_avg_down(true)
                .with_num_classes(7)
                .init(device)
                .into()
        }),
        ("efficientnet_se", |device| {
            let stages = [
                [1, 3, 1, 1, 8],
                [2, 3, 2, 3, 8],
                [1, 5, 2, 3, 16],
                [1, 3, 2, 3, 16],
                [1, 5, 2, 3, 24],
            ];
            let stages = stages.map(|[repeats, kernel, stride, expansion, channels]| {
                StageConfig::new(repeats, kernel, stride, expansion, channels)
            });
            EfficientNetConfig::new(stages.to_vec(), Activation::Silu)
                .with_se_ratio(0.25)
                .with_stem_size(8)
                .with_num_features(32)
                .with_num_classes(7)
                .init(device)
                .into()
        }),
        ("convnext_linear_mlp", |device| {
            ConvNextConfig::new([1, 1, 2, 1], [6, 8, 12, 16])
                .with_num_classes(16)
                .init(device)
                .into()
        }),
        ("vit_token", |device| {
            VisionTransformerConfig::new(16, 3, 2)
                .with_input_size([32, 32])
                .with_patch_size(8)
                .with_num_classes(16)
                .init(device)
                .into()
        }),
        ("swinv2_shift", |device| {
            SwinTransformerV2Config::new(8, vec![2, 2], vec![2, 4], 4)
                .with_input_size([32, 48])
                .with_num_classes(16)
                .init(device)
                .into()
        }),
    ]
}

fn store(name: &str) -> SafetensorsStore {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/models"));
    SafetensorsStore::from_file(folder.join(format!("{name}.safetensors")))
        .with_from_adapter(PyTorchToBurnAdapter)
        .skip_enum_variants(true)
        .allow_partial(true)
        .validate(false)
}

fn load(name: &str, init: Init, device: &Device) -> AnyBackbone {
    let mut backbone = init(device);
    let result = backbone.load_from(&mut store(name)).expect("the fixture is readable");
    assert!(
        result.errors.is_empty() && result.missing.is_empty(),
        "{name}: {result}"
    );
    backbone
}

fn images(name: &str, device: &Device) -> Tensor<4> {
    let mut store = store(name);
    let tensor = store
        .get_tensor("images")
        .expect("the fixture is readable")
        .expect("it has images")
        .clone();
    Tensor::from_data(bridge::into_data(tensor).expect("images are floats"), device)
}

/// Eight images of noise: enough that the batch statistics of the last maps are well conditioned.
fn noise([height, width]: [usize; 2], device: &Device) -> Tensor<4> {
    let shape = [8, 3, height, width];
    let values: Vec<f32> = (0..shape.iter().product::<usize>())
        .map(|i| ((i as f64 * 12.9898).sin() * 43_758.545_3).fract() as f32)
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Embedding, logits and maps of the backbone, folded, on a plain device.
fn forward(name: &str, init: Init, device: &Device) -> Vec<TensorData> {
    let backbone = load(name, init, device).fuse();
    let images = images(name, device);
    let embedding = backbone.forward_embedding(images.clone());
    let logits = backbone
        .forward_classifier(embedding.clone())
        .expect("the fixture has a classifier");
    let maps = backbone.forward_intermediates(images);
    [embedding.into_data(), logits.into_data()]
        .into_iter()
        .chain(maps.into_iter().map(Tensor::into_data))
        .collect()
}

/// The logits after one step of gradient descent on the cross-entropy against class 1.
fn step(name: &str, init: Init, device: &Device) -> Vec<TensorData> {
    let tracked = device.clone().autodiff();
    let model = load(name, init, &tracked);
    let images = noise(model.fixed_input_size().unwrap_or([96, 96]), &tracked);
    let logits = |model: &AnyBackbone| {
        let embedding = model.forward_embedding(images.clone());
        model
            .forward_classifier(embedding)
            .expect("the fixture has a classifier")
    };
    let before = logits(&model);
    let [batch, _] = before.dims();
    let loss = -log_softmax(before.clone(), 1).narrow(1, 1, 1).sum() / batch as f64;
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    let stepped = SgdConfig::new().init().step(LEARNING_RATE, model, gradients);
    let after = logits(&stepped);
    let moved = relative_error(&after.clone().into_data(), &before.into_data());
    assert!(moved > 1e-3, "{name}: the step moved the logits by {moved:.1e} only");
    vec![loss.into_data(), after.into_data()]
}

fn relative_error(found: &TensorData, expected: &TensorData) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    let values = |data: &TensorData| data.clone().convert::<f32>().try_to_vec::<f32>().expect("floats");
    let (found, expected) = (values(found), values(expected));
    let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v) * f64::from(v)).sum::<f64>();
    let difference = squares(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
    (difference / squares(&mut expected.iter().copied())).sqrt()
}

/// `tolerance` of the forward pass; the logits after a step may be ten times as far, since gradients add up more rounding.
fn check(backend: BackendName, tolerance: f64) {
    let reference = device::select(BackendName::Flex).expect("the test is built with flex");
    let device = device::select(backend).expect("checked by the caller");
    for (name, init) in members() {
        for (what, run, tolerance) in [
            ("forward", forward as fn(_, _, &Device) -> Vec<TensorData>, tolerance),
            ("step", step, 10.0 * tolerance),
        ] {
            let errors: Vec<f64> = run(name, init, &device)
                .iter()
                .zip(&run(name, init, &reference))
                .map(|(found, expected)| relative_error(found, expected))
                .collect();
            eprintln!("{backend} {name} {what}: {errors:?}");
            assert!(
                errors.iter().all(|error| *error <= tolerance),
                "{backend} {name} {what}: {errors:?}"
            );
        }
    }
}

#[cfg(feature = "tch")]
#[test]
fn tch_agrees_with_flex() {
    check(BackendName::Tch, 1e-5);
}

#[cfg(feature = "wgpu")]
#[test]
fn wgpu_agrees_with_flex() {
    check(BackendName::Wgpu, 1e-3);
}

#[test]
fn flex_repeats_itself() {
    check(BackendName::Flex, 0.0);
}
