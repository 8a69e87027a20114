//! Weights load whole or not at all. Files by `fixtures/make_weights.py` and `fixtures/make_loaders.py`.

mod tiny;

use std::fs;
use std::mem::discriminant;
use std::path::Path;

use bob_core::initialize;
use bob_models::weights::{self, Format, Layout, LoadOptions, LoadReport, Rename, WeightsError};
use bob_models::{
    AnyBackbone, ClipResNetConfig, ConvNextConfig, InitOptions, architectures, checkpoints, create_random,
};
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::store::{ModuleStore, SafetensorsStore, bridge};
use burn::tensor::{DType, Device, Tensor, TensorData, activation};
use tiny::{Tiny, fixture, of_haiku, of_keras, of_lightning, of_onnx};

/// One layer of 64 MiB.
#[derive(Module, Debug)]
struct Wide {
    fc: Linear,
}

/// As the enum over the families: its variant must be no part of a name.
#[derive(Module, Debug)]
enum Any {
    Tiny(Tiny),
}

fn forward(tiny: &Tiny, images: Tensor<4>) -> Tensor<2> {
    let x = activation::relu(tiny.bn.forward(tiny.conv.forward(images)));
    let x = tiny.downsample.1.forward(tiny.downsample.0.forward(x));
    tiny.fc.forward(x.mean_dims(&[2, 3]).flatten(1, 3))
}

fn read(store: &mut SafetensorsStore, name: &str) -> TensorData {
    let tensor = store
        .get_tensor(name)
        .expect("the fixture is safetensors")
        .unwrap_or_else(|| panic!("no tensor `{name}`"));
    bridge::to_data(tensor)
        .expect("the fixture is whole")
        .convert_dtype(DType::F32)
}

/// Load into a [`Tiny`] inside an enum and give the largest deviation from PyTorch's output.
fn deviation(path: &Path, options: &LoadOptions) -> Result<(f32, LoadReport), WeightsError> {
    let device = Device::flex();
    let (Any::Tiny(tiny), report) = weights::load_module(Any::Tiny(Tiny::init(&device)), path, options)?;
    let mut oracle = SafetensorsStore::from_file(fixture("expected.safetensors"));
    let output = forward(&tiny, Tensor::from_data(read(&mut oracle, "input"), &device));
    let expected = Tensor::<2>::from_data(read(&mut oracle, "output"), &device);
    Ok(((output - expected).abs().max().into_scalar::<f32>(), report))
}

#[test]
fn every_way_of_saving_gives_pytorch_s_output() {
    let nested = LoadOptions::default().with_top_level_key("state_dict");
    let trusting = nested.clone().with_allowed_globals(&["argparse.Namespace"]);
    let plain = LoadOptions::default();
    let check = |name: &str, options: &LoadOptions, format: Format, dtype: DType, tolerance: f32| {
        let (deviation, report) = deviation(&fixture(name), options).unwrap_or_else(|error| panic!("{error}"));
        assert!(deviation <= tolerance, "{name}: {deviation}");
        assert_eq!(
            (report.format, report.dtypes, report.tensors),
            (format, vec![dtype], 8),
            "{name}"
        );
        assert_eq!(report.ignored, ["bn.num_batches_tracked"], "{name}");
    };
    check("tiny.safetensors", &plain, Format::Safetensors, DType::F32, 1e-6);
    check("zip.pth", &plain, Format::Zip, DType::F32, 1e-6);
    check("legacy.pth", &plain, Format::Legacy, DType::F32, 1e-6);
    check("protocol4.pth", &plain, Format::Zip, DType::F32, 1e-6);
    check("strided_zip.pth", &plain, Format::Zip, DType::F32, 1e-6);
    check("strided_legacy.pth", &plain, Format::Legacy, DType::F32, 1e-6);
    check("nested.pth", &nested, Format::Zip, DType::F32, 1e-6);
    check("namespace.pth", &trusting, Format::Zip, DType::F32, 1e-6);
    check("torchscript.pt", &plain, Format::TorchScript, DType::F32, 1e-6);
    // Half precision moves the output; float32 arithmetic keeps the movement at the size of its rounding.
    check("f16.safetensors", &plain, Format::Safetensors, DType::F16, 2e-3);
    check("f16.pth", &plain, Format::Zip, DType::F16, 2e-3);
    check("bf16.safetensors", &plain, Format::Safetensors, DType::BF16, 2e-2);
    check("bf16_legacy.pth", &plain, Format::Legacy, DType::BF16, 2e-2);
}

