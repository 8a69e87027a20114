//! ConvNeXt, ViT and Swin V2 against timm's own outputs: `fixtures/make_models_transformers.py`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use bob_core::{Backbone, CostCounter, num_parameters};
use bob_models::{
    AnyBackbone, ConvNextConfig, GlobalPool, InitOptions, SwinTransformerV2Config, VisionTransformerConfig,
    architectures,
};
use burn::module::{Module, ModuleVisitor, Param, list_param_ids};
use burn::store::{ModuleSnapshot, ModuleStore, PyTorchToBurnAdapter, SafetensorsStore, bridge};
use burn::tensor::{Device, Tensor};

/// Relative L2 error allowed against timm, an order above what float32 gives.
const TOLERANCE: f64 = 1e-5;
/// What the fixtures hold besides weights and maps.
const OUTPUTS: [&str; 3] = ["images", "embedding", "logits"];

fn store(name: &str) -> SafetensorsStore {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/models"));
    SafetensorsStore::from_file(folder.join(format!("{name}.safetensors")))
        .with_from_adapter(PyTorchToBurnAdapter)
        .skip_enum_variants(true)
        .allow_partial(true)
        .validate(false)
}

fn load(mut backbone: AnyBackbone, name: &str) -> AnyBackbone {
    let result = backbone.load_from(&mut store(name)).unwrap();
    assert!(
        result.errors.is_empty() && result.missing.is_empty(),
        "{name}: {result}"
    );
    let unused: Vec<_> = result
        .unused
        .iter()
        .filter(|key| !OUTPUTS.contains(&key.as_str()) && !key.starts_with("stage") || key.starts_with("stages"))
        .collect();
    assert!(unused.is_empty(), "{name}: {unused:?}");
    backbone
}

fn oracle<const D: usize>(name: &str, key: &str) -> Option<Tensor<D>> {
    let mut store = store(name);
    let tensor = store.get_tensor(key).unwrap()?.clone();
    Some(Tensor::from_data(bridge::into_data(tensor).unwrap(), &Device::flex()))
}

fn relative_error<const D: usize>(actual: Tensor<D>, expected: Tensor<D>) -> f64 {
    assert_eq!(actual.dims(), expected.dims());
    let norm = |x: Tensor<D>| x.clone().mul(x).sum().into_scalar::<f32>().sqrt();
    f64::from(norm(actual - expected.clone()) / norm(expected))
}

fn check_outputs(backbone: &AnyBackbone, name: &str, how: &str) {
    let images: Tensor<4> = oracle(name, "images").unwrap();
    let [_, _, height, width] = images.dims();
    let info = backbone.feature_info();

    let embedding = backbone.forward_embedding(images.clone());
    assert_eq!(embedding.dims()[1], backbone.num_features(), "{name}");
    let logits = backbone.forward_classifier(embedding.clone()).unwrap();
    let maps = backbone.forward_intermediates(images);
    assert_eq!(maps.len(), info.len(), "{name}");
    assert!(
        oracle::<4>(name, &format!("stage{}", maps.len())).is_none(),
        "{name}: a map is not given"
    );

    let mut errors = vec![
        relative_error(embedding, oracle(name, "embedding").unwrap()),
        relative_error(logits, oracle(name, "logits").unwrap()),
    ];
    for (i, (map, info)) in maps.into_iter().zip(info).enumerate() {
        let [_, channels, rows, columns] = map.dims();
        assert_eq!(channels, info.num_chs, "{name} stage{i}");
        if height % info.reduction == 0 && width % info.reduction == 0 {
            assert_eq!(
                [rows, columns],
                [height / info.reduction, width / info.reduction],
                "{name} stage{i}"
            );
        }
        errors.push(relative_error(map, oracle(name, &format!("stage{i}")).unwrap()));
    }
    // Written so that a NaN fails.
    assert!(
        errors.iter().all(|error| *error < TOLERANCE),
        "{name} {how}: {errors:?}"
    );
}

/// Embedding, logits and every map equal timm's, folded and not.
fn check(name: &str, backbone: impl Into<AnyBackbone>) {
    let backbone = load(backbone.into(), name);
    check_outputs(&backbone, name, "as loaded");
    check_outputs(&backbone.fuse(), name, "fused");
}

fn convnext() -> ConvNextConfig {
    ConvNextConfig::new([1, 1, 2, 1], [6, 8, 12, 16]).with_num_classes(16)
}

