//! Tarballs, by `npm pack`, which installs nothing and runs no script.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::client;

/// Download the tarball of `package` into the empty folder `into`.
pub(super) fn download(package: &str, version: &str, into: &Path) -> Result<PathBuf> {
    let mut command = Command::new("npm");
    command
        .args([
            "pack",
            &format!("{package}@{version}"),
            "--ignore-scripts",
            "--pack-destination",
            ".",
        ])
        .args([
            "--loglevel",
            "error",
            "--fetch-retries",
            "1",
            "--fetch-retry-mintimeout",
            "2000",
        ])
        // Its own cache would keep a second copy for good.
        .args(["--cache", "npm-cache"]);
    client::download(command, &format!("npm {package}@{version}"), into, "tgz")
}
