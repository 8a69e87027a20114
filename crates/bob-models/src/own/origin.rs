//! Where the weights of an entry are.

use std::path::PathBuf;

use bob_core::{Checkpoint, Source};
use sha2::{Digest, Sha256};

use super::{Fault, OwnWeights};

/// Where the weights come from.
pub(super) struct Origin {
    pub(super) weights: OwnWeights,
    pub(super) sources: Vec<Source>,
    pub(super) file: String,
    pub(super) sha256: Option<String>,
}

impl Origin {
    pub(super) fn judge(
        name: &str,
        file: Option<PathBuf>,
        sources: Option<Vec<Source>>,
        sha256: Option<String>,
        base: Option<&Checkpoint>,
    ) -> Result<Self, Fault> {
        let is_digest = |text: &String| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if let Some(found) = sha256.as_ref().filter(|text| !is_digest(text)) {
            return Err(Fault::value(
                "sha256",
                found,
                "64 hexadecimal digits, as `sha256sum` prints",
            ));
        }
        let sha256 = sha256.map(|text| text.to_lowercase());
        match (file, sources) {
            (Some(_), Some(sources)) => {
                let expected = "no `sources` beside a `file`";
                Err(Fault::value("sources", sources, expected))
            }
            (Some(file), None) => Ok(Self {
                file: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                weights: OwnWeights::File(file),
                sources: Vec::new(),
                sha256,
            }),
            (None, Some(sources)) => {
                let inside = |source: &Source| match source {
                    Source::Pip { path, .. }
                    | Source::Npm { path, .. }
                    | Source::Apt { path, .. }
                    | Source::Hub { path, .. } => path.rsplit('/').next().unwrap_or_default().to_owned(),
                };
                let files: Vec<String> = sources.iter().map(inside).collect();
                match files.first() {
                    Some(file) if files.iter().all(|file| !["", ".", ".."].contains(&file.as_str())) => Ok(Self {
                        weights: OwnWeights::Fetched(format!("{name}-{}", digest(&sources))),
                        file: file.clone(),
                        sources,
                        sha256,
                    }),
                    _ => Err(Fault::value(
                        "sources",
                        sources,
                        "at least one, each with the `path` of a file",
                    )),
                }
            }
            (None, None) => {
                let base = base.ok_or(Fault::Missing { key: "file" })?;
                Ok(Self {
                    weights: OwnWeights::Fetched(base.name.clone()),
                    sources: base.sources.clone(),
                    file: base.file.clone(),
                    sha256: sha256.or(base.sha256.clone()),
                })
            }
        }
    }
}

/// What tells sources from others, so that no file of other ones is taken for theirs.
fn digest(sources: &[Source]) -> String {
    let text = serde_json::to_vec(sources).expect("names and texts are JSON");
    let digest = Sha256::digest(text);
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
