//! Data sets, decoding, the evaluation transform, batching and the embedding cache.
//!
//! The one crate that reads images. Pixels equal Pillow's and timm's bit for bit (`docs/measuring.md`).

mod atomic;
mod cache;
mod dataset;
pub mod datasets;
mod decode;
mod embed;
mod encode;
mod loader;
mod manifest;
mod resize;
mod subset;
mod transform;

pub use cache::{CacheError, CacheKey, EmbeddingCache};
pub use dataset::{DataError, Dataset, DatasetInfo, ImageSet};
pub use decode::{DecodeError, Limits, RgbImage, decode, jpeg_decoder};
pub use embed::{EmbedError, embed};
pub use encode::{EncodeError, encode_jpeg};
pub use loader::{Batch, Loader, PreparedImage};
pub use manifest::{Manifest, ManifestEntry};
pub use resize::{PassOrder, Window, resize};
pub use subset::Subset;
pub use transform::EvalTransform;
