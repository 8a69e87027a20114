//! Times the linear probe's grid on random embeddings and prints one line of JSON a width.
//!
//! `cargo run --release -p bob-classification --example linear_probe_speed -- 512 1280`; the same work as 40 runs in
//! PyTorch is `benches/speed/linear_probe.py`.

use std::time::Instant;

use bob_classification::{Method, linear_probe, protocols};
use bob_core::Embeddings;

const IMAGES: usize = 10_000;
const CLASSES: u32 = 10;

#[expect(clippy::print_stdout, reason = "what the example is for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings = protocols().into_iter().find_map(|protocol| match protocol.method {
        Method::LinearProbe(settings) => Some(settings),
        _ => None,
    });
    let settings = settings.ok_or("no linear probe among the protocols")?;
    for dim in std::env::args().skip(1) {
        let dim: usize = dim.parse()?;
        let train = random_embeddings(dim)?;
        let start = Instant::now();
        let probe = linear_probe(&train, &settings, 0)?;
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{{\"dim\": {dim}, \"images\": {IMAGES}, \"settings\": {}, \"epochs\": {}, \"batch\": {}, \"threads\": {}, \"seconds\": {seconds:.3}, \"validation_top1\": {:.4}}}",
            settings.learning_rates.len() * settings.weight_decays.len(),
            settings.epochs,
            settings.batch_size,
            rayon::current_num_threads(),
            probe.validation_accuracy,
        );
    }
    Ok(())
}

/// Class means in noise, from a small generator.
fn random_embeddings(dim: usize) -> Result<Embeddings, Box<dyn std::error::Error>> {
    let mut state = 1u64;
    let mut uniform = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 2f32.powi(24) - 0.5
    };
    let means: Vec<f32> = (0..CLASSES as usize * dim).map(|_| uniform() * 0.2).collect();
    let labels: Vec<u32> = (0..IMAGES as u32).map(|i| i % CLASSES).collect();
    let mut values = Vec::with_capacity(IMAGES * dim);
    for &label in &labels {
        let mean = &means[label as usize * dim..(label as usize + 1) * dim];
        values.extend(mean.iter().map(|mean| mean + uniform()));
    }
    let names = (0..IMAGES).map(|i| i.to_string()).collect();
    Ok(Embeddings::new(values, dim, labels, names)?)
}
