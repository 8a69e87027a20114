//! `list`, `fetch`, `extract` and `measure`.
#![cfg(all(feature = "worker", feature = "flex"))]

mod site;

use std::fs;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use site::Site;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn lists_name_and_describe() {
    let site = Site::new();
    let check = |what: &str, keys: &[&str], one: &str| {
        let names = site.bob(&["list", what]).ends_with(0).out;
        assert!(names.lines().any(|line| line == one), "`{one}` is not in {names}");
        let rows = json(&site.bob(&["list", what, "--json"]).ends_with(0).out);
        let rows = rows.as_array().expect("an array");
        assert_eq!(rows.len(), names.lines().count());
        for (row, name) in rows.iter().zip(names.lines()) {
            assert_eq!(row["name"], name);
            for key in keys {
                assert!(!row[key].is_null(), "{what} {name} has no `{key}`");
            }
        }
    };
    let checkpoint = [
        "architecture",
        "family",
        "pretraining",
        "num_features",
        "parameters",
        "macs",
        "input_size",
        "mean",
        "std",
        "interpolation",
        "crop_pct",
        "license",
        "sources",
    ];
    check("checkpoints", &checkpoint, "tf_efficientnet_lite0.in1k");
    check("backbones", &checkpoint, "resnet18.random");
    check("datasets", &["description", "license", "files"], "cifar10");
    check("protocols", &["version", "task", "variant", "protocol"], "linear-probe");
    assert!(site.files().is_empty(), "listing writes nothing");
}

#[test]
fn the_battle_is_listed_as_its_document_has_it() {
    let site = Site::new();
    let table = site.bob(&["list", "battle"]).ends_with(0).out;
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/backbones.md");
    let document = fs::read_to_string(document).expect("there");
    assert!(
        document.ends_with(&table),
        "docs/backbones.md does not end with what `cargo xtask list battle` prints:\n{table}"
    );
    let rows = json(&site.bob(&["list", "battle", "--json"]).ends_with(0).out);
    let names = site.bob(&["list", "checkpoints"]).ends_with(0).out;
    let is_registered = |name: &Value| name.is_null() || names.lines().any(|line| name == line);
    for row in rows.as_array().expect("an array") {
        assert!(is_registered(&row["as_corrected"]["checkpoint"]), "{row}");
        let released = row["as_released"].as_array().expect("an array");
        assert!(released.iter().all(|one| is_registered(&one["checkpoint"])), "{row}");
    }
    let clip = rows
        .as_array()
        .and_then(|rows| rows.iter().find(|row| row["number"] == 26))
        .expect("there");
    assert_eq!(clip["as_released"][0]["task"], "classification");
    assert_eq!(clip["as_released"][0]["preprocess"]["crop_pct"], 0.9);
}

#[test]
fn sizes_are_the_published_ones() {
    let rows = json(&Site::new().bob(&["list", "backbones", "--json"]).ends_with(0).out);
    let check = |name: &str, parameters: u64, giga_macs: f64| {
        let row = rows
            .as_array()
            .expect("an array")
            .iter()
            .find(|row| row["name"] == name)
            .expect("listed");
        assert_eq!(row["parameters"], parameters, "{name}");
        let macs = row["macs"].as_f64().expect("counted") / 1e9;
        assert!((macs - giga_macs).abs() < 0.01 * giga_macs, "{name}: {macs}");
    };
    // timm's results/model_metadata and benchmark tables.
    check("resnet18.random", 11_689_512, 1.82);
    check("resnet50.random", 25_557_032, 4.11);
    check("vit_tiny_patch16_224.random", 5_717_416, 1.26);
    check("convnext_atto.random", 3_695_520, 0.55);
}

#[test]
fn a_precision_that_would_be_another_is_refused() {
    let check = |dtype: &str, expected: &str| {
        let arguments = ["measure", "--backbone", "resnet18.random", "--dtype", dtype];
        let said = Site::new().bob(&arguments).ends_with(2);
        assert!(said.err.contains(expected), "{}", said.err);
    };
    check("bf16", "backend `flex` does not compute in `bf16`; `tch` does");
    check("f16", "float16 ends at 65504");
    check("bf61", "did you mean `bf16`?");
}