#[test]
fn a_strided_file_gives_the_same_bits_as_a_contiguous_one() {
    let values = |name: &str| {
        let device = Device::flex();
        let (tiny, _) = weights::load_module(Tiny::init(&device), &fixture(name), &LoadOptions::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("saved.safetensors");
        weights::save_module(&tiny, &path).unwrap();
        let mut store = SafetensorsStore::from_file(path);
        let names = store.keys().unwrap();
        names
            .iter()
            .map(|name| (name.clone(), read(&mut store, name)))
            .collect::<Vec<_>>()
    };
    let mut original = SafetensorsStore::from_file(fixture("tiny.safetensors"));
    for name in ["tiny.safetensors", "zip.pth", "strided_zip.pth", "strided_legacy.pth"] {
        let values = values(name);
        assert_eq!(values.len(), 8);
        for (key, value) in values {
            assert_eq!(value, read(&mut original, &key), "{name}: {key}");
        }
    }
}

#[test]
fn every_other_library_s_file_gives_pytorch_s_output() {
    let check = |name: &str, options: LoadOptions, format: Format, ignored: &[&str]| {
        let (deviation, report) = deviation(&fixture(name), &options).unwrap_or_else(|error| panic!("{error}"));
        assert!(deviation <= 1e-6, "{name}: {deviation}");
        let expected = (format, vec![DType::F32], 8);
        assert_eq!((report.format, report.dtypes, report.tensors), expected, "{name}");
        assert_eq!(report.ignored, ignored, "{name}");
    };
    let adam = ["optimizer_weights.adam.iteration", "optimizer_weights.adam.name"];
    check("tiny.h5", of_keras(), Format::Hdf5, &adam);
    check("tiny_chunks.h5", of_keras(), Format::Hdf5, &[]);
    check("tiny.npz", of_haiku(), Format::Npz, &[]);
    check("tiny_compressed.npz", of_haiku(), Format::Npz, &[]);
    check("tiny_protocol3.pkl", of_haiku(), Format::PickledArrays, &[]);
    check("tiny_protocol4.pkl", of_haiku(), Format::PickledArrays, &[]);
    check("tiny_columns.pkl", of_haiku(), Format::PickledArrays, &[]);
    check("tiny_frozen.pkl", of_haiku(), Format::PickledArrays, &[]);
    check("tiny.onnx", of_onnx(), Format::Onnx, &["Reshape", "steps"]);
}

#[test]
fn another_library_s_file_that_does_not_fit_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    let check = |bytes: &[u8], options: &LoadOptions, expected: &str| {
        fs::write(&path, bytes).unwrap();
        let error = deviation(&path, options).expect_err(expected).to_string();
        assert!(error.starts_with(&format!("weights `{}` ", path.display())), "{error}");
        assert!(error.contains(expected), "expected\n  {expected}\nin\n  {error}");
    };
    // The same file with one name replaced by another of its length.
    let renamed = |name: &str, from: &str, to: &str| {
        let mut bytes = fs::read(fixture(name)).unwrap();
        let found: Vec<_> = (0..bytes.len())
            .filter(|&at| bytes[at..].starts_with(from.as_bytes()))
            .collect();
        assert!(!found.is_empty(), "no {from} in {name}");
        for at in found {
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
        bytes
    };
    let cut = |name: &str| {
        let bytes = fs::read(fixture(name)).unwrap();
        bytes[..bytes.len() - 40].to_vec()
    };
    let whole = |name: &str| fs::read(fixture(name)).unwrap();

    let nested = |options: LoadOptions| options.with_top_level_key("model");
    check(&whole("tiny.h5"), &nested(of_keras()), "HDF5 does not nest");
    check(&whole("tiny.onnx"), &nested(of_onnx()), "ONNX does not nest");
    check(&whole("tiny.npz"), &nested(of_haiku()), "numpy's arrays does not nest");
    check(
        &whole("torchscript.pt"),
        &nested(LoadOptions::default()),
        "TorchScript does not nest",
    );

    // Renamed.
    check(
        &renamed("tiny.h5", "moving_variance", "moving_varianze"),
        &of_keras(),
        "1 tensor missing: `bn.running_var`",
    );
    check(
        &renamed("tiny.onnx", "bn.bias", "bn.bids"),
        &of_onnx(),
        "`bn.bias` (did you mean the file's `bn.bids`?)",
    );
    check(
        &renamed("tiny.onnx", "/downsample/1/Second", "/downsample/1/Sekond"),
        &of_onnx(),
        "1 tensor missing: `downsample.1.weight (part 2 of 2)` (did you mean the file's `downsample.1.Sekond`?)",
    );
    check(
        &renamed("tiny_protocol4.pkl", "offset", "offzet"),
        &of_haiku(),
        "1 tensor missing: `bn.bias`",
    );

    // Transposed: of another shape, or another order of its axes.
    let untransposed = |options: LoadOptions| LoadOptions {
        layout: |_| Layout::PYTORCH,
        ..options
    };
    check(
        &whole("tiny.h5"),
        &untransposed(of_keras()),
        "`conv.weight` is [3, 3, 3, 4] and should be [4, 3, 3, 3]",
    );
    check(
        &whole("tiny.npz"),
        &untransposed(of_haiku()),
        "`downsample.1.weight` is [1, 1, 4, 4] and should be [4, 4, 1, 1]",
    );
    check(
        &whole("tiny.npz"),
        &LoadOptions {
            layout: |_| Layout::HWIO,
            ..of_haiku()
        },
        "has a tensor that cannot be read, `tiny/~/bn/scale`: its shape is [4], expected 4 axes",
    );
    check(
        &whole("tiny.onnx"),
        &untransposed(of_onnx()),
        "`downsample.1.First` and `downsample.1.Second` are both `downsample.1.weight`",
    );
    check(
        &whole("tiny.onnx"),
        &LoadOptions {
            layout: |key| match key {
                "downsample.1.First" => Layout::PYTORCH.with_part(0, 2, 1),
                "downsample.1.Second" => Layout::PYTORCH.with_part(1, 2, 1),
                _ => Layout::PYTORCH,
            },
            ..of_onnx()
        },
        "`downsample.1.weight` is [2, 8, 1, 1] and should be [4, 4, 1, 1]",
    );

    // Left over.
    check(
        &whole("tiny.h5"),
        &of_keras().with_ignored(&[]),
        "2 tensors unexpected: `optimizer_weights.adam.iteration`, `optimizer_weights.adam.name`",
    );

    // Cut.
    check(&cut("tiny.h5"), &of_keras(), "is damaged or cut short");
    check(&cut("tiny.npz"), &of_haiku(), "is damaged or cut short");
    check(&cut("tiny_protocol3.pkl"), &of_haiku(), "is damaged or cut short");
    check(&cut("tiny.onnx"), &of_onnx(), "is damaged or cut short");
    check(
        &cut("torchscript.pt"),
        &LoadOptions::default(),
        "is damaged or cut short",
    );

    // Newer than what Keras writes, and what numpy does not pickle.
    let mut newer = whole("tiny.h5");
    newer[8] = 2;
    check(&newer, &of_keras(), "a superblock of version 2, expected 0 or 1");
    check(
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93.",
        &of_haiku(),
        "names Python objects that no state dict needs: `posix.system`",
    );
}

/// Of the entries whose own tables of names are tested nowhere else.
#[test]
fn other_codes_keys_become_timm_s() {
    let entries = checkpoints();
    let check = |name: &str, theirs: &str, timm: &str| {
        let entry = entries.iter().find(|entry| entry.checkpoint.name == name);
        let entry = entry.unwrap_or_else(|| panic!("no checkpoint {name}"));
        assert_eq!((entry.options.remap)(theirs), timm, "{name}");
    };
    let mocov3 = "module.base_encoder.layer1.0.conv1.weight";
    check("resnet50.mocov3_in1k", mocov3, "layer1.0.conv1.weight");
    let sscd = "backbone.layer1.0.conv1.weight";
    check("resnet50_sscd.disc_mixup", sscd, "layer1.0.conv1.weight");
    check("resnet50.tv_in1k", "layer1.0.conv1.weight", "layer1.0.conv1.weight");
    check("resnet50.vicreg_in1k", "layer1.0.conv1.weight", "layer1.0.conv1.weight");
    let sam = "image_encoder.blocks.0.mlp.lin1.weight";
    check("samvit_base_patch16.sa1b", sam, "blocks.0.mlp.fc1.weight");
    check(
        "samvit_base_patch16.sa1b",
        "image_encoder.neck.0.weight",
        "neck.0.weight",
    );
    let diffusion = "state_dict.model.diffusion_model.time_embed.0.weight";
    check(
        "stable_diffusion_v1.sd_v1_4",
        diffusion,
        "model.diffusion_model.time_embed.0.weight",
    );
    let regnet = "s2.b1.conv1.conv.weight";
    check("regnety_004.pycls_in1k", regnet, "s2.0.conv1.conv.weight");
}

/// OpenAI's own archive: TorchScript in half precision, with a text tower.
#[test]
fn clip_s_archive_loads_by_the_checkpoint_s_entry() {
    let device = Device::flex();
    let entries = checkpoints();
    let entry = entries
        .iter()
        .find(|entry| entry.checkpoint.name == "resnet50_clip.openai")
        .unwrap();
    let config = ClipResNetConfig::new([1, 2, 1, 1], 16)
        .with_width(2)
        .with_head_dim(32)
        .with_input_size([32, 96]);
    let (backbone, report) = weights::load_module(config.init(&device), &fixture("clip_resnet.pt"), &entry.options)
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((report.format, report.dtypes), (Format::TorchScript, vec![DType::F16]));
    let texts = report
        .ignored
        .iter()
        .filter(|name| !name.ends_with("num_batches_tracked"));
    let texts: Vec<_> = texts.map(String::as_str).collect();
    let expected = [
        "context_length",
        "input_resolution",
        "logit_scale",
        "positional_embedding",
        "text_projection",
        "transformer.resblocks.0.ln_1.weight",
        "vocab_size",
    ];
    assert_eq!(texts, expected);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved.safetensors");
    weights::save_module(&backbone, &path).unwrap();
    let mut saved = SafetensorsStore::from_file(&path);
    let models = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/models"));
    let mut original = SafetensorsStore::from_file(models.join("clip_resnet.safetensors"));
    for name in saved.keys().unwrap() {
        let half = read(&mut original, &name)
            .convert_dtype(DType::F16)
            .convert_dtype(DType::F32);
        assert_eq!(read(&mut saved, &name), half, "{name}");
    }
}

#[test]
fn lightning_s_checkpoint_loads_by_the_entry_of_stable_diffusion() {
    let loaded = deviation(&fixture("lightning.ckpt"), &of_lightning());
    let (deviation, report) = loaded.unwrap_or_else(|error| panic!("{error}"));
    assert!(deviation <= 1e-6, "{deviation}");
    assert_eq!((report.format, report.tensors), (Format::Zip, 8));
}

fn identity(key: &str) -> String {
    key.to_owned()
}

#[test]
fn a_file_that_does_not_fit_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let plain = LoadOptions::default();
    let check = |path: &Path, options: &LoadOptions, expected: &str| {
        let error = deviation(path, options).expect_err(expected).to_string();
        assert!(error.starts_with(&format!("weights `{}` ", path.display())), "{error}");
        assert!(error.contains(expected), "expected\n  {expected}\nin\n  {error}");
    };
    let written = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let safetensors = fs::read(fixture("tiny.safetensors")).unwrap();
    let zip = fs::read(fixture("zip.pth")).unwrap();
    let legacy = fs::read(fixture("legacy.pth")).unwrap();

    // Not weights, or not whole.
    check(
        &folder.path().join("none.pth"),
        &plain,
        "cannot be read or written: No such file",
    );
    check(&written("empty.safetensors", b""), &plain, "is empty");
    check(
        &written("page.pth", b"<!DOCTYPE html><title>404</title>"),
        &plain,
        "starts like a web page",
    );
    check(
        &written("lfs.safetensors", b"version https://git-lfs.github.com/spec/v1\noid"),
        &plain,
        "Git LFS",
    );
    check(
        &written("photo.pth", b"\xff\xd8\xff\xe0\x00\x10JFIF"),
        &plain,
        "first bytes ff d8 ff e0",
    );
    check(&written("pickle.pth", b"\x80\x02}q\x00."), &plain, "a bare pickle");
    check(
        &written("short.pth", &zip[..zip.len() / 2]),
        &plain,
        "is damaged or cut short",
    );
    check(
        &written("short_legacy.pth", &legacy[..legacy.len() - 9]),
        &plain,
        "is damaged or cut short",
    );
    check(
        &written("shorter_legacy.pth", &legacy[..40]),
        &plain,
        "is damaged or cut short: its pickle",
    );
    check(
        &written("short.safetensors", &safetensors[..safetensors.len() - 1]),
        &plain,
        "is damaged or cut short: its header claims",
    );
    let mut lying = safetensors.clone();
    lying[..8].copy_from_slice(&u64::to_le_bytes(1 << 40));
    check(
        &written("lying.safetensors", &lying),
        &plain,
        "its header claims 1099511627776 bytes and there is room for",
    );
    // More than tensors.
    check(
        &fixture("payload.pth"),
        &plain,
        "names Python objects that no state dict needs: `posix.system`",
    );
    check(&fixture("payload_legacy.pth"), &plain, "`posix.system`");
    check(&fixture("payload_protocol4.pth"), &plain, "`posix.system`");
    check(&fixture("namespace.pth"), &plain, "`argparse.Namespace`");
    check(&fixture("model.pth"), &plain, "`nets.Tiny`");
    check(
        &fixture("lightning.ckpt"),
        &plain,
        "`pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint`",
    );

    // Under another key.
    let nested = |key| plain.clone().with_top_level_key(key);
    check(
        &fixture("nested.pth"),
        &nested("model"),
        "no state dict at the key `model`",
    );
    check(&fixture("nested.pth"), &nested("epoch"), "does not hold a dictionary");
    let trusting = |key| nested(key).with_allowed_globals(&["argparse.Namespace"]);
    for key in ["model", "args"] {
        check(
            &fixture("namespace.pth"),
            &trusting(key),
            &format!("no state dict at the key `{key}`"),
        );
    }
    check(
        &fixture("nested.pth"),
        &plain,
        "`conv.weight` (did you mean the file's `state_dict.conv.weight`?)",
    );
    check(
        &fixture("tiny.safetensors"),
        &nested("state_dict"),
        "safetensors does not nest",
    );

    // Other names.
    let other = |remap| plain.clone().with_remap(remap);
    check(
        &fixture("zip.pth"),
        &other(|key| key.replace("fc.bias", "fc.biases")),
        "does not fit the model: 1 tensor missing: `fc.bias` (did you mean the file's `fc.biases`?); \
         1 tensor unexpected: `fc.biases`",
    );
    check(
        &fixture("zip.pth"),
        &other(|key| key.replace("running_mean", "running_var")),
        "two keys for one tensor: `bn.running_mean` and `bn.running_var` are both `bn.running_var`",
    );
    check(
        &fixture("zip.pth"),
        &plain.clone().with_ignored(&[]),
        "1 tensor unexpected: `bn.num_batches_tracked`",
    );
    // A leftover that is explained excuses no tensor that is missing.
    check(
        &fixture("zip.pth"),
        &other(|key| format!("old.{key}")).with_ignored(&["*"]),
        "8 tensors missing: `conv.weight`, `bn.weight`, `bn.bias`, `bn.running_mean`, `bn.running_var`, \
         `downsample.1.weight`, `fc.weight`, `fc.bias`",
    );
    check(
        &fixture("zip.pth"),
        &other(|key| match key {
            "bn.num_batches_tracked" => "bn.bias".to_owned(),
            "bn.bias" => "bn.num_batches_tracked".to_owned(),
            _ => identity(key),
        }),
        "1 tensor of another shape: `bn.bias` is [] and should be [4]",
    );
}

