//! `bench-all` on the repository's own images: resuming, being killed, bad input.
#![cfg(all(feature = "worker", feature = "flex"))]

mod site;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use site::{Said, Site};

/// Two backbones with random weights at 32 pixels on three protocols: six cells of well under a second.
const TINY: &str = r#"
backbones = ["resnet18.random", "vit_tiny_patch16_224.random"]
input_size = 32

[[setting]]
dataset = "fixtures"
limit = { train = 40, test = 20 }
protocols = ["knn", "class-retrieval"]

[[setting]]
dataset = "fixtures-emoji"
limit = { query = 20, gallery = 20 }
protocols = ["instance-retrieval"]
"#;

fn tiny() -> Site {
    let site = Site::new();
    site.write("tiny.toml", TINY);
    site
}

/// The arguments of a run of `profile` with others after them.
fn run(site: &Site, profile: &str, more: &[&str]) -> Said {
    let mut arguments = vec!["bench-all", "--profile", profile, "--results", "results"];
    arguments.extend(more);
    site.bob(&arguments)
}

/// A record without what differs from run to run.
fn timeless(path: &Path) -> Value {
    let mut record: Value = serde_json::from_slice(&fs::read(path).expect("there")).expect("JSON");
    for key in ["wall_seconds", "peak_memory_bytes", "started_unix"] {
        assert!(
            record.as_object_mut().expect("an object").remove(key).is_some(),
            "{key}"
        );
    }
    record
}

#[test]
fn a_second_run_has_nothing_to_do_and_a_fresh_one_all() {
    let site = tiny();
    let said = run(&site, "tiny.toml", &[]).ends_with(0);
    assert!(
        said.err.starts_with("6 cells, 0 done, 6 to run on `flex`\n"),
        "{}",
        said.err
    );
    assert!(
        said.out.contains("resnet18.random"),
        "the ranking is on stdout: {}",
        said.out
    );
    for file in ["report.html", "report.md", "scores.csv", "ranking.csv", "report.json"] {
        assert!(site.path("report").join(file).metadata().expect(file).len() > 0);
    }
    let first = site.records();
    assert_eq!(first.len(), 6);
    let expected = "results/knn@1/fixtures-40-20/resnet18.random/0.json";
    assert!(first.iter().any(|(path, _)| path.ends_with(expected)), "{first:?}");
    for (path, _) in &first {
        let record = timeless(path);
        assert_eq!(record["data"]["fixtures"], true);
        assert_eq!(record["checkpoint"]["folded"], true);
        assert_eq!(record["environment"]["backend"], "flex");
        assert_eq!(record["environment"]["dtype"], "f32");
    }

    let said = run(&site, "tiny.toml", &[]).ends_with(0);
    assert!(
        said.err.starts_with("6 cells, 6 done, 0 to run on `flex`\n"),
        "{}",
        said.err
    );
    assert_eq!(site.records(), first, "no record was written again");

    let before: Vec<Value> = first.iter().map(|(path, _)| timeless(path)).collect();
    let said = run(
        &site,
        "tiny.toml",
        &["--fresh", "--backbone", "resnet*", "--protocol", "knn"],
    )
    .ends_with(0);
    assert!(said.err.starts_with("1 cells, 0 done, 1 to run"), "{}", said.err);
    let changed: Vec<_> = site
        .records()
        .into_iter()
        .filter(|record| !first.contains(record))
        .collect();
    assert_eq!(changed.len(), 1, "only one was asked for");
    let after: Vec<Value> = site.records().iter().map(|(path, _)| timeless(path)).collect();
    assert_eq!(before, after, "the same numbers again");
}

#[test]
fn a_second_protocol_computes_no_forward_pass() {
    let site = tiny();
    let forward = |protocol: &str| {
        let said = run(&site, "tiny.toml", &["--backbone", "resnet*", "--protocol", protocol]).ends_with(0);
        let line = said
            .err
            .lines()
            .find(|line| line.contains("images through the backbone"))
            .map(str::to_owned);
        line.unwrap_or_else(|| panic!("{}", said.err)).trim().to_owned()
    };
    assert_eq!(forward("knn"), "60 images through the backbone");
    assert_eq!(forward("class-retrieval"), "0 images through the backbone");
}

#[test]
fn a_dry_run_writes_nothing() {
    let site = tiny();
    let before = site.files();
    let said = run(&site, "tiny.toml", &["--dry-run"]).ends_with(0);
    assert!(said.err.starts_with("6 cells, 0 done, 6 to run"), "{}", said.err);
    assert_eq!(said.out.lines().count(), 6);
    assert_eq!(site.files(), before);
}

