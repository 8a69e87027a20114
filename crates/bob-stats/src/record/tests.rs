use super::*;
use crate::Direction;

fn record() -> Record {
    let metric = Metric::exact("top1", Direction::HigherIsBetter, 0.1 + 0.2, 500)
        .unwrap()
        .primary();
    Record {
        schema: SCHEMA_VERSION,
        cell: CellKey {
            task: "classification".into(),
            protocol: "knn".into(),
            version: 1,
            dataset: "cifar10-1000-500".into(),
            backbone: "resnet18.random".into(),
            seed: 0,
        },
        protocol: serde_json::json!({ "k": 20, "temperature": 0.07 }),
        protocol_sha256: "aa".into(),
        checkpoint: CheckpointRecord {
            sha256: "bb".into(),
            setup_sha256: "dd".into(),
            architecture: "resnet18".into(),
            style: "random".into(),
            pretraining_data: "none".into(),
            pretraining_images: Some(0),
            parameters: 11_689_512,
            macs: Some(1_814_073_344),
            folded: true,
        },
        data: DataRecord {
            manifest_sha256: "cc".into(),
            counts: BTreeMap::from([("test".into(), 500), ("train".into(), 1000)]),
            fixtures: false,
        },
        environment: Environment {
            bob_version: "0.1.0".into(),
            burn_version: "0.22.1".into(),
            commit: String::new(),
            dirty: false,
            backend: "flex".into(),
            adapter: "cpu".into(),
            dtype: "F32".into(),
            jpeg: "simd".into(),
            host: "linux x86_64".into(),
            threads: 2,
            heap: "system".into(),
        },
        limited: false,
        wall_seconds: 1.5,
        peak_memory_bytes: 1 << 20,
        started_unix: 1_700_000_000,
        metrics: vec![metric],
    }
}

/// A results folder with one good record in it, and that record's path.
fn results() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let path = record().cell.path(root.path());
    record().write(&path).unwrap();
    (root, path)
}

#[test]
fn what_is_written_is_read_to_the_last_bit() {
    let (root, path) = results();
    assert_eq!(path, root.path().join("knn@1/cifar10-1000-500/resnet18.random/0.json"));
    assert_eq!(Record::read(&path).unwrap(), record());
    let beside: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
    assert_eq!(beside.len(), 1, "a temporary file was left: {beside:?}");
    let (records, errors) = read_all(root.path());
    assert_eq!((records, errors.len()), (vec![record()], 0));
}

#[test]
fn no_name_leaves_the_results_folder() {
    let check = |backbone: &str, expected: &str| {
        let cell = CellKey {
            backbone: backbone.into(),
            ..record().cell
        };
        let expected = format!("results/knn@1/cifar10-1000-500/{expected}/0.json");
        assert_eq!(cell.path(Path::new("results")), Path::new(&expected));
    };
    check("resnet50.a1_in1k", "resnet50.a1_in1k");
    check("hub:timm/resnet50", "hub%3Atimm%2Fresnet50");
    check("../../etc", "..%2F..%2Fetc");
    check("..", "%..");
    check("", "%");
    check("%..", "%25..");
    check("é", "%C3%A9");
}

#[test]
fn only_the_same_protocol_weights_and_data_are_done() {
    let record = record();
    assert!(record.is_done("aa", "bb", "dd", "cc"));
    assert!(!record.is_done("xx", "bb", "dd", "cc"));
    assert!(!record.is_done("aa", "xx", "dd", "cc"));
    assert!(!record.is_done("aa", "bb", "xx", "cc"));
    assert!(!record.is_done("aa", "bb", "dd", "xx"));
    let limited = Record {
        limited: true,
        ..record
    };
    assert!(!limited.is_done("aa", "bb", "dd", "cc"));
}

