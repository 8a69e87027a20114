//! The architectures and checkpoints of the family.

use bob_core::{Preprocess, Pretraining};
use burn::tensor::Device;

use super::SwinTransformerV2Config;
use crate::hub::{self, TimmCheckpoint};
use crate::registry::{Architecture, Family};
use crate::{AnyBackbone, CheckpointEntry, InitOptions};

/// The family's tables.
///
/// `swinv2_micro_window7_224` is ours and not timm's: a Swin V2 of ViT-Ti's size, as a baseline.
pub(crate) static FAMILY: Family = Family {
    architectures: &[
        swin("swinv2_micro_window7_224", 224, |options, device| {
            init(micro(), options, device)
        }),
        swin("swinv2_tiny_window8_256", 256, |options, device| {
            init(tiny(8), options, device)
        }),
        swin("swinv2_tiny_window16_256", 256, |options, device| {
            init(tiny(16), options, device)
        }),
        swin("swinv2_small_window8_256", 256, |options, device| {
            init(small(8), options, device)
        }),
        swin("swinv2_small_window16_256", 256, |options, device| {
            init(small(16), options, device)
        }),
        swin("swinv2_base_window8_256", 256, |options, device| {
            init(base(8), options, device)
        }),
        swin("swinv2_base_window16_256", 256, |options, device| {
            init(base(16), options, device)
        }),
        swin("swinv2_base_window12_192", 192, |options, device| {
            init(base(12), options, device)
        }),
        swin("swinv2_base_window12to16_192to256", 256, |options, device| {
            init(from_12(base(16)), options, device)
        }),
        swin("swinv2_base_window12to24_192to384", 384, |options, device| {
            init(from_12(base(24)), options, device)
        }),
        swin("swinv2_large_window12_192", 192, |options, device| {
            init(large(12), options, device)
        }),
        swin("swinv2_large_window12to16_192to256", 256, |options, device| {
            init(from_12(large(16)), options, device)
        }),
        swin("swinv2_large_window12to24_192to384", 384, |options, device| {
            init(from_12(large(24)), options, device)
        }),
    ],
    checkpoints,
    remap: str::to_owned,
};

const fn swin(name: &'static str, size: usize, init: fn(&InitOptions, &Device) -> AnyBackbone) -> Architecture {
    Architecture {
        name,
        input_size: [size, size],
        init,
    }
}

/// Not timm's; 5.5 million parameters with 1000 classes, next to ViT-Ti's 5.7.
fn micro() -> SwinTransformerV2Config {
    SwinTransformerV2Config::new(48, vec![2, 2, 2, 2], vec![2, 4, 8, 16], 7)
}

fn tiny(window_size: usize) -> SwinTransformerV2Config {
    SwinTransformerV2Config::new(96, vec![2, 2, 6, 2], vec![3, 6, 12, 24], window_size)
}

fn small(window_size: usize) -> SwinTransformerV2Config {
    SwinTransformerV2Config::new(96, vec![2, 2, 18, 2], vec![3, 6, 12, 24], window_size)
}

fn base(window_size: usize) -> SwinTransformerV2Config {
    SwinTransformerV2Config::new(128, vec![2, 2, 18, 2], vec![4, 8, 16, 32], window_size)
}

fn large(window_size: usize) -> SwinTransformerV2Config {
    SwinTransformerV2Config::new(192, vec![2, 2, 18, 2], vec![6, 12, 24, 48], window_size)
}

/// Pretrained at 192 pixels, where the last map is 6 wide, with windows of 12.
fn from_12(config: SwinTransformerV2Config) -> SwinTransformerV2Config {
    config.with_pretrained_window_sizes(vec![12, 12, 12, 6])
}

fn init(config: SwinTransformerV2Config, options: &InitOptions, device: &Device) -> AnyBackbone {
    config
        .with_num_classes(options.num_classes)
        .with_input_size(options.input_size)
        .init(device)
        .into()
}

