//! The clock on training: steps of a backbone and a linear classifier on it, by AdamW on the cross-entropy.
//!
//! Forward, backward and optimizer are timed apart, the device idle between them. Inputs and warm-up are those of the
//! clock on inference; labels are drawn once, so that a second run trains on the same.

use std::time::Instant;

use bob_core::{Backbone, check_input_size};
use bob_ops::{AdamW, on_cores};
use bob_stats::{Bootstrap, Direction, Metric, MetricError, quantile};
use bob_train::Training;
use burn::tensor::{Device, Tensor, TensorData};

use crate::measure::{PeakMemory, noise, rate, repeat, sync};
use crate::{MeasureError, Protocol};

/// Learning rate of every step of [`measure_training`].
pub const LEARNING_RATE: f64 = 1e-4;
/// Decoupled weight decay, of every parameter.
const WEIGHT_DECAY: f32 = 0.05;
/// Classes of the classifier of a backbone that has none: ImageNet's.
const NUM_CLASSES: usize = 1000;

/// What the clock on training gave.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainMeasurement {
    /// Images of one step.
    pub batch: usize,
    /// `[height, width]` of the images, in pixels.
    pub input_size: [usize; 2],
    /// Steps before the clock started.
    pub warmup_steps: usize,
    /// The parts of every timed step, in order.
    pub steps: Vec<StepSeconds>,
    /// Largest resident memory of the steps, the warm-up's included, above what the process held before the first;
    /// `None` where the operating system does not say.
    pub peak_memory_bytes: Option<u64>,
    /// The same with what the process held before: the program, its libraries and the loaded backbone.
    pub peak_process_bytes: Option<u64>,
    /// Trained parameters, the classifier's included.
    pub parameters: u64,
    /// Cross-entropy of the last step, before its update.
    pub loss: f32,
}

/// Seconds of the parts of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepSeconds {
    /// From the images to the loss.
    pub forward: f64,
    /// From the loss to the gradients.
    pub backward: f64,
    /// From the gradients to the new parameters.
    pub optimizer: f64,
}

impl StepSeconds {
    /// The whole step.
    pub fn total(&self) -> f64 {
        self.forward + self.backward + self.optimizer
    }
}

/// Time training steps of `backbone` on images of `input_size`.
///
/// The backbone should be on a device that tracks gradients, with batch norm as it was loaded; `device` is that device.
/// The embedding is classified by its own classifier, or by a new one of 1000 classes where it has none.
/// [`Protocol::throughput_seconds`] says how long the clock runs.
///
/// # Errors
/// Where the backbone does not take the input size, nor one image of it in training, where the loss is not finite at
/// the end, or the device fails.
///
/// # Panics
/// As [`training`].
pub fn measure_training<B: Backbone>(
    backbone: B,
    input_size: [usize; 2],
    protocol: &Protocol,
    device: &Device,
) -> Result<TrainMeasurement, MeasureError> {
    check_trainable(&backbone, input_size, protocol)?;
    let memory = PeakMemory::start();
    let first = training(backbone, device);
    let parameters = first.num_parameters() as u64;
    let inputs = batches(&first, input_size, protocol, device);
    let (runs, loss) = on_cores(device, move || -> Result<_, MeasureError> {
        let mut training = Some(first);
        let mut loss = None;
        let runs = repeat(protocol.throughput_seconds, protocol, &inputs, |(images, targets)| {
            let before = training
                .take()
                .ok_or_else(|| MeasureError::Device("an earlier step failed".to_owned()))?;
            let (after, found, seconds) = timed_step(before, images.clone(), targets.clone(), device)?;
            training = Some(after);
            loss = Some(found);
            Ok(seconds)
        })?;
        Ok((runs, loss))
    })?;
    let [peak_memory_bytes, peak_process_bytes] = memory.stop();

    let loss = match loss {
        Some(loss) => loss
            .try_into_scalar::<f32>()
            .map_err(|error| MeasureError::Device(error.to_string()))?,
        None => f32::NAN,
    };
    if !loss.is_finite() {
        let steps = runs.warmup + runs.samples.len();
        return Err(MeasureError::Diverged { loss, steps });
    }
    Ok(TrainMeasurement {
        batch: protocol.batch,
        input_size,
        warmup_steps: runs.warmup,
        steps: runs.samples,
        peak_memory_bytes,
        peak_process_bytes,
        parameters,
        loss,
    })
}

