//! The table of protocols and what a protocol says: how long and at which batch the clock runs.

use bob_core::{ProtocolError, Variant, parse_protocol};
use serde::{Deserialize, Serialize};

/// Every protocol of this crate, in the order of reports.
const PROTOCOLS: [(&str, &str); 1] = [("efficiency.toml", include_str!("../protocols/efficiency.toml"))];

/// How speed and memory are measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    name: String,
    version: u32,
    variant: Variant,
    /// Images of one pass of the throughput clock, at least 1.
    pub batch: usize,
    /// Seconds of passes before each clock starts.
    pub warmup_seconds: f64,
    /// Seconds of passes under the throughput clock.
    pub throughput_seconds: f64,
    /// Seconds of passes under the latency clock.
    pub latency_seconds: f64,
    /// Fewest passes under a clock, however long they take; at least 1.
    pub min_runs: usize,
    /// Number of inputs that take turns, at least 1.
    pub distinct_inputs: usize,
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
    /// Where it is no protocol of efficiency, with the file, the key and what is accepted.
    pub fn parse(toml: &str, origin: &str) -> Result<Self, ProtocolError> {
        let protocol: Self = parse_protocol(toml, origin)?;
        for (key, value) in [
            ("batch", protocol.batch),
            ("min_runs", protocol.min_runs),
            ("distinct_inputs", protocol.distinct_inputs),
        ] {
            if value == 0 {
                return Err(ProtocolError::value(origin, key, value, "at least 1"));
            }
        }
        for (key, value) in [
            ("warmup_seconds", protocol.warmup_seconds),
            ("throughput_seconds", protocol.throughput_seconds),
            ("latency_seconds", protocol.latency_seconds),
        ] {
            // An hour: more is a slip of the unit, and the clock would not stop.
            if !(0.0..=3600.0).contains(&value) {
                return Err(ProtocolError::value(origin, key, value, "seconds from 0 to 3600"));
            }
        }
        Ok(protocol)
    }

    /// Its name.
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
        let check = |from: &str, to: &str, expected: &str| {
            let error = Protocol::parse(&good.replace(from, to), "mine.toml")
                .expect_err("must be refused")
                .to_string();
            assert!(error.contains(expected), "`{error}` has no `{expected}`");
        };
        check(
            "batch = 8",
            "batch = 0",
            "protocol `mine.toml`: key `batch` is 0; expected at least 1",
        );
        check(
            "latency_seconds = 3.0",
            "latency_seconds = nan",
            "key `latency_seconds` is NaN; expected seconds",
        );
        check(
            "warmup_seconds = 1.0",
            "warmup_seconds = 1e9",
            "key `warmup_seconds` is 1000000000.0; expected seconds",
        );
        check("min_runs = 5", "min_run = 5", "unknown field `min_run`");
    }
}
