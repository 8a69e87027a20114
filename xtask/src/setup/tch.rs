//! LibTorch 2.9: from `LIBTORCH`, or from the torch wheel of a Python environment.
//!
//! tch 0.22 builds against LibTorch 2.9.0; 2.9.1 has the same interface and its check is bypassed, which is what
//! this file writes down for the build and the run.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::launch::Usage;
use crate::places;

/// The wheel that pip installs.
const WHEEL: &str = "torch==2.9.1";
/// What a usable version starts with.
const SERIES: &str = "2.9.";

/// A LibTorch that builds and runs; kept as `setup/tch.json` in the cache.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LibTorch {
    /// Its version.
    version: String,
    /// Where it comes from.
    origin: Origin,
    /// Folders of shared libraries for the run.
    libraries: Vec<PathBuf>,
}

/// Where a LibTorch comes from.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum Origin {
    /// An unpacked LibTorch.
    Libtorch(PathBuf),
    /// A Python interpreter that imports torch.
    Python(PathBuf),
}

fn file() -> Result<PathBuf> {
    Ok(places::cache()?.join("setup").join("tch.json"))
}

/// Find or install a LibTorch and write down how to use it.
pub fn run(python: Option<&Path>) -> Result<ExitCode> {
    let found = match (python, env::var_os("LIBTORCH").filter(|value| !value.is_empty())) {
        (Some(python), _) => of_python(python)?,
        (None, Some(folder)) => of_folder(Path::new(&folder))?,
        (None, None) => of_python(&install()?)?,
    };
    let file = file()?;
    let folder = file.parent().context("the file has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("`{}`", folder.display()))?;
    fs::write(&file, serde_json::to_vec_pretty(&found)?).with_context(|| format!("`{}`", file.display()))?;
    eprintln!("LibTorch {} is ready; written to `{}`", found.version, file.display());
    Ok(ExitCode::SUCCESS)
}

fn of_folder(folder: &Path) -> Result<LibTorch> {
    let build = folder.join("build-version");
    let version = fs::read_to_string(&build).map_err(|error| {
        Usage(format!(
            "LIBTORCH is `{}`, but `{}`: {error}",
            folder.display(),
            build.display()
        ))
    })?;
    let folder = std::path::absolute(folder)?;
    LibTorch {
        version: version.trim().to_owned(),
        libraries: vec![folder.join("lib")],
        origin: Origin::Libtorch(folder),
    }
    .checked()
}

/// Prints the version, the folder of torch and the folders of the wheels it needs.
const PROBE: &str = "\
import glob, os, torch
site = os.path.dirname(os.path.dirname(torch.__file__))
print(torch.__version__)
print(os.path.join(site, 'torch', 'lib'))
for folder in sorted(glob.glob(os.path.join(site, 'nvidia', '*', 'lib'))): print(folder)";

fn of_python(python: &Path) -> Result<LibTorch> {
    // Not canonical: a virtual environment's interpreter is a link, and knows its packages by its own path.
    let python = std::path::absolute(python)?;
    let output = Command::new(&python)
        .args(["-c", PROBE])
        .output()
        .map_err(|error| Usage(format!("`{}` does not start: {error}", python.display())))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        let last = reason.trim().lines().last().unwrap_or("no message").to_owned();
        return Err(Usage(format!("`{}` cannot import torch: {last}", python.display())).into());
    }
    let text = String::from_utf8(output.stdout).context("the probe of torch prints no text")?;
    let mut lines = text.lines();
    let version = lines.next().context("the probe of torch prints nothing")?.to_owned();
    LibTorch {
        version,
        libraries: lines.map(PathBuf::from).collect(),
        origin: Origin::Python(python),
    }
    .checked()
}

/// A virtual environment in the cache with the wheel in it.
fn install() -> Result<PathBuf> {
    let folder = places::cache()?.join("setup").join("tch");
    let python = folder.join(if cfg!(windows) {
        "Scripts/python.exe"
    } else {
        "bin/python"
    });
    if !python.exists() {
        let base = places::on_path("python3")
            .or_else(|| places::on_path("python"))
            .ok_or_else(|| {
                Usage(
                    "neither LIBTORCH nor `python3` is here; install Python 3 or unpack LibTorch 2.9 and set LIBTORCH"
                        .into(),
                )
            })?;
        eprintln!("making a Python environment in `{}`", folder.display());
        told(Command::new(base).args(["-m", "venv"]).arg(&folder))?;
    }
    eprintln!("installing {WHEEL} with pip");
    told(Command::new(&python).args(["-m", "pip", "install", "--quiet", WHEEL]))?;
    Ok(python)
}

