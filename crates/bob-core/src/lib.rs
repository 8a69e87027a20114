//! What every task of the battle agrees on: the [`Backbone`] contract, what is known of a [`Checkpoint`],
//! how its images are prepared ([`Preprocess`]), the [`Embeddings`] it gives, the cost of a pass
//! ([`Cost`]), and which [`device`] computes.
//!
//! Depend on this crate and one task crate to score a backbone of your own.

mod autocast;
mod backbone;
mod checkpoint;
mod cost;
pub mod device;
mod embeddings;
mod parameters;
mod parse;
mod preprocess;
mod protocol;
mod similarity;
mod source;
mod suggest;

pub use autocast::Autocast;
pub use backbone::{Backbone, FeatureInfo, InputSizeError, check_input_size};
pub use checkpoint::{Checkpoint, Pretraining, Style};
pub use cost::{Cost, CostCounter};
pub use embeddings::{Embeddings, EmbeddingsError};
pub use parameters::{initialize, num_parameters};
pub use parse::{TomlError, parse_toml};
pub use preprocess::{CropMode, Interpolation, Preprocess};
pub use protocol::{ProtocolError, Variant, parse_protocol};
pub use similarity::dot_products;
pub use source::Source;
pub use suggest::{UnknownName, find};
