//! The table of protocols and what a protocol says.

use bob_core::{ProtocolError, Variant, parse_protocol};
use serde::{Deserialize, Serialize};

/// Every protocol of this crate, in the order of reports.
const PROTOCOLS: [(&str, &str); 3] = [
    (
        "instance-retrieval.toml",
        include_str!("../protocols/instance-retrieval.toml"),
    ),
    (
        "class-retrieval.toml",
        include_str!("../protocols/class-retrieval.toml"),
    ),
    (
        "instance-retrieval-as-released.toml",
        include_str!("../protocols/instance-retrieval-as-released.toml"),
    ),
];

/// Which area under the precision-recall curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AveragePrecision {
    /// The mean of the precisions at the hits: scikit-learn's `average_precision_score`.
    Standard,
    /// Precisions before and after a hit joined by a trapezoid, as in Oxford 5k's and BoB's code.
    Trapezoid,
}

/// How retrieval is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    name: String,
    version: u32,
    variant: Variant,
    /// Split whose images ask.
    pub queries: String,
    /// Split whose images are ranked; where it is that of the queries, no image is ranked for itself.
    pub gallery: String,
    /// How a ranking becomes one number.
    pub average_precision: AveragePrecision,
    /// Depths of recall and of the hit rate.
    pub recall_at: Vec<usize>,
    /// Depths of precision.
    pub precision_at: Vec<usize>,
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
    /// Where it is no protocol of retrieval, with the file, the key and what is accepted.
    pub fn parse(toml: &str, origin: &str) -> Result<Self, ProtocolError> {
        let protocol: Self = parse_protocol(toml, origin)?;
        for (key, depths) in [
            ("recall_at", &protocol.recall_at),
            ("precision_at", &protocol.precision_at),
        ] {
            if depths.contains(&0) {
                return Err(ProtocolError::value(origin, key, depths, "depths of at least 1"));
            }
        }
        Ok(protocol)
    }

    /// Its name, for example `instance-retrieval`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its version; a change of anything that changes a number is a new version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// How it stands to BoB.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// The splits it needs: the queries', then the gallery's where that is another one.
    pub fn splits(&self) -> Vec<&str> {
        if self.leave_one_out() {
            vec![&self.queries]
        } else {
            vec![&self.queries, &self.gallery]
        }
    }

    /// Whether queries and gallery are the same images, so that no image may find itself.
    pub fn leave_one_out(&self) -> bool {
        self.queries == self.gallery
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
        let good = PROTOCOLS[0].1;
        let check = |toml: String, expected: &str| {
            let message = Protocol::parse(&toml, "mine.toml")
                .expect_err("must be refused")
                .to_string();
            assert!(message.contains(expected), "`{message}` has no `{expected}`");
        };
        check(
            format!("{good}depth = 3\n"),
            "protocol `mine.toml`, line 14: unknown field `depth`, expected one of `name`",
        );
        check(
            good.replace("\"standard\"", "\"area\""),
            "unknown variant `area`, expected `standard` or `trapezoid`",
        );
        check(good.replace("queries = \"query\"\n", ""), "missing field `queries`");
        check(
            good.replace("recall_at = [1, 5, 10]", "recall_at = [0]"),
            "protocol `mine.toml`: key `recall_at` is [0]; expected depths of at least 1",
        );
        check(
            good.replace("version = 1", "version = \"one\""),
            "invalid type: string \"one\", expected u32",
        );
    }
}
