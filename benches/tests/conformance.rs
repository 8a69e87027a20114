//! The same code on every backend: a tiny member of every family runs forward, and takes one training step, on each
//! backend that is linked, and must agree with `flex`.
//!
//! `cargo test --profile conformance -p bob-benches --features flex,wgpu,tch --test conformance`

#![expect(clippy::print_stderr, reason = "a test says what it saw")]

use std::path::PathBuf;

#[cfg(feature = "tch")]
use bob_core::Autocast;
use bob_core::Backbone;
#[cfg(feature = "tch")]
use bob_core::device::Precision;
use bob_core::device::{self, BackendName};
use bob_models::weights::{LoadOptions, load_module};
use bob_models::{
    Activation, AnyBackbone, AutoencoderConfig, BlockType, ClipResNetConfig, ConvNextConfig, EfficientNetConfig,
    NormFreeNetConfig, RegNetConfig, ResNetConfig, StableDiffusionConfig, StageConfig, StemType,
    SwinTransformerV2Config, TextConfig, UnetConfig, VisionTransformerConfig, VisionTransformerSamConfig, checkpoints,
};
use burn::optim::{GradientsParams, SgdConfig};
use burn::store::{ModuleStore, SafetensorsStore, bridge};
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
        ("nfnet_deepmind", |device| {
            NormFreeNetConfig::new([1, 2, 1, 1], [8, 16, 24, 24])
                .with_stem_chs(16)
                .with_group_size(Some(8))
                .with_num_features(32)
                .with_gamma_in_act(true)
                .with_same_padding(true)
                .with_skipinit(true)
                .with_num_classes(7)
                .init(device)
                .into()
        }),
        ("regnet_y", |device| {
            RegNetConfig::new(5, 8, 8.0, 1.6, 8)
                .with_se_ratio(0.25)
                .with_num_classes(7)
                .init(device)
                .into()
        }),
        ("clip_resnet", |device| {
            ClipResNetConfig::new([1, 2, 1, 1], 16)
                .with_width(2)
                .with_head_dim(32)
                .with_input_size([32, 96])
                .init(device)
                .into()
        }),
        ("samvit", |device| {
            VisionTransformerSamConfig::new(16, 3, 2, vec![1])
                .with_input_size([32, 40])
                .with_patch_size(8)
                .with_window_size(3)
                .with_neck_chans(8)
                .with_num_classes(7)
                .init(device)
                .into()
        }),
        ("stable_diffusion_tiny", |device| {
            let first_stage = AutoencoderConfig::new().with_ch(2).with_ch_mult(vec![1, 2, 2]);
            let unet = UnetConfig::new()
                .with_model_channels(4)
                .with_channel_mult(vec![1, 2, 3])
                .with_attention_resolutions(vec![2, 1])
                .with_num_heads(2);
            let text = TextConfig::new()
                .with_vocab_size(11)
                .with_hidden_size(8)
                .with_intermediate_size(16)
                .with_num_hidden_layers(2)
                .with_num_attention_heads(2)
                .with_max_position_embeddings(6)
                .with_prompt(vec![9, 3, 5, 10]);
            StableDiffusionConfig::new()
                .with_first_stage_config(first_stage.with_num_groups(2))
                .with_unet_config(unet.with_num_groups(2))
                .with_cond_stage_config(text)
                .init(device)
                .into()
        }),
    ]
}

/// What a fixture holds besides weights.
const OUTPUTS: &[&str] = &[
    "*.num_batches_tracked",
    "images",
    "embedding",
    "logits",
    "stage0",
    "stage1",
    "stage2",
    "stage3",
    "stage4",
];

fn path(name: &str) -> PathBuf {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/models"));
    folder.join(format!("{name}.safetensors"))
}

fn load(name: &str, init: Init, device: &Device) -> AnyBackbone {
    // Only the files of these families have names that are not ours, or tensors besides.
    let entry = checkpoints().into_iter().find(|entry| {
        let family = entry.checkpoint.family.as_str();
        ["regnet", "stable_diffusion"].contains(&family) && name.starts_with(family)
    });
    let mut options = entry.map_or_else(LoadOptions::default, |entry| entry.options);
    options.ignored.extend(OUTPUTS.iter().map(|&name| name.to_owned()));
    load_module(init(device), &path(name), &options)
        .expect("the fixture is readable and fits")
        .0
}