fn vit() -> VisionTransformerConfig {
    VisionTransformerConfig::new(16, 3, 2)
        .with_input_size([32, 32])
        .with_patch_size(8)
        .with_num_classes(16)
}

fn swin(window_size: usize, input_size: [usize; 2]) -> SwinTransformerV2Config {
    SwinTransformerV2Config::new(8, vec![2, 2], vec![2, 4], window_size)
        .with_input_size(input_size)
        .with_num_classes(16)
}

#[test]
fn convnext_equals_timm() {
    let device = Device::flex();
    check("convnext_linear_mlp", convnext().init(&device));
    check("convnext_conv_mlp", convnext().with_conv_mlp(true).init(&device));
}

#[test]
fn vit_equals_timm() {
    let device = Device::flex();
    let scaled = || vit().with_init_values(Some(0.1));
    check("vit_token", vit().init(&device));
    check(
        "vit_avg_layer_scale",
        scaled().with_global_pool(GlobalPool::Avg).init(&device),
    );
    check(
        "vit_reg_no_embed_class",
        scaled().with_reg_tokens(2).with_no_embed_class(true).init(&device),
    );
    check(
        "vit_pre_norm",
        vit().with_pre_norm(true).with_norm_epsilon(1e-5).init(&device),
    );
}

#[test]
fn vit_of_another_size_equals_timm() {
    let device = Device::flex();
    for name in ["vit_dynamic_up", "vit_dynamic_down", "vit_loaded_at_another_size"] {
        check(name, vit().init(&device));
        let [_, _, height, width] = oracle::<4>(name, "images").unwrap().dims();
        let AnyBackbone::VisionTransformer(loaded) = load(vit().init(&device).into(), name) else {
            unreachable!("a ViT stays a ViT")
        };
        check_outputs(&loaded.set_input_size([height, width]).into(), name, "resized once");
    }
}

#[test]
fn swinv2_equals_timm() {
    let device = Device::flex();
    check("swinv2_shift", swin(4, [32, 48]).init(&device));
    check(
        "swinv2_pretrained_window",
        swin(4, [32, 32]).with_pretrained_window_sizes(vec![3, 2]).init(&device),
    );
    check("swinv2_small_map", swin(8, [32, 32]).init(&device));
    check("swinv2_padded", swin(4, [40, 40]).init(&device));
}

/// Architecture, parameters, and timm's count of 10^9 multiply-accumulates and 10^6 activations.
///
/// Parameters: `sum(p.numel() for p in timm.create_model(name).parameters())`, timm 1.0.31. The rest: timm's
/// `results/benchmark-infer-amp-nchw-pt240-cu124-rtx4090.csv`, rounded there to two places.
const COSTS: &[(&str, usize, f64, f64)] = &[
    ("convnext_atto", 3_695_520, 0.55, 3.81),
    ("convnext_femto", 5_217_784, 0.79, 4.57),
    ("convnext_tiny", 28_589_128, 4.47, 13.44),
    ("convnext_small", 50_223_688, 8.71, 21.56),
    ("convnext_base", 88_591_464, 15.38, 28.75),
    ("swinv2_tiny_window8_256", 28_347_154, 5.96, 24.57),
    ("swinv2_tiny_window16_256", 28_347_154, 6.68, 39.02),
    ("swinv2_small_window8_256", 49_728_418, 11.58, 40.14),
    ("swinv2_small_window16_256", 49_728_418, 12.82, 66.29),
    ("swinv2_base_window8_256", 87_918_816, 20.37, 52.59),
    ("swinv2_base_window16_256", 87_918_816, 22.02, 84.71),
    ("swinv2_base_window12to16_192to256", 87_918_816, 22.02, 84.71),
    ("swinv2_base_window12to24_192to384", 87_918_816, 55.25, 280.36),
    ("vit_tiny_patch16_224", 5_717_416, 1.26, 5.97),
    ("vit_small_patch16_224", 22_050_664, 4.61, 11.95),
    ("vit_base_patch16_224", 86_567_656, 17.58, 23.90),
    ("vit_base_patch16_384", 86_859_496, 55.54, 101.56),
    ("vit_large_patch16_224", 304_326_632, 61.60, 63.52),
    ("vit_base_patch16_clip_224", 86_568_424, 17.58, 23.90),
    ("deit_tiny_patch16_224", 5_717_416, 1.26, 5.97),
    ("deit_small_patch16_224", 22_050_664, 4.61, 11.95),
    ("deit_base_patch16_384", 86_859_496, 55.54, 101.56),
];

