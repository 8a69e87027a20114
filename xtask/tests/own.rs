//! `--checkpoints`: checkpoints that a TOML file of the user's adds.
#![cfg(all(feature = "worker", feature = "flex"))]

mod site;

use std::fs;
use std::path::Path;

use bob_core::device::{BackendName, select};
use bob_models::weights::{save, sha256};
use bob_models::{InitOptions, create_random};
use safetensors::SafeTensors;
use serde_json::Value;
use site::Site;

/// One set of weights, under timm's names and under somebody else's.
const MINE: &str = r#"
[[checkpoint]]
name = "test_resnet.plain"
architecture = "test_resnet"
file = "weights/plain.safetensors"
num_classes = 5
preprocess = { input_size = 64, mean = [0.5, 0.5, 0.5], std = [0.2, 0.2, 0.2], interpolation = "bicubic", crop_pct = 0.9 }
pretraining = { style = "supervised", data = "mine", images = 123 }

[[checkpoint]]
name = "test_resnet.renamed"
architecture = "test_resnet"
file = "weights/renamed.safetensors"
num_classes = 5
preprocess = { input_size = 64, mean = [0.5, 0.5, 0.5], std = [0.2, 0.2, 0.2], interpolation = "bicubic", crop_pct = 0.9 }
pretraining = { style = "supervised", data = "mine", images = 123 }
rename = [{ prefix = "module.encoder.", to = "" }, { part = "kernel", to = "conv" }]
ignored = ["module.queue"]
"#;

fn mine() -> Site {
    let site = Site::new();
    fs::create_dir_all(site.path("own/weights")).expect("made");
    site.write("own/mine.toml", MINE);
    let options = InitOptions {
        num_classes: 5,
        input_size: [64, 64],
    };
    let device = select(BackendName::Flex).expect("linked");
    let backbone = create_random("test_resnet", &options, 7, &device).expect("registered");
    let plain = site.path("own/weights/plain.safetensors");
    save(&backbone, &plain).expect("written");

    let bytes = fs::read(plain).expect("there");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let mut renamed: Vec<(String, _)> = tensors
        .tensors()
        .into_iter()
        .map(|(name, view)| (format!("module.encoder.{}", name.replace("conv", "kernel")), view))
        .collect();
    let queue = tensors.tensor("conv1.0.weight").expect("a deep stem");
    renamed.push(("module.queue".to_owned(), queue));
    safetensors::serialize_to_file(renamed, None, &site.path("own/weights/renamed.safetensors")).expect("written");
    site
}

fn images() -> String {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/datasets/clipart/test");
    images.to_str().expect("UTF-8").to_owned()
}

#[test]
fn renamed_weights_are_the_same_backbone() {
    let site = mine();
    let own = ["--checkpoints", "own/mine.toml"];
    let extract = |backbone: &str, more: &[&str]| {
        let images = images();
        let arguments = [
            "extract",
            "--backbone",
            backbone,
            "--images",
            &images,
            "--output",
            "out.safetensors",
        ];
        site.bob(&[&arguments, more].concat()).ends_with(0);
        fs::read(site.path("out.safetensors")).expect("written")
    };
    let plain = extract("test_resnet.plain", &own);
    assert!(plain == extract("test_resnet.renamed", &own));
    let tensors = SafeTensors::deserialize(&plain).expect("safetensors");
    assert_eq!(tensors.tensor("logits").expect("it has a classifier").shape()[1], 5);

    let rows = site
        .bob(&[&["list", "checkpoints", "--json"], &own[..]].concat())
        .ends_with(0)
        .out;
    let rows: Vec<Value> = serde_json::from_str(&rows).expect("JSON");
    let row = rows
        .iter()
        .find(|row| row["name"] == "test_resnet.renamed")
        .expect("listed");
    assert_eq!((&row["family"], &row["crop_pct"]), (&"resnet".into(), &0.9.into()));
    assert!(row["parameters"].as_u64().expect("counted") < 500_000);
    assert!(
        row["file"]
            .as_str()
            .expect("a path")
            .ends_with("own/weights/renamed.safetensors")
    );
    let names = site.bob(&["list", "checkpoints"]).ends_with(0).out;
    assert!(!names.contains("test_resnet.renamed"));

    let fetched = site
        .bob(&[&["fetch", "test_resnet.plain"], &own[..]].concat())
        .ends_with(0)
        .out;
    assert!(fetched.trim().ends_with("own/weights/plain.safetensors"), "{fetched}");
    let measure = ["measure", "--backbone", "test_resnet.plain", "--batch", "2", "--json"];
    let measured = site.bob(&[&measure, &own[..]].concat()).ends_with(0).out;
    assert!(measured.contains("\"size\": [\n    64,\n    64\n  ]"), "{measured}");
}