#[test]
fn keys_are_renamed_one_after_the_other_and_none_for_nothing() {
    let prefix = |from: &str, to: &str| Rename::Prefix {
        from: from.to_owned(),
        to: to.to_owned(),
    };
    let part = |from: &str, to: &str| Rename::Part {
        from: from.to_owned(),
        to: to.to_owned(),
    };
    let loaded = |renames: Vec<Rename>, remap: fn(&str) -> String| {
        let options = LoadOptions {
            renames,
            remap,
            ..LoadOptions::default()
        };
        deviation(&fixture("zip.pth"), &options).map(|(deviation, _)| assert!(deviation <= 1e-6))
    };
    // There and back again; the remap comes after both, and another code's keys before.
    loaded(
        vec![prefix("", "net."), part("net.bn", "bn"), prefix("net.", "")],
        identity,
    )
    .unwrap();
    loaded(vec![prefix("fc.", "head.")], |key| key.replace("head.", "fc.")).unwrap();

    let check = |renames: Vec<Rename>, expected: &str| {
        let error = loaded(renames, identity).expect_err(expected).to_string();
        assert!(error.contains(expected), "expected\n  {expected}\nin\n  {error}");
    };
    check(
        vec![prefix("fc.", "fc."), prefix("module.", "")],
        "has no keys that start with `module.`, which are to be renamed; its first key is `bn.bias`",
    );
    check(vec![part("encoder.", "")], "has no keys that contain `encoder.`");
    check(
        vec![prefix("bn.", "fc.")],
        "two keys for one tensor: `bn.bias` and `fc.bias` are both `fc.bias` after the remap",
    );
    check(vec![prefix("fc.", "head.")], "2 tensors missing: `fc.weight`");
}

