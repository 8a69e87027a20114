//! The table of protocols and what a protocol says.

use bob_core::{ProtocolError, Variant, parse_protocol};
use serde::{Deserialize, Serialize};

/// Every protocol of this crate, in the order of reports.
const PROTOCOLS: [(&str, &str); 3] = [
    ("knn.toml", include_str!("../protocols/knn.toml")),
    ("linear-probe.toml", include_str!("../protocols/linear-probe.toml")),
    ("few-shot.toml", include_str!("../protocols/few-shot.toml")),
];

/// How classification is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    name: String,
    version: u32,
    variant: Variant,
    /// What is done, with its settings.
    pub method: Method,
}

/// What is done with the embeddings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Nearest training images vote.
    Knn(Knn),
    /// A linear classifier is trained.
    LinearProbe(LinearProbe),
    /// A few images of each class, the nearest mean.
    FewShot(FewShot),
}

/// Settings of [`crate::knn`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Knn {
    /// Number of neighbours that vote; all training images where there are fewer.
    pub k: usize,
    /// Votes weigh `exp(cosine / temperature)`.
    pub temperature: f64,
}

/// Settings of [`crate::linear_probe`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearProbe {
    /// Peak learning rates of the grid.
    pub learning_rates: Vec<f64>,
    /// Weight decays of the grid, coupled as in PyTorch's SGD, bias included.
    pub weight_decays: Vec<f64>,
    /// Momentum of SGD, in [0, 1).
    pub momentum: f64,
    /// Passes over the training images.
    pub epochs: usize,
    /// Passes during which the learning rate rises linearly; then it falls to 0 along a cosine.
    pub warmup_epochs: usize,
    /// Images a step; the last step of an epoch takes what is left.
    pub batch_size: usize,
    /// Share of the training images that the setting is selected on, by hash of their names, in (0, 1).
    pub validation_share: f64,
}

/// Settings of [`crate::few_shot`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FewShot {
    /// Numbers of images of every class.
    pub shots: Vec<usize>,
    /// The one of `shots` that enters rankings.
    pub primary_shots: usize,
    /// Number of draws of each.
    pub draws: usize,
}

/// Every protocol of this crate, in the order of reports.
pub fn protocols() -> Vec<Protocol> {
    PROTOCOLS
        .iter()
        .map(|(origin, toml)| Protocol::parse(toml, origin).expect("tested to parse"))
        .collect()
}

impl Protocol {
    /// The protocol that `toml` describes; `origin` names the file in errors.
    ///
    /// # Errors
    /// Where it is no protocol of classification, with the file, the key and what is accepted.
    pub fn parse(toml: &str, origin: &str) -> Result<Self, ProtocolError> {
        let protocol: Self = parse_protocol(toml, origin)?;
        match &protocol.method {
            Method::Knn(settings) => settings.check(origin)?,
            Method::LinearProbe(settings) => settings.check(origin)?,
            Method::FewShot(settings) => settings.check(origin)?,
        }
        Ok(protocol)
    }

    /// Its name, for example `linear-probe`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version; a change of anything that changes a number is a new version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// How it stands to BoB, or to the paper that its first lines name.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// The splits it needs, in the order in which [`crate::run`] takes them.
    pub fn splits(&self) -> Vec<&str> {
        vec!["train", "test"]
    }
}

impl Knn {
    fn check(&self, origin: &str) -> Result<(), ProtocolError> {
        if self.k == 0 {
            return Err(ProtocolError::value(origin, "method.knn.k", self.k, "at least 1"));
        }
        positive(origin, "method.knn.temperature", self.temperature)
    }
}

