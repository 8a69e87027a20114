//! The data sets: their formats, and what is said of files that do not fit.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bob_data::{DataError, Dataset, ImageSet, Manifest, datasets};
use sha2::{Digest, Sha256};

fn fixtures(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/datasets")).join(path)
}

fn expected(area: &str, name: &str) -> String {
    let text = fs::read_to_string(fixtures("expected.json")).expect("committed");
    let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    value[area][name]
        .as_str()
        .unwrap_or_else(|| panic!("{area} {name} is not in expected.json"))
        .to_owned()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Open `folder` as the data set `name`.
fn open(name: &str, folder: &Path) -> Result<Dataset, DataError> {
    (datasets::info(name)?.open)(folder)
}

fn all_bytes(set: &dyn ImageSet) -> Vec<u8> {
    (0..set.len())
        .flat_map(|index| set.bytes(index).expect("sound"))
        .collect()
}

fn labels(set: &dyn ImageSet) -> Vec<u32> {
    (0..set.len()).map(|index| set.label(index)).collect()
}

fn names(set: &dyn ImageSet) -> Vec<String> {
    (0..set.len()).map(|index| set.name(index)).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("makes");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            fs::copy(&path, to).expect("copies");
        }
    }
}

#[test]
fn the_table_is_sound() {
    let names: BTreeSet<&str> = datasets::datasets().iter().map(|row| row.name).collect();
    assert_eq!(names.len(), datasets::DATASETS.len());
    for row in datasets::datasets() {
        assert!(!row.license.is_empty() && !row.description.is_empty());
        for (file, sources) in (row.files)() {
            assert!(!sources.is_empty(), "nobody has `{file}` of `{}`", row.name);
        }
        if (row.files)().is_empty() {
            let set = datasets::open(row.name, Path::new("/no/such/folder")).expect("committed");
            assert_eq!(set.name, row.name);
        } else {
            let error = datasets::open(row.name, Path::new("/no/such/folder"))
                .expect_err("not there")
                .to_string();
            assert!(
                error.starts_with(&format!("`/no/such/folder/{}/", row.folder)),
                "{error}"
            );
        }
    }
}

#[test]
fn an_unknown_name_gets_a_suggestion() {
    let check = |name: &str, expected: &str| {
        let error = datasets::open(name, Path::new("")).expect_err("unknown").to_string();
        assert_eq!(error, expected);
    };
    check("cifar-10", "unknown data set `cifar-10`; did you mean `cifar10`?");
    check(
        "fashionmnist",
        "unknown data set `fashionmnist`; did you mean `fashion-mnist`?",
    );
    let set = datasets::open("fixtures", Path::new("")).expect("committed");
    let error = set.split("tests").err().expect("unknown").to_string();
    assert_eq!(error, "unknown split of `fixtures` `tests`; did you mean `test`?");
}

#[test]
fn the_committed_sets_open_without_a_network() {
    let set = datasets::open("fixtures", Path::new("")).expect("committed");
    assert_eq!((set.splits["train"].len(), set.splits["test"].len()), (120, 80));
    assert_eq!(set.classes[..3], ["bird", "bug", "building"]);
    for split in ["train", "test"] {
        let set = &*set.splits[split];
        for index in 0..set.len() {
            let image = set.image(index).expect("sound");
            assert!(image.width.max(image.height) == 64, "{}", set.name(index));
        }
        assert_eq!(labels(set).iter().collect::<BTreeSet<_>>().len(), 10);
    }
    let emoji = datasets::open("fixtures-emoji", Path::new("")).expect("committed");
    assert_eq!(
        (
            emoji.splits["query"].len(),
            emoji.splits["gallery"].len(),
            emoji.classes.len()
        ),
        (60, 60, 60)
    );
    assert_eq!(names(&*emoji.splits["query"]), names(&*emoji.splits["gallery"]));
    assert_eq!(labels(&*emoji.splits["query"]), (0..60).collect::<Vec<u32>>());
}

