//! `setup`: make ready what a backend needs.

pub mod tch;
mod wgpu;

use std::process::ExitCode;

use anyhow::Result;

use crate::args::{Setup, SetupBackend};

/// Make ready what the backend needs, or say what is missing.
pub fn run(args: &Setup) -> Result<ExitCode> {
    match &args.backend {
        SetupBackend::Tch { python } => tch::run(python.as_deref()),
        SetupBackend::Wgpu => wgpu::run(),
    }
}
