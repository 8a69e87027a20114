//! The table of protocols and what a protocol says.

use bob_core::{ProtocolError, Variant, find, parse_protocol};
use serde::{Deserialize, Serialize};

use crate::corruptions::{CORRUPTIONS, Corruption, SEVERITIES};

/// Every protocol of this crate, in the order of reports.
const PROTOCOLS: [(&str, &str); 1] = [("shifted.toml", include_str!("../protocols/shifted.toml"))];

/// How a predictor is measured under shift.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    name: String,
    version: u32,
    variant: Variant,
    /// The protocol of `bob-classification` whose classifier, trained on clean images, predicts.
    pub classifier: String,
    corruptions: Vec<String>,
    severities: Vec<u8>,
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
    /// Where it is no protocol of shifts, with the file, the key and what is accepted.
    pub fn parse(toml: &str, origin: &str) -> Result<Self, ProtocolError> {
        let protocol: Self = parse_protocol(toml, origin)?;
        for name in &protocol.corruptions {
            if let Err(unknown) = find("corruption", name, &CORRUPTIONS, |corruption| corruption.name) {
                let expected = format!("one of {}", unknown.known.join(", "));
                return Err(ProtocolError::value(origin, "corruptions", name, &expected));
            }
        }
        if protocol.corruptions.is_empty() {
            return Err(ProtocolError::value(
                origin,
                "corruptions",
                &protocol.corruptions,
                "at least one",
            ));
        }
        let usable = |severity: &u8| (1..=SEVERITIES).contains(severity);
        if protocol.severities.is_empty() || !protocol.severities.iter().all(usable) {
            return Err(ProtocolError::value(
                origin,
                "severities",
                &protocol.severities,
                "numbers from 1 to 5",
            ));
        }
        Ok(protocol)
    }

    /// Its name, for example `shifted`.
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

    /// The splits it needs: what the classifier is trained on, then what is corrupted.
    pub fn splits(&self) -> Vec<&str> {
        vec!["train", "test"]
    }

    /// Every corruption with every severity, in the order of reports.
    pub fn shifts(&self) -> Vec<(&'static Corruption, u8)> {
        let named = |name: &String| CORRUPTIONS.iter().find(|corruption| corruption.name == name);
        let corruptions = self.corruptions.iter().filter_map(named);
        corruptions
            .flat_map(|corruption| self.severities.iter().map(move |&severity| (corruption, severity)))
            .collect()
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
        assert_eq!(protocols()[0].shifts().len(), 25);
    }

    #[test]
    fn a_file_that_is_no_protocol_is_named_with_its_key() {
        let check = |from: &str, to: &str, expected: &str| {
            let toml = PROTOCOLS[0].1;
            assert!(toml.contains(from), "nothing to replace");
            let message = Protocol::parse(&toml.replace(from, to), "mine.toml")
                .expect_err("must be refused")
                .to_string();
            assert!(message.contains(expected), "`{message}` has no `{expected}`");
        };
        check(
            "\"pixelate\"",
            "\"fog\"",
            "key `corruptions` is \"fog\"; expected one of gaussian_noise, gaussian_blur",
        );
        check(
            "4, 5]",
            "4, 6]",
            "key `severities` is [1, 2, 3, 4, 6]; expected numbers from 1 to 5",
        );
        check("[1, 2, 3, 4, 5]", "[]", "key `severities` is []");
        check("severities =", "levels =", "unknown field `levels`, expected one of");
    }
}