#[test]
fn a_profile_names_the_operations() {
    let check = |mode: &str, expected: &[&str]| {
        let arguments = [
            "measure",
            "--backbone",
            "resnet18.random",
            "--mode",
            mode,
            "--batch",
            "2",
            "--size",
            "64",
        ];
        let profile = json(
            &Site::new()
                .bob(&[&arguments[..], &["--profile", "--json"]].concat())
                .ends_with(0)
                .out,
        );
        let rows = profile["operations"].as_array().expect("an array");
        let share: f64 = rows.iter().map(|row| row["share"].as_f64().expect("a number")).sum();
        assert!((share - 1.0).abs() < 1e-6, "the shares add up to {share}");
        for name in expected {
            assert!(
                rows.iter().any(|row| row["operation"] == *name),
                "no `{name}` in {rows:?}"
            );
        }
    };
    check("infer", &["conv2d", "max_pool2d"]);
    check("train", &["conv2d", "batch_norm", "cross_entropy", "adamw"]);
}

#[test]
fn an_unknown_name_is_not_fetched() {
    let said = Site::new().bob(&["fetch", "cifar11"]).ends_with(2);
    assert!(said.err.contains("did you mean `cifar10`?"), "{}", said.err);
}

#[test]
fn images_become_embeddings_logits_and_stages() {
    let site = Site::new();
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/datasets/clipart/test");
    let images = images.to_str().expect("UTF-8");
    let extract = |more: &[&str], output: &str| {
        let mut arguments = vec!["extract", "--backbone", "convnext_atto.random", "--output", output];
        arguments.extend(more);
        site.bob(&arguments).ends_with(0);
        fs::read(site.path(output)).expect("written")
    };
    let bytes = extract(&["--images", images, "--pixels"], "images.safetensors");
    let (_, metadata) = SafeTensors::read_metadata(&bytes).expect("safetensors");
    let files = metadata
        .metadata()
        .as_ref()
        .and_then(|metadata| metadata.get("files"))
        .expect("`files`")
        .clone();
    let files: Vec<String> = serde_json::from_str(&files).expect("a JSON array of names");
    assert!(files.is_sorted() && !files.is_empty());
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let n = files.len();
    let check = |name: &str, shape: &[usize]| {
        let tensor = tensors.tensor(name).expect(name);
        assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::F32, shape), "{name}");
    };
    check("pixels", &[n, 3, 224, 224]);
    check("embedding", &[n, 320]);
    check("logits", &[n, 1000]);
    check("stage0", &[n, 40, 56, 56]);
    check("stage3", &[n, 320, 7, 7]);

    // The pixels as tensors give the same, whatever the batch.
    let pixels = tensors.tensor("pixels").expect("checked");
    safetensors::serialize_to_file([("images", pixels)], None, &site.path("pixels.safetensors")).expect("written");
    let again = extract(
        &["--tensors", "pixels.safetensors", "--batch", "3"],
        "tensors.safetensors",
    );
    let again = SafeTensors::deserialize(&again).expect("safetensors");
    for name in ["embedding", "logits", "stage0", "stage3"] {
        assert_eq!(
            again.tensor(name).expect(name).data(),
            tensors.tensor(name).expect(name).data(),
            "{name}"
        );
    }
    assert!(again.tensor("pixels").is_err());
}

#[test]
fn input_that_is_none_is_named() {
    let site = Site::new();
    fs::create_dir(site.path("empty")).expect("made");
    fs::create_dir(site.path("broken")).expect("made");
    site.write("broken/zero.jpg", "");
    site.write("no.safetensors", "no tensors");
    let check = |input: [&str; 2], backbone: &str, code: i32, expected: &str| {
        let arguments = [
            "extract",
            "--backbone",
            backbone,
            input[0],
            input[1],
            "--output",
            "out.safetensors",
        ];
        let said = site.bob(&arguments).ends_with(code);
        assert!(said.err.contains(expected), "{}", said.err);
        assert!(!site.path("out.safetensors").exists());
    };
    check(["--images", "empty"], "resnet18.random", 1, "empty");
    check(["--images", "broken"], "resnet18.random", 1, "zero.jpg");
    check(["--images", "nowhere"], "resnet18.random", 1, "nowhere");
    check(
        ["--tensors", "no.safetensors"],
        "resnet18.random",
        1,
        "`no.safetensors` is no safetensors file",
    );
    check(
        ["--tensors", "nowhere.safetensors"],
        "resnet18.random",
        2,
        "`nowhere.safetensors`",
    );
    check(
        ["--images", "broken"],
        "resnet81.random",
        2,
        "did you mean `resnet18.random`?",
    );
    check(["--images", "broken"], "tf_efficientnet_lite0.in1k", 1, "offline");
}

