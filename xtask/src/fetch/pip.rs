//! Wheels, by `pip download`. A wheel is a zip; nothing of it is installed or run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::client;

/// The ways to call pip, the best first.
const CLIENTS: [&[&str]; 4] = [&["python3", "-m", "pip"], &["pip3"], &["pip"], &["python", "-m", "pip"]];

/// Download the wheel of `package` into the empty folder `into`.
pub(super) fn download(package: &str, version: &str, into: &Path) -> Result<PathBuf> {
    let client = CLIENTS
        .into_iter()
        .find(|client| client::exists(client[0], &[&client[1..], &["--version"]].concat()))
        .context("there is no pip on this machine (tried `python3 -m pip`, `pip3`, `pip`)")?;
    let mut command = Command::new(client[0]);
    command
        .args(&client[1..])
        .args([
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--disable-pip-version-check",
            "--no-input",
        ])
        .args(["--retries", "2", "--timeout", "15"])
        .args([
            "--no-cache-dir",
            "--quiet",
            "--dest",
            ".",
            &format!("{package}=={version}"),
        ]);
    client::download(command, &format!("pip {package}=={version}"), into, "whl")
}
