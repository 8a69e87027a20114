//! `measure`: speed and memory of one backbone.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use bob_core::Backbone;
use bob_core::device::{BackendName, select};
use bob_efficiency::{Measurement, Protocol, measure, protocols};
use bob_stats::{Bootstrap, Interval};
use serde_json::json;

use crate::args::{Measure, Mode};
use crate::launch;
use crate::worker::candidate::Candidate;
use crate::worker::environment::{adapter, threads};
use crate::worker::provide::Store;

/// Time the backbone and print what came out.
pub fn run(args: &Measure) -> Result<ExitCode> {
    let Mode::Infer = args.mode;
    let backend: BackendName = args.backend.as_str().parse()?;
    let device = select(backend)?;
    let candidate = Candidate::find(&args.backbone)?;
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
    let backbone = candidate.load(weights.as_deref(), 0, &device)?;
    let backbone = if args.no_fuse { backbone } else { backbone.fuse() };
    let load_seconds = start.elapsed().as_secs_f64();
    let mut measurement = measure(&backbone, side, &protocol, &device)?;
    // Folding takes away parameters that the published count has.
    measurement.parameters = candidate.size(&device).0;
    if args.json {
        print_json(args, backend, &adapter(backend, &device), load_seconds, &measurement)?;
    } else {
        println!(
            "{} on {backend} ({}), {} threads",
            candidate.name(),
            adapter(backend, &device),
            threads()
        );
        println!("heap {}; warm-up {} s", launch::heap(), protocol.warmup_seconds);
        for metric in measurement.metrics(load_seconds, &Bootstrap::default())? {
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
    Ok(ExitCode::SUCCESS)
}

fn print_json(
    args: &Measure,
    backend: BackendName,
    adapter: &str,
    load_seconds: f64,
    measurement: &Measurement,
) -> Result<()> {
    let value = json!({
        "backbone": args.backbone,
        "mode": "infer",
        "images_per_second": measurement.images_per_second(),
        "latency_ms": {
            "p50": measurement.latency_ms(0.5),
            "p90": measurement.latency_ms(0.9),
            "p99": measurement.latency_ms(0.99),
        },
        "peak_memory_bytes": measurement.peak_memory_bytes,
        "load_seconds": load_seconds,
        "parameters": measurement.parameters,
        "macs": measurement.cost.map(|cost| cost.macs),
        "activations": measurement.cost.map(|cost| cost.activations),
        "backend": backend,
        "adapter": adapter,
        "threads": threads(),
        "batch": measurement.batch,
        "size": measurement.input_size,
        "folded": !args.no_fuse,
        "heap": launch::heap(),
    });
    println!("{}", serde_json::to_string_pretty(&value)?);
    Ok(())
}
