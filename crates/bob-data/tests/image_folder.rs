//! Image folders: every nesting that ImageNet uses, and what is said of folders and files that do not fit.

use std::fs;
use std::path::{Path, PathBuf};

use bob_data::datasets::image_folder::{TestOrigin, train_and_test};
use bob_data::{Dataset, ImageSet, datasets};

fn fixtures(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/datasets")).join(path)
}

fn labels(set: &dyn ImageSet) -> Vec<u32> {
    (0..set.len()).map(|index| set.label(index)).collect()
}

fn names(set: &dyn ImageSet) -> Vec<String> {
    (0..set.len()).map(|index| set.name(index)).collect()
}

/// A temporary folder with an image folder `set` of empty files; names that end in `/` are folders.
fn tree(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for file in files {
        let path = folder.path().join("set").join(file);
        if file.ends_with('/') {
            fs::create_dir_all(path).expect("makes");
        } else {
            fs::create_dir_all(path.parent().expect("has one")).expect("makes");
            fs::write(path, "").expect("writes");
        }
    }
    folder
}

#[test]
fn image_folders_of_every_nesting() {
    let check = |files: &[&str], classes: &[&str], split: &str, expected: &[(&str, u32)]| {
        let folder = tree(files);
        let set = datasets::image_folder::open(&folder.path().join("set")).expect("sound");
        assert_eq!(set.name, "set");
        assert_eq!(set.classes, classes);
        let set = set.split(split).expect("there");
        let found: Vec<(String, u32)> = names(&**set).into_iter().zip(labels(&**set)).collect();
        let expected: Vec<(String, u32)> = expected
            .iter()
            .map(|(name, label)| (name.to_string(), *label))
            .collect();
        assert_eq!(found, expected);
    };
    // wnids, upper-case endings, files that are no images
    check(
        &[
            "train/n01440764/b.JPEG",
            "train/n01443537/a.jpg",
            "val/n01443537/c.JPEG",
            "val/notes.md",
            "train/.cache",
        ],
        &["n01440764", "n01443537"],
        "val",
        &[("n01443537/c.JPEG", 1)],
    );
    // deeper, as in Tiny ImageNet
    check(
        &[
            "train/b/images/2.png",
            "train/a/images/deeper/1.webp",
            "train/a/boxes.txt",
        ],
        &["a", "b"],
        "train",
        &[("a/images/deeper/1.webp", 0), ("b/images/2.png", 1)],
    );
    // numbers, as in ImageNet-V2, and no split
    check(
        &["10/a.jpeg", "9/a.jpeg", "0/a.jpeg", "100/a.jpeg"],
        &["0", "9", "10", "100"],
        "test",
        &[("0/a.jpeg", 0), ("10/a.jpeg", 2), ("100/a.jpeg", 3), ("9/a.jpeg", 1)],
    );
    // timm's natural order
    check(
        &[
            "img12/a.gif",
            "img2/a.gif",
            "Img1/a.gif",
            "img/a.gif",
            "7up/a.gif",
            "img2b/a.gif",
        ],
        &["7up", "img", "Img1", "img2", "img2b", "img12"],
        "test",
        &[
            ("7up/a.gif", 0),
            ("Img1/a.gif", 2),
            ("img/a.gif", 1),
            ("img12/a.gif", 5),
            ("img2/a.gif", 3),
            ("img2b/a.gif", 4),
        ],
    );
}

#[test]
fn a_folder_has_train_and_test() {
    let check = |files: &[&str], expected: Result<(TestOrigin, &[&str], &[&str]), &str>| {
        let folder = tree(files);
        let found = train_and_test(&folder.path().join("set"));
        match (found, expected) {
            (Ok((set, origin)), Ok((expected, train, test))) => {
                assert_eq!(origin, expected);
                assert_eq!(set.split_names(), ["train", "test"]);
                assert_eq!(names(&*set.splits["train"]), train);
                assert_eq!(names(&*set.splits["test"]), test);
            }
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (found, expected) => panic!("found {found:?}, expected {expected:?}"),
        }
    };
    let three = ["train/a/1.jpg", "val/a/2.jpg", "test/a/3.jpg"];
    check(&three, Ok((TestOrigin::Test, &["a/1.jpg"], &["a/3.jpg"])));
    check(&three[..2], Ok((TestOrigin::Val, &["a/1.jpg"], &["a/2.jpg"])));
    check(&three[1..], Err("has `val` and `test`, and no `train`"));
    check(&["a/1.jpg", "b/1.jpg"], Err("no class has two images"));
    check(&["notes.txt"], Err("has no image"));
}

