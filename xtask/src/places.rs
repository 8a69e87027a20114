//! Where things lie: the workspace, the build folder, the cache.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The workspace this driver was built from.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// The root of everything that is fetched or computed once: `$BOB_CACHE`, or `bob` below `$XDG_CACHE_HOME` or
/// `~/.cache`.
pub fn cache() -> Result<PathBuf> {
    let path = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(root) = path("BOB_CACHE") {
        return std::path::absolute(root).context("BOB_CACHE");
    }
    let above = path("XDG_CACHE_HOME")
        .filter(|folder| folder.is_absolute())
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .context("no folder for the cache: neither BOB_CACHE, XDG_CACHE_HOME nor a home folder is set")?;
    Ok(above.join("bob"))
}

/// The cargo that runs us, or the one on the path.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace());
    // What `cargo run` says of us is no business of another build; build scripts that watch it would run again.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// Cargo's build folder, as cargo decides it.
pub fn target() -> Result<PathBuf> {
    let metadata = metadata(&["--no-deps"])?;
    let folder = metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target_directory")?;
    Ok(PathBuf::from(folder))
}

/// What `cargo metadata` says of the workspace.
pub fn metadata(arguments: &[&str]) -> Result<serde_json::Value> {
    let output = cargo()
        .args(["metadata", "--format-version", "1"])
        .args(arguments)
        .output()
        .context("cargo metadata does not start")?;
    if !output.status.success() {
        bail!(
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata prints no JSON")
}

/// Where records lie unless `--results` says otherwise.
pub fn results(asked: Option<&Path>) -> Result<PathBuf> {
    match asked {
        Some(folder) => std::path::absolute(folder).with_context(|| format!("`{}`", folder.display())),
        None => Ok(target()?.join("bob").join("results")),
    }
}

/// Where the report of the records in `results` lies unless `--output` says otherwise: `report` beside them.
pub fn report(results: &Path) -> PathBuf {
    results.with_file_name("report")
}

/// The program `name` on the path.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let file = format!("{name}{}", env::consts::EXE_SUFFIX);
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join(&file))
        .find(|path| path.is_file())
}
