//! Debian packages, by `apt-get download`, which needs no privileges and installs nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::client;

/// Download the `.deb` of `package` into the empty folder `into`.
pub(super) fn download(package: &str, into: &Path) -> Result<PathBuf> {
    let mut command = Command::new("apt-get");
    command.args(["download", "--quiet", "-o", "Acquire::Retries=1", package]);
    client::download(command, &format!("apt {package}"), into, "deb")
        .context("`apt-get download` did not work (its lists may be old: `apt-get update`)")
}