#[test]
fn a_run_killed_at_any_moment_goes_on_to_the_same_records() {
    let undisturbed = tiny();
    let start = Instant::now();
    run(&undisturbed, "tiny.toml", &[]).ends_with(0);
    let whole = start.elapsed();
    let expected: Vec<Value> = undisturbed.records().iter().map(|(path, _)| timeless(path)).collect();

    let site = tiny();
    let nanoseconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .subsec_nanos();
    for round in 0..3 {
        // A share of the run that differs from round to round and from one run of this test to the next.
        let share = (f64::from(nanoseconds % 1000) / 1000.0 + f64::from(round) / 3.0).fract();
        let mut child = site.start(&["bench-all", "--profile", "tiny.toml", "--results", "results"]);
        sleep(whole.mul_f64(share * 0.8));
        child.kill().expect("killed, or ended before");
        child.wait().expect("ended");
        // The cell that ran ends with its driver, and may write its record before.
        sleep(Duration::from_millis(500));
        let finished = site.records();
        let said = run(&site, "tiny.toml", &["--dry-run"]).ends_with(0);
        let plan = format!("6 cells, {} done", finished.len());
        assert!(
            said.err.starts_with(&plan),
            "killed after {share} of the run: {}",
            said.err
        );
        if round == 2 {
            run(&site, "tiny.toml", &[]).ends_with(0);
            for record in &finished {
                assert!(site.records().contains(record), "{record:?} was computed again");
            }
        }
    }
    let records: Vec<Value> = site.records().iter().map(|(path, _)| timeless(path)).collect();
    assert_eq!(records, expected);
}

