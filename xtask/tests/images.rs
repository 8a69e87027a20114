//! `bench-all --images`: the battle on folders of one's own.
#![cfg(all(feature = "worker", feature = "flex"))]

mod site;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use site::{Said, Site};

/// One backbone of random weights, and speed; the data set is left out for the folders.
const TINY: &str = r#"
backbones = ["resnet18.random"]
input_size = 32

[[setting]]
dataset = "fixtures"
protocols = ["knn"]

[[setting]]
protocols = ["efficiency"]
"#;

/// The drawings of a split, a folder a class.
fn drawings(split: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fixtures/datasets/clipart")
        .join(split)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("readable") {
        let path = entry.expect("readable").path();
        let to = to.join(path.file_name().expect("has one"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(path, to).expect("copied");
        }
    }
}

/// Some file of `folder`.
fn any(folder: PathBuf) -> PathBuf {
    let mut entries = fs::read_dir(folder).expect("there");
    entries.next().expect("one").expect("readable").path()
}

fn run(site: &Site, more: &[&str]) -> Said {
    let mut arguments = vec!["bench-all", "--profile", "tiny.toml", "--results", "results"];
    arguments.extend(more);
    site.bob(&arguments)
}

fn record(site: &Site, name: &str) -> Value {
    let path = site.path("results").join(name).join("resnet18.random/0.json");
    serde_json::from_slice(&fs::read(path).expect(name)).expect("JSON")
}

#[test]
fn folders_of_classes_are_cut_and_scored() {
    let site = Site::new();
    site.write("tiny.toml", TINY);
    copy(&drawings("train"), &site.path("mine"));
    let said = run(&site, &["--images", "mine", "--protocol", "k*", "--protocol", "*-*"]).ends_with(0);
    let cut = "mine: 10 classes, 100 images to train on, 20 to test on: a fifth of every class";
    assert!(said.err.contains(cut), "{}", said.err);
    assert!(said.err.contains("4 cells, 0 done, 4 to run on `flex`"), "{}", said.err);
    for protocol in ["knn@1", "linear-probe@1", "few-shot@1", "class-retrieval@1"] {
        let record = record(&site, &format!("{protocol}/mine"));
        assert_eq!(record["data"]["fixtures"], false, "these are somebody's own");
        assert_eq!(
            record["data"]["counts"],
            serde_json::json!({ "train": 100, "test": 20 })
        );
    }
    let report = fs::read_to_string(site.path("report/report.md")).expect("written");
    assert!(report.contains("mine"), "{report}");

    let again = run(&site, &["--images", "mine", "--protocol", "k*"]).ends_with(0);
    assert!(again.err.contains("1 cells, 1 done, 0 to run"), "{}", again.err);
    fs::remove_file(any(site.path("mine/bird"))).expect("removed");
    let changed = run(&site, &["--images", "mine", "--protocol", "k*"]).ends_with(0);
    assert!(
        changed.err.contains("1 cells, 0 done, 1 to run"),
        "other images: {}",
        changed.err
    );
}

#[test]
fn splits_are_taken_as_they_are_and_a_leak_is_told() {
    let site = Site::new();
    site.write("tiny.toml", TINY);
    copy(&drawings("train"), &site.path("mine/train"));
    copy(&drawings("test"), &site.path("mine/val"));
    let limited = [
        "--images",
        "mine",
        "--protocol",
        "knn",
        "--limit",
        "train=40",
        "--limit",
        "test=20",
    ];
    let said = run(&site, &limited).ends_with(0);
    assert!(said.err.contains("80 to test on: `val`\n"), "{}", said.err);
    assert!(!said.err.contains("warning"), "{}", said.err);
    record(&site, "knn@1/mine-40-20");

    let leaked = any(site.path("mine/train/bird"));
    fs::copy(leaked, site.path("mine/val/bird/twin.png")).expect("copied");
    // A profile names folders from where it lies.
    fs::create_dir(site.path("profiles")).expect("made");
    let mine = TINY.replace("dataset = \"fixtures\"", "images = \"../mine\"");
    site.write("profiles/mine.toml", &mine);
    let said = site.bob(&[
        "bench-all",
        "--profile",
        "profiles/mine.toml",
        "--results",
        "results",
        "--protocol",
        "knn",
    ]);
    let said = said.ends_with(0);
    let leak = "warning: mine: 1 images that are tested on are also trained on, byte for byte";
    assert!(said.err.contains(leak), "{}", said.err);
    record(&site, "knn@1/mine");
}

#[test]
fn a_folder_that_is_none_is_named() {
    let site = Site::new();
    site.write("tiny.toml", TINY);
    for name in ["cifar10-5", "a/mine", "b/mine"] {
        copy(&drawings("test").join("bird"), &site.path(name).join("bird"));
    }
    fs::create_dir(site.path("empty")).expect("made");
    let check = |more: &[&str], code: i32, expected: &str| {
        let err = run(&site, more).ends_with(code).err;
        assert!(err.contains(expected), "`{expected}` is not in: {err}");
    };
    check(&["--images", "nowhere"], 2, "images `nowhere`: ");
    check(
        &["--images", "tiny.toml"],
        2,
        "images `tiny.toml`: expected a folder with a name",
    );
    check(
        &["--images", "cifar10-5"],
        2,
        "images `cifar10-5`: records could not tell it from `cifar10`; rename it",
    );
    check(
        &["--images", "a/mine", "--images", "b/mine"],
        2,
        "are both called `mine`; rename one",
    );
    check(
        &["--images", "a/mine", "--dataset", "cifar10"],
        2,
        "cannot be used with",
    );
    check(&["--limit", "train=5"], 2, "--images");
    check(
        &["--images", "a/mine", "--limit", "train=500"],
        1,
        "500 images of split `train` were asked for",
    );
    check(&["--images", "empty"], 1, "has no image; images end in one of");
    assert!(!site.path("results").exists() || site.records().is_empty());
}
