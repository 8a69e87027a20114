//! Seconds and peak memory of loading a file of weights: `benches/speed/load.py` compares them with PyTorch's.
//!
//! ```text
//! cargo run --release -p bob-benches --features flex --example load_weights -- vit_base_patch16_224 vit.safetensors
//! ```
//!
//! The file is in timm's names, with a classifier of 1000 classes. Peak memory is what came on top of the started process.

#![expect(clippy::print_stdout, reason = "the figures are its output")]

use std::env;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use bob_efficiency::memory::{peak_resident_bytes, reset_peak, resident_bytes};
use bob_models::weights::{LoadOptions, load_module};
use bob_models::{InitOptions, architectures};
use burn::tensor::Device;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [architecture, weights] = arguments.as_slice() else {
        bail!("expected ARCHITECTURE WEIGHTS, found {arguments:?}");
    };
    let known = architectures();
    let architecture = bob_core::find("architecture", architecture, &known, |known| known.name)?;
    let options = InitOptions {
        num_classes: 1000,
        input_size: architecture.input_size,
    };
    ensure!(reset_peak(), "this system does not let the peak of memory start again");
    let before = resident_bytes().context("this system does not tell a process's memory")?;
    let start = Instant::now();
    let skeleton = (architecture.init)(&options, &Device::flex());
    let (backbone, report) = load_module(skeleton, Path::new(weights), &LoadOptions::default())?;
    let seconds = start.elapsed().as_secs_f64();
    let peak = peak_resident_bytes().context("this system does not tell a process's memory")?;
    println!(
        "{}",
        serde_json::json!({ "seconds": seconds, "peak": peak - before, "tensors": report.tensors })
    );
    drop(backbone);
    Ok(())
}
