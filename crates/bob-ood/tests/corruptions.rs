//! Corruptions against scikit-image, numpy and Pillow, as stored by `fixtures/make_tasks.py`.

use std::sync::Arc;

use bob_data::{DataError, ImageSet, RgbImage};
use bob_ood::ShiftedSet;
use bob_ood::corruptions::{CORRUPTIONS, Corruption, add_noise};
use rand::SeedableRng;
use rand::rngs::StdRng;
use safetensors::SafeTensors;

fn fixture() -> Vec<u8> {
    std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fixtures/tasks/corruptions.safetensors"
    ))
    .expect("fixture")
}

const BYTES: usize = 32 * 32 * 3;

fn image(pixels: &[u8]) -> RgbImage {
    RgbImage {
        width: 32,
        height: 32,
        pixels: pixels.to_vec(),
    }
}

fn named(name: &str) -> &'static Corruption {
    CORRUPTIONS
        .iter()
        .find(|corruption| corruption.name == name)
        .expect("in the table")
}

#[test]
fn deterministic_corruptions_equal_the_authors() {
    let file = fixture();
    let tensors = SafeTensors::deserialize(&file).expect("safetensors");
    let images = tensors.tensor("images").expect("stored").data();
    for corruption in CORRUPTIONS
        .iter()
        .filter(|corruption| corruption.name != "gaussian_noise")
    {
        let expected = tensors.tensor(corruption.name).expect("stored").data();
        for (severity, expected) in (1..=5).zip(expected.chunks(images.len())) {
            for (clean, expected) in images.chunks(BYTES).zip(expected.chunks(BYTES)) {
                let mut random = StdRng::seed_from_u64(0);
                let found = corruption.apply(&image(clean), severity, &mut random).expect("applies");
                let differing = found.pixels.iter().zip(expected).filter(|(a, b)| a != b).count();
                assert_eq!(differing, 0, "{} at severity {severity}", corruption.name);
            }
        }
    }
}

#[test]
fn noise_is_added_as_numpy_does() {
    let file = fixture();
    let tensors = SafeTensors::deserialize(&file).expect("safetensors");
    let noise = tensors.tensor("noise").expect("stored");
    let noise: Vec<f64> = noise
        .data()
        .chunks(8)
        .map(|bytes| f64::from_le_bytes(bytes.try_into().expect("8 bytes")))
        .collect();
    let clean = image(&tensors.tensor("images").expect("stored").data()[..BYTES]);
    assert_eq!(
        add_noise(&clean, &noise).pixels,
        tensors.tensor("noisy").expect("stored").data()
    );
}

#[test]
fn noise_has_the_deviation_of_its_severity_and_no_mean() {
    let grey = RgbImage {
        width: 200,
        height: 100,
        pixels: vec![128; 60_000],
    };
    for (severity, deviation) in (1..=5).zip([0.04, 0.06, 0.08, 0.09, 0.10]) {
        let mut random = StdRng::seed_from_u64(severity.into());
        let noisy = named("gaussian_noise")
            .apply(&grey, severity, &mut random)
            .expect("applies");
        // Truncation takes half a level off.
        let noise: Vec<f64> = noisy
            .pixels
            .iter()
            .map(|&value| (f64::from(value) + 0.5 - 128.0) / 255.0)
            .collect();
        let mean = noise.iter().sum::<f64>() / noise.len() as f64;
        let found = (noise.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / noise.len() as f64).sqrt();
        assert!(
            mean.abs() < 4.0 * deviation / 60_000f64.sqrt() + 1e-4,
            "mean {mean} at severity {severity}"
        );
        assert!(
            (found / deviation - 1.0).abs() < 0.02,
            "deviation {found} at severity {severity}"
        );
    }
}

#[test]
fn a_severity_that_does_not_exist_is_refused() {
    for severity in [0, 6] {
        let error = named("contrast").apply(&image(&[0; BYTES]), severity, &mut StdRng::seed_from_u64(0));
        assert_eq!(
            error.expect_err("refused").to_string(),
            format!("severity {severity}; expected 1 to 5")
        );
    }
}

struct Greys(usize);

impl ImageSet for Greys {
    fn len(&self) -> usize {
        self.0
    }

    fn name(&self, index: usize) -> String {
        format!("{index}.png")
    }

    fn label(&self, index: usize) -> u32 {
        index as u32 % 3
    }

    fn bytes(&self, index: usize) -> Result<Vec<u8>, DataError> {
        Ok(vec![index as u8; 4])
    }

    fn image(&self, index: usize) -> Result<RgbImage, DataError> {
        Ok(image(&[100 + index as u8; BYTES]))
    }
}

#[test]
fn a_shifted_image_depends_on_its_name_severity_and_seed_alone() {
    let set = |name: &str, severity: u8, seed: u64| ShiftedSet::new(Arc::new(Greys(3)), named(name), severity, seed);
    let noisy = set("gaussian_noise", 2, 0);
    assert_eq!(
        (noisy.len(), noisy.label(2), noisy.name(1)),
        (3, 2, "1.png#gaussian_noise-2".to_owned())
    );
    let pixels = |set: &ShiftedSet, index: usize| set.image(index).expect("an image").pixels;
    assert_eq!(pixels(&noisy, 1), pixels(&noisy, 1));
    assert_ne!(
        pixels(&noisy, 1),
        pixels(&set("gaussian_noise", 2, 7), 1),
        "another seed"
    );
    let difference = |index: usize| -> Vec<i32> {
        pixels(&noisy, index)
            .iter()
            .map(|&value| i32::from(value) - 100 - index as i32)
            .collect()
    };
    assert_ne!(difference(0), difference(1), "another image");
    assert_eq!(
        noisy.bytes(1).expect("bytes"),
        [1; 4],
        "what is stored is the clean image"
    );
    for other in [
        set("gaussian_noise", 3, 0),
        set("contrast", 2, 0),
        set("gaussian_noise", 2, 1),
    ] {
        assert_ne!(noisy.pixels(), other.pixels());
    }
}
