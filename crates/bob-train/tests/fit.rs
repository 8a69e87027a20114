//! The loop over epochs, on a problem that a convolution can solve.

mod common;

use bob_data::ImageSet;
use bob_train::{Augmentation, Epoch, FitError, Recipe, Splits, Training, fit};
use burn::tensor::{Tensor, TensorData};
use common::{CLASSES, Colours, Tiny, device, transform};

const TRAIN: Colours = Colours { len: 50, broken: None };
const TEST: Colours = Colours { len: 31, broken: None };

fn recipe() -> Recipe {
    Recipe {
        epochs: 4,
        batch: 8,
        learning_rate: 0.05,
        augmentation: Augmentation { padding: 2, flip: true },
        seed: 3,
        ..Recipe::default()
    }
}

fn run(
    backbone: Tiny,
    train: &dyn ImageSet,
    test: &dyn ImageSet,
    recipe: &Recipe,
) -> Result<(Training<Tiny>, Vec<Epoch>), FitError> {
    let splits = Splits {
        train,
        test,
        num_classes: CLASSES,
        transform: &transform(),
    };
    fit(backbone, &splits, recipe, &device(), &mut |_| ())
}

#[test]
fn the_loss_falls_and_the_classes_are_learnt() {
    for classes in [None, Some(CLASSES)] {
        let (training, epochs) = run(Tiny::new(classes), &TRAIN, &TEST, &recipe()).expect("trains");
        assert_eq!(epochs.len(), 4);
        assert!(
            epochs
                .iter()
                .all(|epoch| epoch.images == 48 && epoch.images_per_second() > 0.0)
        );
        assert!(epochs[3].loss < 0.7 * epochs[0].loss, "{epochs:?}");
        assert!(epochs[3].top1 > 0.9, "{epochs:?}");
        assert_eq!(training.num_classes(), CLASSES);
        assert_eq!(training.num_parameters(), 3 * 24 * 9 + 24 + 2 * 24 + 24 * 3 + 3);
        let trained = training.into_backbone();
        let moved: Vec<f32> = trained
            .norm
            .running_mean
            .value()
            .into_data()
            .try_into_vec()
            .expect("floats");
        assert!(moved.iter().any(|mean| mean.abs() > 1e-3), "running statistics follow");
    }
}

#[test]
fn every_epoch_is_told_as_it_ends() {
    let transform = transform();
    let splits = Splits {
        train: &TRAIN,
        test: &TEST,
        num_classes: CLASSES,
        transform: &transform,
    };
    let mut told = Vec::new();
    let tell = &mut |epoch: &Epoch| told.push(*epoch);
    let (_, epochs) = fit(Tiny::new(None), &splits, &recipe(), &device(), tell).expect("trains");
    assert_eq!(told, epochs);
}

#[test]
fn one_seed_gives_the_same_bits_whatever_the_number_of_threads() {
    let train = |seed: u64| {
        let recipe = Recipe { seed, ..recipe() };
        let (training, epochs) = run(Tiny::new(None), &TRAIN, &TEST, &recipe).expect("trains");
        let seen: Vec<[f64; 2]> = epochs.iter().map(|epoch| [epoch.loss, epoch.top1]).collect();
        let logits = training.classifier()(Tensor::ones([1, 3, 16, 16], &device().inner()));
        (
            seen,
            training.into_backbone().conv.weight.val().into_data(),
            logits.into_data(),
        )
    };
    let train_in = |threads: usize, seed: u64| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("a pool");
        pool.install(|| train(seed))
    };
    let one = train_in(1, 3);
    for threads in [1, 2, 3] {
        assert!(train_in(threads, 3) == one, "{threads} threads give other bits");
    }
    assert!(train(3) == one, "a thread outside of the pool gives other bits");
    assert!(train_in(1, 4).0 != one.0, "another seed gives another course");
}

#[test]
fn what_cannot_be_trained_on_is_refused_by_name() {
    let check = |backbone: Tiny, train: &Colours, test: &Colours, recipe: &Recipe, expected: &str| {
        let error = run(backbone, train, test, recipe)
            .map(|_| ())
            .expect_err("must be refused");
        assert_eq!(error.to_string(), expected);
    };
    let tiny = || Tiny::new(None);
    let few = Colours { len: 7, broken: None };
    let none = Colours { len: 0, broken: None };
    check(
        tiny(),
        &few,
        &TEST,
        &recipe(),
        "the train split has 7 images; expected at least 8",
    );
    check(
        tiny(),
        &TRAIN,
        &none,
        &recipe(),
        "the test split has 0 images; expected at least 1",
    );
    check(
        Tiny::new(Some(5)),
        &TRAIN,
        &TEST,
        &recipe(),
        "the backbone classifies 5 classes; expected the 3 of the images",
    );
    let broken = Colours {
        broken: Some(11),
        ..TRAIN
    };
    let all = Recipe { batch: 50, ..recipe() };
    check(tiny(), &broken, &TEST, &all, "image `colour11`: the file is empty");
    check(
        tiny(),
        &TRAIN,
        &broken,
        &recipe(),
        "image `colour11`: the file is empty",
    );

    let mut spoilt = tiny();
    let values = TensorData::full([24, 3, 3, 3], f32::NAN);
    let weight = Tensor::from_data(values, &device());
    spoilt.conv.weight = spoilt.conv.weight.map(|_| weight.clone().require_grad());
    check(
        spoilt,
        &TRAIN,
        &TEST,
        &recipe(),
        "the loss is NaN at step 1 of epoch 1; try a lower learning rate",
    );

    let splits = Splits {
        train: &TRAIN,
        test: &TEST,
        num_classes: 2,
        transform: &transform(),
    };
    let error = fit(tiny(), &splits, &recipe(), &device(), &mut |_| ()).map(|_| ());
    let error = error.expect_err("label 2 has no class").to_string();
    assert_eq!(error, "image `colour2` has the label 2; expected one below 2");
}
