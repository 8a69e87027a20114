//! A linear probe whose whole grid of learning rates and weight decays is trained at once on cached embeddings.

use bob_core::Embeddings;
use bob_train::warmup_cosine;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::classifier::{moments, standardise};
use crate::heads::{Course, Design, Head, Setting, train_heads};
use crate::{ClassificationError, LinearClassifier, LinearProbe, check_train};

/// A trained probe and how its setting was selected.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// The classifier of the selected setting, trained on all training images.
    pub classifier: LinearClassifier,
    /// Selected learning rate.
    pub learning_rate: f64,
    /// Selected weight decay.
    pub weight_decay: f64,
    /// Accuracy of the selected setting on the validation images, when trained without them.
    pub validation_accuracy: f64,
    /// Number of validation images.
    pub validation_images: usize,
}

/// Train a linear classifier on `train`.
///
/// Every setting of the grid is trained on the images outside the validation share ([`is_validation`]) and judged on
/// those inside; the one of the highest accuracy, then the lowest negative log-likelihood, then the first, is trained
/// again on all images. Features are standardised by the images trained on. Batches are drawn by `seed`; the result
/// depends on nothing else.
///
/// # Errors
/// Where `train` is empty, has one class or too few images to cut a validation split, or every setting diverges.
pub fn linear_probe(train: &Embeddings, settings: &LinearProbe, seed: u64) -> Result<Probe, ClassificationError> {
    check_train(train)?;
    let (validation, rest): (Vec<usize>, Vec<usize>) =
        (0..train.len()).partition(|&row| is_validation(&train.names()[row], settings.validation_share));
    if validation.is_empty() || rest.is_empty() {
        return Err(ClassificationError::NoSplit {
            images: train.len(),
            validation: validation.len(),
        });
    }
    let classes = train.num_classes();
    let grid: Vec<Setting> = settings
        .learning_rates
        .iter()
        .flat_map(|&learning_rate| {
            settings.weight_decays.iter().map(move |&weight_decay| Setting {
                learning_rate,
                weight_decay,
            })
        })
        .collect();

    let (validation, rest) = (train.select(&validation)?, train.select(&rest)?);
    let (mean, std) = moments(&rest);
    let design = |set: &Embeddings| standardised_design(set, &mean, &std);
    let heads = train_on(&design(&rest), &design(&validation), classes, &grid, settings, seed);
    let selected = select(&heads).ok_or(ClassificationError::Diverged { settings: grid.len() })?;

    let (mean, std) = moments(train);
    let everything = standardised_design(train, &mean, &std);
    let nothing = Design::new(&[], train.dim(), &[]);
    let head = train_on(
        &everything,
        &nothing,
        classes,
        &grid[selected..=selected],
        settings,
        seed,
    )
    .remove(0);
    if head.weight.iter().chain(&head.bias).any(|weight| !weight.is_finite()) {
        return Err(ClassificationError::Diverged { settings: 1 });
    }
    Ok(Probe {
        classifier: LinearClassifier {
            weight: head.weight,
            bias: head.bias,
            mean,
            std,
        },
        learning_rate: grid[selected].learning_rate,
        weight_decay: grid[selected].weight_decay,
        validation_accuracy: heads[selected].accuracy,
        validation_images: validation.len(),
    })
}

/// Whether the training image of this name is held out to select settings on: whether the 64-bit FNV-1a hash of the
/// name, mixed as in SplitMix64, is below `share` of its range.
///
/// It depends on nothing but the name, so that no seed, order or other image moves an image across the split.
pub fn is_validation(name: &str, share: f64) -> bool {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    }
    // FNV leaves the high bits of short names nearly equal.
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    hash ^= hash >> 31;
    (hash as f64) < share * 2f64.powi(64)
}

fn standardised_design(set: &Embeddings, mean: &[f32], std: &[f32]) -> Design {
    let mut features = set.values().to_vec();
    standardise(&mut features, mean, std);
    Design::new(&features, set.dim(), set.labels())
}