/// Whether training steps of `backbone` can be timed at the protocol's batch.
///
/// # Errors
/// Where the backbone does not take the input size, or its last map would have one value per channel.
pub(crate) fn check_trainable<B: Backbone>(
    backbone: &B,
    input_size: [usize; 2],
    protocol: &Protocol,
) -> Result<(), MeasureError> {
    check_input_size(backbone, input_size)?;
    let [height, width] = input_size;
    let reduction = backbone.feature_info().last().map_or(1, |map| map.reduction);
    if protocol.batch * height.div_ceil(reduction) * width.div_ceil(reduction) == 1 {
        return Err(MeasureError::OneValue { height, width });
    }
    Ok(())
}

/// The images and targets that take turns.
pub(crate) fn batches<B: Backbone>(
    training: &Training<B>,
    [height, width]: [usize; 2],
    protocol: &Protocol,
    device: &Device,
) -> Vec<(Tensor<4>, Tensor<2>)> {
    noise([protocol.batch, 3, height, width], protocol, device)
        .into_iter()
        .enumerate()
        .map(|(input, images)| (images, targets(protocol.batch, training.num_classes(), input, device)))
        .collect()
}

/// The training whose steps [`measure_training`] times: `backbone`, which lies on `device`, with its own classifier or a
/// new one of 1000 classes, by AdamW as `torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.05)` is; the learning
/// rate is [`LEARNING_RATE`].
///
/// # Panics
/// Where the device does not track gradients.
pub fn training<B: Backbone>(backbone: B, device: &Device) -> Training<B> {
    let optimizer = AdamW {
        weight_decay: WEIGHT_DECAY,
        ..AdamW::default()
    };
    Training::new(backbone, NUM_CLASSES, optimizer, 0, device)
}

/// One step on the cross-entropy against `targets`: the training after it, the loss before it, and how long the parts
/// took, the device idle before and after each.
pub(crate) fn timed_step<B: Backbone>(
    training: Training<B>,
    images: Tensor<4>,
    targets: Tensor<2>,
    device: &Device,
) -> Result<(Training<B>, Tensor<1>, StepSeconds), MeasureError> {
    sync(device)?;
    let mut clock = Clock {
        device,
        last: Instant::now(),
    };
    let loss = training.loss(images, targets, 0.0);
    let forward = clock.lap()?;
    let gradients = loss.backward();
    let backward = clock.lap()?;
    let training = training.update(gradients, LEARNING_RATE);
    let optimizer = clock.lap()?;
    let seconds = StepSeconds {
        forward,
        backward,
        optimizer,
    };
    Ok((training, loss.detach(), seconds))
}

/// Seconds between laps, the device idle at each.
struct Clock<'a> {
    device: &'a Device,
    last: Instant,
}

impl Clock<'_> {
    fn lap(&mut self) -> Result<f64, MeasureError> {
        sync(self.device)?;
        let now = Instant::now();
        let seconds = now.duration_since(self.last).as_secs_f64();
        self.last = now;
        Ok(seconds)
    }
}