#[test]
fn a_tensor_larger_than_its_file_is_not_allocated() {
    let device = Device::flex();
    let wide = Wide {
        fc: LinearConfig::new(4096, 4096).init(&device),
    };
    let path = fixture("expanded.pth");
    let error = weights::load_module(wide, &path, &LoadOptions::default())
        .unwrap_err()
        .to_string();
    let expected = format!(
        "has {} bytes, but its tensor `fc.weight` claims 67108864",
        fs::metadata(&path).unwrap().len()
    );
    assert_eq!(error, format!("weights `{}` {expected}", path.display()));
}

/// What happens to a tensor (name, shape, bytes); false leaves it out.
type Change = dyn Fn(&str, &mut Vec<usize>, &mut Vec<u8>) -> bool;

/// A safetensors file of the same tensors, each changed by `change`.
fn changed(path: &Path, change: &Change) {
    let bytes = fs::read(fixture("tiny.safetensors")).expect("the fixture is there");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("the fixture is whole");
    let mut kept = Vec::new();
    for (name, view) in file.tensors() {
        let (mut shape, mut data) = (view.shape().to_vec(), view.data().to_vec());
        if change(&name, &mut shape, &mut data) {
            kept.push((name, view.dtype(), shape, data));
        }
    }
    let views = kept
        .iter()
        .map(|(name, dtype, shape, data)| {
            (
                name.as_str(),
                safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).expect("the changed shape fits"),
            )
        })
        .collect::<Vec<_>>();
    fs::write(path, safetensors::serialize(views, None).expect("the tensors fit")).expect("the folder is there");
}