/// Run a command whose talk goes to stderr.
fn told(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_owned();
    let status = command
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("`{}` does not start", name.display()))?;
    if !status.success() {
        bail!("`{}` failed ({status}); its messages are above", name.display());
    }
    Ok(())
}

impl LibTorch {
    fn checked(self) -> Result<Self> {
        if !self.version.starts_with(SERIES) {
            let origin = match &self.origin {
                Origin::Libtorch(path) | Origin::Python(path) => path.display(),
            };
            return Err(Usage(format!("torch of `{origin}` is {}; expected {SERIES}x", self.version)).into());
        }
        let name = format!("{}torch_cpu{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
        if !self.libraries.iter().any(|folder| folder.join(&name).is_file()) {
            let folders: Vec<_> = self
                .libraries
                .iter()
                .map(|folder| format!("`{}`", folder.display()))
                .collect();
            return Err(Usage(format!(
                "no `{name}` in {}; run `cargo xtask setup tch` again",
                if folders.is_empty() {
                    "any folder".to_owned()
                } else {
                    folders.join(", ")
                }
            ))
            .into());
        }
        Ok(self)
    }
}

/// What the build and the run of a worker need.
#[cfg(not(feature = "worker"))]
impl LibTorch {
    /// What `setup tch` found.
    pub fn configured() -> Result<Self> {
        let file = file()?;
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Usage("LibTorch is not set up; run `cargo xtask setup tch`".to_owned()).into());
            }
            Err(error) => return Err(error).with_context(|| format!("`{}`", file.display())),
        };
        let found: Self = serde_json::from_slice(&text).map_err(|error| {
            Usage(format!(
                "`{}`: {error}; run `cargo xtask setup tch` again",
                file.display()
            ))
        })?;
        found.checked()
    }

    /// Tell the build of torch-sys where LibTorch is.
    pub fn configure_build(&self, cargo: &mut Command) -> Result<()> {
        cargo.env("LIBTORCH_BYPASS_VERSION_CHECK", "1");
        match &self.origin {
            Origin::Libtorch(folder) => {
                cargo.env("LIBTORCH", folder);
            }
            Origin::Python(python) => {
                cargo.env("LIBTORCH_USE_PYTORCH", "1").env_remove("LIBTORCH");
                let folder = python.parent().context("the interpreter has a folder")?;
                cargo.env("PATH", before("PATH", &[folder.to_owned()])?);
            }
        }
        self.configure_run(cargo)
    }

    /// Tell the loader where the libraries are.
    pub fn configure_run(&self, command: &mut Command) -> Result<()> {
        let variable = match env::consts::OS {
            "macos" => "DYLD_LIBRARY_PATH",
            "windows" => "PATH",
            _ => "LD_LIBRARY_PATH",
        };
        command.env(variable, before(variable, &self.libraries)?);
        Ok(())
    }
}

/// The search path `variable` with `folders` before what it has.
#[cfg(not(feature = "worker"))]
fn before(variable: &str, folders: &[PathBuf]) -> Result<std::ffi::OsString> {
    let rest = env::var_os(variable).unwrap_or_default();
    let rest = env::split_paths(&rest).filter(|folder| !folder.as_os_str().is_empty());
    env::join_paths(folders.iter().cloned().chain(rest)).with_context(|| format!("{variable} cannot be extended"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_or_a_missing_library_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let check = |version: &str, expected: &str| {
            fs::write(folder.path().join("build-version"), version).expect("written");
            let error = of_folder(folder.path()).expect_err("must be refused").to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("2.8.0+cpu\n", "is 2.8.0+cpu; expected 2.9.x");
        check("2.9.0+cpu\n", "torch_cpu");
        fs::create_dir(folder.path().join("lib")).expect("made");
        let library = format!("{}torch_cpu{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
        fs::write(folder.path().join("lib").join(library), "").expect("written");
        let found = of_folder(folder.path()).expect("complete");
        let text = serde_json::to_string(&found).expect("JSON");
        assert!(
            serde_json::from_str::<LibTorch>(&text)
                .expect("reads back")
                .checked()
                .is_ok()
        );
    }
}
