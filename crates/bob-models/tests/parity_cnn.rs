//! Residual networks and EfficientNets against timm 1.0.31: tiny members with stored outputs
//! (`fixtures/make_models_cnn.py`), and timm's published figures of the full-size ones.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use bob_core::{Backbone, CostCounter, num_parameters};
use bob_models::{
    Activation, AnyBackbone, BlockType, EfficientNetConfig, InitOptions, ResNetConfig, StageConfig, StemType,
    architectures, checkpoints, create_random,
};
use burn::module::list_param_ids;
use burn::tensor::Device;
use common::load;
use safetensors::SafeTensors;

/// Equal to timm, with maps at these `reductions`.
fn check(name: &str, reductions: [usize; 5], init: impl Fn(&Device) -> AnyBackbone) {
    let found = init(&Device::flex()).feature_info().into_iter();
    let found: Vec<_> = found.map(|info| info.reduction).collect();
    assert_eq!(found, reductions, "{name}");
    common::check(name, |device| load(init(device), name, None));
}

#[test]
fn resnet_equals_timm() {
    let reductions = [2, 4, 8, 16, 32];
    let check = |name, config: ResNetConfig| check(name, reductions, |device| config.init(device).into());
    let resnet = |block, layers, channels| {
        ResNetConfig::new(block, layers)
            .with_channels(channels)
            .with_num_classes(7)
    };
    check(
        "resnet_basic",
        resnet([BlockType::Basic; 4], [1, 1, 2, 1], [4, 4, 8, 8]),
    );
    check(
        "resnet_bottleneck",
        resnet([BlockType::Bottleneck; 4], [1, 1, 2, 1], [2, 2, 4, 4]),
    );
    let deep = resnet([BlockType::Bottleneck; 4], [1, 1, 1, 2], [4, 4, 8, 8]);
    check(
        "resnet_bottleneck_d",
        deep.with_stem_type(StemType::Deep)
            .with_stem_width(8)
            .with_avg_down(true),
    );
    use BlockType::{Basic, Bottleneck};
    let mixed = resnet([Basic, Basic, Bottleneck, Basic], [1, 1, 1, 1], [4, 6, 4, 8]);
    check(
        "resnet_mixed_d",
        mixed
            .with_stem_type(StemType::Deep)
            .with_stem_width(8)
            .with_avg_down(true),
    );
}

#[test]
fn efficientnet_equals_timm() {
    let reductions = [2, 4, 8, 16, 32];
    let check = |name, config: EfficientNetConfig| {
        let config = config.with_stem_size(8).with_num_features(32).with_num_classes(7);
        check(name, reductions, |device| config.init(device).into());
    };
    let stages = |stages: &[[usize; 5]]| -> Vec<StageConfig> {
        let stage = |&[repeats, kernel, stride, expansion, channels]: &[usize; 5]| {
            StageConfig::new(repeats, kernel, stride, expansion, channels)
        };
        stages.iter().map(stage).collect()
    };
    let se = stages(&[
        [1, 3, 1, 1, 8],
        [2, 3, 2, 3, 8],
        [1, 5, 2, 3, 16],
        [1, 3, 2, 3, 16],
        [1, 5, 2, 3, 24],
    ]);
    check(
        "efficientnet_se",
        EfficientNetConfig::new(se, Activation::Silu).with_se_ratio(0.25),
    );
    let lite = stages(&[
        [1, 3, 1, 1, 8],
        [1, 3, 2, 3, 8],
        [1, 5, 2, 3, 16],
        [2, 3, 2, 3, 16],
        [1, 5, 2, 3, 24],
    ]);
    let lite = EfficientNetConfig::new(lite, Activation::Relu6);
    check("efficientnet_lite", lite.with_epsilon(1e-3).with_same_padding(true));
    let mobile = stages(&[
        [1, 3, 1, 1, 8],
        [2, 3, 2, 6, 8],
        [1, 3, 2, 6, 8],
        [1, 3, 2, 6, 16],
        [1, 3, 1, 6, 16],
        [1, 3, 2, 6, 16],
    ]);
    check("mobilenetv2", EfficientNetConfig::new(mobile, Activation::Relu6));
}

/// Parameters, counted in timm 1.0.31; `infer_gmacs` and `infer_macts` of timm's
/// `results/benchmark-infer-amp-nchw-pt240-cu124-rtx4090.csv` at the size given.
const PUBLISHED: [(&str, usize, usize, f64, f64); 13] = [
    ("resnet18", 11_689_512, 224, 1.82, 2.48),
    ("resnet34", 21_797_672, 224, 3.67, 3.74),
    ("resnet50", 25_557_032, 224, 4.11, 11.11),
    ("resnet101", 44_549_160, 224, 7.83, 16.23),
    ("resnet18d", 11_708_744, 224, 2.06, 3.29),
    ("resnet34d", 21_816_904, 224, 3.91, 4.54),
    ("resnet50d", 25_576_264, 224, 4.35, 11.92),
    ("resnet101d", 44_568_392, 256, 10.55, 22.25),
    ("efficientnet_b0", 5_288_548, 224, 0.4, 6.75),
    ("tf_efficientnet_lite0", 4_652_008, 224, 0.4, 6.74),
    ("tf_efficientnet_lite1", 5_416_680, 240, 0.62, 10.14),
    ("tf_efficientnet_lite2", 6_092_072, 260, 0.89, 12.9),
    ("mobilenetv2_100", 3_504_872, 224, 0.31, 6.68),
];

