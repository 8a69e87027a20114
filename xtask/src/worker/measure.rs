//! `measure`: speed and memory of one backbone.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use bob_core::device::{BackendName, Precision, float_dtype};
use bob_core::{Autocast, Backbone};
use bob_efficiency::{
    Measurement, Profile, Protocol, StepSeconds, TrainMeasurement, measure, measure_training, profile_inference,
    profile_training, protocols,
};
use bob_stats::{Bootstrap, Interval, Metric};
use burn::tensor::Device;
use serde_json::{Value, json};

use crate::args::{Backend, Measure, Mode};
use crate::launch::{self, Usage};
use crate::worker::candidate::Candidates;
use crate::worker::environment::{adapter, computing, threads};
use crate::worker::provide::Store;

/// Time the backbone, or profile it, and print what came out.
pub fn run(args: &Measure) -> Result<ExitCode> {
    if args.profile && args.backend == Backend::Wgpu {
        return Err(Usage(
            "--profile: `wgpu` computes later than it is asked, so no clock fits an operation".to_owned(),
        )
        .into());
    }
    if args.grad_checkpointing && args.mode != Mode::Train {
        return Err(Usage("--grad-checkpointing is of `--mode train`".to_owned()).into());
    }
    let (backend, precision, device) = computing(args.backend, &args.dtype)?;
    let candidate = Candidates::open(&args.own.checkpoints)?.find(&args.backbone)?;
    let candidate = match args.size {
        Some(side) if candidate.is_random() => candidate.at_input_size(side)?,
        _ => candidate,
    };
    let mut protocol: Protocol = protocols().into_iter().next().context("there is a protocol")?;
    if let Some(batch) = args.batch {
        protocol.batch = batch;
    }
    let side = args
        .size
        .map_or(candidate.checkpoint.preprocess.input_size, |side| [side, side]);

    let weights = Store::new(false)?.weights(&candidate)?;
    let start = Instant::now();
    // What describes the machine is asked of the plain device.
    let tracked = match args.mode {
        Mode::Infer => device.clone(),
        Mode::Train => device.clone().autodiff(),
    };
    let mut backbone = Autocast::new(candidate.load(weights.as_deref(), 0, &tracked)?, backend, precision)?;
    if args.grad_checkpointing && !backbone.set_grad_checkpointing(true) {
        let name = candidate.name();
        return Err(Usage(format!("--grad-checkpointing: `{name}` cannot, or has batch norm")).into());
    }
    let folded = args.mode == Mode::Infer && !args.no_fuse;
    let backbone = if folded { backbone.fuse() } else { backbone };
    let load_seconds = start.elapsed().as_secs_f64();

    let bootstrap = Bootstrap::default();
    let (found, mut result) = match (args.mode, args.profile) {
        (Mode::Infer, true) => profiled(
            args.mode,
            &protocol,
            side,
            profile_inference(&backbone, side, &protocol, &tracked)?,
        ),
        (Mode::Train, true) => profiled(
            args.mode,
            &protocol,
            side,
            profile_training(backbone, side, &protocol, &tracked)?,
        ),
        (Mode::Infer, false) => {
            let mut measurement = measure(&backbone, side, &protocol, &tracked)?;
            // Folding takes away parameters that the published count has.
            measurement.parameters = candidate.size(&device).0;
            let metrics = measurement.metrics(load_seconds, &bootstrap)?;
            (Found::Metrics(metrics), inference(&measurement, folded, load_seconds))
        }
        (Mode::Train, false) => {
            let measurement = measure_training(backbone, side, &protocol, &tracked)?;
            let metrics = measurement.metrics(load_seconds, &bootstrap)?;
            (Found::Metrics(metrics), training(&measurement, load_seconds))
        }
    };
    if args.json {
        let object = result.as_object_mut().context("a result is an object")?;
        for (key, value) in setting(args, backend, precision, &device, &protocol) {
            object.insert(key.to_owned(), value);
        }
        println!("{}", serde_json::to_string_pretty(&result)?);
        return Ok(ExitCode::SUCCESS);
    }
    match found {
        Found::Profile(profile) => print_profile(&profile),
        Found::Metrics(metrics) => {
            println!(
                "{} on {backend} ({}), {}, {} threads",
                candidate.name(),
                adapter(backend, &device),
                dtype(precision, &device),
                threads()
            );
            println!("heap {}; warm-up {} s", launch::heap(), protocol.warmup_seconds);
            print_table(&metrics);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a table shows.
enum Found {
    Metrics(Vec<Metric>),
    Profile(Profile),
}

/// A profile, and the same as JSON, seconds of one pass.
fn profiled(mode: Mode, protocol: &Protocol, side: [usize; 2], profile: Profile) -> (Found, Value) {
    let result = json!({
        "mode": match mode {
            Mode::Infer => "infer",
            Mode::Train => "train",
        },
        "batch": protocol.batch,
        "size": side,
        "passes": profile.passes,
        "seconds": profile.seconds / profile.passes as f64,
        "operations": rows(&profile),
    });
    (Found::Profile(profile), result)
}

/// The operations of a profile as JSON, seconds of one pass.
fn rows(profile: &Profile) -> Value {
    let each = |seconds: f64| seconds / profile.passes as f64;
    let mut rows: Vec<Value> = profile
        .operations
        .iter()
        .map(|time| {
            json!({
                "operation": time.name,
                "calls": time.calls / profile.passes as u64,
                "forward": each(time.forward),
                "backward": each(time.backward),
                "share": time.total() / profile.seconds,
            })
        })
        .collect();
    rows.push(json!({
        "operation": "burn's own and between",
        "seconds": each(profile.rest()),
        "share": profile.rest() / profile.seconds,
    }));
    Value::Array(rows)
}

fn print_profile(profile: &Profile) {
    let each = |seconds: f64| 1e3 * seconds / profile.passes as f64;
    let share = |seconds: f64| 100.0 * seconds / profile.seconds;
    println!("| operation | calls | forward ms | backward ms | share |");
    println!("|---|---|---|---|---|");
    for time in &profile.operations {
        println!(
            "| {} | {} | {:.1} | {:.1} | {:.1} % |",
            time.name,
            time.calls / profile.passes as u64,
            each(time.forward),
            each(time.backward),
            share(time.total())
        );
    }
    let rest = profile.rest();
    println!(
        "| burn's own and between | | {:.1} | | {:.1} % |",
        each(rest),
        share(rest)
    );
    println!("| all | | {:.1} | | 100 % |", each(profile.seconds));
}

fn print_table(metrics: &[Metric]) {
    for metric in metrics {
        let interval = metric
            .interval
            .map(|Interval { low, high, .. }| format!("  [{low:.3}, {high:.3}]"));
        println!(
            "{:<18} {:>16.3}{}",
            metric.name,
            metric.value,
            interval.unwrap_or_default()
        );
    }
}

/// What was measured of inference, as JSON.
fn inference(measurement: &Measurement, folded: bool, load_seconds: f64) -> Value {
    json!({
        "mode": "infer",
        "images_per_second": measurement.images_per_second(),
        "latency_ms": {
            "p50": measurement.latency_ms(0.5),
            "p90": measurement.latency_ms(0.9),
            "p99": measurement.latency_ms(0.99),
        },
        "peak_memory_bytes": measurement.peak_memory_bytes,
        "peak_process_bytes": measurement.peak_process_bytes,
        "load_seconds": load_seconds,
        "parameters": measurement.parameters,
        "macs": measurement.cost.map(|cost| cost.macs),
        "activations": measurement.cost.map(|cost| cost.activations),
        "batch": measurement.batch,
        "size": measurement.input_size,
        "folded": folded,
    })
}

/// What was measured of training, as JSON; seconds are medians over the steps.
fn training(measurement: &TrainMeasurement, load_seconds: f64) -> Value {
    json!({
        "mode": "train",
        "images_per_second": measurement.images_per_second(),
        "seconds": {
            "forward": measurement.median_seconds(|step| step.forward),
            "backward": measurement.median_seconds(|step| step.backward),
            "optimizer": measurement.median_seconds(|step| step.optimizer),
            "step": measurement.median_seconds(StepSeconds::total),
        },
        "steps": measurement.steps.len(),
        "warmup_steps": measurement.warmup_steps,
        "peak_memory_bytes": measurement.peak_memory_bytes,
        "peak_process_bytes": measurement.peak_process_bytes,
        "load_seconds": load_seconds,
        "parameters": measurement.parameters,
        "loss": measurement.loss,
        "batch": measurement.batch,
        "size": measurement.input_size,
        "folded": false,
    })
}

/// What either was measured with, as JSON.
fn setting(
    args: &Measure,
    backend: BackendName,
    precision: Precision,
    device: &Device,
    protocol: &Protocol,
) -> [(&'static str, Value); 8] {
    [
        ("backbone", json!(args.backbone)),
        ("backend", json!(backend)),
        ("adapter", json!(adapter(backend, device))),
        ("dtype", json!(dtype(precision, device))),
        ("threads", json!(threads())),
        ("warmup_seconds", json!(protocol.warmup_seconds)),
        ("heap", json!(launch::heap())),
        ("grad_checkpointing", json!(args.grad_checkpointing)),
    ]
}

/// The type of the floats, read back from the device where it decides.
fn dtype(precision: Precision, device: &Device) -> String {
    match precision {
        Precision::F32 => format!("{:?}", float_dtype(device)).to_lowercase(),
        Precision::Bf16 => precision.to_string(),
    }
}
