//! A fixture of `fixtures/models`, which holds the weights of a tiny backbone and what its reference makes of images,
//! against ours.

#![expect(clippy::print_stderr, reason = "a test says what it saw")]

use std::path::PathBuf;

use bob_core::Backbone;
use bob_models::weights::{LoadOptions, load_module};
use bob_models::{AnyBackbone, CheckpointEntry};
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::SafeTensors;

/// Relative L2 error allowed against the reference, an order above what float32 gives.
const TOLERANCE: f64 = 1e-5;

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

/// The file of the fixture `name`.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/models")).join(format!("{name}.safetensors"))
}

/// `backbone` with the weights of the fixture `name`, strictly; where its names are not ours, `entry` is of a checkpoint
/// with the same ones.
pub fn load(backbone: AnyBackbone, name: &str, entry: Option<&CheckpointEntry>) -> AnyBackbone {
    let mut options = LoadOptions::default().with_ignored(OUTPUTS);
    if let Some(CheckpointEntry { options: theirs, .. }) = entry {
        options.remap = theirs.remap;
        options.ignored.extend(theirs.ignored.clone());
    }
    load_module(backbone, &path(name), &options).unwrap().0
}

/// The tensor `key` of the safetensors `file`, where it has one.
pub fn tensor<const D: usize>(file: &[u8], key: &str) -> Option<Tensor<D>> {
    let file = SafeTensors::deserialize(file).unwrap();
    let view = file.tensor(key).ok()?;
    let values: Vec<f32> = view
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    let data = TensorData::new(values, view.shape().to_vec());
    Some(Tensor::from_data(data, &Device::flex()))
}

/// The images of the fixture `name`.
pub fn images(name: &str) -> Tensor<4> {
    tensor(&std::fs::read(path(name)).unwrap(), "images").unwrap()
}

pub fn relative_error<const D: usize>(actual: Tensor<D>, expected: Tensor<D>) -> f64 {
    assert_eq!(actual.dims(), expected.dims());
    let norm = |x: Tensor<D>| x.clone().mul(x).sum().into_scalar::<f32>().sqrt();
    f64::from(norm(actual - expected.clone()) / norm(expected))
}

/// Embedding, logits and every map of `backbone` equal those of the fixture `name`.
pub fn check_outputs(backbone: &AnyBackbone, name: &str, how: &str) {
    let file = std::fs::read(path(name)).unwrap();
    let images: Tensor<4> = tensor(&file, "images").unwrap();
    let [_, _, height, width] = images.dims();
    let info = backbone.feature_info();
    let embedding = backbone.forward_embedding(images.clone());
    assert_eq!(embedding.dims()[1], backbone.num_features(), "{name}");
    let logits = backbone.forward_classifier(embedding.clone());
    let mut errors = vec![relative_error(embedding, tensor(&file, "embedding").unwrap())];
    match (logits, tensor(&file, "logits")) {
        (Some(found), Some(expected)) => errors.push(relative_error(found, expected)),
        (found, expected) => assert!(found.is_none() && expected.is_none(), "{name}: logits"),
    }
    let maps = backbone.forward_intermediates(images);
    assert_eq!(maps.len(), info.len(), "{name}");
    assert!(
        tensor::<4>(&file, &format!("stage{}", maps.len())).is_none(),
        "{name}: a map is not given"
    );
    for (stage, (map, info)) in maps.into_iter().zip(&info).enumerate() {
        assert_eq!(map.dims()[1], info.num_chs, "{name} stage{stage}");
        // A patch that does not fit whole is left out by some families and padded by others.
        if height % info.reduction == 0 && width % info.reduction == 0 {
            let size = [height, width].map(|size| size / info.reduction);
            assert_eq!(map.dims()[2..], size, "{name} stage{stage}");
        }
        errors.push(relative_error(map, tensor(&file, &format!("stage{stage}")).unwrap()));
    }
    let worst = errors.iter().copied().fold(0.0, f64::max);
    eprintln!("{name} {how}: {worst:.1e}");
    // Written so that a NaN fails.
    assert!(
        errors.iter().all(|error| *error < TOLERANCE),
        "{name} {how}: {errors:?}"
    );
}

/// The backbone that `load` loads from the fixture `name` equals it, as loaded and fused; fused, also on a device that
/// tracks gradients.
pub fn check(name: &str, load: impl Fn(&Device) -> AnyBackbone) {
    let backbone = load(&Device::flex());
    check_outputs(&backbone, name, "as loaded");
    check_outputs(&backbone.fuse(), name, "fused");

    let device = Device::flex().autodiff();
    let embedding = load(&device).fuse().forward_embedding(images(name).to_device(&device));
    let expected = tensor(&std::fs::read(path(name)).unwrap(), "embedding").unwrap();
    let error = relative_error(embedding.inner(), expected);
    assert!(error < TOLERANCE, "{name} under autodiff: {error}");
}
