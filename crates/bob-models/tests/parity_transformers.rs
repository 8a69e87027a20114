//! ConvNeXt, ViT and Swin V2 against timm's own outputs: `fixtures/make_models_transformers.py`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use bob_core::{Backbone, CostCounter, num_parameters};
use bob_models::{
    AnyBackbone, ConvNextConfig, GlobalPool, InitOptions, SwinTransformerV2Config, VisionTransformerConfig,
    architectures,
};
use burn::module::{Module, ModuleVisitor, Param, list_param_ids};
use burn::tensor::{Device, Tensor};
use common::{check_outputs, images, load};

/// Equal to timm.
fn check<B: Into<AnyBackbone>>(name: &str, init: impl Fn(&Device) -> B) {
    common::check(name, |device| load(init(device).into(), name, None));
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
    check("convnext_linear_mlp", |device| convnext().init(device));
    check("convnext_conv_mlp", |device| {
        convnext().with_conv_mlp(true).init(device)
    });
}

#[test]
fn vit_equals_timm() {
    let scaled = || vit().with_init_values(Some(0.1));
    check("vit_token", |device| vit().init(device));
    check("vit_avg_layer_scale", |device| {
        scaled().with_global_pool(GlobalPool::Avg).init(device)
    });
    check("vit_reg_no_embed_class", |device| {
        scaled().with_reg_tokens(2).with_no_embed_class(true).init(device)
    });
    check("vit_pre_norm", |device| {
        vit().with_pre_norm(true).with_norm_epsilon(1e-5).init(device)
    });
}

#[test]
fn vit_of_another_size_equals_timm() {
    for name in ["vit_dynamic_up", "vit_dynamic_down", "vit_loaded_at_another_size"] {
        check(name, |device| vit().init(device));
        let [_, _, height, width] = images(name).dims();
        let AnyBackbone::VisionTransformer(loaded) = load(vit().init(&Device::flex()).into(), name, None) else {
            unreachable!("a ViT stays a ViT")
        };
        check_outputs(&loaded.set_input_size([height, width]).into(), name, "resized once");
    }
}

#[test]
fn swinv2_equals_timm() {
    check("swinv2_shift", |device| swin(4, [32, 48]).init(device));
    check("swinv2_pretrained_window", |device| {
        swin(4, [32, 32]).with_pretrained_window_sizes(vec![3, 2]).init(device)
    });
    check("swinv2_small_map", |device| swin(8, [32, 32]).init(device));
    check("swinv2_padded", |device| swin(4, [40, 40]).init(device));
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
    .map(|(name, backbone)| (name, load(backbone, name, None)))
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
        let images = images(name).to_device(&device);
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
