//! One forward pass over a set of images.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bob_core::{Backbone, Embeddings, EmbeddingsError};
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::{Batch, DataError, EvalTransform, ImageSet, Loader};

/// Why images have no embeddings.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// An image cannot be read or decoded.
    #[error(transparent)]
    Data(#[from] DataError),
    /// An embedding is not finite.
    #[error(transparent)]
    Embeddings(#[from] EmbeddingsError),
    /// The backbone gave something else than one embedding an image.
    #[error("the backbone gave an output of shape {found:?}; expected {expected:?}")]
    Shape {
        /// The shape of its output.
        found: Vec<usize>,
        /// `[batch, num_features]`.
        expected: [usize; 2],
    },
    /// The device failed, or ran out of memory.
    #[error("the forward pass failed: {0}")]
    Device(String),
}

/// The embeddings of every image of `set`, in its order: [`Backbone::forward_embedding`].
///
/// Every pass has `batch` images, the last one filled up, so that an image's embedding depends neither on the
/// images beside it nor on the size of the set. `workers` passes run at a time, each on a copy of the backbone: more
/// than one pays where the device leaves cores idle, costs that many times the activations, and changes no bit.
/// Decoding uses all cores besides. `progress` is told the number of images done.
///
/// # Errors
/// Where an image cannot be read, or an embedding is not finite: the first such image in the order of the set.
///
/// # Panics
/// Where `batch` or `workers` is 0.
pub fn embed<B: Backbone>(
    backbone: &B,
    set: &dyn ImageSet,
    transform: &EvalTransform,
    batch: usize,
    workers: usize,
    device: &Device,
    progress: &mut dyn FnMut(usize),
) -> Result<Embeddings, EmbedError> {
    assert!(workers > 0, "a forward pass needs a thread");
    let dim = backbone.num_features();
    let mut values = vec![0.0; set.len() * dim];
    let mut first_error: Option<(usize, EmbedError)> = None;
    let decoders = thread::available_parallelism().map_or(1, usize::from);
    let stop = AtomicBool::new(false);

    thread::scope(|scope| {
        let loader = Arc::new(Mutex::new(Loader::new(scope, set, transform, batch, decoders)));
        let (sender, receiver) = sync_channel(workers);
        for _ in 0..workers {
            let (loader, sender, stop) = (loader.clone(), sender.clone(), &stop);
            let (backbone, device) = (backbone.clone(), device.clone());
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let Some(next) = loader.lock().unwrap_or_else(PoisonError::into_inner).next() else {
                        break;
                    };
                    let output = match next {
                        Ok(images) => forward(&backbone, images, batch, &device, set),
                        Err(error) => Err((usize::MAX, error.into())),
                    };
                    if sender.send(output).is_err() {
                        break;
                    }
                }
            });
        }
        // The threads hold the loader now; it must go with the last of them for the decoders to stop.
        drop((loader, sender));

        let mut done = 0;
        for output in receiver {
            match output {
                Ok((start, rows)) => {
                    values[start * dim..][..rows.len()].copy_from_slice(&rows);
                    done += rows.len() / dim;
                    progress(done);
                }
                // Batches are taken in order: all that come before this one are done or under way, and are heard.
                Err((index, error)) => {
                    stop.store(true, Ordering::Relaxed);
                    if first_error.as_ref().is_none_or(|(first, _)| index < *first) {
                        first_error = Some((index, error));
                    }
                }
            }
        }
    });

    if let Some((_, error)) = first_error {
        return Err(error);
    }
    let labels = (0..set.len()).map(|index| set.label(index)).collect();
    let names = (0..set.len()).map(|index| set.name(index)).collect();
    Ok(Embeddings::new(values, dim, labels, names)?)
}

/// The first index of the batch and its rows, or the index of the image that failed.
fn forward<B: Backbone>(
    backbone: &B,
    batch: Batch,
    size: usize,
    device: &Device,
    set: &dyn ImageSet,
) -> Result<(usize, Vec<f32>), (usize, EmbedError)> {
    let Batch {
        mut images,
        height,
        width,
        indices,
    } = batch;
    let dim = backbone.num_features();
    images.resize(size * 3 * height * width, 0.0);
    let images = Tensor::<4>::from_data(TensorData::new(images, [size, 3, height, width]), device);
    let output = backbone.forward_embedding(images);
    if output.dims() != [size, dim] {
        let error = EmbedError::Shape {
            found: output.dims().to_vec(),
            expected: [size, dim],
        };
        return Err((indices.start, error));
    }
    let rows = output
        .try_into_data()
        .map_err(|error| error.to_string())
        .and_then(|data| {
            data.convert_dtype(DType::F32)
                .try_into_vec::<f32>()
                .map_err(|error| format!("{error:?}"))
        });
    let mut rows = rows.map_err(|error| (indices.start, EmbedError::Device(error)))?;
    rows.truncate(indices.len() * dim);
    if let Some(at) = rows.iter().position(|value| !value.is_finite()) {
        let row = indices.start + at / dim;
        let value = rows[at].to_string();
        let error = EmbeddingsError::NotFinite {
            name: set.name(row),
            row,
            column: at % dim,
            value,
        };
        return Err((row, error.into()));
    }
    Ok((indices.start, rows))
}