#[test]
fn a_folder_without_splits_is_cut_the_same_way_every_time() {
    let of = |class: &str, count: usize| (0..count).map(|i| format!("{class}/{i}.jpg")).collect::<Vec<_>>();
    let files = [of("a", 10), of("b", 4), of("c", 1)].concat();
    let check = |prefix: &str| {
        let files: Vec<String> = files.iter().map(|file| format!("{prefix}{file}")).collect();
        let folder = tree(&files.iter().map(String::as_str).collect::<Vec<_>>());
        let (set, origin) = train_and_test(&folder.path().join("set")).expect("sound");
        assert_eq!(origin, TestOrigin::Cut);
        let [train, test] = ["train", "test"].map(|split| set.splits[split].clone());
        let count =
            |set: &dyn ImageSet| [0, 1, 2].map(|class| labels(set).iter().filter(|label| **label == class).count());
        assert_eq!((count(&*train), count(&*test)), ([8, 3, 1], [2, 1, 0]));
        let mut all = [names(&*train), names(&*test)].concat();
        all.sort();
        let mut expected = self::names(
            &*datasets::image_folder::open(&folder.path().join("set"))
                .expect("sound")
                .splits[if prefix.is_empty() { "test" } else { "train" }],
        );
        expected.sort();
        assert_eq!(all, expected);
        names(&*test)
    };
    assert_eq!(check(""), check("train/"));
}

#[test]
fn labels_may_come_from_a_file() {
    let check = |labels: &str, classes: Option<&str>, expected: Result<&[u32], &str>| {
        let folder = tree(&["train/a/1.jpg", "train/b/1.jpg", "val/x 1.JPEG", "val/y.JPEG"]);
        let root = folder.path().join("set");
        fs::write(root.join("val.txt"), labels).expect("writes");
        if let Some(classes) = classes {
            fs::write(root.join("classes.txt"), classes).expect("writes");
        }
        match (datasets::image_folder::open(&root), expected) {
            (Ok(set), Ok(expected)) => assert_eq!(labels_of(&set, "val"), expected),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (found, expected) => panic!("found {found:?}, expected {expected:?}"),
        }
    };
    fn labels_of(set: &Dataset, split: &str) -> Vec<u32> {
        labels(&*set.splits[split])
    }
    check("y.JPEG 0\nx 1.JPEG\t1\n\n", None, Ok(&[1, 0]));
    check("y.JPEG 2\nx 1.JPEG 0\n", Some("c\nb\na\n"), Ok(&[0, 2]));
    check(
        "y.JPEG 0\nx 1.JPEG 2\n",
        None,
        Err("val.txt` gives `x 1.JPEG` the label 2; expected 0 to 1"),
    );
    check("y.JPEG 0\nx 1.JPEG -1\n", None, Err("line 2 is `x 1.JPEG -1`"));
    check("y.JPEG 0\ny.JPEG 1\n", None, Err("line 2 names `y.JPEG` again"));
    check("y.JPEG 0\n", None, Err("has no label for image `x 1.JPEG`"));
    check(
        "y.JPEG 0\nx 1.JPEG 0\n",
        Some("a\n"),
        Err("train/b` is not listed in `classes.txt`"),
    );

    let folder = tree(&["val/x.jpg", "val.txt"]);
    let error = datasets::image_folder::open(&folder.path().join("set"))
        .expect_err("no classes")
        .to_string();
    assert!(error.contains("list the names in `classes.txt`"), "{error}");
}