#[test]
fn ctrl_c_leaves_finished_cells_intact() {
    let site = tiny();
    let mut child = site.start(&["bench-all", "--profile", "tiny.toml", "--results", "results"]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while site.records().is_empty() {
        assert!(Instant::now() < deadline, "no cell finished");
        sleep(Duration::from_millis(5));
    }
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .expect("kill starts");
    assert!(interrupted.success());
    let ended = child.wait().expect("ended");
    assert_eq!(ended.code(), Some(130));
    let finished = site.records();
    assert!((1..6).contains(&finished.len()), "{} cells finished", finished.len());
    run(&site, "tiny.toml", &[]).ends_with(0);
    for record in &finished {
        assert!(site.records().contains(record), "{record:?} was computed again");
    }
    assert_eq!(site.records().len(), 6);
}

#[test]
fn a_failing_cell_costs_no_other() {
    let site = Site::new();
    // Ten training images of ten classes are too few for five shots.
    let profile = r#"
backbones = ["resnet18.random"]
input_size = 32
[[setting]]
dataset = "fixtures"
limit = { train = 10, test = 20 }
protocols = ["knn", "few-shot", "class-retrieval"]
"#;
    site.write("failing.toml", profile);
    let said = run(&site, "failing.toml", &[]).ends_with(1);
    assert_eq!(
        site.records().len(),
        1,
        "the cell before it is done, the cell after it was not run"
    );
    assert!(said.err.contains("hint: --keep-going"), "{}", said.err);
    let kept = site.records();

    let said = run(&site, "failing.toml", &["--keep-going"]).ends_with(1);
    assert_eq!(site.records().len(), 2);
    assert!(site.records().contains(&kept[0]));
    assert!(said.err.contains("1 of 3 cells failed:"), "{}", said.err);
    assert!(
        said.err.contains("training images"),
        "the reason is there: {}",
        said.err
    );

    // The command that is printed repeats the failure.
    let line = said
        .err
        .lines()
        .find_map(|line| line.trim().strip_prefix("repeat it with `cargo xtask "));
    let command = line
        .and_then(|line| line.strip_suffix('`'))
        .unwrap_or_else(|| panic!("{}", said.err));
    let repeated = site.bob(&command.split(' ').collect::<Vec<_>>()).ends_with(1);
    assert!(repeated.err.contains("training images"), "{}", repeated.err);
}

/// Damage the one file below `folder` whose path contains `name`; it is named, nothing else is lost, and deleting it
/// is all it takes.
fn check_damage(folder: &str, name: &str, lost_record: bool) {
    let site = tiny();
    run(&site, "tiny.toml", &[]).ends_with(0);
    let all = site.records();
    let damaged = site
        .files_below(folder)
        .into_iter()
        .find(|path| path.to_string_lossy().contains(name));
    let damaged = damaged.unwrap_or_else(|| panic!("{folder} holds {:?}", site.files_below(folder)));
    fs::write(&damaged, "{\"schema\": 1, \"cell\":").expect("written");
    if lost_record {
        fs::remove_file(&all[0].0).expect("removed");
    }
    let intact: Vec<_> = all
        .iter()
        .skip(usize::from(lost_record))
        .filter(|(path, _)| *path != damaged)
        .collect();

    let said = run(&site, "tiny.toml", &[]).ends_with(1);
    let file_name = damaged.file_name().expect("a file").to_string_lossy().into_owned();
    assert!(said.err.contains(&file_name), "`{file_name}` is named: {}", said.err);
    for record in &intact {
        assert!(site.records().contains(record), "{record:?} was lost");
    }
    let said = run(&site, "tiny.toml", &["--keep-going"]).ends_with(1);
    assert!(said.err.contains(&file_name), "`{file_name}` is named: {}", said.err);

    fs::remove_file(&damaged).expect("removed");
    run(&site, "tiny.toml", &[]).ends_with(0);
    assert_eq!(site.records().len(), all.len());
}

#[test]
fn a_corrupt_record_is_named() {
    check_damage("results", "knn", false);
}

#[test]
fn a_corrupt_manifest_is_named() {
    check_damage("cache/manifests", "fixtures-40-20", true);
}

#[test]
fn a_corrupt_embedding_cache_is_named() {
    let site = tiny();
    let only = ["--backbone", "resnet*", "--protocol", "knn"];
    run(&site, "tiny.toml", &only).ends_with(0);
    let record = site.records().remove(0);
    for path in site.files_below("cache/embeddings") {
        fs::write(path, "no embeddings").expect("written");
    }
    let said = run(&site, "tiny.toml", &["--backbone", "resnet*"]).ends_with(1);
    assert!(said.err.contains("embeddings"), "the file is named: {}", said.err);
    assert!(site.records().contains(&record));
}

#[test]
fn a_full_disk_costs_no_finished_cell() {
    let site = tiny();
    run(&site, "tiny.toml", &[]).ends_with(0);
    let all = site.records();
    fs::remove_file(&all[2].0).expect("removed");
    // A limit on the size of files, its signal ignored: writes beyond it fail as they do on a full disk.
    let command = "trap '' XFSZ; ulimit -f 1; exec \"$@\"";
    let said = site
        .shell(
            command,
            &["bench-all", "--profile", "tiny.toml", "--results", "results"],
        )
        .ends_with(1);
    let path = all[2].0.file_name().expect("a file").to_string_lossy().into_owned();
    assert!(
        said.err.contains(&path) && said.err.contains("too large"),
        "{}",
        said.err
    );
    for (index, record) in all.iter().enumerate().filter(|(index, _)| *index != 2) {
        assert!(site.records().contains(record), "record {index} was lost");
    }
    assert!(
        site.files_below("results")
            .iter()
            .all(|path| path.extension().is_some_and(|end| end == "json"))
    );
    run(&site, "tiny.toml", &[]).ends_with(0);
    assert_eq!(site.records().len(), 6);
}

#[test]
fn without_network_and_clients_it_runs_on_fixtures_and_says_so() {
    let site = Site::new();
    let arguments = [
        "--backbone",
        "mobilenetv2_100.random",
        "--protocol",
        "instance-retrieval",
    ];
    let said = run(&site, "quick", &arguments).ends_with(0);
    assert!(said.err.starts_with("on fixtures: "), "{}", said.err);
    assert!(
        said.err.contains("emoji: "),
        "what could not be had is named: {}",
        said.err
    );
    let records = site.records();
    assert_eq!(records.len(), 1);
    assert_eq!(timeless(&records[0].0)["data"]["fixtures"], true);

    // Asked for by name, data are never swapped.
    let said = run(&site, "quick", &["--dataset", "emoji"]).ends_with(1);
    assert!(
        said.err.contains("emoji") && said.err.contains("--fixtures"),
        "{}",
        said.err
    );
    assert_eq!(site.records(), records);
}

#[test]
fn a_slip_in_a_name_is_put_right() {
    let site = tiny();
    let profile = |from: &str, to: &str| {
        assert!(TINY.contains(from));
        site.write("slip.toml", &TINY.replace(from, to));
        run(&site, "slip.toml", &[]).ends_with(2).err
    };
    let check = |err: String, expected: &str| assert!(err.contains(expected), "`{expected}` is not in: {err}");
    check(
        profile("resnet18.random", "resnet81.random"),
        "unknown backbone `resnet81.random`; did you mean `resnet18",
    );
    check(
        profile("\"fixtures\"", "\"fixture\""),
        "unknown data set `fixture`; did you mean `fixtures`?",
    );
    check(
        profile("\"knn\"", "\"kNN\""),
        "unknown protocol `kNN`; did you mean `knn`?",
    );
    check(
        profile("input_size", "input"),
        "profile `slip.toml`, line 3: unknown field `input`, expected one of",
    );
    check(profile("train = 40", "trian = 40"), "did you mean `train`?");
    check(
        run(&site, "nowhere.toml", &[]).ends_with(2).err,
        "expected `quick` or a TOML file",
    );
    check(
        run(&site, "tiny.toml", &["--backbone", "resnet81"]).ends_with(2).err,
        "did you mean `resnet",
    );
    check(
        run(&site, "tiny.toml", &["--protocol", "knm"]).ends_with(2).err,
        "did you mean `knn`?",
    );
    check(
        run(&site, "tiny.toml", &["--dataset", "fixturs"]).ends_with(2).err,
        "did you mean `fixtures`?",
    );
    check(
        run(&site, "tiny.toml", &["--backend", "flx"]).ends_with(2).err,
        "did you mean `flex`?",
    );
    check(
        run(&site, "tiny.toml", &["--backbone", "[", "--dry-run"])
            .ends_with(2)
            .err,
        "glob `[`",
    );
    assert!(site.records().is_empty());
}
