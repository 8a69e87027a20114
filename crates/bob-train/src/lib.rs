//! Training of a [`Backbone`](bob_core::Backbone) with a linear classifier on labelled images.
//!
//! [`fit`] is the loop over epochs; its parts stand alone: a step ([`Training`]), the learning rate ([`warmup_cosine`]),
//! the order of the images ([`permutation`]), their [`Augmentation`] and the batches of both ([`TrainLoader`]).
//! The crate sees no architecture and no task.
//!
//! ```no_run
//! # fn example<B: bob_core::Backbone>(
//! #     backbone: B, splits: bob_train::Splits, device: burn::tensor::Device,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let recipe = bob_train::Recipe { epochs: 3, ..Default::default() };
//! let (trained, epochs) = bob_train::fit(backbone, &splits, &recipe, &device.autodiff(), &mut |_| ())?;
//! let _ = (trained.into_backbone(), epochs[2].top1);
//! # Ok(()) }
//! ```

mod augmentation;
mod fit;
mod loader;
mod sampler;
mod schedule;
mod seed;
mod training;

pub use augmentation::Augmentation;
pub use fit::{Epoch, FitError, Recipe, Splits, fit};
pub use loader::{LabelledBatch, TrainLoader};
pub use sampler::permutation;
pub use schedule::warmup_cosine;
pub use training::Training;