#[test]
fn a_changed_tensor_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("changed.safetensors");
    let check = |change: &Change, expected: &str| {
        changed(&path, change);
        let error = deviation(&path, &LoadOptions::default())
            .expect_err(expected)
            .to_string();
        assert_eq!(error, format!("weights `{}` {expected}", path.display()));
    };
    let value = |at: &'static str, element: usize, value: f32| {
        move |name: &str, _: &mut Vec<usize>, data: &mut Vec<u8>| {
            if name == at {
                data[4 * element..4 * element + 4].copy_from_slice(&value.to_le_bytes());
            }
            true
        }
    };
    check(
        &value("conv.weight", 30, f32::NAN),
        "has the value NaN in `conv.weight` at [1, 0, 1, 0]; expected finite values",
    );
    check(
        &value("fc.weight", 6, f32::INFINITY),
        "has the value inf in `fc.weight` at [1, 2]; expected finite values",
    );
    check(
        &value("bn.running_var", 3, f32::NEG_INFINITY),
        "has the value -inf in `bn.running_var` at [3]; expected finite values",
    );
    check(
        &|name, _, _| name != "bn.weight",
        "does not fit the model: 1 tensor missing: `bn.weight`",
    );
    check(
        &|name, shape, _| {
            if name == "conv.weight" {
                *shape = vec![4, 9, 3, 1];
            }
            true
        },
        "does not fit the model: 1 tensor of another shape: `conv.weight` is [4, 9, 3, 1] and should be [4, 3, 3, 3]",
    );
    check(
        &|name, shape, data| {
            if name == "fc.weight" {
                *shape = vec![2, 4];
                data.truncate(32);
            }
            name != "fc.bias"
        },
        "does not fit the model: 1 tensor missing: `fc.bias`; \
         1 tensor of another shape: `fc.weight` is [2, 4] and should be [4, 4]",
    );
}

