//! TOML that people write, and what they are told of a slip.

use serde::de::DeserializeOwned;

/// Why a text is not the TOML that was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct TomlError {
    /// Line of the mistake, from 1.
    pub line: usize,
    /// What is wrong, with the accepted names where a name is unknown.
    pub reason: String,
}

/// The value of type `T` that `text` describes.
///
/// # Errors
/// Where it is not TOML or does not fit `T`, which should carry `#[serde(deny_unknown_fields)]`.
pub fn parse_toml<T: DeserializeOwned>(text: &str) -> Result<T, TomlError> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        TomlError {
            line: 1 + before.matches('\n').count(),
            reason: error.message().trim().replace('\n', ", "),
        }
    })
}
