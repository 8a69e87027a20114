//! Building the worker (this program with a backend linked, in release) and becoming it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::args::{Backend, Verb};
use crate::setup::tch::LibTorch;
use crate::{launch, places};

/// Build the worker that `verb` needs and give it our arguments.
pub fn run(verb: Verb) -> Result<ExitCode> {
    let backend = match &verb {
        Verb::BenchAll(args) => args.backend,
        Verb::Extract(args) => args.backend,
        Verb::Measure(args) => args.backend,
        Verb::Cell(args) => args.backend,
        _ => Backend::Flex,
    };
    let libtorch = if backend == Backend::Tch {
        Some(LibTorch::configured()?)
    } else {
        None
    };
    let worker = build(backend, libtorch.as_ref())?;
    let mut command = std::process::Command::new(worker);
    command.args(env::args_os().skip(1));
    launch::keep_heap(&mut command);
    if let Some(libtorch) = &libtorch {
        libtorch.configure_run(&mut command)?;
    }
    launch::become_command(command)
}

fn build(backend: Backend, libtorch: Option<&LibTorch>) -> Result<PathBuf> {
    let target = places::target()?;
    let worker = target
        .join("bob")
        .join(format!("worker-{backend}"))
        .join(format!("xtask{}", env::consts::EXE_SUFFIX));
    let mut features = format!("worker,{backend}");
    if places::on_path("nasm").is_some() {
        features.push_str(",jpeg-simd");
    } else {
        eprintln!("hint: without `nasm` JPEG is decoded without SIMD: the same pixels, slower");
    }
    if !worker.exists() {
        eprintln!("building the worker for `{backend}`; the first time takes minutes");
    }
    let mut cargo = places::cargo();
    cargo.args(["build", "--release", "--package", "xtask", "--features", &features]);
    // Quiet once it is built, so that a plan is not preceded by a line about nothing.
    if worker.exists() {
        cargo.arg("--quiet");
    }
    if let Some(libtorch) = libtorch {
        libtorch.configure_build(&mut cargo)?;
    }
    let status = cargo.status().context("cargo does not start")?;
    if !status.success() {
        bail!("the worker for `{backend}` does not build ({status}); cargo's messages are above");
    }
    let built = target.join("release").join(format!("xtask{}", env::consts::EXE_SUFFIX));
    keep(&built, &worker)?;
    Ok(worker)
}

/// Keep the built program under the worker's own name: the next build with other features overwrites the first.
fn keep(built: &Path, worker: &Path) -> Result<()> {
    let folder = worker.parent().context("the worker has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("`{}`", folder.display()))?;
    // Through a name of our own and a rename, so that a worker that is running, or two drivers at once, do no harm.
    let temporary = worker.with_extension(format!("{}.tmp", std::process::id()));
    fs::hard_link(built, &temporary)
        .or_else(|_| fs::copy(built, &temporary).map(|_| ()))
        .and_then(|()| fs::rename(&temporary, worker))
        .with_context(|| format!("`{}` cannot be kept as `{}`", built.display(), worker.display()))?;
    // Where both already were the same file, the rename did nothing and the link is left.
    let _ = fs::remove_file(&temporary);
    Ok(())
}
