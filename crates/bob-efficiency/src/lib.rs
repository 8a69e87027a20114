//! Throughput, latency, memory and cost of a [`Backbone`](bob_core::Backbone) on this machine, and of training it.
//!
//! ```no_run
//! # fn example<B: bob_core::Backbone>(backbone: B, device: burn::tensor::Device) -> Result<(), Box<dyn std::error::Error>> {
//! let protocol = &bob_efficiency::protocols()[0];
//! let measurement = bob_efficiency::measure(&backbone, [224, 224], protocol, &device)?;
//! let _ = (measurement.images_per_second(), measurement.latency_ms(0.99));
//! # Ok(()) }
//! ```

mod measure;
pub mod memory;
mod protocol;
mod train;

pub use measure::{MeasureError, Measurement, measure};
pub use protocol::{Protocol, protocols};
pub use train::{LEARNING_RATE, StepSeconds, TrainMeasurement, measure_training, training};
