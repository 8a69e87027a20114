//! Where the time of a pass goes, by operation.

use std::time::Instant;

use bob_core::{Backbone, check_input_size};
use bob_ops::on_cores;
use bob_ops::profile::{self, OperationTime};
use burn::tensor::Device;

use crate::measure::{noise, sync};
use crate::train::{batches, check_trainable, timed_step, training};
use crate::{MeasureError, Protocol};

/// Passes before the clock starts, and under it.
const PASSES: [usize; 2] = [2, 5];

/// The time of a pass by operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Passes under the clock.
    pub passes: usize,
    /// Wall time of all of them.
    pub seconds: f64,
    /// What the operations of `bob-ops` took of it, over all passes, the slowest first; the rest is burn's own.
    pub operations: Vec<OperationTime>,
}

impl Profile {
    /// Seconds outside the operations of `bob-ops`.
    pub fn rest(&self) -> f64 {
        self.seconds - self.operations.iter().map(OperationTime::total).sum::<f64>()
    }
}

/// Profile forward passes of `backbone` at the protocol's batch; as [`measure`](crate::measure()).
///
/// # Errors
/// Where the backbone does not take the input size, or the device fails.
pub fn profile_inference<B: Backbone>(
    backbone: &B,
    input_size: [usize; 2],
    protocol: &Protocol,
    device: &Device,
) -> Result<Profile, MeasureError> {
    check_input_size(backbone, input_size)?;
    let [height, width] = input_size;
    let inputs = noise([protocol.batch, 3, height, width], protocol, device);
    let backbone = backbone.clone();
    on_cores(device, move || {
        let mut inputs = inputs.iter().cycle();
        passes(|| {
            if let Some(images) = inputs.next() {
                drop(backbone.forward_embedding(images.clone()));
            }
            sync(device)
        })
    })
}

/// Profile training steps of `backbone`; as [`measure_training`](crate::measure_training).
///
/// # Errors
/// Where the backbone does not take the input size, nor one image of it in training, or the device fails.
///
/// # Panics
/// As [`training`].
pub fn profile_training<B: Backbone>(
    backbone: B,
    input_size: [usize; 2],
    protocol: &Protocol,
    device: &Device,
) -> Result<Profile, MeasureError> {
    check_trainable(&backbone, input_size, protocol)?;
    let first = training(backbone, device);
    let inputs = batches(&first, input_size, protocol, device);
    on_cores(device, move || {
        let mut inputs = inputs.iter().cycle();
        let mut model = Some(first);
        passes(|| {
            if let (Some(before), Some((images, targets))) = (model.take(), inputs.next()) {
                let (after, _, _) = timed_step(before, images.clone(), targets.clone(), device)?;
                model = Some(after);
            }
            Ok(())
        })
    })
}

fn passes(mut pass: impl FnMut() -> Result<(), MeasureError>) -> Result<Profile, MeasureError> {
    let [warmup, passes] = PASSES;
    for _ in 0..warmup {
        pass()?;
    }
    profile::start();
    let start = Instant::now();
    for _ in 0..passes {
        pass()?;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(Profile {
        passes,
        seconds,
        operations: profile::stop(),
    })
}
