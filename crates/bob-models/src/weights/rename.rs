//! Keys that differ from what is expected in a part alone.

use std::fmt;

use serde::Serialize;

/// What takes the place of a part of a file's keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rename {
    /// At the start of a key.
    Prefix {
        /// What is there; every key starts with nothing.
        from: String,
        /// What takes its place.
        to: String,
    },
    /// Wherever it is in a key.
    Part {
        /// What is there.
        from: String,
        /// What takes its place.
        to: String,
    },
}

impl Rename {
    /// `key` renamed, where it has the part.
    pub(super) fn apply(&self, key: &str) -> Option<String> {
        match self {
            Self::Prefix { from, to } => key.strip_prefix(from.as_str()).map(|rest| format!("{to}{rest}")),
            Self::Part { from, to } => key.contains(from.as_str()).then(|| key.replace(from.as_str(), to)),
        }
    }
}

impl fmt::Display for Rename {
    /// The keys that it renames: `keys that start with …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix { from, .. } => write!(f, "keys that start with `{from}`"),
            Self::Part { from, .. } => write!(f, "keys that contain `{from}`"),
        }
    }
}