impl LinearProbe {
    fn check(&self, origin: &str) -> Result<(), ProtocolError> {
        let refuse = |key: &str, found: &dyn std::fmt::Debug, expected: &str| {
            Err(ProtocolError::value(
                origin,
                &format!("method.linear-probe.{key}"),
                found,
                expected,
            ))
        };
        for &rate in &self.learning_rates {
            positive(origin, "method.linear-probe.learning_rates", rate)?;
        }
        if self.learning_rates.is_empty() {
            return refuse("learning_rates", &self.learning_rates, "at least one learning rate");
        }
        if self.weight_decays.is_empty() || self.weight_decays.iter().any(|decay| !(0.0..1.0).contains(decay)) {
            return refuse("weight_decays", &self.weight_decays, "at least one, each in [0, 1)");
        }
        if !(0.0..1.0).contains(&self.momentum) {
            return refuse("momentum", &self.momentum, "a number in [0, 1)");
        }
        if self.warmup_epochs >= self.epochs {
            return refuse(
                "warmup_epochs",
                &self.warmup_epochs,
                &format!("fewer than `epochs` = {}", self.epochs),
            );
        }
        if self.batch_size == 0 {
            return refuse("batch_size", &self.batch_size, "at least 1");
        }
        if !(self.validation_share > 0.0 && self.validation_share < 1.0) {
            return refuse("validation_share", &self.validation_share, "a share between 0 and 1");
        }
        Ok(())
    }
}

impl FewShot {
    fn check(&self, origin: &str) -> Result<(), ProtocolError> {
        if self.shots.is_empty() || self.shots.contains(&0) {
            return Err(ProtocolError::value(
                origin,
                "method.few-shot.shots",
                &self.shots,
                "numbers of at least 1",
            ));
        }
        if !self.shots.contains(&self.primary_shots) {
            let expected = format!("one of {:?}", self.shots);
            return Err(ProtocolError::value(
                origin,
                "method.few-shot.primary_shots",
                self.primary_shots,
                &expected,
            ));
        }
        if self.draws == 0 {
            return Err(ProtocolError::value(
                origin,
                "method.few-shot.draws",
                self.draws,
                "at least 1",
            ));
        }
        Ok(())
    }
}

fn positive(origin: &str, key: &str, value: f64) -> Result<(), ProtocolError> {
    match value.is_finite() && value > 0.0 {
        true => Ok(()),
        false => Err(ProtocolError::value(origin, key, value, "a number above 0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_table_is_a_protocol_of_its_name() {
        for (protocol, (origin, toml)) in protocols().iter().zip(PROTOCOLS) {
            assert_eq!(format!("{}.toml", protocol.name()), origin);
            assert!(
                toml.starts_with(&format!("# cargo xtask bench-all --protocol {}\n", protocol.name())),
                "{origin}"
            );
        }
    }

    #[test]
    fn a_file_that_is_no_protocol_is_named_with_its_key() {
        let check = |index: usize, from: &str, to: &str, expected: &str| {
            let toml = PROTOCOLS[index].1;
            assert!(toml.contains(from), "nothing to replace");
            let message = Protocol::parse(&toml.replace(from, to), "mine.toml")
                .expect_err("must be refused")
                .to_string();
            assert!(message.contains(expected), "`{message}` has no `{expected}`");
        };
        check(
            0,
            "k = 20",
            "k = 0",
            "protocol `mine.toml`: key `method.knn.k` is 0; expected at least 1",
        );
        check(
            0,
            "0.07",
            "-1.0",
            "key `method.knn.temperature` is -1.0; expected a number above 0",
        );
        check(
            0,
            "k = 20",
            "neighbours = 20",
            "unknown field `neighbours`, expected `k` or `temperature`",
        );
        check(
            0,
            "[method.knn]",
            "[method.nearest]",
            "unknown variant `nearest`, expected one of `knn`, `linear-probe`",
        );
        check(0, "version = 1\n", "", "missing field `version`");
        check(
            0,
            "variant = \"as-described\"",
            "variant = \"mine\"",
            "unknown variant `mine`, expected one of",
        );
        check(
            1,
            "warmup_epochs = 3",
            "warmup_epochs = 30",
            "expected fewer than `epochs` = 30",
        );
        check(
            1,
            "validation_share = 0.2",
            "validation_share = 1.0",
            "expected a share between 0 and 1",
        );
        check(1, "momentum = 0.9", "momentum = 1.0", "expected a number in [0, 1)");
        check(
            1,
            "batch_size = 32",
            "batch_size = 0",
            "`method.linear-probe.batch_size` is 0",
        );
        check(1, "0.0003, ", "nan, ", "`method.linear-probe.learning_rates` is NaN");
        check(2, "shots = [1, 5, 10]", "shots = [0]", "`method.few-shot.shots` is [0]");
        check(
            2,
            "primary_shots = 5",
            "primary_shots = 3",
            "expected one of [1, 5, 10]",
        );
    }
}
