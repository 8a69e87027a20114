//! The loop over epochs.

use std::thread;
use std::time::Instant;

use bob_core::{Backbone, InputSizeError, check_input_size};
use bob_data::{DataError, EvalTransform, ImageSet, Loader};
use bob_ops::AdamW;
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::{Augmentation, TrainLoader, Training, warmup_cosine};

/// What is trained on and what judges it.
#[derive(Clone, Copy)]
pub struct Splits<'a> {
    /// Images that are trained on, augmented.
    pub train: &'a dyn ImageSet,
    /// Images that top-1 is told of after every epoch; nothing is selected by it.
    pub test: &'a dyn ImageSet,
    /// Number of classes; labels are below it.
    pub num_classes: usize,
    /// The evaluation transform of both: size and normalisation.
    pub transform: &'a EvalTransform,
}

/// How a backbone is trained: everything but its weights, the images and the device.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Passes over the training images.
    pub epochs: usize,
    /// Epochs of these over which the learning rate rises.
    pub warmup_epochs: usize,
    /// Images of one step, at least 1.
    pub batch: usize,
    /// The highest learning rate; [`warmup_cosine`] says the rest.
    pub learning_rate: f64,
    /// The optimizer; its decay acts on every parameter.
    pub optimizer: AdamW,
    /// Label smoothing, in `0..=1`.
    pub smoothing: f64,
    /// What training images go through.
    pub augmentation: Augmentation,
    /// What the order of the images, their augmentation and a new classifier are drawn from.
    pub seed: u64,
}

impl Default for Recipe {
    /// CIFAR-10 from scratch in a few epochs: batch 64, AdamW of 2e-3 and decay 0.05, one epoch of warm-up, smoothing
    /// 0.1, crops of an image padded by an eighth of 64 pixels, flips.
    fn default() -> Self {
        Self {
            epochs: 3,
            warmup_epochs: 1,
            batch: 64,
            learning_rate: 2e-3,
            optimizer: AdamW {
                weight_decay: 0.05,
                ..AdamW::default()
            },
            smoothing: 0.1,
            augmentation: Augmentation { padding: 8, flip: true },
            seed: 0,
        }
    }
}

/// What one epoch gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epoch {
    /// Mean over the steps of the loss before each, as the model trains.
    pub loss: f64,
    /// Images trained on.
    pub images: usize,
    /// Seconds from the first image's decoding to the end of the last step; the test is not in it.
    pub seconds: f64,
    /// Share of the test images whose class scored highest after the epoch.
    pub top1: f64,
}

impl Epoch {
    /// Images per second of the training half, loading included.
    pub fn images_per_second(&self) -> f64 {
        self.images as f64 / self.seconds
    }
}

/// Why a backbone was not trained.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    /// An image cannot be read or decoded.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The backbone does not take images of the transform's size.
    #[error(transparent)]
    InputSize(#[from] InputSizeError),
    /// There is no full batch of training images, or no test image.
    #[error("the {split} split has {found} images; expected at least {expected}")]
    TooFew {
        /// Name of the split.
        split: &'static str,
        /// Its images.
        found: usize,
        /// How many it takes.
        expected: usize,
    },
    /// The backbone's own classifier is of other classes.
    #[error("the backbone classifies {found} classes; expected the {expected} of the images")]
    Classes {
        /// Classes of the classifier.
        found: usize,
        /// Classes of the images.
        expected: usize,
    },
    /// A label has no class.
    #[error("image `{name}` has the label {label}; expected one below {classes}")]
    Label {
        /// The image.
        name: String,
        /// Its label.
        label: u32,
        /// Classes of the images.
        classes: usize,
    },
    /// Training diverged.
    #[error("the loss is {loss} at step {step} of epoch {epoch}; try a lower learning rate")]
    Diverged {
        /// The first loss that is not finite.
        loss: f32,
        /// The epoch, from 1.
        epoch: usize,
        /// The step within it, from 1.
        step: usize,
    },
    /// The device failed, or ran out of memory.
    #[error("the device failed during training: {0}")]
    Device(String),
}

/// Train `backbone`, which lies on `device`, with a linear classifier on the training split, and test it after every
/// epoch.
///
/// The classifier is the backbone's own, or a new one where it has none. `progress` is told every epoch as it ends. The
/// result depends on the weights, the images, the recipe and the device, not on the number of threads that load.
///
/// # Errors
/// Where the splits do not fit the backbone or the recipe, an image cannot be read (the first in the order of training),
/// or a loss is not finite, which shows at the end of its epoch.
///
/// # Panics
/// Where the device does not track gradients, or the recipe's batch is 0 or its smoothing not within `0..=1`.
pub fn fit<B: Backbone>(
    backbone: B,
    splits: &Splits,
    recipe: &Recipe,
    device: &Device,
    progress: &mut (dyn FnMut(&Epoch) + Send),
) -> Result<(Training<B>, Vec<Epoch>), FitError> {
    // The threads that load are none of the pool's.
    bob_ops::on_cores(device, move || fit_here(backbone, splits, recipe, device, progress))
}

