//! The architectures and checkpoints of the family.

use bob_core::{CropMode, Preprocess};
use burn::tensor::Device;

use super::{ChannelAttention, NormFreeNetConfig, NormFreeStem};
use crate::hub::{TimmCheckpoint, imagenet_1k};
use crate::layers::Activation;
use crate::registry::{Architecture, Family};
use crate::{AnyBackbone, CheckpointEntry, InitOptions};

/// The family's tables.
///
/// `dm_nfnet_f7` is of DeepMind's code; `dm_nfnet_f3_plus` and `dm_nfnet_f7_plus` are the F3+ and F7+ of
/// arXiv:2310.16764. timm has none of the three.
pub(crate) static FAMILY: Family = Family {
    architectures: &[
        nfnet("dm_nfnet_f0", 192, |options, device| init(deepmind(1), options, device)),
        nfnet("dm_nfnet_f1", 224, |options, device| init(deepmind(2), options, device)),
        nfnet("dm_nfnet_f2", 256, |options, device| init(deepmind(3), options, device)),
        nfnet("dm_nfnet_f3", 320, |options, device| init(deepmind(4), options, device)),
        nfnet("dm_nfnet_f4", 384, |options, device| init(deepmind(5), options, device)),
        nfnet("dm_nfnet_f5", 416, |options, device| init(deepmind(6), options, device)),
        nfnet("dm_nfnet_f6", 448, |options, device| init(deepmind(7), options, device)),
        nfnet("dm_nfnet_f7", 480, |options, device| init(deepmind(8), options, device)),
        nfnet("dm_nfnet_f3_plus", 224, |options, device| {
            init(deepmind_plus(4), options, device)
        }),
        nfnet("dm_nfnet_f7_plus", 224, |options, device| {
            init(deepmind_plus(8), options, device)
        }),
        nfnet("nfnet_f0", 192, |options, device| init(gelu(1), options, device)),
        nfnet("nfnet_f1", 224, |options, device| init(gelu(2), options, device)),
        nfnet("nfnet_f2", 256, |options, device| init(gelu(3), options, device)),
        nfnet("nfnet_f3", 320, |options, device| init(gelu(4), options, device)),
        nfnet("nfnet_f4", 384, |options, device| init(gelu(5), options, device)),
        nfnet("nfnet_f5", 416, |options, device| init(gelu(6), options, device)),
        nfnet("nfnet_f6", 448, |options, device| init(gelu(7), options, device)),
        nfnet("nfnet_f7", 480, |options, device| init(gelu(8), options, device)),
        nfnet("nfnet_l0", 224, |options, device| {
            init(light(1, 2304, ChannelAttention::SqueezeExcite(0.25)), options, device)
        }),
        nfnet("eca_nfnet_l0", 224, |options, device| {
            init(light(1, 2304, ChannelAttention::Eca), options, device)
        }),
        nfnet("eca_nfnet_l1", 256, |options, device| {
            init(light(2, 3072, ChannelAttention::Eca), options, device)
        }),
        nfnet("eca_nfnet_l2", 320, |options, device| {
            init(light(3, 3072, ChannelAttention::Eca), options, device)
        }),
        nfnet("nf_resnet50", 256, |options, device| {
            init(nf_resnet([3, 4, 6, 3]), options, device)
        }),
        nfnet("nf_resnet101", 224, |options, device| {
            init(nf_resnet([3, 4, 23, 3]), options, device)
        }),
        nfnet("test_nfnet", 160, |options, device| init(test(), options, device)),
    ],
    checkpoints,
};

const fn nfnet(name: &'static str, size: usize, init: fn(&InitOptions, &Device) -> AnyBackbone) -> Architecture {
    Architecture {
        name,
        input_size: [size, size],
        init,
    }
}

/// The widths of F0 to F7, and those of the "+" variants.
const WIDTHS: [usize; 4] = [256, 512, 1536, 1536];
const PLUS: [usize; 4] = [384, 768, 2048, 2048];

/// NFNet-F(`multiple` - 1) of the given widths.
fn variant(multiple: usize, channels: [usize; 4]) -> NormFreeNetConfig {
    let depths = [1, 2, 6, 3].map(|depth| depth * multiple);
    NormFreeNetConfig::new(depths, channels).with_num_features(2 * channels[3])
}

fn gelu(multiple: usize) -> NormFreeNetConfig {
    variant(multiple, WIDTHS)
}

