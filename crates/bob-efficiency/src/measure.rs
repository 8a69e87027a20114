//! The clock: passes of a backbone on noise, timed with the device idle before and after.
//!
//! Recipe after timm's `benchmark.py` and burn-bench: warm up by duration and not by count, inputs that differ,
//! one sample per pass, the device synchronised on both sides of it.

use std::time::Instant;

use bob_core::{Backbone, Cost, CostCounter, InputSizeError, check_input_size, num_parameters};
use bob_ops::on_cores;
use bob_stats::{Bootstrap, Direction, Metric, MetricError, quantile};
use burn::tensor::{Device, Distribution, Tensor};

use crate::{Protocol, memory};

/// What the clock and the walk through the model gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// Images of one pass of [`Self::batch_seconds`].
    pub batch: usize,
    /// `[height, width]` of the images, in pixels.
    pub input_size: [usize; 2],
    /// Seconds of every timed pass at `batch`, in order.
    pub batch_seconds: Vec<f64>,
    /// Seconds of every timed pass at batch 1, in order.
    pub latency_seconds: Vec<f64>,
    /// Largest resident memory while passes at `batch` ran, above what the process held before the first of them;
    /// `None` where the operating system does not say.
    pub peak_memory_bytes: Option<u64>,
    /// The same with what the process held before: the program, its libraries and the loaded backbone.
    pub peak_process_bytes: Option<u64>,
    /// Trainable parameters, the classifier's included.
    pub parameters: u64,
    /// Multiply-accumulates and activations of one image, `None` where the backbone does not count them.
    pub cost: Option<Cost>,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The backbone does not take images of this size.
    #[error(transparent)]
    InputSize(#[from] InputSizeError),
    /// The device failed.
    #[error("the device failed during a timed pass: {0}")]
    Device(String),
    /// A batch norm over the last map would see one value per channel, which has no variance to train with.
    #[error(
        "a training step on one image of {height}x{width} pixels: its last map has one value per channel, too few for \
         batch norm; expected a larger batch or larger images"
    )]
    OneValue {
        /// Rows of the image.
        height: usize,
        /// Columns of the image.
        width: usize,
    },
    /// Training diverged: times of steps on such values say nothing.
    #[error("the loss is {loss} after {steps} training steps")]
    Diverged {
        /// The last loss.
        loss: f32,
        /// Steps, the warm-up's included.
        steps: usize,
    },
}

/// Time `backbone` on images of `input_size` and walk through it.
///
/// The backbone should be as it is used: on a plain device, with batch norm folded.
/// The clock covers [`Backbone::forward_embedding`].
///
/// # Errors
/// Where the backbone does not take the input size, or the device fails.
pub fn measure<B: Backbone>(
    backbone: &B,
    input_size: [usize; 2],
    protocol: &Protocol,
    device: &Device,
) -> Result<Measurement, MeasureError> {
    check_input_size(backbone, input_size)?;
    let mut counter = CostCounter::new();
    backbone.count(&mut counter, input_size);

    let memory = PeakMemory::start();
    let batch_seconds = timed(
        backbone,
        [protocol.batch, 3, input_size[0], input_size[1]],
        protocol.throughput_seconds,
        protocol,
        device,
    )?;
    let [peak_memory_bytes, peak_process_bytes] = memory.stop();
    let latency_seconds = timed(
        backbone,
        [1, 3, input_size[0], input_size[1]],
        protocol.latency_seconds,
        protocol,
        device,
    )?;

    Ok(Measurement {
        batch: protocol.batch,
        input_size,
        batch_seconds,
        latency_seconds,
        peak_memory_bytes,
        peak_process_bytes,
        parameters: num_parameters(backbone) as u64,
        cost: counter.finish(),
    })
}

/// Seconds of every pass after the warm-up.
fn timed<B: Backbone>(
    backbone: &B,
    shape: [usize; 4],
    seconds: f64,
    protocol: &Protocol,
    device: &Device,
) -> Result<Vec<f64>, MeasureError> {
    let inputs = noise(shape, protocol, device);
    let backbone = backbone.clone();
    let runs = on_cores(device, move || {
        repeat(seconds, protocol, &inputs, |images| {
            sync(device)?;
            let start = Instant::now();
            let embedding = backbone.forward_embedding(images.clone());
            sync(device)?;
            let elapsed = start.elapsed().as_secs_f64();
            drop(embedding);
            Ok(elapsed)
        })
    })?;
    Ok(runs.samples)
}

/// The inputs that take turns: standard normal noise.
pub(crate) fn noise(shape: [usize; 4], protocol: &Protocol, device: &Device) -> Vec<Tensor<4>> {
    (0..protocol.distinct_inputs.max(1))
        .map(|_| Tensor::random(shape, Distribution::Normal(0.0, 1.0), device))
        .collect()
}

