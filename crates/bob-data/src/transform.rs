//! timm's evaluation transform: resize, crop, pad, normalise.
//!
//! Reference: `transforms_imagenet_eval` and `ResizeKeepRatio` of timm 1.0.31, `Resize` and `CenterCrop` of
//! torchvision, Python's `round` included.

use bob_core::{CropMode, Preprocess};

use crate::{PassOrder, RgbImage, Window, resize};

/// The evaluation transform of a checkpoint.
#[derive(Clone, Debug)]
pub struct EvalTransform {
    preprocess: Preprocess,
    order: PassOrder,
    /// `(value / 255 - mean) / std` for every value of every channel, each step in f32 as torchvision takes it.
    table: [[f32; 256]; 3],
}

impl EvalTransform {
    /// The transform that `preprocess` describes, with `order` in its resize.
    pub fn new(preprocess: &Preprocess, order: PassOrder) -> Self {
        let table = std::array::from_fn(|channel| {
            let [mean, std] = [preprocess.mean[channel] as f32, preprocess.std[channel] as f32];
            std::array::from_fn(|value| (value as f32 / 255.0 - mean) / std)
        });
        Self {
            preprocess: preprocess.clone(),
            order,
            table,
        }
    }

    /// `[height, width]` of what it gives, in pixels.
    pub fn input_size(&self) -> [usize; 2] {
        self.preprocess.input_size
    }

    /// `image` resized, cropped and, where it is then smaller than the input, padded: `input_size` pixels.
    ///
    /// # Panics
    /// Where a side of `image` or of the input is zero, or `crop_pct` is not a positive number.
    pub fn apply(&self, image: &RgbImage) -> RgbImage {
        let &Preprocess {
            input_size: [height, width],
            interpolation,
            ..
        } = &self.preprocess;
        let size = self.resized_size([image.height, image.width]);
        let [rows, columns] = [Fit::new(size[0], height), Fit::new(size[1], width)];
        let window = Window {
            x: columns.crop,
            y: rows.crop,
            width: columns.length,
            height: rows.length,
        };
        let kept = resize(image, size, window, interpolation, self.order);
        if [kept.height, kept.width] == [height, width] {
            return kept;
        }
        let mut pixels = self.fill().repeat(height * width);
        for (row, from) in pixels
            .chunks_exact_mut(width * 3)
            .skip(rows.pad)
            .zip(kept.pixels.chunks_exact(kept.width * 3))
        {
            row[columns.pad * 3..][..from.len()].copy_from_slice(from);
        }
        RgbImage { width, height, pixels }
    }

    /// Write `image` to `out`, normalised.
    ///
    /// # Shapes
    /// `out` is `[3, image.height, image.width]`.
    ///
    /// # Panics
    /// Where `out` has another length.
    pub fn normalize_into(&self, image: &RgbImage, out: &mut [f32]) {
        assert_eq!(out.len(), image.pixels.len(), "`out` holds the image");
        let [red, green, blue] = &self.table;
        let (red_out, rest) = out.split_at_mut(out.len() / 3);
        let (green_out, blue_out) = rest.split_at_mut(rest.len() / 2);
        for ((([r, g, b], red_out), green_out), blue_out) in image
            .pixels
            .as_chunks()
            .0
            .iter()
            .zip(red_out)
            .zip(green_out)
            .zip(blue_out)
        {
            *red_out = red[usize::from(*r)];
            *green_out = green[usize::from(*g)];
            *blue_out = blue[usize::from(*b)];
        }
    }

    /// Everything that changes the numbers, for cache keys.
    pub fn id(&self) -> String {
        let Preprocess {
            input_size: [height, width],
            interpolation,
            crop_pct,
            crop_mode,
            mean,
            std,
        } = &self.preprocess;
        let order = match self.order {
            PassOrder::WidthFirst => "width-first",
            PassOrder::Pillow13 => "pillow-13",
        };
        format!(
            "{height}x{width} {interpolation:?} {crop_mode:?} crop {crop_pct} mean {mean:?} std {std:?} resize {order}"
        )
        .to_lowercase()
    }

    /// `[height, width]` after the resize, before the crop.
    fn resized_size(&self, [height, width]: [usize; 2]) -> [usize; 2] {
        let Preprocess {
            input_size,
            crop_pct,
            crop_mode,
            ..
        } = &self.preprocess;
        let target @ [rows, columns] = input_size.map(|side| (side as f64 / crop_pct).floor() as usize);
        let [row_ratio, column_ratio] = [height as f64 / rows as f64, width as f64 / columns as f64];
        let keep_ratio = |ratio: f64| [height, width].map(|side| (side as f64 / ratio).round_ties_even() as usize);
        let size = match crop_mode {
            CropMode::Squash => target,
            CropMode::Border => keep_ratio(row_ratio.max(column_ratio)),
            CropMode::Center if rows == columns => {
                let long = (rows * height.max(width)) as f64 / height.min(width) as f64;
                if width <= height {
                    [long as usize, rows]
                } else {
                    [rows, long as usize]
                }
            }
            CropMode::Center => keep_ratio(row_ratio.min(column_ratio)),
        };
        // A side that rounds to nothing is an error in Pillow; here it keeps one pixel.
        size.map(|side| side.max(1))
    }

    /// The colour of padding: black, or the rounded mean in `border` mode.
    fn fill(&self) -> [u8; 3] {
        match self.preprocess.crop_mode {
            CropMode::Border => self.preprocess.mean.map(|mean| (255.0 * mean).round_ties_even() as u8),
            CropMode::Center | CropMode::Squash => [0; 3],
        }
    }
}

/// One axis of torchvision's centre crop.
struct Fit {
    /// First pixel that is kept.
    crop: usize,
    /// Pixels that are kept.
    length: usize,
    /// Pixels of padding before them.
    pad: usize,
}

impl Fit {
    fn new(side: usize, target: usize) -> Self {
        if side < target {
            Self {
                crop: 0,
                length: side,
                pad: (target - side) / 2,
            }
        } else {
            let crop = ((side - target) as f64 / 2.0).round_ties_even() as usize;
            Self {
                crop,
                length: target,
                pad: 0,
            }
        }
    }
}