/// Every tensor of a small ConvNeXt's file, renamed, left out, transposed or cut, one at a time.
#[test]
fn each_changed_tensor_of_a_checkpoint_is_named() {
    let device = Device::flex();
    let init = || {
        let config = ConvNextConfig::new([1, 1, 2, 1], [6, 8, 12, 16]).with_num_classes(10);
        AnyBackbone::from(initialize(0, &device, || config.init(&device)))
    };
    let folder = tempfile::tempdir().unwrap();
    let [saved, path] = ["saved", "changed"].map(|name| folder.path().join(format!("{name}.safetensors")));
    weights::save(&init(), &saved).unwrap();
    let bytes = fs::read(&saved).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let check = |name: &str, changed: Option<(&str, Vec<usize>)>, expected: &str| {
        let views = file.tensors().into_iter().filter_map(|(key, view)| {
            if key != name {
                return Some((key, view));
            }
            let (key, shape) = changed.clone()?;
            let data = &view.data()[..shape.iter().product::<usize>() * 4];
            let view = safetensors::tensor::TensorView::new(view.dtype(), shape, data).unwrap();
            Some((key.to_owned(), view))
        });
        fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        let error = weights::load_module(init(), &path, &LoadOptions::default()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}\nand not: {expected}");
    };
    let mut transposed = 0;
    for (name, view) in file.tensors() {
        let shape = view.shape().to_vec();
        let missing = format!("1 tensor missing: `{name}`");
        check(&name, None, &missing);
        let renamed = format!("{name}_of_mine");
        check(&name, Some((&renamed, shape.clone())), &missing);
        check(
            &name,
            Some((&renamed, shape.clone())),
            &format!("1 tensor unexpected: `{renamed}`"),
        );
        let other = format!("1 tensor of another shape: `{name}` is ");
        let mut cut = shape.clone();
        if let Some(last) = cut.iter_mut().rev().find(|size| **size > 1) {
            *last -= 1;
            check(&name, Some((&name, cut)), &other);
        }
        let mut swapped = shape.clone();
        swapped.reverse();
        if swapped != shape {
            transposed += 1;
            check(&name, Some((&name, swapped)), &other);
        }
    }
    assert!(file.len() > 60 && transposed == 20, "{} {transposed}", file.len());
}