#[test]
fn folders_that_do_not_fit_are_named() {
    let check = |files: &[&str], expected: &str| {
        let folder = tree(files);
        let error = datasets::image_folder::open(&folder.path().join("set"))
            .expect_err("does not fit")
            .to_string();
        assert!(
            error.starts_with("data set `set`: ") && error.contains(expected),
            "{error}"
        );
    };
    check(
        &["train/a/1.jpg", "train/b/"],
        "set/train/b` has no image; images end in one of jpeg, jpg",
    );
    check(&["train/a/1.jpg", "train/b/readme.txt"], "set/train/b` has no image");
    check(&["train/a/1.jpg", "val/"], "set/val` has no image");
    check(&["notes.txt"], "set` has no image");
    check(&["train/a/1.jpg", "train/loose.jpg"], "image `loose.jpg` of `");
    let error = datasets::image_folder::open(Path::new("/no/such/folder"))
        .expect_err("not there")
        .to_string();
    assert!(error.starts_with("`/no/such/folder`: "), "{error}");
}

#[test]
#[cfg(unix)]
fn a_link_in_a_circle_is_an_error() {
    let folder = tree(&["train/a/1.jpg"]);
    let class = folder.path().join("set/train/a");
    std::os::unix::fs::symlink(&class, class.join("again")).expect("links");
    let error = datasets::image_folder::open(&folder.path().join("set"))
        .expect_err("endless")
        .to_string();
    assert!(
        error.contains("again") && error.contains("leads to a folder above it"),
        "{error}"
    );
}

#[test]
fn a_flat_folder_is_in_the_order_of_names() {
    let folder = tree(&["b.png", "a/z.JPG", "a/10.webp", "a/9.bmp", "c.txt", "a.tif"]);
    let set = datasets::image_folder::flat(&folder.path().join("set")).expect("sound");
    assert_eq!(names(&set), ["a.tif", "a/10.webp", "a/9.bmp", "a/z.JPG", "b.png"]);
    let folder = tree(&["notes.txt"]);
    let error = datasets::image_folder::flat(&folder.path().join("set"))
        .err()
        .expect("no image")
        .to_string();
    assert!(error.contains("has no image"), "{error}");
}

/// A PNG that declares 60,000 x 60,000 pixels.
fn bomb() -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    bytes.extend([60_000_u32.to_be_bytes(), 60_000_u32.to_be_bytes()].concat());
    bytes.extend([8, 2, 0, 0, 0]);
    let mut crc = flate2::Crc::new();
    crc.update(&bytes[12..]);
    bytes.extend(crc.sum().to_be_bytes());
    bytes.extend(b"\0\0\0\x10IDAT");
    bytes.extend([0; 20]);
    bytes
}

#[test]
fn images_that_are_none_are_named_when_they_are_read() {
    let birds = datasets::image_folder::flat(&fixtures("clipart/test/bird")).expect("committed");
    let (jpeg, image) = (birds.bytes(0).expect("sound"), birds.image(0).expect("sound"));
    let check = |name: &str, bytes: &[u8], expected: &str| {
        let folder = tree(&["a/good.jpg"]);
        fs::write(folder.path().join("set/a").join(name), bytes).expect("writes");
        fs::write(folder.path().join("set/a/good.jpg"), &jpeg).expect("writes");
        let set = datasets::image_folder::open(&folder.path().join("set")).expect("names are all that is looked at");
        let set = &*set.splits["test"];
        let index = names(set)
            .iter()
            .position(|found| found == &format!("a/{name}"))
            .expect("listed");
        let found = set
            .image(index)
            .map(|image| format!("{} x {}", image.width, image.height));
        match found {
            Ok(size) => assert_eq!(size, expected),
            Err(error) => {
                let error = error.to_string();
                assert!(
                    error.contains(name) && error.contains(expected),
                    "{error}\nexpected: {expected}"
                );
            }
        }
        assert!(set.image(1 - index).is_ok(), "the other image is as good as before");
    };
    check("empty.png", b"", "the file is empty");
    check("page.jpg", b"<html>not found</html>", "it starts with");
    check("cut.jpg", &jpeg[..jpeg.len() / 2], "truncated");
    check("renamed.png", &jpeg, &format!("{} x {}", image.width, image.height));
    check("huge.png", &bomb(), "60000 x 60000");
}
