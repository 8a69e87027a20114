//! The batches of one epoch, made ahead on other threads.

use std::sync::Arc;
use std::thread::Scope;

use bob_data::{Batch, DataError, EvalTransform, ImageSet, Loader, PreparedImage};

use crate::{Recipe, permutation};

/// Augmented images and their labels.
#[derive(Clone, Debug)]
pub struct LabelledBatch {
    /// `[n, 3, height, width]`, normalised.
    pub images: Vec<f32>,
    /// Rows of one image.
    pub height: usize,
    /// Columns of one image.
    pub width: usize,
    /// Their indices in the set.
    pub indices: Vec<usize>,
    /// Their labels.
    pub labels: Vec<u32>,
}

/// The batches of one epoch: the images of a set in a random order, each resized, augmented and normalised, in full
/// batches. Images that fill no batch are left out, other ones every epoch (PyTorch's `drop_last`).
///
/// The batches do not depend on the number of threads. An image that cannot be read or decoded is an error that names it,
/// in its place, and the end.
pub struct TrainLoader<'env> {
    set: &'env dyn ImageSet,
    order: Arc<[usize]>,
    batches: Loader,
}

impl<'env> TrainLoader<'env> {
    /// Begin to load `epoch` on `workers` threads of `scope`, with the batch, augmentation and seed of `recipe`. Images are
    /// augmented after `transform` has brought them to its size.
    ///
    /// # Panics
    /// Where the recipe's batch or `workers` is 0.
    pub fn new<'scope>(
        scope: &'scope Scope<'scope, 'env>,
        set: &'env dyn ImageSet,
        transform: &'env EvalTransform,
        recipe: &Recipe,
        epoch: usize,
        workers: usize,
    ) -> Self {
        let &Recipe {
            batch,
            augmentation,
            seed,
            ..
        } = recipe;
        assert!(batch > 0, "a loader needs a batch size");
        let order: Arc<[usize]> = permutation(seed, epoch, set.len()).into();
        let full = set.len() / batch * batch;
        let prepare = {
            let order = order.clone();
            move |position: usize| {
                let index = order[position];
                let image = transform.apply(&set.image(index)?);
                let image = augmentation.apply(image, seed, epoch, index);
                Ok(PreparedImage::normalized(&image, transform))
            }
        };
        Self {
            set,
            order,
            batches: Loader::from_fn(scope, full, batch, workers, prepare),
        }
    }
}

impl Iterator for TrainLoader<'_> {
    type Item = Result<LabelledBatch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batches.next()?;
        Some(batch.map(|batch| {
            let Batch {
                images,
                height,
                width,
                indices,
            } = batch;
            let indices = self.order[indices].to_vec();
            let labels = indices.iter().map(|&index| self.set.label(index)).collect();
            LabelledBatch {
                images,
                height,
                width,
                indices,
                labels,
            }
        }))
    }
}