#[test]
fn cost_equals_timms_figures() {
    for (name, parameters, size, gmacs, macts) in PUBLISHED {
        let architecture = architectures()
            .into_iter()
            .find(|architecture| architecture.name == name)
            .unwrap();
        let options = InitOptions {
            num_classes: 1000,
            input_size: [size, size],
        };
        let backbone = (architecture.init)(&options, &Device::flex());
        assert_eq!(num_parameters(&backbone), parameters, "{name}");
        let mut counter = CostCounter::new();
        backbone.count(&mut counter, options.input_size);
        let cost = counter.finish().unwrap();
        let rounded = |count: u64, unit: f64| (count as f64 / unit * 100.0).round() / 100.0;
        // fvcore, which timm asks, adds two operations for every element of a batch norm, and there is one after
        // every convolution that matters.
        let fvcore = cost.macs + 2 * cost.activations;
        assert_eq!(
            (rounded(fvcore, 1e9), rounded(cost.activations, 1e6)),
            (gmacs, macts),
            "{name}"
        );
    }
}

#[test]
fn layer_groups_hold_every_parameter_but_the_classifiers() {
    for (name, ..) in PUBLISHED {
        let architecture = architectures()
            .into_iter()
            .find(|architecture| architecture.name == name)
            .unwrap();
        let options = InitOptions {
            num_classes: 0,
            input_size: architecture.input_size,
        };
        let backbone = (architecture.init)(&options, &Device::flex());
        let mut grouped: Vec<_> = backbone.layer_groups().into_iter().flatten().collect();
        let mut all = list_param_ids(&backbone);
        grouped.sort_by_key(|id| id.val());
        all.sort_by_key(|id| id.val());
        assert_eq!(grouped, all, "{name}");
    }
}

#[test]
fn checkpoints_name_an_architecture_of_this_crate() {
    let architectures = architectures();
    for entry in checkpoints() {
        let checkpoint = entry.checkpoint;
        let known = architectures
            .iter()
            .any(|architecture| architecture.name == checkpoint.architecture);
        assert!(
            known && checkpoint.name.starts_with(&format!("{}.", checkpoint.architecture)),
            "{}",
            checkpoint.name
        );
    }
}

/// Parameters of the networks under a million, counted in timm 1.0.31 with ten classes.
#[test]
fn small_networks_have_timms_parameters() {
    for (name, parameters) in [("test_resnet", 373_658), ("convnext_micro", 614_410)] {
        assert_eq!(num_parameters(&random(name)), parameters, "{name}");
    }
}

fn random(name: &str) -> AnyBackbone {
    let options = InitOptions {
        num_classes: 10,
        input_size: [64, 64],
    };
    create_random(name, &options, 0, &Device::flex()).unwrap()
}

/// Mean and deviation of the values of a random backbone's tensors, against those of the distributions that timm draws
/// from: `ResNet.init_weights` and `_init_weights` of its ConvNeXt, and PyTorch's own of what they leave.
#[test]
fn random_weights_are_drawn_as_timm_draws_them() {
    let check = |name: &str, tensors: &[(&str, f64, f64)]| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("random.safetensors");
        bob_models::weights::save(&random(name), &path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for &(key, mean, deviation) in tensors {
            let values = file.tensor(key).unwrap().data().as_chunks::<4>().0;
            let values: Vec<f64> = values
                .iter()
                .map(|bytes| f64::from(f32::from_le_bytes(*bytes)))
                .collect();
            let n = values.len() as f64;
            let found = values.iter().sum::<f64>() / n;
            let spread = (values.iter().map(|value| (value - found).powi(2)).sum::<f64>() / n).sqrt();
            // Five deviations of either estimate of a normal, and a little for constants.
            let far = (found - mean).abs() > 5.0 * deviation / n.sqrt() + 1e-9;
            let wide = (spread - deviation).abs() > 5.0 * deviation / (2.0 * n).sqrt() + 1e-9;
            assert!(!far && !wide, "{name} {key}: {found} ± {spread}");
        }
    };
    let kaiming = |fan_out: f64| (2.0 / fan_out).sqrt();
    // Uniform within the inverse root of the fan-in.
    let uniform = |fan_in: f64| (1.0 / fan_in / 3.0).sqrt();
    check(
        "test_resnet",
        &[
            ("conv1.0.weight", 0.0, kaiming(16.0 * 9.0)),
            ("layer2.0.conv2.weight", 0.0, kaiming(48.0 * 9.0)),
            ("layer3.0.conv3.weight", 0.0, kaiming(192.0)),
            ("layer4.0.downsample.1.weight", 0.0, kaiming(96.0)),
            ("bn1.weight", 1.0, 0.0),
            ("layer3.0.bn2.weight", 1.0, 0.0),
            ("layer4.0.downsample.2.weight", 1.0, 0.0),
            ("layer1.0.bn2.weight", 0.0, 0.0),
            ("layer3.0.bn3.weight", 0.0, 0.0),
            ("layer3.0.bn3.bias", 0.0, 0.0),
            ("fc.weight", 0.0, uniform(96.0)),
            ("fc.bias", 0.0, uniform(96.0)),
        ],
    );
    check(
        "convnext_micro",
        &[
            ("stem.0.weight", 0.0, 0.02),
            ("stem.0.bias", 0.0, 0.0),
            ("stages.1.blocks.0.conv_dw.weight", 0.0, 0.02),
            ("stages.2.downsample.1.weight", 0.0, 0.02),
            ("stages.3.blocks.1.mlp.fc2.weight", 0.0, 0.02),
            ("stages.3.blocks.1.mlp.fc2.bias", 0.0, 0.0),
            ("stages.3.blocks.1.gamma", 1e-6, 0.0),
            ("head.norm.weight", 1.0, 0.0),
            ("head.fc.weight", 0.0, 0.02),
        ],
    );
}