#[test]
fn costs_equal_timms() {
    for &(name, parameters, gmacs, macts) in COSTS {
        let (backbone, input_size) = create(name);
        assert_eq!(num_parameters(&backbone), parameters, "{name}");
        let mut counter = CostCounter::new();
        backbone.count(&mut counter, input_size);
        let cost = counter.finish().unwrap();
        let [counted_gmacs, counted_macts] = [cost.macs as f64 / 1e9, cost.activations as f64 / 1e6];
        // fvcore counts five more for every element that a layer norm norms, which we do not.
        assert!(
            (counted_gmacs / gmacs - 1.0).abs() < 0.015,
            "{name}: {counted_gmacs} GMACs of {gmacs}"
        );
        assert!(
            (counted_macts - macts).abs() < 0.006,
            "{name}: {counted_macts} Macts of {macts}"
        );
    }
}

/// The tiny models with the weights of their fixtures.
fn loaded(device: &Device) -> Vec<(&'static str, AnyBackbone)> {
    [
        ("convnext_linear_mlp", convnext().init(device).into()),
        ("convnext_conv_mlp", convnext().with_conv_mlp(true).init(device).into()),
        ("vit_reg_no_embed_class", {
            let config = vit().with_init_values(Some(0.1)).with_reg_tokens(2);
            config.with_no_embed_class(true).init(device).into()
        }),
        (
            "vit_pre_norm",
            vit().with_pre_norm(true).with_norm_epsilon(1e-5).init(device).into(),
        ),
        ("swinv2_shift", swin(4, [32, 48]).init(device).into()),
        ("swinv2_padded", swin(4, [40, 40]).init(device).into()),
    ]
    .map(|(name, backbone)| (name, load(backbone, name)))
    .into()
}

struct Gradients<'a> {
    gradients: &'a burn::tensor::Gradients,
    found: usize,
}

impl ModuleVisitor for Gradients<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = param
            .val()
            .grad(self.gradients)
            .expect("every parameter has a gradient");
        let norm = gradient.clone().mul(gradient).sum().into_scalar::<f32>();
        assert!(norm.is_finite() && norm > 0.0, "{norm}");
        self.found += 1;
    }
}

#[test]
fn every_parameter_has_a_gradient() {
    let device = Device::flex().autodiff();
    for (name, backbone) in loaded(&device) {
        let images: Tensor<4> = Tensor::from_data(oracle::<4>(name, "images").unwrap().into_data(), &device);
        let logits = backbone.forward_classifier(backbone.forward_embedding(images)).unwrap();
        let gradients = logits.clone().mul(logits).sum().backward();
        let mut visitor = Gradients {
            gradients: &gradients,
            found: 0,
        };
        backbone.visit(&mut visitor);
        assert_eq!(visitor.found, list_param_ids(&backbone).len(), "{name}");
    }
}

/// The groups hold every parameter but the classifier's two, once.
#[test]
fn layer_groups_cover_the_backbone() {
    for (name, backbone) in loaded(&Device::flex()) {
        let mut grouped: Vec<_> = backbone.layer_groups().into_iter().flatten().collect();
        let count = grouped.len();
        grouped.sort();
        grouped.dedup();
        assert_eq!(grouped.len(), count, "{name}: a parameter is in two groups");
        assert_eq!(count + 2, list_param_ids(&backbone).len(), "{name}");
    }
}

/// Our own architecture is of the size that its description says.
#[test]
fn swinv2_micro_is_of_the_size_of_vit_tiny() {
    let (backbone, _) = create("swinv2_micro_window7_224");
    let millions = num_parameters(&backbone) as f64 / 1e6;
    assert!((5.0..6.0).contains(&millions), "{millions}");
}

fn create(name: &str) -> (AnyBackbone, [usize; 2]) {
    let architectures = architectures();
    let architecture = architectures
        .iter()
        .find(|architecture| architecture.name == name)
        .unwrap();
    let options = InitOptions {
        num_classes: 1000,
        input_size: architecture.input_size,
    };
    ((architecture.init)(&options, &Device::flex()), architecture.input_size)
}
