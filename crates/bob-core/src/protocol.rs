//! What the protocols of every task crate share: how they are read, and how they stand to the paper.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{TomlError, parse_toml};

/// How a protocol stands to Battle of the Backbones, or to the paper it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// What the paper says.
    AsDescribed,
    /// What the released code does, quirks included.
    AsReleased,
    /// What it should have been; the protocol's first lines say what differs.
    Corrected,
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AsDescribed => "as-described",
            Self::AsReleased => "as-released",
            Self::Corrected => "corrected",
        })
    }
}

/// Why a file is no protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// It is not TOML, misses a key, has an unknown one, or a value of the wrong kind.
    #[error("protocol `{origin}`, line {line}: {reason}")]
    Syntax {
        /// The file.
        origin: String,
        /// Line of the mistake, from 1.
        line: usize,
        /// What is wrong, with the accepted names where a name is unknown.
        reason: String,
    },
    /// A value cannot be used.
    #[error("protocol `{origin}`: key `{key}` is {found}; expected {expected}")]
    Value {
        /// The file.
        origin: String,
        /// The key, with its table.
        key: String,
        /// What was found.
        found: String,
        /// What is accepted.
        expected: String,
    },
}

impl ProtocolError {
    /// The error of a key whose value cannot be used.
    pub fn value(origin: &str, key: &str, found: impl fmt::Debug, expected: &str) -> Self {
        Self::Value {
            origin: origin.to_owned(),
            key: key.to_owned(),
            found: format!("{found:?}"),
            expected: expected.to_owned(),
        }
    }
}

/// The protocol of type `T` that `toml` describes; `origin` names the file in errors.
///
/// # Errors
/// Where it is not TOML or does not fit `T`, which should carry `#[serde(deny_unknown_fields)]`.
pub fn parse_protocol<T: DeserializeOwned>(toml: &str, origin: &str) -> Result<T, ProtocolError> {
    parse_toml(toml).map_err(|TomlError { line, reason }| ProtocolError::Syntax {
        origin: origin.to_owned(),
        line,
        reason,
    })
}
