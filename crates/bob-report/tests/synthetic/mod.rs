//! Made-up records: backbones of a known strength in a few settings, with noise that is the same every time.

use std::collections::BTreeMap;

use bob_stats::{
    CellKey, CheckpointRecord, DataRecord, Direction, Environment, Interval, Metric, Record, SCHEMA_VERSION,
};

/// A backbone: name, strength in [0, 1], parameters, MACs, milliseconds.
pub type Made = (&'static str, f64, u64, u64, f64);

pub const BACKBONES: [Made; 12] = [
    (
        "convnext_base.fb_in22k_ft_in1k",
        0.95,
        88_591_464,
        15_383_000_000,
        182.0,
    ),
    (
        "swinv2_base_window12to16_192to256.ms_in22k_ft_in1k",
        0.93,
        87_922_584,
        22_020_000_000,
        340.0,
    ),
    (
        "vit_base_patch16_clip_224.laion2b",
        0.90,
        85_798_656,
        17_582_000_000,
        171.0,
    ),
    ("vit_small_patch16_224.dino", 0.74, 21_665_664, 4_607_000_000, 52.0),
    ("convnext_tiny.fb_in1k", 0.70, 28_589_128, 4_470_000_000, 61.0),
    ("resnet101.a1h_in1k", 0.62, 44_549_160, 7_832_000_000, 88.0),
    ("resnet50.a1_in1k", 0.58, 25_557_032, 4_112_000_000, 50.0),
    ("tf_efficientnet_lite2.in1k", 0.55, 6_092_072, 868_000_000, 19.4),
    ("tf_efficientnet_lite0.in1k", 0.47, 4_652_008, 407_000_000, 9.6),
    ("mobilenetv2_100.ra_in1k", 0.45, 3_504_872, 307_000_000, 9.1),
    ("resnet18.random", 0.12, 11_689_512, 1_814_000_000, 21.0),
    ("convnext_atto.random", 0.10, 3_698_464, 552_000_000, 12.0),
];

/// Task, protocol, data set, metric, value of the worst and of the best backbone, items.
pub const SETTINGS: [(&str, &str, &str, &str, f64, f64, usize); 9] = [
    ("classification", "knn", "cifar10-1000-500", "top1", 0.28, 0.93, 500),
    (
        "classification",
        "knn",
        "fashion-mnist-1000-500",
        "top1",
        0.61,
        0.86,
        500,
    ),
    (
        "classification",
        "linear-probe",
        "cifar10-1000-500",
        "top1",
        0.33,
        0.95,
        500,
    ),
    (
        "classification",
        "linear-probe",
        "fashion-mnist-1000-500",
        "top1",
        0.70,
        0.90,
        500,
    ),
    (
        "classification",
        "few-shot-5",
        "cifar10-1000-500",
        "top1",
        0.19,
        0.84,
        500,
    ),
    ("retrieval", "instance", "emoji-2-vendors", "map", 0.08, 0.71, 400),
    ("retrieval", "class", "cifar10-1000-500", "map", 0.14, 0.62, 500),
    ("ood", "shift", "cifar10-c-5", "mean_top1", 0.16, 0.69, 12_500),
    ("ood", "calibration", "cifar10-c-5", "ece", 0.31, 0.06, 12_500),
];

pub fn record(made: Made, task: &str, protocol: &str, dataset: &str, seed: u64, metrics: Vec<Metric>) -> Record {
    let (name, _, parameters, macs, _) = made;
    let random = name.ends_with(".random");
    Record {
        schema: SCHEMA_VERSION,
        cell: CellKey {
            task: task.into(),
            protocol: protocol.into(),
            version: 1,
            dataset: dataset.into(),
            backbone: name.into(),
            seed,
        },
        protocol: serde_json::json!({ "name": protocol }),
        protocol_sha256: hash(protocol),
        checkpoint: CheckpointRecord {
            sha256: hash(name),
            setup_sha256: hash("as it is"),
            architecture: name.split('.').next().unwrap_or(name).into(),
            style: if random { "random" } else { "supervised" }.into(),
            pretraining_data: if random { "none" } else { "IN-1k" }.into(),
            pretraining_images: Some(if random { 0 } else { 1_281_167 }),
            parameters,
            macs: Some(macs),
            folded: true,
        },
        data: DataRecord {
            manifest_sha256: hash(dataset),
            counts: BTreeMap::from([("test".into(), 500), ("train".into(), 1000)]),
            fixtures: false,
        },
        environment: Environment {
            bob_version: "0.1.0".into(),
            burn_version: "0.22.1".into(),
            commit: "3f2a9c1e77d04b6a8f10".into(),
            dirty: false,
            backend: "flex".into(),
            adapter: "AMD EPYC 7B13".into(),
            dtype: "F32".into(),
            jpeg: "simd".into(),
            host: "linux x86_64".into(),
            threads: 2,
            heap: "system".into(),
        },
        limited: false,
        wall_seconds: 21.5,
        peak_memory_bytes: 900 << 20,
        started_unix: 1_795_305_600,
        metrics,
    }
}

pub fn metric(name: &str, direction: Direction, value: f64, half: f64, n: usize) -> Metric {
    let interval = Interval {
        low: value - half,
        high: value + half,
        level: 0.95,
        resamples: 1000,
    };
    Metric {
        name: name.into(),
        value,
        direction,
        n,
        interval: Some(interval),
        primary: true,
    }
}

/// The efficiency record of a backbone.
pub fn timing(made: Made) -> Record {
    let (_, _, _, macs, milliseconds) = made;
    let secondary = |metric: Metric| Metric {
        primary: false,
        ..metric
    };
    let latency = metric(
        "latency_p50_ms",
        Direction::LowerIsBetter,
        milliseconds,
        0.04 * milliseconds,
        120,
    );
    let rate = metric(
        "images_per_second",
        Direction::HigherIsBetter,
        1250.0 / milliseconds,
        20.0 / milliseconds,
        40,
    );
    let memory = Metric {
        interval: None,
        ..metric("peak_memory_bytes", Direction::LowerIsBetter, macs as f64 / 9.0, 0.0, 1)
    };
    record(
        made,
        "efficiency",
        "efficiency",
        "synthetic-224",
        0,
        vec![rate, secondary(latency), secondary(memory)],
    )
}

/// Records of these backbones in the first `settings` settings, and their timings.
pub fn records(backbones: &[Made], settings: usize) -> Vec<Record> {
    let mut records = Vec::new();
    for (index, &made) in backbones.iter().enumerate() {
        for (place, &(task, protocol, dataset, name, worst, best, n)) in SETTINGS[..settings].iter().enumerate() {
            // A fixed wobble, so that settings disagree a little.
            let wobble = ((index * 7 + place * 13) % 11) as f64 / 11.0 - 0.5;
            let strength = (made.1 + 0.16 * wobble).clamp(0.0, 1.0);
            let value = worst + (best - worst) * strength;
            let direction = if best > worst {
                Direction::HigherIsBetter
            } else {
                Direction::LowerIsBetter
            };
            let half = 1.96 * (value * (1.0 - value) / n as f64).sqrt();
            records.push(record(
                made,
                task,
                protocol,
                dataset,
                0,
                vec![metric(name, direction, value, half, n)],
            ));
        }
        records.push(timing(made));
    }
    records
}

/// Sixty-four hexadecimal digits that depend on the text; no SHA-256, but as long as one.
fn hash(text: &str) -> String {
    let fnv = |seed: u64| {
        text.bytes().fold(seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    };
    (0..4)
        .map(|word| format!("{:016x}", fnv(0xcbf2_9ce4_8422_2325 + word)))
        .collect()
}