#[test]
fn saved_weights_are_the_same_and_named_as_timm_names_them() {
    let device = Device::flex();
    let options = LoadOptions::default();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("saved.safetensors");
    let (tiny, _) = weights::load_module(Any::Tiny(Tiny::init(&device)), &fixture("zip.pth"), &options).unwrap();
    weights::save_module(&tiny, &path).unwrap();
    weights::save_module(&tiny, &path).unwrap(); // replaces

    let mut saved = SafetensorsStore::from_file(&path);
    let mut names = weights::expected(&tiny)
        .into_iter()
        .map(|expected| expected.name)
        .collect::<Vec<_>>();
    names.sort();
    assert_eq!(saved.keys().unwrap(), names);
    assert_eq!(names.len(), 8);
    let (deviation, report) = deviation(&path, &options).unwrap();
    assert!(deviation <= 1e-6, "{deviation}");
    assert!(report.ignored.is_empty());

    let nowhere = folder.path().join("no/such/folder/saved.safetensors");
    let error = weights::save_module(&tiny, &nowhere).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("weights `{}` cannot be read or written", nowhere.display())),
        "{error}"
    );
}

#[test]
fn one_seed_gives_one_set_of_random_weights() {
    let device = Device::flex();
    let draw = |seed| {
        let tiny = initialize(seed, &device, || Tiny::init(&device));
        assert!(tiny.conv.weight.is_initialized() && tiny.fc.weight.is_initialized());
        (tiny.conv.weight.val().to_data(), tiny.fc.weight.val().to_data())
    };
    let first = draw(7);
    // Another thread that initialises must not take numbers from this one.
    let others = (0..4)
        .map(|_| std::thread::spawn(|| drop(initialize(1, &Device::flex(), || Tiny::init(&Device::flex())))))
        .collect::<Vec<_>>();
    assert!((0..20).all(|_| draw(7) == first));
    assert!(draw(8) != first);
    others.into_iter().for_each(|other| other.join().unwrap());
}

