//! The architectures and checkpoints of the family.

use bob_core::{CropMode, Preprocess};
use burn::tensor::Device;

use super::{ChannelAttention, NormFreeNetConfig, NormFreeStem};
use crate::hub::{TimmCheckpoint, imagenet_1k};
use crate::layers::Activation;
use crate::registry::{Architecture, Family};
use crate::weights::Layout;
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
    remap: str::to_owned,
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
    let deepmind = |name, size, crop_pct, remap: fn(&str) -> String| {
        let preprocess = Preprocess {
            crop_pct,
            crop_mode: CropMode::Squash,
            ..Preprocess::imagenet(size)
        };
        checkpoint(name, preprocess, NFNET).with_options(|options| options.with_remap(remap).with_layout(haiku_layout))
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
        deepmind("dm_nfnet_f0.dm_in1k", 192, 0.9, |key| remap_haiku(key, 1)),
        deepmind("dm_nfnet_f1.dm_in1k", 224, 0.91, |key| remap_haiku(key, 2)),
        deepmind("dm_nfnet_f2.dm_in1k", 256, 0.92, |key| remap_haiku(key, 3)),
        deepmind("dm_nfnet_f3.dm_in1k", 320, 0.94, |key| remap_haiku(key, 4)),
        deepmind("dm_nfnet_f4.dm_in1k", 384, 0.951, |key| remap_haiku(key, 5)),
        deepmind("dm_nfnet_f5.dm_in1k", 416, 0.954, |key| remap_haiku(key, 6)),
        deepmind("dm_nfnet_f6.dm_in1k", 448, 0.956, |key| remap_haiku(key, 7)),
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

/// The layer and the parameter of a key of DeepMind's Haiku files, whose layers all lie in the module `NFNet`.
fn haiku_key(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix("NFNet/~/")?.rsplit_once('/')
}

/// The key of DeepMind's NFNet-F(`multiple` - 1) in timm's names; a key already in timm's names stays.
///
/// Haiku counts the blocks through: `nf_block`, `nf_block_1`, and so on (`nfnets/nfnet.py` of
/// github.com/google-deepmind/deepmind-research).
fn remap_haiku(key: &str, multiple: usize) -> String {
    const OUTSIDE: [[&str; 2]; 6] = [
        ["stem_conv0", "stem.conv1"],
        ["stem_conv1", "stem.conv2"],
        ["stem_conv2", "stem.conv3"],
        ["stem_conv3", "stem.conv4"],
        ["final_conv", "final_conv"],
        ["linear", "head.fc"],
    ];
    const BLOCK: [[&str; 2]; 7] = [
        ["conv_shortcut", "downsample.conv"],
        ["conv0", "conv1"],
        ["conv1", "conv2"],
        ["conv1b", "conv2b"],
        ["conv2", "conv3"],
        ["squeeze_excite/~/linear", "attn_last.fc1"],
        ["squeeze_excite/~/linear_1", "attn_last.fc2"],
    ];
    const PARAMETERS: [[&str; 2]; 4] = [["w", "weight"], ["b", "bias"], ["bias", "bias"], ["gain", "gain"]];
    let exact =
        |name: &str, names: &[[&'static str; 2]]| names.iter().find(|[from, _]| *from == name).map(|[_, to]| *to);
    let renamed = || {
        let (layer, parameter) = haiku_key(key)?;
        let Some(block) = layer.strip_prefix("nf_block") else {
            return Some(format!(
                "{}.{}",
                exact(layer, &OUTSIDE)?,
                exact(parameter, &PARAMETERS)?
            ));
        };
        let (number, layer) = block.split_once("/~/").unwrap_or((block, ""));
        let mut index: usize = match number.strip_prefix('_') {
            Some(number) => number.parse().ok()?,
            None => 0,
        };
        let mut stage = 0;
        for depth in [1, 2, 6].map(|depth| depth * multiple) {
            match index.checked_sub(depth) {
                Some(rest) => (stage, index) = (stage + 1, rest),
                None => break,
            }
        }
        if index >= 3 * multiple && stage == 3 {
            return None;
        }
        match (layer, parameter) {
            ("", "skip_gain") => Some(format!("stages.{stage}.{index}.skipinit_gain")),
            _ => Some(format!(
                "stages.{stage}.{index}.{}.{}",
                exact(layer, &BLOCK)?,
                exact(parameter, &PARAMETERS)?
            )),
        }
    };
    renamed().unwrap_or_else(|| key.to_owned())
}

/// How Haiku lays out the tensor of a key.
fn haiku_layout(key: &str) -> Layout {
    match haiku_key(key) {
        // timm has the layers of squeeze-and-excitation as 1x1 convolutions.
        Some((layer, "w")) if layer.contains("/squeeze_excite/") => Layout::TRANSPOSED.with_trailing(2),
        Some(("linear", "w")) => Layout::TRANSPOSED,
        Some((_, "w")) => Layout::HWIO,
        Some((_, "gain")) => Layout::PYTORCH.with_trailing(3),
        _ => Layout::PYTORCH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn haiku_s_keys_become_timm_s() {
        let cases = [
            ["NFNet/~/stem_conv0/w", "stem.conv1.weight"],
            ["NFNet/~/stem_conv3/gain", "stem.conv4.gain"],
            ["NFNet/~/nf_block/~/conv0/w", "stages.0.0.conv1.weight"],
            [
                "NFNet/~/nf_block_1/~/conv_shortcut/bias",
                "stages.0.1.downsample.conv.bias",
            ],
            ["NFNet/~/nf_block_2/~/conv1b/gain", "stages.1.0.conv2b.gain"],
            ["NFNet/~/nf_block_6/skip_gain", "stages.2.0.skipinit_gain"],
            [
                "NFNet/~/nf_block_18/~/squeeze_excite/~/linear/w",
                "stages.3.0.attn_last.fc1.weight",
            ],
            [
                "NFNet/~/nf_block_23/~/squeeze_excite/~/linear_1/b",
                "stages.3.5.attn_last.fc2.bias",
            ],
            ["NFNet/~/nf_block_24/skip_gain", "NFNet/~/nf_block_24/skip_gain"],
            ["NFNet/~/final_conv/w", "final_conv.weight"],
            ["NFNet/~/linear/b", "head.fc.bias"],
            ["stages.0.0.conv1.weight", "stages.0.0.conv1.weight"],
        ];
        for [haiku, timm] in cases {
            assert_eq!(remap_haiku(haiku, 2), timm);
        }
        assert_eq!(haiku_layout("NFNet/~/linear/w"), Layout::TRANSPOSED);
        assert_eq!(haiku_layout("NFNet/~/final_conv/w"), Layout::HWIO);
        assert_eq!(haiku_layout("head.fc.weight"), Layout::PYTORCH);
    }
}
