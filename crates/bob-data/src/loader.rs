//! Decoding and transforming on other threads, beside the compute.

use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use crate::{DataError, EvalTransform, ImageSet, RgbImage};

/// Images in front of the consumer, per thread: enough to ride out a slow one, little memory.
const AHEAD: usize = 8;

/// Consecutive images, transformed.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[n, 3, height, width]`, normalised.
    pub images: Vec<f32>,
    /// Rows of one image.
    pub height: usize,
    /// Columns of one image.
    pub width: usize,
    /// Their positions in the order of loading: of [`Loader::new`] their indices in the set.
    pub indices: Range<usize>,
}

/// One image, transformed.
#[derive(Clone, Debug)]
pub struct PreparedImage {
    values: Vec<f32>,
    height: usize,
    width: usize,
}

impl PreparedImage {
    /// `image`, normalised as `transform` says, neither resized nor cropped.
    pub fn normalized(image: &RgbImage, transform: &EvalTransform) -> Self {
        let mut values = vec![0.0; 3 * image.height * image.width];
        transform.normalize_into(image, &mut values);
        Self {
            values,
            height: image.height,
            width: image.width,
        }
    }
}

/// Batches of images, in order: an iterator that decodes and transforms ahead on threads of its own.
///
/// The batches do not depend on the number of threads. An image that cannot be read or decoded is an error that
/// names it, in its place, and the end. Dropping the loader stops its threads.
pub struct Loader {
    /// Thread `t` of `n` sends the images `t`, `t + n`, …: taken in turn, they come in order.
    threads: Vec<Receiver<Result<PreparedImage, DataError>>>,
    batch: usize,
    next: usize,
    len: usize,
}

impl Loader {
    /// Begin to load `set` in batches of `batch` images on `workers` threads of `scope`.
    ///
    /// # Panics
    /// Where `batch` or `workers` is 0.
    pub fn new<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        set: &'env dyn ImageSet,
        transform: &'env EvalTransform,
        batch: usize,
        workers: usize,
    ) -> Self {
        Self::from_fn(scope, set.len(), batch, workers, move |index| {
            let image = transform.apply(&set.image(index)?);
            Ok(PreparedImage::normalized(&image, transform))
        })
    }

    /// Begin to load the images that `prepare` makes of `0`, `1`, … to `len`, in batches of `batch` images on `workers`
    /// threads of `scope`. All images have one size.
    ///
    /// # Panics
    /// Where `batch` or `workers` is 0.
    pub fn from_fn<'scope, F>(
        scope: &'scope Scope<'scope, '_>,
        len: usize,
        batch: usize,
        workers: usize,
        prepare: F,
    ) -> Self
    where
        F: Fn(usize) -> Result<PreparedImage, DataError> + Clone + Send + 'scope,
    {
        assert!(batch > 0 && workers > 0, "a loader needs a batch size and a thread");
        let spawn = |thread| {
            let prepare = prepare.clone();
            let (sender, receiver) = sync_channel(AHEAD);
            scope.spawn(move || {
                for position in (thread..len).step_by(workers) {
                    let image = prepare(position);
                    let is_last = image.is_err();
                    // Nobody listens any more: the loader was dropped.
                    if sender.send(image).is_err() || is_last {
                        break;
                    }
                }
            });
            receiver
        };
        Self {
            threads: (0..workers).map(spawn).collect(),
            batch,
            next: 0,
            len,
        }
    }

    fn take(&mut self, indices: Range<usize>) -> Result<Batch, DataError> {
        let mut batch = Batch {
            images: Vec::new(),
            height: 0,
            width: 0,
            indices: indices.clone(),
        };
        for index in indices.clone() {
            let thread = &self.threads[index % self.threads.len()];
            let image = thread
                .recv()
                .expect("a decoding thread only ends early by a panic, which goes on here")?;
            if batch.images.is_empty() {
                batch.images.reserve_exact(indices.len() * image.values.len());
                (batch.height, batch.width) = (image.height, image.width);
            }
            batch.images.extend_from_slice(&image.values);
        }
        Ok(batch)
    }
}

impl Iterator for Loader {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.len {
            return None;
        }
        let indices = self.next..self.len.min(self.next + self.batch);
        let batch = self.take(indices.clone());
        self.next = if batch.is_ok() { indices.end } else { self.len };
        Some(batch)
    }
}
