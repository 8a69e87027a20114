//! Emoji of two vendors (Google's Noto and Twitter's Twemoji, from the `emoji-datasource` packages): the same
//! characters drawn twice. Queries are one vendor's, the gallery is the other's.
//!
//! The images have an alpha channel, and most of their surface is transparent. What colour lies there differs between
//! vendors and is nothing that anybody sees, so they are laid on white, as Pillow's `paste` with a mask does; this is
//! part of the data set, and of its hash.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bob_core::Source;
use image::{ImageFormat, ImageReader};
use serde::Deserialize;

use crate::dataset::read;
use crate::{DataError, Dataset, DatasetInfo, ImageSet, RgbImage};

pub(super) const INFO: DatasetInfo = DatasetInfo {
    name: "emoji",
    description: "1,911 emoji by two vendors, 64 x 64 pixels: find the same character",
    license: "Apache-2.0 (Noto) and CC-BY-4.0 (Twemoji)",
    folder: "emoji",
    files,
    open: |folder| open(folder, INFO.name, Label::Character),
};

pub(super) const CATEGORY: DatasetInfo = DatasetInfo {
    name: "emoji-category",
    description: "1,911 emoji by two vendors, 64 x 64 pixels: find the same of 10 categories",
    open: |folder| open(folder, CATEGORY.name, Label::Category),
    ..INFO
};

/// Split, and folder of the vendor.
const VENDORS: [(&str, &str); 2] = [("query", "google"), ("gallery", "twitter")];

fn files() -> Vec<(String, Vec<Source>)> {
    let source = |vendor: &str, path: String| Source::Npm {
        package: format!("emoji-datasource-{vendor}"),
        version: "16.0.0".to_owned(),
        sha256: match vendor {
            "google" => "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
            _ => "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
        }
        .to_owned(),
        path,
    };
    let list = (
        "emoji.json".to_owned(),
        vec![source("google", "package/emoji.json".to_owned())],
    );
    let images = VENDORS.map(|(_, vendor)| {
        (
            vendor.to_owned(),
            vec![source(vendor, format!("package/img/{vendor}/64/"))],
        )
    });
    [list].into_iter().chain(images).collect()
}

/// What an image is labelled with.
#[derive(Clone, Copy)]
pub(super) enum Label {
    /// Its code points, `1f600`: one image a class and split.
    Character,
    /// Its category, `Food & Drink`.
    Category,
}

/// One entry of `emoji.json`.
#[derive(Deserialize)]
struct Emoji {
    unified: String,
    image: String,
    category: String,
    has_img_google: bool,
    has_img_twitter: bool,
}

/// Open the emoji in `folder`: `emoji.json`, `google/` and `twitter/`.
pub(super) fn open(folder: &Path, name: &str, label: Label) -> Result<Dataset, DataError> {
    let list = folder.join("emoji.json");
    let mut emoji: Vec<Emoji> = serde_json::from_slice(&read(&list)?)
        .map_err(|error| DataError::format(&list, "the list of emoji of emoji-datasource", error))?;
    emoji.retain(|emoji| emoji.has_img_google && emoji.has_img_twitter);
    emoji.sort_by(|a, b| a.unified.cmp(&b.unified));
    let class = |emoji: &Emoji| match label {
        Label::Character => emoji.unified.to_lowercase(),
        Label::Category => emoji.category.clone(),
    };
    let mut classes: Vec<String> = emoji.iter().map(class).collect();
    classes.sort();
    classes.dedup();

    let mut splits: BTreeMap<String, Arc<dyn ImageSet>> = BTreeMap::new();
    for (split, vendor) in VENDORS {
        let folder = folder.join(vendor);
        let mut images = Vec::with_capacity(emoji.len());
        for emoji in &emoji {
            if !folder.join(&emoji.image).is_file() {
                let reason = format!(
                    "`{}` lists `{}`, which is not in `{vendor}`",
                    list.display(),
                    emoji.image
                );
                return Err(DataError::content(name, reason));
            }
            let label = classes
                .binary_search(&class(emoji))
                .expect("every class of an emoji was listed above");
            images.push((emoji.image.clone(), label as u32));
        }
        if images.is_empty() {
            return Err(DataError::content(
                name,
                format!("`{}` lists no emoji of both vendors", list.display()),
            ));
        }
        splits.insert(
            split.to_owned(),
            Arc::new(Vendor {
                list: list.clone(),
                folder,
                images,
            }),
        );
    }
    Ok(Dataset {
        name: name.to_owned(),
        classes,
        splits,
    })
}

struct Vendor {
    list: PathBuf,
    folder: PathBuf,
    images: Vec<(String, u32)>,
}

impl Vendor {
    fn path(&self, index: usize) -> PathBuf {
        self.folder.join(&self.images[index].0)
    }
}

impl ImageSet for Vendor {
    fn len(&self) -> usize {
        self.images.len()
    }

    /// The file, by the same name in both splits.
    fn name(&self, index: usize) -> String {
        self.images[index].0.clone()
    }

    fn label(&self, index: usize) -> u32 {
        self.images[index].1
    }

    fn bytes(&self, index: usize) -> Result<Vec<u8>, DataError> {
        read(&self.path(index))
    }

    fn image(&self, index: usize) -> Result<RgbImage, DataError> {
        let path = self.path(index);
        on_white(&read(&path)?).map_err(|error| DataError::format(&path, "a PNG image", error))
    }

    fn files(&self) -> Vec<PathBuf> {
        (0..self.len())
            .map(|index| self.path(index))
            .chain([self.list.clone()])
            .collect()
    }

    fn pixels(&self) -> String {
        "rgb on white".to_owned()
    }
}

/// The PNG in `bytes` laid on white, rounded as Pillow rounds.
fn on_white(bytes: &[u8]) -> Result<RgbImage, image::ImageError> {
    let image = ImageReader::with_format(Cursor::new(bytes), ImageFormat::Png)
        .decode()?
        .into_rgba8();
    let blend = |value: u8, alpha: u8| {
        let sum = u32::from(value) * u32::from(alpha) + 255 * (255 - u32::from(alpha)) + 128;
        ((sum + (sum >> 8)) >> 8) as u8
    };
    Ok(RgbImage {
        width: image.width() as usize,
        height: image.height() as usize,
        pixels: image
            .pixels()
            .flat_map(|pixel| [0, 1, 2].map(|channel| blend(pixel[channel], pixel[3])))
            .collect(),
    })
}
