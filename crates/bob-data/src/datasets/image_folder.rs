//! Images in folders: `train/`, `val/` and `test/` with a folder a class, as ImageNet and most data of one's own come.
//!
//! A class is a folder directly below its split and everything below it. Classes are sorted as timm sorts them
//! (`natural_key`: by number where names are numbers, so that ImageNet-V2's folders `0` to `999` keep their labels), over
//! all splits together, so that a class that one split lacks shifts no label.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dataset::{read, read_image};
use crate::subset::hash;
use crate::{DataError, Dataset, ImageSet, RgbImage, Subset};

/// Folders that are splits.
const SPLITS: [&str; 3] = ["train", "val", "test"];
/// Endings of images, in lower case. Files with other endings are no images and are left alone.
const EXTENSIONS: [&str; 8] = ["jpeg", "jpg", "png", "webp", "bmp", "gif", "tif", "tiff"];

/// Open the image folder at `root` as a data set of the folder's name.
///
/// Where `root` has none of `train`, `val` and `test`, its own folders are the classes of the one split `test`.
/// A split without folders has its labels in a text file beside it, `val.txt` for `val`, as ImageNet's validation
/// images do in Caffe's layout: a line an image, `ILSVRC2012_val_00000001.JPEG 65`.
/// A file `classes.txt` in `root` gives the names of the classes in the order of labels, one a line; without it the
/// classes are the folders.
///
/// # Errors
/// Where a folder cannot be read, a class folder has no image, a split is empty, or a label file does not fit.
pub fn open(root: &Path) -> Result<Dataset, DataError> {
    let name = root
        .file_name()
        .unwrap_or(root.as_os_str())
        .to_string_lossy()
        .into_owned();
    let mut folders: Vec<(&str, PathBuf)> = SPLITS
        .iter()
        .map(|&split| (split, root.join(split)))
        .filter(|(_, folder)| folder.is_dir())
        .collect();
    if folders.is_empty() {
        folders.push(("test", root.to_owned()));
    }
    let contents = folders
        .iter()
        .map(|(split, folder)| Ok((*split, folder, Content::read(folder, &name)?)))
        .collect::<Result<Vec<_>, DataError>>()?;

    let class_file = root.join("classes.txt");
    let classes: Vec<String> = if class_file.is_file() {
        read_text(&class_file)?
            .lines()
            .map(|line| line.trim().to_owned())
            .collect()
    } else {
        let classes: BTreeSet<&Natural> = contents.iter().flat_map(|(_, _, content)| &content.classes).collect();
        classes.into_iter().map(|class| class.0.clone()).collect()
    };
    let mut splits: BTreeMap<String, Arc<dyn ImageSet>> = BTreeMap::new();
    for (split, folder, content) in contents {
        let images = content.label(&classes, folder, &name)?;
        splits.insert(
            split.to_owned(),
            Arc::new(ImageFolder {
                root: folder.clone(),
                images,
            }),
        );
    }
    Ok(Dataset { name, classes, splits })
}

/// Where the images of [`train_and_test`]'s split `test` come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestOrigin {
    /// The folder `test`.
    Test,
    /// The folder `val`, as there is no `test`.
    Val,
    /// A fifth of every class of a folder without splits.
    Cut,
}

/// [`open`] with the two splits that the tasks ask for, and where the second comes from.
///
/// `val` is taken for a `test` that is not there. Of a folder without splits, or with one, every class gives a fifth of
/// its images, and at least one where it has two, to `test`: those with the smallest hashes of their names, so the cut
/// is the same on every machine.
///
/// # Errors
/// As [`open`]; where there is a `test` or `val` beside another split but no `train`, or no class has two images.
pub fn train_and_test(root: &Path) -> Result<(Dataset, TestOrigin), DataError> {
    let mut dataset = open(root)?;
    let content = |reason: String| DataError::content(&dataset.name, reason);
    let [train, val, test] = SPLITS.map(|split| dataset.splits.get(split).cloned());
    let (train, test, origin) = match (train, test, val) {
        (Some(train), Some(test), _) => (train, test, TestOrigin::Test),
        (Some(train), None, Some(val)) => (train, val, TestOrigin::Val),
        (None, Some(_), Some(_)) => {
            let root = root.display();
            return Err(content(format!("`{root}` has `val` and `test`, and no `train`")));
        }
        (Some(whole), None, None) | (None, Some(whole), None) | (None, None, Some(whole)) => {
            let [train, test] = cut(&*whole);
            if test.is_empty() {
                return Err(content(
                    "no class has two images, one to train on and one to test".to_owned(),
                ));
            }
            let part = |indices| Arc::new(Subset::new(whole.clone(), indices)) as Arc<dyn ImageSet>;
            (part(train), part(test), TestOrigin::Cut)
        }
        (None, None, None) => unreachable!("a folder opens with a split"),
    };
    dataset.splits = BTreeMap::from([("train".to_owned(), train), ("test".to_owned(), test)]);
    Ok((dataset, origin))
}