/// What [`repeat`] gave.
pub(crate) struct Runs<T> {
    /// Runs before the clock started.
    pub(crate) warmup: usize,
    /// What every run under the clock gave, in order.
    pub(crate) samples: Vec<T>,
}

/// Run on the inputs in turn: for the warm-up of `protocol` and at least twice, then for `seconds` and at least its
/// `min_runs`.
pub(crate) fn repeat<I, T>(
    seconds: f64,
    protocol: &Protocol,
    inputs: &[I],
    mut run: impl FnMut(&I) -> Result<T, MeasureError>,
) -> Result<Runs<T>, MeasureError> {
    let mut inputs = inputs.iter().cycle();
    let mut next = || {
        let input = inputs
            .next()
            .ok_or_else(|| MeasureError::Device("no input".to_owned()))?;
        run(input)
    };
    let start = Instant::now();
    let mut warmup = 0;
    while warmup < 2 || start.elapsed().as_secs_f64() < protocol.warmup_seconds {
        next()?;
        warmup += 1;
    }
    let start = Instant::now();
    let mut samples = Vec::new();
    while samples.len() < protocol.min_runs || start.elapsed().as_secs_f64() < seconds {
        samples.push(next()?);
    }
    Ok(Runs { warmup, samples })
}

/// The largest resident memory between two moments.
pub(crate) struct PeakMemory {
    before: Option<u64>,
}

impl PeakMemory {
    /// Let the peak start from what is resident now.
    pub(crate) fn start() -> Self {
        Self {
            before: memory::reset_peak().then(memory::resident_bytes).flatten(),
        }
    }

    /// The peak since the start: above what was resident then, and of the whole process. `None` where the operating
    /// system does not say.
    pub(crate) fn stop(self) -> [Option<u64>; 2] {
        let both = self.before.zip(memory::peak_resident_bytes());
        [
            both.map(|(before, peak)| peak.saturating_sub(before)),
            both.map(|(_, peak)| peak),
        ]
    }
}

pub(crate) fn sync(device: &Device) -> Result<(), MeasureError> {
    device.sync().map_err(|error| MeasureError::Device(error.to_string()))
}

impl Measurement {
    /// Images per second at [`Self::batch`]: all images over the sum of all timed passes.
    pub fn images_per_second(&self) -> f64 {
        rate(&self.batch_seconds, self.batch)
    }

    /// The `share`-quantile of the batch-1 latency in milliseconds, `share` in \[0, 1\], by linear interpolation
    /// between order statistics (numpy's `linear`): 0.5 is the median.
    pub fn latency_ms(&self, share: f64) -> f64 {
        percentile_ms(self.latency_seconds.clone(), share)
    }

    /// The metrics of a record, `images_per_second` the primary one.
    ///
    /// Intervals resample the timed passes: they cover the noise of this machine in these seconds, no more.
    /// `load_seconds` is the time from the weights file to a backbone that is ready to run.
    ///
    /// # Errors
    /// Where an interval cannot be drawn.
    pub fn metrics(&self, load_seconds: f64, bootstrap: &Bootstrap) -> Result<Vec<Metric>, MetricError> {
        use Direction::{HigherIsBetter, LowerIsBetter};
        let mut throughput = Metric::statistic(
            "images_per_second",
            HigherIsBetter,
            self.batch_seconds.len(),
            bootstrap,
            |runs| {
                rate(
                    &runs.iter().map(|&run| self.batch_seconds[run]).collect::<Vec<_>>(),
                    self.batch,
                )
            },
        )?;
        throughput.primary = true;
        let mut metrics = vec![throughput];
        for (name, share) in [
            ("latency_p50_ms", 0.5),
            ("latency_p90_ms", 0.9),
            ("latency_p99_ms", 0.99),
        ] {
            metrics.push(Metric::statistic(
                name,
                LowerIsBetter,
                self.latency_seconds.len(),
                bootstrap,
                |runs| percentile_ms(runs.iter().map(|&run| self.latency_seconds[run]).collect(), share),
            )?);
        }
        let mut exact = |name: &str, value: Option<f64>| -> Result<(), MetricError> {
            if let Some(value) = value {
                metrics.push(Metric::exact(name, LowerIsBetter, value, 1)?);
            }
            Ok(())
        };
        exact("load_seconds", Some(load_seconds))?;
        exact("peak_memory_bytes", self.peak_memory_bytes.map(|bytes| bytes as f64))?;
        exact("parameters", Some(self.parameters as f64))?;
        exact("macs", self.cost.map(|cost| cost.macs as f64))?;
        exact("activations", self.cost.map(|cost| cost.activations as f64))?;
        Ok(metrics)
    }
}

pub(crate) fn rate(seconds: &[f64], batch: usize) -> f64 {
    (seconds.len() * batch) as f64 / seconds.iter().sum::<f64>()
}

fn percentile_ms(mut seconds: Vec<f64>, share: f64) -> f64 {
    seconds.sort_by(f64::total_cmp);
    quantile(&seconds, share) * 1e3
}