fn deepmind(multiple: usize) -> NormFreeNetConfig {
    as_deepmind(variant(multiple, WIDTHS))
}

/// DeepMind's stem ends with half of the first width, and is of 16, 32 and 64 channels before (`nfnets/nfnet.py`).
fn deepmind_plus(multiple: usize) -> NormFreeNetConfig {
    as_deepmind(variant(multiple, PLUS))
        .with_stem_chs(PLUS[0] / 2)
        .with_stem_mid_chs(Some(64))
}

fn as_deepmind(config: NormFreeNetConfig) -> NormFreeNetConfig {
    config
        .with_gamma_in_act(true)
        .with_same_padding(true)
        .with_skipinit(true)
}

/// timm's leaner members.
fn light(multiple: usize, num_features: usize, attn_layer: ChannelAttention) -> NormFreeNetConfig {
    gelu(multiple)
        .with_num_features(num_features)
        .with_group_size(Some(64))
        .with_bottle_ratio(0.25)
        .with_attn_layer(attn_layer)
        .with_act_layer(Activation::Silu)
}

fn nf_resnet(depths: [usize; 4]) -> NormFreeNetConfig {
    NormFreeNetConfig::new(depths, [256, 512, 1024, 2048])
        .with_stem_type(NormFreeStem::Conv7x7Pool)
        .with_stem_chs(64)
        .with_group_size(None)
        .with_bottle_ratio(0.25)
        .with_extra_conv(false)
        .with_attn_layer(ChannelAttention::None)
        .with_act_layer(Activation::Relu)
}

/// timm's smallest.
fn test() -> NormFreeNetConfig {
    NormFreeNetConfig::new([1, 1, 1, 1], [32, 64, 96, 128])
        .with_num_features(192)
        .with_group_size(Some(8))
        .with_bottle_ratio(0.25)
        .with_attn_layer(ChannelAttention::SqueezeExcite(0.25))
        .with_act_layer(Activation::Silu)
}

fn init(config: NormFreeNetConfig, options: &InitOptions, device: &Device) -> AnyBackbone {
    config.with_num_classes(options.num_classes).init(device).into()
}

fn checkpoints() -> Vec<CheckpointEntry> {
    const NFNET: &str = "2102.06171";
    let checkpoint = |name, preprocess, paper| {
        TimmCheckpoint {
            name,
            preprocess,
            pretraining: imagenet_1k(),
            num_classes: 1000,
            license: "Apache-2.0",
            paper,
        }
        .entry("nfnet", &[])
    };
    let deepmind = |name, size, crop_pct| {
        let preprocess = Preprocess {
            crop_pct,
            crop_mode: CropMode::Squash,
            ..Preprocess::imagenet(size)
        };
        checkpoint(name, preprocess, NFNET)
    };
    let timms = |name, size, crop_pct| {
        let preprocess = Preprocess {
            crop_pct,
            ..Preprocess::imagenet(size)
        };
        checkpoint(name, preprocess, NFNET)
    };
    let test = Preprocess {
        crop_pct: 0.95,
        mean: Preprocess::HALF,
        std: Preprocess::HALF,
        ..Preprocess::imagenet(160)
    };
    vec![
        deepmind("dm_nfnet_f0.dm_in1k", 192, 0.9),
        deepmind("dm_nfnet_f1.dm_in1k", 224, 0.91),
        deepmind("dm_nfnet_f2.dm_in1k", 256, 0.92),
        deepmind("dm_nfnet_f3.dm_in1k", 320, 0.94),
        deepmind("dm_nfnet_f4.dm_in1k", 384, 0.951),
        deepmind("dm_nfnet_f5.dm_in1k", 416, 0.954),
        deepmind("dm_nfnet_f6.dm_in1k", 448, 0.956),
        timms("nfnet_l0.ra2_in1k", 224, 0.9),
        timms("eca_nfnet_l0.ra2_in1k", 224, 0.9),
        timms("eca_nfnet_l1.ra2_in1k", 256, 0.9),
        timms("eca_nfnet_l2.ra3_in1k", 320, 0.9),
        checkpoint(
            "nf_resnet50.ra2_in1k",
            Preprocess {
                crop_pct: 0.94,
                ..Preprocess::imagenet(256)
            },
            "2101.08692",
        ),
        checkpoint("test_nfnet.r160_in1k", test, NFNET),
    ]
}
