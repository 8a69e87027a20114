//! The network of `fixtures/weights` and how each library's file has it.

use std::path::{Path, PathBuf};

use bob_models::checkpoints;
use bob_models::weights::{Layout, LoadOptions};
use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AvgPool2d, AvgPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::tensor::Device;

/// The network of `make_weights.py`.
#[derive(Module, Debug)]
pub struct Tiny {
    pub conv: Conv2d,
    pub bn: BatchNorm,
    pub downsample: (AvgPool2d, Conv2d),
    pub fc: Linear,
}

impl Tiny {
    pub fn init(device: &Device) -> Self {
        Self {
            conv: Conv2dConfig::new([3, 4], [3, 3]).with_bias(false).init(device),
            bn: BatchNormConfig::new(4).init(device),
            downsample: (
                AvgPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
                Conv2dConfig::new([4, 4], [1, 1]).with_bias(false).init(device),
            ),
            fc: LinearConfig::new(4, 4).init(device),
        }
    }
}

/// The file `name` of `fixtures/weights`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/weights")).join(name)
}

/// How the files of other libraries have the network, and what they hold besides.
pub fn of_keras() -> LoadOptions {
    LoadOptions {
        remap: |key| {
            let key = key
                .trim_start_matches("model_weights/tiny/")
                .replace("dense/dense", "fc");
            let key = key.replace("downsample/", "downsample.1.").replace('/', ".");
            let key = key
                .replace("kernel", "weight")
                .replace("gamma", "weight")
                .replace("beta", "bias");
            key.replace("moving_mean", "running_mean")
                .replace("moving_variance", "running_var")
        },
        layout: |key| match key.rsplit_once('/') {
            Some((layer, "kernel")) if layer.ends_with("dense") => Layout::TRANSPOSED,
            Some((_, "kernel")) => Layout::HWIO,
            _ => Layout::PYTORCH,
        },
        ..LoadOptions::default().with_ignored(&["optimizer_weights.*"])
    }
}

pub fn of_haiku() -> LoadOptions {
    LoadOptions {
        remap: |key| {
            let key = key
                .trim_start_matches("tiny/~/")
                .replace("linear", "fc")
                .replace("downsample", "downsample.1");
            let (layer, name) = key.rsplit_once('/').unwrap_or_default();
            let names = [["w", "weight"], ["b", "bias"], ["scale", "weight"], ["offset", "bias"]];
            let names = names.iter().chain(&[["mean", "running_mean"], ["var", "running_var"]]);
            let name = names.clone().find(|[from, _]| *from == name).map_or(name, |[_, to]| to);
            format!("{layer}.{name}")
        },
        layout: |key| match key.rsplit_once('/') {
            Some((layer, "w")) if layer.ends_with("linear") => Layout::TRANSPOSED,
            Some((_, "w")) => Layout::HWIO,
            _ => Layout::PYTORCH,
        },
        ..LoadOptions::default().with_ignored(&[])
    }
}

pub fn of_onnx() -> LoadOptions {
    LoadOptions {
        remap: |key| match key {
            "fc.MatMul" => "fc.weight".to_owned(),
            "downsample.1.First" | "downsample.1.Second" => "downsample.1.weight".to_owned(),
            _ => key.to_owned(),
        },
        layout: |key| match key {
            "fc.MatMul" => Layout::TRANSPOSED,
            "downsample.1.First" => Layout::PYTORCH.with_part(0, 2, 0),
            "downsample.1.Second" => Layout::PYTORCH.with_part(1, 2, 0),
            _ => Layout::PYTORCH,
        },
        ..LoadOptions::default().with_ignored(&["Reshape", "steps"])
    }
}

/// Lightning's checkpoint as the entry of one has it: its state of training has a class as a key, and a number of
/// numpy's.
pub fn of_lightning() -> LoadOptions {
    let mut entries = checkpoints().into_iter();
    let entry = entries.find(|entry| entry.checkpoint.name == "stable_diffusion_v1.sd_v1_4");
    let options = entry.expect("a checkpoint of Lightning").options;
    options.with_ignored(&["*.num_batches_tracked"])
}