/// Labels of the `input`-th batch as distributions over the classes, fixed and scattered.
fn targets(batch: usize, classes: usize, input: usize, device: &Device) -> Tensor<2> {
    let mut values = vec![0.0_f32; batch * classes];
    for (row, values) in values.chunks_exact_mut(classes.max(1)).enumerate() {
        // Knuth's multiplicative hash, of which the high bits are the good ones.
        let hash = ((input * batch + row) as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        values[hash as usize % classes] = 1.0;
    }
    Tensor::from_data(TensorData::new(values, [batch, classes]), device)
}

impl TrainMeasurement {
    /// Images per second of whole steps: all images over the sum of all timed steps.
    pub fn images_per_second(&self) -> f64 {
        let seconds: Vec<f64> = self.steps.iter().map(StepSeconds::total).collect();
        rate(&seconds, self.batch)
    }

    /// The median seconds of a part of the steps, for example [`StepSeconds::total`].
    pub fn median_seconds(&self, part: impl Fn(&StepSeconds) -> f64) -> f64 {
        median(self.steps.iter().map(part).collect())
    }

    /// What a table shows, `images_per_second` the primary one.
    ///
    /// Intervals resample the timed steps: they cover the noise of this machine in these seconds, no more.
    /// `load_seconds` is the time from the weights file to a backbone that is ready to train.
    ///
    /// # Errors
    /// Where an interval cannot be drawn.
    pub fn metrics(&self, load_seconds: f64, bootstrap: &Bootstrap) -> Result<Vec<Metric>, MetricError> {
        use Direction::{HigherIsBetter, LowerIsBetter};
        let n = self.steps.len();
        let mut throughput = Metric::statistic("images_per_second", HigherIsBetter, n, bootstrap, |steps| {
            let seconds: Vec<f64> = steps.iter().map(|&step| self.steps[step].total()).collect();
            rate(&seconds, self.batch)
        })?;
        throughput.primary = true;
        let mut metrics = vec![throughput];
        type Part = fn(&StepSeconds) -> f64;
        let parts: [(&str, Part); 4] = [
            ("forward_seconds", |step| step.forward),
            ("backward_seconds", |step| step.backward),
            ("optimizer_seconds", |step| step.optimizer),
            ("step_seconds", StepSeconds::total),
        ];
        for (name, part) in parts {
            metrics.push(Metric::statistic(name, LowerIsBetter, n, bootstrap, |steps| {
                median(steps.iter().map(|&step| part(&self.steps[step])).collect())
            })?);
        }
        let exact = [
            ("load_seconds", Some(load_seconds)),
            ("peak_memory_bytes", self.peak_memory_bytes.map(|bytes| bytes as f64)),
            ("peak_process_bytes", self.peak_process_bytes.map(|bytes| bytes as f64)),
            ("parameters", Some(self.parameters as f64)),
            ("steps", Some(n as f64)),
            ("warmup_steps", Some(self.warmup_steps as f64)),
        ];
        for (name, value) in exact {
            if let Some(value) = value {
                metrics.push(Metric::exact(name, LowerIsBetter, value, 1)?);
            }
        }
        Ok(metrics)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_of_its_own_part() {
        let step = |forward, backward, optimizer| StepSeconds {
            forward,
            backward,
            optimizer,
        };
        let measurement = TrainMeasurement {
            batch: 2,
            input_size: [32, 32],
            warmup_steps: 2,
            steps: vec![step(1.0, 6.0, 1.0), step(2.0, 5.0, 3.0), step(9.0, 4.0, 2.0)],
            peak_memory_bytes: None,
            peak_process_bytes: None,
            parameters: 1,
            loss: 1.0,
        };
        let medians = [
            measurement.median_seconds(|step| step.forward),
            measurement.median_seconds(|step| step.backward),
            measurement.median_seconds(|step| step.optimizer),
            measurement.median_seconds(StepSeconds::total),
        ];
        assert_eq!(medians, [2.0, 5.0, 2.0, 10.0]);
        assert_eq!(measurement.images_per_second(), 6.0 / 33.0);
    }

    #[test]
    fn labels_are_scattered_and_repeat_themselves() {
        let device = bob_core::device::select(bob_core::device::BackendName::Flex).expect("linked for tests");
        let labels = |input| -> Vec<f32> {
            let data = targets(8, 10, input, &device).into_data();
            data.try_into_vec().expect("floats")
        };
        assert_eq!(labels(0), labels(0));
        assert_ne!(labels(0), labels(1));
        let first = labels(0);
        let ones: Vec<usize> = (0..80).filter(|&at| first[at] == 1.0).map(|at| at / 10).collect();
        assert_eq!(ones, (0..8).collect::<Vec<_>>(), "one class a row");
    }
}