/// The smallest architecture of every family.
#[test]
fn every_random_backbone_is_reproducible_saves_and_loads_again() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let size = |backbone: &AnyBackbone| -> usize {
        weights::expected(backbone)
            .iter()
            .map(|expected| expected.shape.num_elements())
            .sum()
    };
    // Gigabytes say no more; the one member of such a family is saved and loaded small, in `parity_families.rs`.
    let is_huge = |backbone: &AnyBackbone| size(backbone) > 200_000_000;
    let mut smallest = Vec::<(AnyBackbone, &str, InitOptions)>::new();
    for architecture in architectures() {
        let options = InitOptions {
            num_classes: 3,
            input_size: architecture.input_size,
        };
        let backbone = (architecture.init)(&options, &device);
        let family = discriminant(&backbone);
        match smallest.iter_mut().find(|(other, ..)| discriminant(other) == family) {
            None => smallest.push((backbone, architecture.name, options)),
            Some(other) if size(&backbone) < size(&other.0) => *other = (backbone, architecture.name, options),
            Some(_) => {}
        }
    }
    smallest.retain(|(backbone, ..)| !is_huge(backbone));
    assert!(smallest.len() >= 9, "{} families", smallest.len());

    for (_, name, options) in smallest {
        let save = |path: &Path| {
            weights::save(&create_random(name, &options, 3, &device).unwrap(), path).unwrap();
            fs::read(path).unwrap()
        };
        let path = folder.path().join("first.safetensors");
        let bytes = save(&path);
        assert!(bytes == save(&folder.path().join("second.safetensors")), "{name}");
        let other = create_random(name, &options, 4, &device).unwrap();
        let (loaded, report) = weights::load_module(other, &path, &LoadOptions::default()).unwrap();
        assert_eq!(report.tensors, weights::expected(&loaded).len(), "{name}");
        weights::save(&loaded, &path).unwrap();
        assert!(bytes == fs::read(&path).unwrap(), "{name}");
    }
}

/// So that a file with timm's own names loads through any entry, whatever the names of its published file.
#[test]
fn timm_s_own_names_pass_every_remap_unchanged_and_unignored() {
    let device = Device::flex();
    let architectures = architectures();
    for entry in checkpoints() {
        let name = &entry.checkpoint.name;
        let architecture = architectures.iter().find(|a| a.name == entry.checkpoint.architecture);
        let architecture = architecture.unwrap_or_else(|| panic!("{name}: no such architecture"));
        let options = InitOptions {
            num_classes: entry.checkpoint.num_classes,
            input_size: entry.checkpoint.preprocess.input_size,
        };
        for expected in weights::expected(&(architecture.init)(&options, &device)) {
            assert_eq!((entry.options.remap)(&expected.name), expected.name, "{name}");
            let ignores = |pattern: &&String| match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
                (Some(suffix), _) => expected.name.ends_with(suffix),
                (None, Some(prefix)) => expected.name.starts_with(prefix),
                (None, None) => expected.name == **pattern,
            };
            assert_eq!(
                entry.options.ignored.iter().find(ignores),
                None,
                "{name} ignores its own {}",
                expected.name
            );
        }
    }
}

#[test]
fn the_digest_is_sha256() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("abc");
    fs::write(&path, b"abc").unwrap();
    let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(weights::sha256(&path).unwrap(), expected);
    assert!(weights::sha256(folder.path().join("none").as_path()).is_err());
}

#[test]
fn a_model_is_saved_with_the_last_statistics_of_its_training() {
    let device = Device::flex().autodiff();
    let tiny = initialize(5, &device, || Tiny::init(&device));
    forward(&tiny, Tensor::ones([4, 3, 8, 8], &device) * 3.0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.safetensors");
    weights::save_module(&tiny, &path).unwrap();

    let plain = Device::flex();
    let options = LoadOptions::default();
    let (loaded, _) = weights::load_module(Tiny::init(&plain), &path, &options).unwrap();
    let statistics = |tiny: &Tiny| tiny.bn.running_mean.value().into_data();
    assert_eq!(statistics(&loaded), statistics(&tiny.valid()));
    assert_ne!(statistics(&loaded), statistics(&Tiny::init(&plain)));
}