fn checkpoints() -> Vec<CheckpointEntry> {
    let at = |size| Preprocess {
        crop_pct: 0.9,
        ..Preprocess::imagenet(size)
    };
    let at_384 = || Preprocess {
        crop_pct: 1.0,
        ..at(384)
    };
    vec![
        checkpoint("swinv2_tiny_window8_256.ms_in1k", at(256), hub::imagenet_1k(), 1000),
        checkpoint("swinv2_tiny_window16_256.ms_in1k", at(256), hub::imagenet_1k(), 1000),
        checkpoint("swinv2_small_window8_256.ms_in1k", at(256), hub::imagenet_1k(), 1000),
        checkpoint("swinv2_small_window16_256.ms_in1k", at(256), hub::imagenet_1k(), 1000),
        checkpoint("swinv2_base_window8_256.ms_in1k", at(256), hub::imagenet_1k(), 1000),
        checkpoint("swinv2_base_window16_256.ms_in1k", at(256), hub::imagenet_1k(), 1000),
        checkpoint(
            "swinv2_base_window12_192.ms_in22k",
            at(192),
            hub::imagenet_22k(),
            21_841,
        ),
        checkpoint(
            "swinv2_base_window12to16_192to256.ms_in22k_ft_in1k",
            at(256),
            hub::imagenet_22k(),
            1000,
        ),
        checkpoint(
            "swinv2_base_window12to24_192to384.ms_in22k_ft_in1k",
            at_384(),
            hub::imagenet_22k(),
            1000,
        ),
        checkpoint(
            "swinv2_large_window12_192.ms_in22k",
            at(192),
            hub::imagenet_22k(),
            21_841,
        ),
        checkpoint(
            "swinv2_large_window12to16_192to256.ms_in22k_ft_in1k",
            at(256),
            hub::imagenet_22k(),
            1000,
        ),
        checkpoint(
            "swinv2_large_window12to24_192to384.ms_in22k_ft_in1k",
            at_384(),
            hub::imagenet_22k(),
            1000,
        ),
        // https://github.com/isl-org/MiDaS/releases/tag/v3_1
        midas("swinv2_tiny_window16_256.midas", at(256), "dpt_swin2_tiny_256.pt"),
        midas(
            "swinv2_base_window12to24_192to384.midas",
            at_384(),
            "dpt_swin2_base_384.pt",
        ),
    ]
}

/// The backbone of a depth network of MiDaS 3.1, with its ImageNet classifier; the decoder stays in the file.
fn midas(name: &'static str, preprocess: Preprocess, file: &str) -> CheckpointEntry {
    let checkpoint = TimmCheckpoint {
        name,
        preprocess,
        pretraining: hub::midas(),
        num_classes: 1000,
        license: "MIT",
        paper: "2307.14460",
    };
    let ignored = &[
        "*.relative_position_index",
        "*.relative_coords_table",
        "*.attn_mask",
        "scratch.*",
        "pretrained.act_postprocess*",
    ];
    checkpoint
        .elsewhere("swin_transformer_v2", file, ignored)
        .with_options(|options| options.with_remap(remap_midas))
}

/// A key of MiDaS in timm's names; a key already in those stays. The files are of a timm whose stages ended with a
/// merging, and now they begin with one.
fn remap_midas(key: &str) -> String {
    let Some(key) = key.strip_prefix("pretrained.model.") else {
        return key.to_owned();
    };
    let moved = key.strip_prefix("layers.").and_then(|rest| {
        let (stage, layer) = rest.split_once(".downsample.")?;
        Some(format!(
            "layers.{}.downsample.{layer}",
            stage.parse::<usize>().ok()? + 1
        ))
    });
    match (moved, key.strip_prefix("head.")) {
        (Some(moved), _) => moved,
        (None, Some(name)) => format!("head.fc.{name}"),
        (None, None) => key.to_owned(),
    }
}

fn checkpoint(
    name: &'static str,
    preprocess: Preprocess,
    pretraining: Pretraining,
    num_classes: usize,
) -> CheckpointEntry {
    let checkpoint = TimmCheckpoint {
        name,
        preprocess,
        pretraining,
        num_classes,
        license: "MIT",
        paper: "2111.09883",
    };
    // Tables that older files carry and that follow from the layout of the windows.
    checkpoint.entry(
        "swin_transformer_v2",
        &["*.relative_position_index", "*.relative_coords_table", "*.attn_mask"],
    )
}

#[cfg(test)]
mod tests {
    use super::remap_midas;

    #[test]
    fn keys_of_midas_become_timm_s() {
        let cases = [
            [
                "pretrained.model.layers.0.downsample.norm.bias",
                "layers.1.downsample.norm.bias",
            ],
            [
                "pretrained.model.layers.2.blocks.5.attn.q_bias",
                "layers.2.blocks.5.attn.q_bias",
            ],
            ["pretrained.model.head.weight", "head.fc.weight"],
            ["layers.1.downsample.norm.bias", "layers.1.downsample.norm.bias"],
            ["scratch.layer1_rn.weight", "scratch.layer1_rn.weight"],
        ];
        for [midas, timm] in cases {
            assert_eq!(remap_midas(midas), timm);
        }
    }
}