fn train_on(
    train: &Design,
    validation: &Design,
    classes: usize,
    grid: &[Setting],
    settings: &LinearProbe,
    seed: u64,
) -> Vec<Head> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut order: Vec<u32> = (0..train.len() as u32).collect();
    let epochs: Vec<Vec<u32>> = (0..settings.epochs)
        .map(|_| {
            order.shuffle(&mut random);
            order.clone()
        })
        .collect();
    let batches: Vec<&[u32]> = epochs
        .iter()
        .flat_map(|epoch| epoch.chunks(settings.batch_size))
        .collect();
    let warmup = train.len().div_ceil(settings.batch_size) * settings.warmup_epochs;
    let steps = batches.len();
    let course = Course {
        schedule: (0..steps)
            .map(|step| warmup_cosine(step, warmup, steps) as f32)
            .collect(),
        batches,
        momentum: settings.momentum as f32,
    };
    train_heads(train, validation, classes, grid, &course)
}

/// The head of the highest accuracy, then of the lowest negative log-likelihood, then the first; a head that diverged
/// is never selected.
fn select(heads: &[Head]) -> Option<usize> {
    let converged = (0..heads.len()).filter(|&head| heads[head].accuracy.is_finite() && heads[head].nll.is_finite());
    converged.min_by(|&a, &b| {
        let (a, b) = (&heads[a], &heads[b]);
        b.accuracy.total_cmp(&a.accuracy).then(a.nll.total_cmp(&b.nll))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::embeddings;

    fn settings() -> LinearProbe {
        LinearProbe {
            learning_rates: vec![0.01, 0.1, 1.0],
            weight_decays: vec![0.0, 0.01],
            momentum: 0.9,
            epochs: 5,
            warmup_epochs: 1,
            batch_size: 16,
            validation_share: 0.2,
        }
    }

    fn blobs(n: u32) -> Embeddings {
        let rows: Vec<[f32; 7]> = (0..n)
            .map(|i| {
                [0, 1, 2, 3, 4, 5, 6].map(|c| {
                    let noise = ((i * 7919 + c * 104_729) % 1013) as f32 / 1013.0 - 0.5;
                    noise + if c == i % 3 { 1.0 } else { 0.0 }
                })
            })
            .collect();
        embeddings(&rows, &(0..n).map(|i| i % 3).collect::<Vec<_>>())
    }

    #[test]
    fn the_same_seed_gives_the_same_bits_on_any_number_of_threads() {
        let train = blobs(300);
        let with = |threads: usize, seed: u64| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("threads");
            pool.install(|| linear_probe(&train, &settings(), seed).expect("trains"))
        };
        assert_eq!(with(1, 5), with(4, 5));
        assert_ne!(with(1, 5).classifier.weight, with(1, 6).classifier.weight);
    }

    #[test]
    fn it_separates_what_is_separable() {
        let (train, test) = (blobs(300), blobs(600));
        let probe = linear_probe(&train, &settings(), 0).expect("trains");
        let hits = probe.classifier.predict(&test).expect("fits");
        let right = hits.iter().zip(test.labels()).filter(|(a, b)| a == b).count();
        assert!(right >= 590, "{right} of 600");
    }

    #[test]
    fn the_split_follows_names_and_keeps_its_share() {
        let names: Vec<String> = (0..20_000).map(|i| format!("train/{i:05}.png")).collect();
        let share = names.iter().filter(|name| is_validation(name, 0.2)).count() as f64 / names.len() as f64;
        assert!((share - 0.2).abs() < 0.01, "{share}");
        // Stored: a changed hash would silently move images across the split of every record.
        let stored = crate::tests::fixture("linear_probe.json");
        let held_out: Vec<u32> = (0..100).filter(|i| is_validation(&i.to_string(), 0.2)).collect();
        assert_eq!(held_out, crate::tests::numbers::<u32>(&stored["validation"]));
    }

    #[test]
    fn a_diverged_head_is_never_selected() {
        let head = |accuracy: f64, nll: f64| Head {
            weight: vec![],
            bias: vec![],
            accuracy,
            nll,
        };
        let check = |heads: &[Head], expected: Option<usize>| assert_eq!(select(heads), expected);
        check(
            &[head(0.5, 1.0), head(0.6, 9.0), head(0.6, 2.0), head(0.6, 2.0)],
            Some(2),
        );
        check(&[head(f64::NAN, f64::NAN), head(0.1, 3.0)], Some(1));
        check(&[head(f64::NAN, f64::NAN), head(1.0, f64::INFINITY)], None);
    }
}