#[test]
fn emoji_lie_on_white_as_pillow_puts_them() {
    let set = open("emoji", &fixtures("emoji")).expect("committed");
    for (split, vendor) in [("query", "google"), ("gallery", "twitter")] {
        let set = &*set.splits[split];
        for index in 0..set.len() {
            let name = format!("{vendor}/{}", set.name(index));
            let image = set.image(index).expect("sound");
            assert_eq!((image.width, image.height), (64, 64));
            assert_eq!(sha256(&image.pixels), expected("emoji", &name), "{name}");
        }
    }
    let category = open("emoji-category", &fixtures("emoji")).expect("committed");
    assert_eq!(category.classes.len(), 9);
    assert_eq!(category.classes[0], "Activities");
    let compute = |set: &Dataset| Manifest::compute(&*set.splits["query"]).expect("sound");
    assert_ne!(
        compute(&set).sha256(),
        compute(&category).sha256(),
        "labels are part of the data hash"
    );
}

#[test]
fn both_layouts_of_cifar10_are_the_same_data() {
    let sheets = open("cifar10", &fixtures("formats/cifar10")).expect("committed");
    assert_eq!(sheets.classes[9], "truck");
    for split in ["train", "test"] {
        let set = &*sheets.splits[split];
        assert_eq!(
            sha256(&all_bytes(set)),
            expected("formats", &format!("cifar10/{split}"))
        );
        let image = set.image(1).expect("sound");
        assert_eq!(
            (image.width, image.height, image.pixels),
            (32, 32, set.bytes(1).expect("sound"))
        );
    }

    let folder = tempfile::tempdir().expect("a temporary folder");
    let binary = folder.path().join("cifar-10-batches-bin");
    fs::create_dir(&binary).expect("makes");
    let record = |set: &dyn ImageSet, index: usize| {
        let pixels = set.bytes(index).expect("sound");
        let planes = (0..3).flat_map(|channel| pixels.iter().skip(channel).step_by(3).copied().collect::<Vec<u8>>());
        [set.label(index) as u8].into_iter().chain(planes).collect::<Vec<u8>>()
    };
    let (train, test) = (&*sheets.splits["train"], &*sheets.splits["test"]);
    for batch in 0..5 {
        let records = [record(train, 2 * batch), record(train, 2 * batch + 1)].concat();
        fs::write(binary.join(format!("data_batch_{}.bin", batch + 1)), records).expect("writes");
    }
    fs::write(
        binary.join("test_batch.bin"),
        [record(test, 0), record(test, 1)].concat(),
    )
    .expect("writes");
    let set = open("cifar10", folder.path()).expect("the official layout");
    for split in ["train", "test"] {
        let [sheets, binary] = [&sheets, &set].map(|set| Manifest::compute(&*set.splits[split]).expect("sound"));
        assert_eq!(sheets, binary);
    }
}

