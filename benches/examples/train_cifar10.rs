//! CIFAR-10 from scratch: an architecture's loss, images/s and top-1 epoch by epoch, and the images/s of its training
//! steps alone, as `cargo xtask measure --mode train` times them. `benches/speed/train_cifar10.py` compares what comes out
//! with PyTorch.
//!
//! ```text
//! cargo run --release -p bob-benches --features flex --example train_cifar10 -- test_resnet --datasets FOLDER
//! ```
//!
//! One JSON object a line: one an epoch, then one of the whole. `--export FILE` writes the images instead, as the loader
//! has them before augmentation, and trains nothing.

#![expect(clippy::print_stdout, reason = "the figures are its output")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bob_core::device::{BackendName, select};
use bob_core::{CropMode, Interpolation, Preprocess};
use bob_data::{EvalTransform, ImageSet, PassOrder, datasets};
use bob_models::{InitOptions, create_random};
use bob_train::{Epoch, Recipe, Splits, fit};
use clap::Parser;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;

/// Mean and deviation of CIFAR-10's training pixels.
const MEAN: [f64; 3] = [0.4914, 0.4822, 0.4465];
const STD: [f64; 3] = [0.2470, 0.2435, 0.2616];

#[derive(Parser)]
struct Arguments {
    /// Name of an architecture of bob-models.
    architecture: String,
    /// Folder of all data sets, in which `cargo xtask fetch cifar10` put `cifar10`.
    #[arg(long)]
    datasets: PathBuf,
    /// Training images, as many of each class.
    #[arg(long, default_value_t = 5120)]
    images: usize,
    /// Test images, as many of each class.
    #[arg(long, default_value_t = 2000)]
    test_images: usize,
    /// Side of the images in pixels, to which they are enlarged.
    #[arg(long, default_value_t = 64)]
    size: usize,
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// The highest learning rate.
    #[arg(long, default_value_t = 2e-3)]
    lr: f64,
    /// What weights, order and augmentation are drawn from.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[arg(long, default_value = "flex")]
    backend: String,
    /// Write the images as safetensors to this file, and end.
    #[arg(long)]
    export: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let sizes = [("train", arguments.images), ("test", arguments.test_images)];
    let sizes: BTreeMap<String, usize> = sizes.map(|(split, size)| (split.to_owned(), size)).into();
    let dataset = datasets::open("cifar10", &arguments.datasets)?.subset(&sizes, 0)?;
    let (train, test) = (dataset.split("train")?, dataset.split("test")?);
    let preprocess = Preprocess {
        interpolation: Interpolation::Bilinear,
        crop_mode: CropMode::Squash,
        crop_pct: 1.0,
        mean: MEAN,
        std: STD,
        ..Preprocess::imagenet(arguments.size)
    };
    let transform = EvalTransform::new(&preprocess, PassOrder::default());
    let recipe = Recipe {
        epochs: arguments.epochs,
        batch: arguments.batch,
        learning_rate: arguments.lr,
        seed: arguments.seed,
        ..Recipe::default()
    };
    if let Some(path) = &arguments.export {
        return export(path, &[("train", &**train), ("test", &**test)], &transform, &recipe);
    }

    let device = select(arguments.backend.parse::<BackendName>()?)?.autodiff();
    let input_size = [arguments.size; 2];
    let options = InitOptions {
        num_classes: dataset.classes.len(),
        input_size,
    };
    let create = || create_random(&arguments.architecture, &options, arguments.seed, &device);
    let splits = Splits {
        train: &**train,
        test: &**test,
        num_classes: dataset.classes.len(),
        transform: &transform,
    };
    let (training, epochs) = fit(create()?, &splits, &recipe, &device, &mut |epoch| {
        let Epoch { loss, top1, .. } = epoch;
        println!(
            "{}",
            json!({ "loss": loss, "images_per_second": epoch.images_per_second(), "top1": top1 })
        );
    })?;
    let parameters = training.num_parameters();
    drop(training);

    let mut protocol = bob_efficiency::protocols()
        .into_iter()
        .next()
        .context("there is a protocol")?;
    protocol.batch = arguments.batch;
    let measured = bob_efficiency::measure_training(create()?, input_size, &protocol, &device)?.images_per_second();
    let images: usize = epochs.iter().map(|epoch| epoch.images).sum();
    let whole = images as f64 / epochs.iter().map(|epoch| epoch.seconds).sum::<f64>();
    println!(
        "{}",
        json!({
            "architecture": arguments.architecture,
            "dataset": dataset.name,
            "parameters": parameters,
            "images_per_second": whole,
            "measure_images_per_second": measured,
            "ratio": whole / measured,
        })
    );
    Ok(())
}

/// Write the images of the splits as bytes `[n, height, width, 3]` with their labels, and the recipe as metadata.
fn export(path: &Path, splits: &[(&str, &dyn ImageSet)], transform: &EvalTransform, recipe: &Recipe) -> Result<()> {
    let [height, width] = transform.input_size();
    let mut data: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, set) in splits {
        let mut images = Vec::with_capacity(set.len() * height * width * 3);
        for index in 0..set.len() {
            images.extend(transform.apply(&set.image(index)?).pixels);
        }
        let labels = (0..set.len())
            .map(|index| u8::try_from(set.label(index)))
            .collect::<Result<_, _>>()?;
        data.push((format!("{name}_images"), vec![set.len(), height, width, 3], images));
        data.push((format!("{name}_labels"), vec![set.len()], labels));
    }
    let views = data
        .iter()
        .map(|(name, shape, bytes)| Ok((name.as_str(), TensorView::new(Dtype::U8, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    let said = json!({
        "mean": MEAN,
        "std": STD,
        "epochs": recipe.epochs,
        "warmup_epochs": recipe.warmup_epochs,
        "batch": recipe.batch,
        "learning_rate": recipe.learning_rate,
        "weight_decay": recipe.optimizer.weight_decay,
        "betas": [recipe.optimizer.beta_1, recipe.optimizer.beta_2],
        "epsilon": recipe.optimizer.epsilon,
        "smoothing": recipe.smoothing,
        "padding": recipe.augmentation.padding,
        "flip": recipe.augmentation.flip,
    });
    let metadata = [("recipe".to_owned(), said.to_string())].into();
    safetensors::serialize_to_file(views, Some(metadata), path).with_context(|| format!("`{}`", path.display()))
}