#[test]
fn speed_is_measured() {
    let site = Site::new();
    let arguments = [
        "measure",
        "--backbone",
        "resnet18.random",
        "--size",
        "64",
        "--batch",
        "2",
        "--json",
    ];
    let measured = json(&site.bob(&arguments).ends_with(0).out);
    let number = |key: &str| {
        measured[key]
            .as_f64()
            .unwrap_or_else(|| panic!("`{key}` is a number: {measured}"))
    };
    assert!(number("images_per_second") > 0.0);
    assert!(number("peak_memory_bytes") > 0.0);
    assert_eq!(measured["parameters"], 11_689_512);
    assert!(number("macs") > 1e8);
    assert_eq!((&measured["backend"], &measured["batch"]), (&"flex".into(), &2.into()));
    assert_eq!(measured["size"], serde_json::json!([64, 64]));
    let latency = |key: &str| measured["latency_ms"][key].as_f64().expect("a number");
    assert!(latency("p50") > 0.0 && latency("p50") <= latency("p90") && latency("p90") <= latency("p99"));

    let said = site
        .bob(&["measure", "--backbone", "vit_tiny_patch16_224.random", "--size", "50"])
        .ends_with(1);
    assert!(said.err.contains("50x50"), "{}", said.err);
}

#[test]
fn training_is_measured() {
    let site = Site::new();
    let train = |backbone: &str, size: &str, batch: &str, more: &[&str]| {
        let arguments = [
            "measure",
            "--mode",
            "train",
            "--backbone",
            backbone,
            "--size",
            size,
            "--batch",
            batch,
        ];
        site.bob(&[&arguments, more].concat())
    };
    let measured = json(&train("resnet18.random", "32", "2", &["--json"]).ends_with(0).out);
    let number = |pointer: &str| {
        measured
            .pointer(pointer)
            .and_then(Value::as_f64)
            .unwrap_or_else(|| panic!("`{pointer}` is a number: {measured}"))
    };
    assert_eq!(
        (&measured["mode"], &measured["folded"]),
        (&"train".into(), &false.into())
    );
    assert_eq!(
        (&measured["backend"], &measured["dtype"]),
        (&"flex".into(), &"f32".into())
    );
    assert_eq!(
        (&measured["batch"], &measured["size"]),
        (&2.into(), &serde_json::json!([32, 32]))
    );
    assert_eq!(measured["parameters"], 11_689_512);
    assert!(number("/images_per_second") > 0.0 && number("/steps") >= 5.0 && number("/warmup_steps") >= 2.0);
    let parts = ["forward", "backward", "optimizer"].map(|part| number(&format!("/seconds/{part}")));
    assert!(
        parts
            .iter()
            .all(|&seconds| seconds > 0.0 && seconds < number("/seconds/step"))
    );
    // Weights, gradients and the two moments of AdamW, four bytes each; the process held the weights before.
    assert!(number("/peak_memory_bytes") > 3.0 * 4.0 * 11.6e6);
    assert!(number("/peak_process_bytes") > number("/peak_memory_bytes"));

    let table = train("resnet18.random", "32", "2", &[]).ends_with(0).out;
    for name in [
        "forward_seconds",
        "backward_seconds",
        "optimizer_seconds",
        "step_seconds",
        "heap",
    ] {
        assert!(table.contains(name), "no `{name}` in {table}");
    }
    let check = |backbone: &str, size: &str, batch: &str, status: i32, expected: &str| {
        let said = train(backbone, size, batch, &[]).ends_with(status);
        assert!(said.err.contains(expected), "`{}` has no `{expected}`", said.err);
    };
    check("vit_tiny_patch16_224.random", "50", "2", 1, "images of 50x50 pixels");
    check(
        "resnet18.random",
        "32",
        "1",
        1,
        "its last map has one value per channel",
    );
    check("resnet18.random", "32", "0", 2, "expected at least 1");
}