/// Indices of the images that stay, and of a fifth of every class, both in order.
fn cut(whole: &dyn ImageSet) -> [Vec<usize>; 2] {
    let mut classes: BTreeMap<u32, Vec<(u64, usize)>> = BTreeMap::new();
    for index in 0..whole.len() {
        let place = (hash("test", 0, &whole.name(index)), index);
        classes.entry(whole.label(index)).or_default().push(place);
    }
    let mut parts = [Vec::new(), Vec::new()];
    for mut images in classes.into_values() {
        images.sort_unstable();
        let fifth = if images.len() < 2 { 0 } else { (images.len() / 5).max(1) };
        for (place, (_, index)) in images.into_iter().enumerate() {
            parts[usize::from(place < fifth)].push(index);
        }
    }
    parts.map(|mut part| {
        part.sort_unstable();
        part
    })
}

/// Every image below `folder`, in the order of relative names, all with the label 0.
///
/// # Errors
/// Where a folder cannot be read or there is no image.
pub fn flat(folder: &Path) -> Result<impl ImageSet + use<>, DataError> {
    let mut names = Vec::new();
    list_images(folder, "", &mut names, &mut Vec::new())?;
    names.sort();
    if names.is_empty() {
        return Err(no_image(&folder.display().to_string(), "the folder", folder));
    }
    Ok(ImageFolder {
        root: folder.to_owned(),
        images: names.into_iter().map(|name| (name, 0)).collect(),
    })
}

/// Images below a folder, by relative names.
struct ImageFolder {
    root: PathBuf,
    images: Vec<(String, u32)>,
}

impl ImageSet for ImageFolder {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn name(&self, index: usize) -> String {
        self.images[index].0.clone()
    }

    fn label(&self, index: usize) -> u32 {
        self.images[index].1
    }

    fn bytes(&self, index: usize) -> Result<Vec<u8>, DataError> {
        read(&self.root.join(&self.images[index].0))
    }

    fn image(&self, index: usize) -> Result<RgbImage, DataError> {
        read_image(&self.root.join(&self.images[index].0))
    }

    fn files(&self) -> Vec<PathBuf> {
        self.images.iter().map(|(name, _)| self.root.join(name)).collect()
    }
}

/// A name in timm's order.
#[derive(PartialEq, Eq)]
struct Natural(String);

impl Natural {
    /// Runs of digits, as numbers, and runs of anything else, in lower case.
    fn parts(&self) -> Vec<(bool, String)> {
        let mut parts: Vec<(bool, String)> = Vec::new();
        for char in self.0.to_lowercase().chars() {
            match parts.last_mut() {
                Some((is_number, text)) if *is_number == char.is_ascii_digit() => text.push(char),
                _ => parts.push((char.is_ascii_digit(), char.to_string())),
            }
        }
        parts
    }
}

