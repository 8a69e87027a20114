//! How the file of an entry is read.

use serde::Deserialize;

use super::Fault;
use crate::weights::{LoadOptions, Rename};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RenameFile {
    prefix: Option<String>,
    part: Option<String>,
    to: String,
}

/// How the file is read, as it is written.
pub(super) struct Reading {
    pub(super) rename: Vec<RenameFile>,
    pub(super) ignored: Option<Vec<String>>,
    pub(super) allowed_globals: Option<Vec<String>>,
    pub(super) top_level_key: Option<String>,
}

impl Reading {
    /// `options`, but for what is written.
    pub(super) fn judge(self, mut options: LoadOptions) -> Result<LoadOptions, Fault> {
        options.renames = self
            .rename
            .into_iter()
            .map(RenameFile::judge)
            .collect::<Result<_, _>>()?;
        let is_pattern = |name: &String| {
            let rest = name.strip_prefix('*').or(name.strip_suffix('*')).unwrap_or(name);
            !rest.contains('*') && !name.is_empty()
        };
        if let Some(ignored) = self.ignored {
            if let Some(found) = ignored.iter().find(|name| !is_pattern(name)) {
                let expected = "a key of the file, or a key with one `*` at its start or end";
                return Err(Fault::value("ignored", found, expected));
            }
            options.ignored = ignored;
        }
        if let Some(allowed) = self.allowed_globals {
            options.allowed_globals = allowed;
        }
        if let Some(key) = self.top_level_key {
            // Nothing, where the file that it is like nests its state dict and this one does not.
            options.top_level_key = Some(key).filter(|key| !key.is_empty());
        }
        Ok(options)
    }
}

impl RenameFile {
    fn judge(self) -> Result<Rename, Fault> {
        let shown = format!("{self:?}");
        match (self.prefix, self.part) {
            (Some(from), None) if from != self.to => Ok(Rename::Prefix { from, to: self.to }),
            (None, Some(from)) if from != self.to && !from.is_empty() => Ok(Rename::Part { from, to: self.to }),
            _ => Err(Fault::Value {
                key: "rename",
                found: shown,
                expected: "`{ prefix = \"…\", to = \"…\" }` or `{ part = \"…\", to = \"…\" }` of two different texts",
            }),
        }
    }
}