#[test]
fn what_is_no_record_is_an_error_that_names_the_file() {
    let check = |damage: fn(String) -> String, expected: &str| {
        let (root, path) = results();
        fs::write(&path, damage(fs::read_to_string(&path).unwrap())).unwrap();
        let (records, errors) = read_all(root.path());
        assert!(records.is_empty());
        let message = errors[0].to_string();
        assert!(message.contains(&path.display().to_string()), "{message}");
        assert!(message.contains(expected), "{message}");
    };
    check(|_| String::new(), "is corrupt: EOF while parsing");
    check(
        |text| text[..text.len() / 2].to_owned(),
        "is corrupt: EOF while parsing",
    );
    check(
        |text| text.replace("\"schema\": 1", "\"schema\": 7"),
        "has schema 7, this bob reads 1",
    );
    check(|text| text.replace("\"schema\": 1,", ""), "missing field `schema`");
    check(
        |text| text.replace("\"limited\": false", "\"limited\": false, \"mood\": 1"),
        "unknown field `mood`",
    );
    check(|text| text.replace("0.30000000000000004", "NaN"), "is corrupt");
    check(|text| text.replace("0.30000000000000004", "null"), "invalid type: null");
    check(
        |text| text.replace("0.30000000000000004", "1e999"),
        "number out of range",
    );
    check(
        |text| text.replace("\"wall_seconds\": 1.5", "\"wall_seconds\": -1.5"),
        "wall_seconds is -1.5",
    );
    check(|_| "[1]".into(), "is corrupt");
}

#[test]
fn what_is_no_record_is_not_written() {
    let check = |damage: fn(&mut Record), expected: &str| {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("0.json");
        let mut record = record();
        damage(&mut record);
        let message = record.write(&path).unwrap_err().to_string();
        assert!(message.contains("0.json") && message.contains(expected), "{message}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    };
    check(|record| record.metrics[0].value = f64::NAN, "metric `top1` is NaN");
    check(|record| record.schema = 2, "schema 2, expected 1");
    check(|record| record.wall_seconds = f64::INFINITY, "wall_seconds is inf");
    check(
        |record| record.metrics.push(record.metrics[0].clone()),
        "metric `top1` occurs twice",
    );
    check(
        |record| {
            record.metrics.push(Metric {
                name: "top5".into(),
                ..record.metrics[0].clone()
            })
        },
        "2 metrics are primary",
    );
    check(
        |record| {
            record.metrics[0].interval = Some(Interval {
                low: 0.4,
                high: 0.2,
                level: 0.95,
                resamples: 10,
            });
        },
        "has the interval [0.4, 0.2]",
    );
}

#[test]
fn a_write_that_fails_leaves_the_previous_record() {
    let (root, path) = results();
    // A folder in the place of the record cannot be renamed over.
    let blocked = root.path().join("knn@1/1.json");
    fs::create_dir_all(blocked.join("inside")).unwrap();
    let error = record().write(&blocked).unwrap_err().to_string();
    assert!(error.contains("1.json"), "{error}");
    let left: Vec<_> = fs::read_dir(root.path().join("knn@1"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(
        left.iter().all(|name| !name.to_string_lossy().ends_with(".tmp")),
        "{left:?}"
    );
    assert_eq!(Record::read(&path).unwrap(), record());
}

#[test]
fn reading_skips_what_a_killed_process_left_and_keeps_going() {
    let (root, path) = results();
    fs::write(path.with_file_name(".1.json.77.tmp"), "{").unwrap();
    fs::write(path.with_file_name("note.txt"), "mine").unwrap();
    fs::write(path.with_file_name("3.json"), "{").unwrap();
    fs::copy(&path, path.with_file_name("4.json")).unwrap();
    let (records, errors) = read_all(root.path());
    assert_eq!(records.len(), 1);
    let messages: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages[0].contains("3.json` is corrupt"), "{messages:?}");
    assert!(messages[1].contains("4.json` is of the same cell as"), "{messages:?}");

    let (records, errors) = read_all(&root.path().join("typo"));
    assert!(records.is_empty());
    assert!(errors[0].to_string().contains("typo"));
}