fn fit_here<B: Backbone>(
    backbone: B,
    splits: &Splits,
    recipe: &Recipe,
    device: &Device,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<(Training<B>, Vec<Epoch>), FitError> {
    check_input_size(&backbone, splits.transform.input_size())?;
    for (split, set, expected) in [("train", splits.train, recipe.batch), ("test", splits.test, 1)] {
        check(split, set, expected, splits.num_classes)?;
    }
    let mut training = Training::new(backbone, splits.num_classes, recipe.optimizer, recipe.seed, device);
    if training.num_classes() != splits.num_classes {
        return Err(FitError::Classes {
            found: training.num_classes(),
            expected: splits.num_classes,
        });
    }
    let mut epochs = Vec::with_capacity(recipe.epochs);
    for epoch in 0..recipe.epochs {
        let start = Instant::now();
        let losses;
        (training, losses) = train_epoch(training, splits, recipe, epoch, device)?;
        let seconds = start.elapsed().as_secs_f64();
        if let Some(step) = losses.iter().position(|loss| !loss.is_finite()) {
            return Err(FitError::Diverged {
                loss: losses[step],
                epoch: epoch + 1,
                step: step + 1,
            });
        }
        let done = Epoch {
            loss: losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / losses.len() as f64,
            images: losses.len() * recipe.batch,
            seconds,
            top1: top1(&training, splits, recipe.batch, device)?,
        };
        progress(&done);
        epochs.push(done);
    }
    Ok((training, epochs))
}

fn check(split: &'static str, set: &dyn ImageSet, expected: usize, classes: usize) -> Result<(), FitError> {
    if set.len() < expected {
        return Err(FitError::TooFew {
            split,
            found: set.len(),
            expected,
        });
    }
    match (0..set.len()).find(|&index| set.label(index) as usize >= classes) {
        Some(index) => Err(FitError::Label {
            name: set.name(index),
            label: set.label(index),
            classes,
        }),
        None => Ok(()),
    }
}

/// The training after the epoch, and the loss before each of its steps.
fn train_epoch<B: Backbone>(
    mut training: Training<B>,
    splits: &Splits,
    recipe: &Recipe,
    epoch: usize,
    device: &Device,
) -> Result<(Training<B>, Vec<f32>), FitError> {
    let per_epoch = splits.train.len() / recipe.batch;
    let [warmup, steps] = [recipe.warmup_epochs, recipe.epochs].map(|epochs| epochs * per_epoch);
    let classes = splits.num_classes;
    let (training, losses) = thread::scope(|scope| -> Result<_, FitError> {
        // Read together at the end: a read is a wait for the device.
        let mut losses = Vec::with_capacity(per_epoch);
        let batches = TrainLoader::new(scope, splits.train, splits.transform, recipe, epoch, loaders());
        for (batch, step) in batches.zip(epoch * per_epoch..) {
            let batch = batch?;
            let n = batch.labels.len();
            let mut targets = vec![0.0_f32; n * classes];
            for (row, &label) in targets.chunks_exact_mut(classes).zip(&batch.labels) {
                row[label as usize] = 1.0;
            }
            let images = TensorData::new(batch.images, [n, 3, batch.height, batch.width]);
            let images = Tensor::from_data(images, device);
            let targets = Tensor::from_data(TensorData::new(targets, [n, classes]), device);
            let learning_rate = recipe.learning_rate * warmup_cosine(step, warmup, steps);
            let loss;
            (training, loss) = training.step(images, targets, learning_rate, recipe.smoothing);
            losses.push(loss);
        }
        Ok((training, losses))
    })?;
    Ok((training, read(Tensor::cat(losses, 0))?))
}

/// Share of the test images whose class scores highest.
fn top1<B: Backbone>(training: &Training<B>, splits: &Splits, batch: usize, device: &Device) -> Result<f64, FitError> {
    let device = device.clone().inner();
    let classify = training.classifier();
    let mut right = 0;
    thread::scope(|scope| -> Result<(), FitError> {
        for batch in Loader::new(scope, splits.test, splits.transform, batch, loaders()) {
            let batch = batch?;
            let images = TensorData::new(batch.images, [batch.indices.len(), 3, batch.height, batch.width]);
            let logits = read(classify(Tensor::from_data(images, &device)))?;
            right += logits
                .chunks_exact(splits.num_classes)
                .zip(batch.indices)
                .filter(|(scores, index)| highest(scores) == splits.test.label(*index) as usize)
                .count();
        }
        Ok(())
    })?;
    Ok(right as f64 / splits.test.len() as f64)
}

/// Index of the highest score, the first of equals.
fn highest(scores: &[f32]) -> usize {
    let better = |best: usize, index: usize| if scores[index] > scores[best] { index } else { best };
    (0..scores.len()).fold(0, better)
}

/// Threads that load: the compute leaves cores idle between its parallel parts, and loading is the smaller work.
fn loaders() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, FitError> {
    let data = tensor
        .try_into_data()
        .map_err(|error| FitError::Device(error.to_string()))?;
    data.convert_dtype(DType::F32)
        .try_into_vec()
        .map_err(|error| FitError::Device(format!("{error:?}")))
}