#[test]
fn a_profile_brings_its_own_and_nothing_stale_is_taken() {
    let site = mine();
    let profile = r#"
checkpoints = ["mine.toml"]
backbones = ["test_resnet.plain", "test_resnet.renamed"]
[[setting]]
dataset = "fixtures"
limit = { train = 40, test = 20 }
protocols = ["knn"]
"#;
    site.write("own/profile.toml", profile);
    let run = |more: &[&str], plan: &str, passes: &[&str]| {
        let arguments = ["bench-all", "--profile", "own/profile.toml", "--results", "results"];
        let said = site.bob(&[&arguments, more].concat()).ends_with(0);
        assert!(said.err.starts_with(plan), "{}", said.err);
        let through = said
            .err
            .lines()
            .filter_map(|line| line.trim().strip_suffix(" images through the backbone"));
        assert_eq!(through.collect::<Vec<_>>(), passes, "{}", said.err);
    };
    run(&[], "2 cells, 0 done, 2 to run", &["60", "60"]);
    // The file may also be brought on the command line, by another path.
    run(
        &["--checkpoints", "own/../own/mine.toml"],
        "2 cells, 2 done, 0 to run",
        &[],
    );
    let record = |name: &str| -> Value {
        let path = site.path(&format!("results/knn@1/fixtures-40-20/{name}/0.json"));
        serde_json::from_slice(&fs::read(path).expect("a record")).expect("JSON")
    };
    let (plain, renamed) = (record("test_resnet.plain"), record("test_resnet.renamed"));
    assert_eq!(plain["metrics"], renamed["metrics"]);
    let file = sha256(&site.path("own/weights/plain.safetensors")).expect("there");
    assert_eq!(plain["checkpoint"]["sha256"], file.as_str());
    assert_ne!(
        plain["checkpoint"]["setup_sha256"],
        renamed["checkpoint"]["setup_sha256"]
    );

    // One weights file, another preprocessing, under the same name: neither the record nor the embeddings are its.
    let edit = |from: &str, to: &str| {
        assert!(MINE.contains(from));
        site.write("own/mine.toml", &MINE.replacen(from, to, 1));
    };
    edit("crop_pct = 0.9", "crop_pct = 0.5");
    run(&[], "2 cells, 1 done, 1 to run", &["60"]);
    let setup = |record: &Value| record["checkpoint"]["setup_sha256"].clone();
    assert_ne!(setup(&record("test_resnet.plain")), setup(&plain));
    // The embeddings of the first use are still there, and what no number depends on is no other use.
    site.write("own/mine.toml", MINE);
    run(&[], "2 cells, 1 done, 1 to run", &["0"]);
    assert_eq!(record("test_resnet.plain")["metrics"], plain["metrics"]);
    edit("num_classes = 5", "num_classes = 5\npaper = \"2105.00000\"");
    run(&[], "2 cells, 2 done, 0 to run", &[]);
}

#[test]
fn what_the_command_line_brings_takes_part() {
    let site = mine();
    let profile = "backbones = [\"resnet18.random\"]\n[[setting]]\nprotocols = [\"efficiency\"]";
    site.write("profile.toml", profile);
    let run = |more: &[&str]| {
        let arguments = [
            "bench-all",
            "--dry-run",
            "--profile",
            "profile.toml",
            "--checkpoints",
            "own/mine.toml",
        ];
        site.bob(&[&arguments, more].concat()).ends_with(0).out
    };
    assert_eq!(run(&[]).lines().count(), 3);
    let one = run(&["--backbone", "*.renamed"]);
    assert_eq!(one.lines().count(), 1);
    assert!(one.contains("test_resnet.renamed"), "{one}");
}

#[test]
fn a_slip_is_no_backbone() {
    let site = mine();
    let check = |from: &str, to: &str, code: i32, expected: &str| {
        assert!(MINE.contains(from));
        site.write("own/slip.toml", &MINE.replace(from, to));
        let images = images();
        let arguments = [
            "extract",
            "--backbone",
            "test_resnet.renamed",
            "--checkpoints",
            "own/slip.toml",
        ];
        let more = ["--images", &images, "--output", "out.safetensors"];
        let said = site.bob(&[&arguments[..], &more].concat()).ends_with(code);
        assert!(
            said.err.contains(expected),
            "expected\n  {expected}\nin\n  {}",
            said.err
        );
        assert!(!site.path("out.safetensors").exists());
    };
    check(
        "architecture = \"test_resnet\"",
        "architecture = \"test_resnest\"",
        2,
        "error: checkpoints `own/slip.toml`, `test_resnet.plain`: key `architecture`: unknown architecture \
         `test_resnest`; did you mean `test_resnet`?",
    );
    check(
        "crop_pct",
        "crop_part",
        2,
        "checkpoints `own/slip.toml`, line 7: unknown field `crop_part`",
    );
    check(
        "weights/renamed",
        "weights/renamd",
        2,
        "weights/renamd.safetensors`, which is no file",
    );
    check(
        "test_resnet.plain",
        "resnet18.random",
        2,
        "expected a name that no other backbone has",
    );
    check(
        "num_classes = 5",
        "num_classes = 5\nsha256 = \"0000000000000000000000000000000000000000000000000000000000000000\"",
        1,
        "expected 0000",
    );
    // Loading is as strict as for what is registered.
    check(
        "ignored = [\"module.queue\"]",
        "",
        1,
        "1 tensor unexpected: `module.queue`",
    );
    check(
        "\"module.encoder.\"",
        "\"module.encodr.\"",
        1,
        "has no keys that start with `module.encodr.`",
    );
    check(
        "num_classes = 5",
        "num_classes = 7",
        1,
        "2 tensors of another shape: `fc.",
    );
    let said = site
        .bob(&["list", "checkpoints", "--checkpoints", "nowhere.toml"])
        .ends_with(2);
    assert!(
        said.err.contains("checkpoints `nowhere.toml`: No such file"),
        "{}",
        said.err
    );
}