impl Ord for Natural {
    fn cmp(&self, other: &Self) -> Ordering {
        let number = |text: &str| {
            let digits = text.trim_start_matches('0').to_owned();
            (digits.len(), digits)
        };
        let part = |(a, b): (&(bool, String), &(bool, String))| match (a, b) {
            ((true, a), (true, b)) => number(a).cmp(&number(b)),
            // timm puts an empty text before a leading number: numbers come first.
            ((a_number, a), (b_number, b)) => b_number.cmp(a_number).then_with(|| a.cmp(b)),
        };
        let (a, b) = (self.parts(), other.parts());
        a.iter()
            .zip(&b)
            .map(part)
            .find(|order| order.is_ne())
            .unwrap_or_else(|| a.len().cmp(&b.len()))
            // `A` and `a`, `1` and `01` are two classes.
            .then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Natural {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What lies in the folder of a split.
struct Content {
    classes: BTreeSet<Natural>,
    /// Relative name and class of every image; no class where images lie directly in the folder.
    images: Vec<(String, Option<String>)>,
}

impl Content {
    fn read(folder: &Path, dataset: &str) -> Result<Self, DataError> {
        let mut classes = BTreeSet::new();
        let mut images = Vec::new();
        for entry in entries(folder)? {
            let mut names = Vec::new();
            if entry.path.is_dir() {
                list_images(&entry.path, &format!("{}/", entry.name), &mut names, &mut Vec::new())?;
                if names.is_empty() {
                    return Err(no_image(dataset, "class folder", &entry.path));
                }
                images.extend(names.into_iter().map(|name| (name, Some(entry.name.clone()))));
                classes.insert(Natural(entry.name));
            } else if is_image(&entry.path) {
                images.push((entry.name, None));
            }
        }
        if images.is_empty() {
            return Err(no_image(dataset, "the folder", folder));
        }
        images.sort();
        Ok(Self { classes, images })
    }

    /// The images with their labels.
    fn label(self, classes: &[String], folder: &Path, dataset: &str) -> Result<Vec<(String, u32)>, DataError> {
        let label_file = folder.with_extension("txt");
        if self.classes.is_empty() && label_file.is_file() {
            return read_labels(self.images, classes, &label_file, dataset);
        }
        let labels: BTreeMap<&String, u32> = classes.iter().zip(0..).collect();
        if let Some(class) = self.classes.iter().find(|class| !labels.contains_key(&class.0)) {
            let reason = format!(
                "class folder `{}` is not listed in `classes.txt`",
                folder.join(&class.0).display()
            );
            return Err(DataError::content(dataset, reason));
        }
        self.images
            .into_iter()
            .map(|(name, class)| match class {
                Some(class) => Ok((name, labels[&class])),
                None => {
                    let reason = format!(
                        "image `{name}` of `{}` is in no class folder; move it into one, or write its label to `{}`",
                        folder.display(),
                        label_file.display()
                    );
                    Err(DataError::content(dataset, reason))
                }
            })
            .collect()
    }
}

/// The images with the labels that `path` gives them: a line an image, its name and its label.
fn read_labels(
    images: Vec<(String, Option<String>)>,
    classes: &[String],
    path: &Path,
    dataset: &str,
) -> Result<Vec<(String, u32)>, DataError> {
    let content = |reason: String| DataError::content(dataset, reason);
    if classes.is_empty() {
        let reason = format!(
            "`{}` has labels but no class has a name; list the names in `classes.txt`",
            path.display()
        );
        return Err(content(reason));
    }
    let text = read_text(path)?;
    let mut labels = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |found: String| DataError::format(path, "a list of image names and labels", found);
        let (name, label) = line
            .trim()
            .rsplit_once(char::is_whitespace)
            .and_then(|(name, label)| Some((name.trim_end(), label.parse::<u32>().ok()?)))
            .ok_or_else(|| wrong(format!("line {number} is `{line}`")))?;
        if label as usize >= classes.len() {
            let (path, last) = (path.display(), classes.len() - 1);
            let reason = format!("line {number} of `{path}` gives `{name}` the label {label}; expected 0 to {last}");
            return Err(content(reason));
        }
        if labels.insert(name, label).is_some() {
            return Err(wrong(format!("line {number} names `{name}` again")));
        }
    }
    images
        .into_iter()
        .map(|(name, _)| match labels.get(name.as_str()) {
            Some(&label) => Ok((name, label)),
            None => Err(content(format!("`{}` has no label for image `{name}`", path.display()))),
        })
        .collect()
}

fn read_text(path: &Path) -> Result<String, DataError> {
    fs::read_to_string(path).map_err(|source| DataError::io(path, source))
}

struct Entry {
    name: String,
    path: PathBuf,
}

/// What lies in `folder`, in no order.
fn entries(folder: &Path) -> Result<Vec<Entry>, DataError> {
    let io = |source| DataError::io(folder, source);
    fs::read_dir(folder)
        .map_err(io)?
        .map(|entry| {
            let entry = entry.map_err(io)?;
            let name = entry.file_name().into_string().map_err(|name| {
                let reason = format!("the name of `{}` is not UTF-8", Path::new(&name).display());
                DataError::content(&folder.display().to_string(), reason)
            })?;
            Ok(Entry {
                name,
                path: entry.path(),
            })
        })
        .collect()
}

/// Add the images below `folder`, with `prefix` before their names. `above` holds the folders on the way here: a link
/// to one of them would never end.
fn list_images(
    folder: &Path,
    prefix: &str,
    names: &mut Vec<String>,
    above: &mut Vec<PathBuf>,
) -> Result<(), DataError> {
    let real = folder.canonicalize().map_err(|source| DataError::io(folder, source))?;
    if above.contains(&real) {
        return Err(DataError::content(
            &folder.display().to_string(),
            "the link leads to a folder above it",
        ));
    }
    above.push(real);
    for entry in entries(folder)? {
        let name = format!("{prefix}{}", entry.name);
        if entry.path.is_dir() {
            list_images(&entry.path, &format!("{name}/"), names, above)?;
        } else if is_image(&entry.path) {
            names.push(name);
        }
    }
    above.pop();
    Ok(())
}

fn is_image(path: &Path) -> bool {
    let extension = path
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default()
        .to_lowercase();
    EXTENSIONS.contains(&extension.as_str())
}

fn no_image(dataset: &str, what: &str, folder: &Path) -> DataError {
    let reason = format!(
        "{what} `{}` has no image; images end in one of {}",
        folder.display(),
        EXTENSIONS.join(", ")
    );
    DataError::content(dataset, reason)
}
