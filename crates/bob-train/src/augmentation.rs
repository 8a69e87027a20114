//! What a training image goes through that an evaluated one does not.

use bob_data::RgbImage;
use rand::Rng;

use crate::seed::{Purpose, generator};

/// A random crop of the image padded with black, and a horizontal flip of every second image: the augmentation of CIFAR
/// (He et al., arXiv:1512.03385, section 4.2), torchvision's `RandomCrop(size, padding)` and `RandomHorizontalFlip()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Augmentation {
    /// Black pixels on every side, of which a crop of the image's own size is taken; 0 for no crop.
    pub padding: usize,
    /// Whether every second image is flipped.
    pub flip: bool,
}

impl Augmentation {
    /// Images as they are.
    pub const NONE: Self = Self {
        padding: 0,
        flip: false,
    };

    /// `image`, the image `index` of its set, as `epoch` of a training of `seed` sees it: in the size it had.
    ///
    /// The draw depends on these three numbers only: neither on the order of the images nor on threads.
    pub fn apply(&self, image: RgbImage, seed: u64, epoch: usize, index: usize) -> RgbImage {
        if *self == Self::NONE {
            return image;
        }
        let mut random = generator(Purpose::Augmentation, seed, epoch, index);
        let mut shift = || random.random_range(0..=2 * self.padding as u32) as usize;
        let corner = [shift(), shift()];
        let flip = self.flip && random.random();
        crop(&image, self.padding, corner, flip)
    }
}

/// The crop of `image`'s own size whose top left pixel is `[row, column]` of the image padded by `padding`.
fn crop(image: &RgbImage, padding: usize, [row, column]: [usize; 2], flip: bool) -> RgbImage {
    let &RgbImage { width, height, .. } = image;
    let mut pixels = vec![0; image.pixels.len()];
    // Column `x` of the crop is column `x + column - padding` of the image.
    let first = padding.saturating_sub(column);
    let last = (width + padding).saturating_sub(column).min(width);
    if first < last {
        let source = first + column - padding;
        for (y, out) in pixels.chunks_exact_mut(3 * width).enumerate() {
            let Some(y) = (y + row).checked_sub(padding).filter(|&y| y < height) else {
                continue;
            };
            let from = &image.pixels[3 * (y * width + source)..][..3 * (last - first)];
            let out = &mut out[3 * first..3 * last];
            out.copy_from_slice(from);
        }
    }
    if flip {
        for row in pixels.chunks_exact_mut(3 * width) {
            row.as_chunks_mut::<3>().0.reverse();
        }
    }
    RgbImage { width, height, pixels }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn image(width: usize, height: usize) -> RgbImage {
        let pixels = (0..width * height * 3).map(|at| (at % 251 + 1) as u8).collect();
        RgbImage { width, height, pixels }
    }

    /// Pixel by pixel, by what the words say.
    fn slow(image: &RgbImage, padding: usize, [row, column]: [usize; 2], flip: bool) -> Vec<u8> {
        let [width, height] = [image.width as i64, image.height as i64];
        let padded = |y: i64, x: i64, channel: i64| {
            let [y, x] = [y - padding as i64, x - padding as i64];
            let inside = (0..height).contains(&y) && (0..width).contains(&x);
            if inside {
                image.pixels[((y * width + x) * 3 + channel) as usize]
            } else {
                0
            }
        };
        let mut out = Vec::new();
        for y in 0..height {
            for x in 0..width {
                let x = if flip { width - 1 - x } else { x };
                out.extend((0..3).map(|channel| padded(y + row as i64, x + column as i64, channel)));
            }
        }
        out
    }

    #[test]
    fn a_crop_is_its_slow_definition() {
        // The last is padded by more than its width, so that some crops are all black.
        for (width, height, padding) in [(5, 4, 2), (4, 7, 1), (3, 3, 0), (2, 3, 4)] {
            let image = image(width, height);
            for row in 0..=2 * padding {
                for column in 0..=2 * padding {
                    for flip in [false, true] {
                        let corner = [row, column];
                        let found = crop(&image, padding, corner, flip);
                        assert_eq!((found.width, found.height), (width, height));
                        assert_eq!(found.pixels, slow(&image, padding, corner, flip), "{corner:?} {flip}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_draw_depends_on_seed_epoch_and_image_alone_and_all_draws_come() {
        let augmentation = Augmentation { padding: 1, flip: true };
        let draw = |seed, epoch, index| augmentation.apply(image(4, 4), seed, epoch, index).pixels;
        assert_eq!(draw(1, 2, 3), draw(1, 2, 3));
        let draws = |each: &dyn Fn(usize) -> Vec<u8>| (0..300).map(each).collect::<BTreeSet<_>>().len();
        // Nine corners, flipped or not.
        assert_eq!(draws(&|index| draw(0, 0, index)), 18);
        assert_eq!(draws(&|epoch| draw(0, epoch, 0)), 18);
        assert_eq!(draws(&|seed| draw(seed as u64, 0, 0)), 18);

        let as_it_is = Augmentation::NONE.apply(image(4, 4), 0, 0, 0);
        assert_eq!(as_it_is.pixels, image(4, 4).pixels);
        let crops = Augmentation {
            padding: 1,
            flip: false,
        };
        let crops: BTreeSet<_> = (0..300)
            .map(|index| crops.apply(image(4, 4), 0, 0, index).pixels)
            .collect();
        assert_eq!(crops.len(), 9);
    }
}
