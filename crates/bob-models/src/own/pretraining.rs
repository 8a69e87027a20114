//! What the weights of an entry learnt from.

use bob_core::{Pretraining, Style};
use serde::Deserialize;

use super::{Fault, given, named};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PretrainingFile {
    style: Option<String>,
    data: Option<String>,
    images: Option<i64>,
}

impl PretrainingFile {
    pub(super) fn judge(self, base: Option<&Pretraining>) -> Result<Pretraining, Fault> {
        const STYLES: [(&str, Style); 5] = [
            ("supervised", Style::Supervised),
            ("self-supervised", Style::SelfSupervised),
            ("vision-language", Style::VisionLanguage),
            ("depth", Style::Depth),
            ("generative", Style::Generative),
        ];
        let style = named("pretraining.style", "style", self.style, &STYLES)?;
        let images = match self.images {
            None => None,
            Some(found) if found >= 1 => Some(found as u64),
            Some(found) => return Err(Fault::value("pretraining.images", found, "at least 1")),
        };
        Ok(Pretraining {
            style: given("pretraining.style", style, base.map(|base| base.style))?,
            data: given("pretraining.data", self.data, base.map(|base| base.data.clone()))?,
            images: images.or(base.and_then(|base| base.images)),
        })
    }
}