fn images(name: &str, device: &Device) -> Tensor<4> {
    let mut store = SafetensorsStore::from_file(path(name));
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
fn forward<B: Backbone>(name: &str, backbone: B, device: &Device) -> Vec<TensorData> {
    let backbone = backbone.fuse();
    let images = images(name, device);
    let embedding = backbone.forward_embedding(images.clone());
    let logits = outputs(&backbone, embedding.clone());
    let maps = backbone.forward_intermediates(images);
    [embedding.into_data(), logits.into_data()]
        .into_iter()
        .chain(maps.into_iter().map(Tensor::into_data))
        .collect()
}

/// The logits, or where there is no classifier the embedding itself.
fn outputs<B: Backbone>(backbone: &B, embedding: Tensor<2>) -> Tensor<2> {
    backbone.forward_classifier(embedding.clone()).unwrap_or(embedding)
}

/// The logits after one step of gradient descent on the cross-entropy against class 1.
fn step<B: Backbone>(name: &str, model: B, tracked: &Device) -> Vec<TensorData> {
    let images = noise(model.fixed_input_size().unwrap_or([96, 96]), tracked);
    let logits = |model: &B| outputs(model, model.forward_embedding(images.clone()));
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

/// What a member gives in a pass and after a step, `wrap`ped, on `backend`.
fn run<B: Backbone>(
    backend: BackendName,
    name: &str,
    init: Init,
    wrap: impl Fn(AnyBackbone) -> B,
) -> [(&'static str, Vec<TensorData>); 2] {
    let device = device::select(backend).expect("checked by the caller");
    let tracked = device.clone().autodiff();
    [
        ("forward", forward(name, wrap(load(name, init, &device)), &device)),
        ("step", step(name, wrap(load(name, init, &tracked)), &tracked)),
    ]
}

/// `tolerances` of the forward pass and of the loss and the logits after a step, with batch norm and without; every error
/// is above `floor`.
fn check<B: Backbone>(backend: BackendName, wrap: impl Fn(AnyBackbone) -> B, tolerances: [[f64; 2]; 2], floor: f64) {
    let reference = device::select(BackendName::Flex).expect("the test is built with flex");
    for (name, init) in members() {
        let without = init(&reference).set_grad_checkpointing(true);
        let tolerances = tolerances[usize::from(without)];
        let found = run(backend, name, init, &wrap);
        let expected = run(BackendName::Flex, name, init, |backbone| backbone);
        for (((what, found), (_, expected)), tolerance) in found.iter().zip(&expected).zip(tolerances) {
            let errors: Vec<f64> = found
                .iter()
                .zip(expected)
                .map(|(found, expected)| relative_error(found, expected))
                .collect();
            eprintln!("{backend} {name} {what}: {errors:?}");
            assert!(
                errors.iter().all(|error| (floor..=tolerance).contains(error)),
                "{backend} {name} {what}: {errors:?}"
            );
        }
    }
}

/// The logits after a step may be ten times as far, since gradients add up more rounding.
fn check_float32(backend: BackendName, tolerance: f64) {
    check(backend, |backbone| backbone, [[tolerance, 10.0 * tolerance]; 2], 0.0);
}

#[cfg(feature = "tch")]
#[test]
fn tch_agrees_with_flex() {
    check_float32(BackendName::Tch, 1e-5);
}

/// Eight bits of mantissa give 4e-3 a rounding, and the floor says that they were the ones in use. A step through batch
/// norms of few values multiplies an error by some hundred, and Swin V2's cosines of few channels by some ten, as the float32
/// figures show.
#[cfg(feature = "tch")]
#[test]
fn bfloat16_on_tch_is_near_float32_on_flex() {
    let wrap =
        |backbone| Autocast::new(backbone, BackendName::Tch, Precision::Bf16).expect("LibTorch computes in bfloat16");
    check(BackendName::Tch, wrap, [[3e-2, 5e-1], [1.5e-1, 3e-1]], 1e-5);
}

/// Of the families without batch norm: what is computed again is the same.
#[test]
fn a_step_with_grad_checkpointing_is_the_same_step() {
    let mut families = 0;
    for backend in [BackendName::Flex, BackendName::Tch] {
        let Ok(device) = device::select(backend) else { continue };
        let tracked = device.autodiff();
        for (name, init) in members() {
            let mut backbone = load(name, init, &tracked);
            if backbone.set_grad_checkpointing(true) {
                families += 1;
                let found = step(name, backbone, &tracked);
                let expected = step(name, load(name, init, &tracked), &tracked);
                // Without a graph, as a block is passed first, ATen attends with a bias by another kernel than with one.
                let tolerance = if backend == BackendName::Tch { 1e-5 } else { 1e-6 };
                for (found, expected) in found.iter().zip(&expected) {
                    let error = relative_error(found, expected);
                    assert!(error <= tolerance, "{backend} {name}: {error:.1e}");
                }
            }
        }
    }
    assert!(families >= 3, "{families} families");
}

#[cfg(feature = "wgpu")]
#[test]
fn wgpu_agrees_with_flex() {
    check_float32(BackendName::Wgpu, 1e-3);
}

#[test]
fn flex_repeats_itself() {
    check_float32(BackendName::Flex, 0.0);
}
