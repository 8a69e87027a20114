//! The batches of an epoch: shuffled, augmented, and the same whatever loads them.

#[expect(dead_code, reason = "the backbone is of other tests")]
mod common;

use std::thread;

use bob_data::{DataError, ImageSet};
use bob_train::{Augmentation, LabelledBatch, Recipe, TrainLoader, permutation};
use common::{Colours, transform};

fn recipe() -> Recipe {
    Recipe {
        batch: 4,
        augmentation: Augmentation { padding: 2, flip: true },
        seed: 5,
        ..Recipe::default()
    }
}

fn load(set: &Colours, recipe: &Recipe, epoch: usize, workers: usize) -> Vec<Result<LabelledBatch, DataError>> {
    let transform = transform();
    thread::scope(|scope| TrainLoader::new(scope, set, &transform, recipe, epoch, workers).collect())
}

fn sound(set: &Colours, recipe: &Recipe, epoch: usize, workers: usize) -> Vec<LabelledBatch> {
    let batches = load(set, recipe, epoch, workers);
    batches.into_iter().map(|batch| batch.expect("sound")).collect()
}

const SET: Colours = Colours { len: 23, broken: None };

#[test]
fn an_epoch_is_full_batches_of_a_permutation() {
    let batches = sound(&SET, &recipe(), 1, 2);
    let indices: Vec<usize> = batches.iter().flat_map(|batch| batch.indices.clone()).collect();
    assert_eq!(indices, permutation(5, 1, 23)[..20]);
    for batch in &batches {
        let labels: Vec<u32> = batch.indices.iter().map(|&index| SET.label(index)).collect();
        assert_eq!(batch.labels, labels);
        assert_eq!((batch.height, batch.width), (16, 16));
        assert_eq!(batch.images.len(), 4 * 3 * 16 * 16);
    }
    let few = Colours { len: 3, broken: None };
    assert!(load(&few, &recipe(), 0, 2).is_empty());
}

#[test]
fn batches_do_not_depend_on_the_number_of_threads() {
    for epoch in [0, 3] {
        let one = sound(&SET, &recipe(), epoch, 1);
        for workers in [2, 3, 7, 40] {
            for (some, one) in sound(&SET, &recipe(), epoch, workers).iter().zip(&one) {
                assert_eq!(some.indices, one.indices);
                assert!(some.images == one.images, "{workers} threads give other pixels");
            }
        }
    }
}

/// The augmentation of an image belongs to the image and not to its place in the batches.
#[test]
fn an_image_is_augmented_alike_in_any_batch_and_otherwise_in_another_epoch() {
    let image = |batches: &[LabelledBatch], wanted: usize| -> Option<Vec<f32>> {
        batches.iter().find_map(|batch| {
            let at = batch.indices.iter().position(|&index| index == wanted)?;
            Some(batch.images[at * 3 * 256..][..3 * 256].to_vec())
        })
    };
    let fours = sound(&SET, &recipe(), 0, 2);
    let sevens = sound(&SET, &Recipe { batch: 7, ..recipe() }, 0, 2);
    let next = sound(&SET, &recipe(), 1, 2);
    let (mut alike, mut other) = (0, 0);
    for index in 0..SET.len {
        if let (Some(four), Some(seven)) = (image(&fours, index), image(&sevens, index)) {
            assert!(four == seven, "image {index}");
            alike += 1;
        }
        if let (Some(now), Some(then)) = (image(&fours, index), image(&next, index)) {
            other += usize::from(now != then);
        }
    }
    assert!(alike >= 18 && other >= 12, "{alike} alike, {other} other");
}

#[test]
fn a_broken_image_is_named_in_its_place_and_ends_the_batches() {
    let broken = permutation(5, 0, 23)[9];
    let set = Colours {
        broken: Some(broken),
        ..SET
    };
    for workers in [1, 2, 5] {
        let batches = load(&set, &recipe(), 0, workers);
        assert_eq!(batches.len(), 3, "two sound batches and the error");
        assert!(batches[..2].iter().all(Result::is_ok));
        let error = batches[2].as_ref().expect_err("it holds the broken one").to_string();
        assert_eq!(error, format!("image `colour{broken}`: the file is empty"));
    }
}