#[test]
fn fashion_mnist_is_grey_in_three_channels() {
    let set = open("fashion-mnist", &fixtures("formats/fashion-mnist")).expect("committed");
    for (split, len) in [("train", 20), ("test", 10)] {
        let set = &*set.splits[split];
        assert_eq!(set.len(), len);
        assert_eq!(
            sha256(&all_bytes(set)),
            expected("formats", &format!("fashion-mnist/{split}/images-idx3"))
        );
        let labels: Vec<u8> = labels(set).iter().map(|&label| label as u8).collect();
        assert_eq!(
            sha256(&labels),
            expected("formats", &format!("fashion-mnist/{split}/labels-idx1"))
        );
        let image = set.image(3).expect("sound");
        assert!(image.pixels.as_chunks::<3>().0.iter().all(|[r, g, b]| r == g && g == b));
        assert_eq!(image.pixels.len(), 28 * 28 * 3);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn damaged_files_are_named() {
    // The file at `path` is put through `damage`; `expected` is what the error says.
    let check = |name: &str, path: &str, damage: &dyn Fn(Vec<u8>) -> Vec<u8>, expected: &str| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let from = if name == "emoji" {
            fixtures("emoji")
        } else {
            fixtures("formats").join(name)
        };
        copy(&from, folder.path());
        let file = folder.path().join(path);
        fs::write(&file, damage(fs::read(&file).expect("there"))).expect("writes");
        let read = |set: Dataset| {
            for set in set.splits.values() {
                (0..set.len()).try_for_each(|index| set.image(index).map(drop))?;
            }
            Ok(())
        };
        let error: DataError = open(name, folder.path()).and_then(read).expect_err("damaged");
        let error = error.to_string();
        assert!(
            error.contains(&format!("{}", file.display())),
            "{error}\nexpected: {path}"
        );
        assert!(error.contains(expected), "{error}\nexpected: {expected}");
    };
    let half = |bytes: Vec<u8>| bytes[..bytes.len() / 2].to_vec();
    let none = |_: Vec<u8>| Vec::new();
    let text = |text: &'static str| move |_: Vec<u8>| text.as_bytes().to_vec();

    let fashion = "fashion-mnist";
    let (images, labels) = ("train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz");
    check(fashion, images, &none, "a gzipped IDX file");
    check(fashion, images, &half, "a gzipped IDX file");
    check(
        fashion,
        images,
        &text("not gzip at all, but long enough"),
        "a gzipped IDX file",
    );
    check(
        fashion,
        labels,
        &|_| gzip(&[0, 0, 8, 1, 0, 0, 0, 9, 1, 2, 3]),
        "needs 9 values; it has 3",
    );
    check(
        fashion,
        labels,
        &|_| gzip(&[0, 0, 8, 1, 0, 0, 0, 1, 1, 2]),
        "needs 1 values; it has more",
    );
    check(fashion, labels, &|_| gzip(&[0, 0, 8, 1, 0, 0, 0, 2, 1, 2]), "it has 2");
    check(
        fashion,
        labels,
        &|_| gzip(&[&[0, 0, 8, 1, 0, 0, 0, 10][..], &[10; 10]].concat()),
        "the label 10",
    );
    check(
        fashion,
        labels,
        &|_| gzip(&[0, 0, 8, 1, 255, 255, 255, 255, 1]),
        "needs 4294967295 values; it has 1",
    );
    check(
        fashion,
        labels,
        &|_| gzip(&[0, 0, 13, 1, 0, 0, 0, 1, 1]),
        "begins with the bytes [00, 00, 0d, 01]",
    );
    check(
        fashion,
        images,
        &|_| gzip(&[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 32, 0, 0, 0, 32]),
        "shape is [1, 32, 32]",
    );
    check(
        fashion,
        images,
        &|mut bytes| {
            let at = bytes.len() - 6;
            bytes[at] ^= 1;
            bytes
        },
        "a gzipped IDX file",
    );

    let cifar = "cifar10";
    check(
        cifar,
        "data_batch_3.png",
        &none,
        "a PNG with an image of 1,024 pixels a row",
    );
    check(
        cifar,
        "data_batch_3.png",
        &text("GIF89a"),
        "a PNG with an image of 1,024 pixels a row",
    );
    check(cifar, "data_batch_3.png", &half, "data_batch_3.png");
    let emoji = fs::read(
        fixtures("emoji/google")
            .read_dir()
            .expect("there")
            .next()
            .expect("one")
            .expect("an entry")
            .path(),
    )
    .expect("committed");
    check(cifar, "test_batch.png", &move |_| emoji.clone(), "it is 64 pixels wide");
    check(
        cifar,
        "test_lables.json",
        &text("[1, 2, 3]"),
        "a JSON array of 2 labels, one an image: it has 3",
    );
    check(
        cifar,
        "test_lables.json",
        &text("[1, 10]"),
        "gives image 1 the label 10; expected 0 to 9",
    );
    check(cifar, "test_lables.json", &text("[1, -1]"), "a JSON array of labels");
    check(cifar, "test_lables.json", &none, "a JSON array of labels");

    check("emoji", "emoji.json", &half, "the list of emoji of emoji-datasource");
    check("emoji", "emoji.json", &text("[]"), "lists no emoji of both vendors");
    check(
        "emoji",
        "emoji.json",
        &|bytes| {
            String::from_utf8(bytes)
                .expect("text")
                .replacen(".png", "x.png", 1)
                .into_bytes()
        },
        "which is not in `google`",
    );
    let first = fs::read_dir(fixtures("emoji/twitter"))
        .expect("there")
        .next()
        .expect("one")
        .expect("an entry");
    let first = format!("twitter/{}", first.file_name().to_string_lossy());
    check("emoji", &first, &none, "a PNG image");
    check("emoji", &first, &half, "a PNG image");
    check("emoji", &first, &text("<html>404</html>"), "a PNG image");
}
