//! Decoding, resizing, timm's transform and JPEG encoding against Pillow 13.0.0 and timm 1.0.31, bit for bit.
//!
//! `fixtures/make_pixels.py` made the images and the hashes: a part of them is committed, and where `BOB_PIXELS_DIR`
//! names a folder that the script filled, all of them are checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bob_core::{Interpolation, Preprocess};
use bob_data::{DecodeError, EvalTransform, Limits, PassOrder, RgbImage, Window, decode, encode_jpeg, resize};
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Oracle {
    versions: BTreeMap<String, String>,
    images: Vec<Image>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    file: PathBuf,
    /// Height, width.
    size: [usize; 2],
    rgb: String,
    /// The first four pixels, to make a failure readable.
    head: Vec<u8>,
    /// Pillow reads it and bob-data says that it does not.
    #[serde(default)]
    unsupported: bool,
    #[serde(default)]
    transforms: Vec<Transformed>,
    #[serde(default)]
    resizes: Vec<Resized>,
    /// By quality.
    #[serde(default)]
    encoded: BTreeMap<u8, String>,
    /// The file cut to that many bytes, and what Pillow makes of it, if anything.
    #[serde(default)]
    cut: Vec<(usize, Option<String>)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transformed {
    preprocess: Preprocess,
    rgb: String,
    floats: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resized {
    /// Height, width.
    size: [usize; 2],
    interpolation: Interpolation,
    width_first: bool,
    rgb: String,
}

#[test]
fn the_committed_images_equal_pillows() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/pixels");
    println!("{}", check(Path::new(folder), 40));
}

#[test]
fn all_images_equal_pillows() {
    match std::env::var_os("BOB_PIXELS_DIR") {
        Some(folder) => println!("{}", check(Path::new(&folder), 190)),
        None => println!("BOB_PIXELS_DIR is not set: only the committed images are checked"),
    }
}

/// Compare all that the folder's `expected.json` tells of, report every difference at once, and say what was compared.
fn check(folder: &Path, at_least: usize) -> String {
    let oracle = std::fs::read(folder.join("expected.json")).expect("make_pixels.py writes `expected.json`");
    let oracle: Oracle = serde_json::from_slice(&oracle).expect("`expected.json` has this test's layout");
    assert_eq!(oracle.versions["pillow"], "13.0.0");
    assert!(oracle.images.len() >= at_least, "only {} images", oracle.images.len());
    let mut differences = Vec::new();
    let mut counts = BTreeMap::new();
    for image in &oracle.images {
        let bytes = std::fs::read(folder.join(&image.file)).expect("the image lies beside `expected.json`");
        let mut compare = |what: &'static str, equal: bool, detail: String| {
            *counts.entry(what).or_insert(0) += 1;
            if !equal {
                differences.push(format!("{}: {what} {detail}", image.file.display()));
            }
        };
        check_image(image, &bytes, &mut compare);
    }
    assert!(
        differences.is_empty(),
        "{} differences\n{}",
        differences.len(),
        differences.join("\n")
    );
    format!("{} images: {counts:?}", oracle.images.len())
}

fn check_image(image: &Image, bytes: &[u8], compare: &mut impl FnMut(&'static str, bool, String)) {
    let limits = Limits::default();
    let is_jpeg = bytes.starts_with(&[0xff, 0xd8]);
    for (length, pillow) in &image.cut {
        let found = decode(&bytes[..*length], &limits);
        // Never a picture with a part missing. JPEG, of which data sets are made, is refused exactly where Pillow does.
        let equal = match (&found, pillow) {
            (Ok(found), Some(pillow)) => &sha(&found.pixels) == pillow,
            (Ok(found), None) => sha(&found.pixels) == image.rgb && !is_jpeg,
            (Err(_), Some(_)) => !is_jpeg,
            (Err(_), None) => true,
        };
        compare(
            "cut",
            equal,
            format!("to {length} of {}: {found:?}, Pillow {pillow:?}", bytes.len()),
        );
    }
    let found = decode(bytes, &limits);
    if image.unsupported {
        let equal = matches!(found, Err(DecodeError::Unsupported { .. }));
        return compare("unsupported", equal, format!("{found:?}"));
    }
    let decoded = match found {
        Ok(decoded) => decoded,
        Err(error) => return compare("decoded", false, error.to_string()),
    };
    let equal = [decoded.height, decoded.width] == image.size && sha(&decoded.pixels) == image.rgb;
    let head = &decoded.pixels[..image.head.len()];
    compare(
        "decoded",
        equal,
        format!("{decoded:?} {head:?}, Pillow {:?} {:?}", image.size, image.head),
    );
    if !equal {
        return;
    }

    for Resized {
        size,
        interpolation,
        width_first,
        rgb,
    } in &image.resizes
    {
        let order = if *width_first {
            PassOrder::WidthFirst
        } else {
            PassOrder::Pillow13
        };
        let window = Window {
            x: 0,
            y: 0,
            width: size[1],
            height: size[0],
        };
        let found = resize(&decoded, *size, window, *interpolation, order);
        compare(
            "resized",
            &sha(&found.pixels) == rgb,
            format!("{size:?} {interpolation:?} {order:?}"),
        );
    }
    for Transformed {
        preprocess,
        rgb,
        floats,
    } in &image.transforms
    {
        let transform = EvalTransform::new(preprocess, PassOrder::Pillow13);
        let found = transform.apply(&decoded);
        compare("transformed", &sha(&found.pixels) == rgb, transform.id());
        let mut normalized = vec![f32::NAN; found.pixels.len()];
        transform.normalize_into(&found, &mut normalized);
        let normalized: Vec<u8> = normalized.iter().flat_map(|value| value.to_le_bytes()).collect();
        compare("normalized", &sha(&normalized) == floats, transform.id());
    }
    for (&quality, rgb) in &image.encoded {
        let jpeg = encode_jpeg(&decoded, quality).expect("the image fits JPEG");
        let RgbImage { pixels, .. } = decode(&jpeg, &limits).expect("what was encoded decodes");
        compare("encoded", &sha(&pixels) == rgb, format!("at quality {quality}"));
    }
}

/// The first half of the SHA-256.
fn sha(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
