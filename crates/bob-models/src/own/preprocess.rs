//! The preprocessing of an entry.

use bob_core::{CropMode, Interpolation, Preprocess};
use serde::Deserialize;

use super::{Fault, given, named};

/// Longest side of images, in pixels.
const MAX_SIDE: i64 = 8192;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PreprocessFile {
    input_size: Option<SizeFile>,
    mean: Option<[f64; 3]>,
    std: Option<[f64; 3]>,
    interpolation: Option<String>,
    crop_pct: Option<f64>,
    crop_mode: Option<String>,
}

/// A side, or height and width.
#[derive(Clone, Copy, Debug)]
struct SizeFile([i64; 2]);

impl<'de> Deserialize<'de> for SizeFile {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = SizeFile;

            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a side in pixels, or [height, width]")
            }

            fn visit_i64<E>(self, side: i64) -> Result<SizeFile, E> {
                Ok(SizeFile([side, side]))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, sides: A) -> Result<SizeFile, A::Error> {
                <[i64; 2]>::deserialize(serde::de::value::SeqAccessDeserializer::new(sides)).map(SizeFile)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl PreprocessFile {
    pub(super) fn judge(self, base: Option<&Preprocess>) -> Result<Preprocess, Fault> {
        const INTERPOLATIONS: [(&str, Interpolation); 2] = [
            ("bilinear", Interpolation::Bilinear),
            ("bicubic", Interpolation::Bicubic),
        ];
        const CROP_MODES: [(&str, CropMode); 3] = [
            ("center", CropMode::Center),
            ("squash", CropMode::Squash),
            ("border", CropMode::Border),
        ];
        let input_size = match self.input_size {
            None => None,
            Some(SizeFile(sides)) if sides.iter().all(|side| (1..=MAX_SIDE).contains(side)) => {
                Some(sides.map(|side| side as usize))
            }
            Some(SizeFile(sides)) => {
                let expected = "a side of 1 to 8192 pixels, or [height, width]";
                return Err(Fault::value("preprocess.input_size", sides, expected));
            }
        };
        if let Some(mean) = self.mean
            && !mean.iter().all(|value| (0.0..=1.0).contains(value))
        {
            let expected = "three numbers in [0, 1], of images whose values are in [0, 1]";
            return Err(Fault::value("preprocess.mean", mean, expected));
        }
        if let Some(std) = self.std
            && !std.iter().all(|value| (0.001..=1.0).contains(value))
        {
            let expected = "three numbers in [0.001, 1], of images whose values are in [0, 1]";
            return Err(Fault::value("preprocess.std", std, expected));
        }
        if let Some(crop_pct) = self.crop_pct
            && !(0.05..=1.0).contains(&crop_pct)
        {
            let expected = "a number in [0.05, 1], the share of the resized image that is kept";
            return Err(Fault::value("preprocess.crop_pct", crop_pct, expected));
        }
        let interpolation = named(
            "preprocess.interpolation",
            "interpolation",
            self.interpolation,
            &INTERPOLATIONS,
        )?;
        let crop_mode = named("preprocess.crop_mode", "crop mode", self.crop_mode, &CROP_MODES)?;
        Ok(Preprocess {
            input_size: given("preprocess.input_size", input_size, base.map(|base| base.input_size))?,
            interpolation: given(
                "preprocess.interpolation",
                interpolation,
                base.map(|base| base.interpolation),
            )?,
            crop_pct: given("preprocess.crop_pct", self.crop_pct, base.map(|base| base.crop_pct))?,
            crop_mode: crop_mode.or(base.map(|base| base.crop_mode)).unwrap_or_default(),
            mean: given("preprocess.mean", self.mean, base.map(|base| base.mean))?,
            std: given("preprocess.std", self.std, base.map(|base| base.std))?,
        })
    }
}
