//! Loading beside the compute, and embeddings that depend on nothing but the image.

mod common;

use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use bob_data::{Batch, DataError, Loader, embed};
use burn::tensor::Device;
use common::{Noise, Tiny, transform};

fn load(set: &Noise, batch: usize, workers: usize) -> Vec<Result<Batch, DataError>> {
    let transform = transform();
    thread::scope(|scope| Loader::new(scope, set, &transform, batch, workers).collect())
}

#[test]
fn batches_are_in_order_whatever_the_number_of_threads() {
    let set = Noise::new(23);
    let one = load(&set, 4, 1);
    for workers in [1, 2, 3, 7, 40] {
        let some = load(&set, 4, workers);
        assert_eq!(some.len(), 6);
        for (some, one) in some.iter().zip(&one) {
            let (some, one) = (some.as_ref().expect("sound"), one.as_ref().expect("sound"));
            assert_eq!(some.indices, one.indices);
            assert!(
                some.images == one.images,
                "batch {:?} differs with {workers} threads",
                some.indices
            );
            assert_eq!(some.images.len(), some.indices.len() * 3 * some.height * some.width);
        }
    }
    assert_eq!(one[5].as_ref().expect("sound").indices, 20..23);
    assert!(load(&Noise::new(0), 4, 2).is_empty());
}

#[test]
fn a_broken_image_is_named_in_its_place_and_ends_the_batches() {
    for workers in [1, 2, 5] {
        let batches = load(
            &Noise {
                broken: Some(9),
                ..Noise::new(40)
            },
            4,
            workers,
        );
        assert_eq!(batches.len(), 3, "two sound batches and the error");
        assert!(batches[..2].iter().all(Result::is_ok));
        let error = batches[2].as_ref().expect_err("image 9 is broken").to_string();
        assert_eq!(error, "image `noise9`: the file is empty");
    }
}

#[test]
fn a_loader_that_is_dropped_stops_its_threads() {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let set = Noise::new(1_000_000);
        let transform = transform();
        thread::scope(|scope| {
            let mut loader = Loader::new(scope, &set, &transform, 2, 3);
            let first = loader.next().expect("there is one").expect("sound");
            assert_eq!(first.indices, 0..2);
        });
        sender.send(set.decoded.load(Ordering::SeqCst)).expect("the test waits");
    });
    let decoded = receiver.recv_timeout(Duration::from_secs(60)).expect("the threads end");
    assert!(decoded < 100, "{decoded} images were decoded for a batch of 2");
}

#[test]
fn an_embedding_depends_on_neither_batch_nor_threads() {
    let device = Device::flex();
    let backbone = Tiny::new(&device);
    let set = Noise::new(29);
    let run = |batch, workers| {
        let mut told = Vec::new();
        let progress = &mut |done| told.push(done);
        let embeddings =
            embed(&backbone, &set, &transform(), batch, workers, &device, progress).expect("everything is sound");
        assert_eq!(told.last(), Some(&29));
        assert!(told.is_sorted());
        embeddings
    };
    let reference = run(8, 1);
    assert_eq!((reference.len(), reference.dim()), (29, 24));
    assert_eq!(reference.names()[28], "noise28");
    assert_eq!(reference.labels()[..4], [0, 1, 2, 0]);
    assert_ne!(reference.row(0), reference.row(1));
    for (batch, workers) in [(8, 2), (8, 3), (1, 1), (2, 1), (5, 2), (29, 1), (64, 1)] {
        let other = run(batch, workers);
        assert!(
            reference.values() == other.values(),
            "batch {batch} with {workers} workers gives other bits"
        );
    }
}

#[test]
fn the_first_fault_is_told() {
    let device = Device::flex();
    let check = |backbone: &Tiny, set: &Noise, expected: &str| {
        for workers in [1, 3] {
            let error = embed(backbone, set, &transform(), 4, workers, &device, &mut |_| ())
                .expect_err("there is a fault")
                .to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    };
    let broken = Noise {
        broken: Some(9),
        ..Noise::new(40)
    };
    check(&Tiny::new(&device), &broken, "image `noise9`: the file is empty");
    check(
        &Tiny::spoilt(&device),
        &Noise::new(10),
        "embedding of `noise0` (row 0) has the value ",
    );
    check(
        &Tiny::spoilt(&device),
        &broken,
        "embedding of `noise0` (row 0) has the value ",
    );
}
