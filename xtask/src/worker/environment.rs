//! The machine and the program, as a record states them.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::Result;
use bob_core::device::{BackendName, Precision, float_dtype, select};
use bob_stats::Environment;
use burn::tensor::Device;

use crate::args::Backend;
use crate::launch::Usage;
use crate::{launch, places};

/// The exact version of burn that the workspace pins.
const BURN: &str = "0.22.1";

/// The machine and the program as they are now.
pub fn environment(backend: BackendName, device: &Device) -> Environment {
    let (commit, dirty) = commit(places::workspace());
    Environment {
        bob_version: env!("CARGO_PKG_VERSION").to_owned(),
        burn_version: BURN.to_owned(),
        commit,
        dirty,
        backend: backend.to_string(),
        adapter: adapter(backend, device),
        dtype: format!("{:?}", float_dtype(device)).to_lowercase(),
        jpeg: bob_data::jpeg_decoder().to_owned(),
        host: format!("{} {}", env::consts::OS, env::consts::ARCH),
        threads: threads(),
        heap: launch::heap(),
    }
}

/// What `--backend` and `--dtype` ask for, and the device that computes it.
pub fn computing(backend: Backend, dtype: &str) -> Result<(BackendName, Precision, Device)> {
    let backend: BackendName = backend.as_str().parse()?;
    let precision: Precision = dtype.parse().map_err(|error| Usage(format!("--dtype: {error}")))?;
    backend.check(precision).map_err(|error| Usage(error.to_string()))?;
    Ok((backend, precision, select(backend)?))
}

/// Commit of the checkout and whether it has changes; empty outside one.
fn commit(root: &Path) -> (String, bool) {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match git(&["rev-parse", "--verify", "HEAD"]) {
        Some(commit) => (
            commit,
            git(&["status", "--porcelain"]).is_none_or(|changes| !changes.is_empty()),
        ),
        None => (String::new(), true),
    }
}

/// Processor or GPU that computes.
pub fn adapter(backend: BackendName, device: &Device) -> String {
    #[cfg(feature = "wgpu")]
    if backend == BackendName::Wgpu
        && let Some(identity) = device.identity()
    {
        return identity.name;
    }
    let _ = (backend, device);
    processor().unwrap_or_else(|| env::consts::ARCH.to_owned())
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Threads that compute: what RAYON_NUM_THREADS or OMP_NUM_THREADS allows, else the processor's.
pub fn threads() -> usize {
    ["RAYON_NUM_THREADS", "OMP_NUM_THREADS"]
        .iter()
        .find_map(|name| env::var(name).ok()?.parse().ok().filter(|&threads| threads > 0))
        .unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
}
