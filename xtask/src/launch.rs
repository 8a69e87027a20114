//! How processes are started and how they end.

use std::env;
use std::process::Command;
#[cfg(not(feature = "worker"))]
use std::process::ExitCode;

#[cfg(not(feature = "worker"))]
use anyhow::{Context, Result};

/// Settings of glibc's allocator that keep freed blocks in the process.
///
/// By default it hands large blocks back at every free, and each activation is page-faulted anew. A process cannot
/// set this for itself without unsafe code, so whoever starts it does.
const KEPT_HEAP: [(&str, &str); 3] = [
    ("MALLOC_MMAP_THRESHOLD_", "4000000000"),
    ("MALLOC_TRIM_THRESHOLD_", "8000000000"),
    ("MALLOC_TOP_PAD_", "67108864"),
];

/// Let the process keep its heap; settings that are already in the environment stay.
pub fn keep_heap(command: &mut Command) {
    for (name, value) in KEPT_HEAP {
        if env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
}

/// How this process keeps its heap, for records: `kept: …` or `default`.
#[cfg(feature = "worker")]
pub fn heap() -> String {
    let set: Vec<String> = KEPT_HEAP
        .iter()
        .filter_map(|(name, _)| env::var(name).ok().map(|value| format!("{name}={value}")))
        .collect();
    if set.is_empty() || !cfg!(target_env = "gnu") {
        "default".to_owned()
    } else {
        format!("kept: {}", set.join(" "))
    }
}

/// Become `command` where the system can (signals and exit codes are then its own), else run it.
#[cfg(not(feature = "worker"))]
pub fn become_command(mut command: Command) -> Result<ExitCode> {
    let program = command.get_program().to_owned();
    let starts = || format!("`{}` does not start", program.display());
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        Err(command.exec()).with_context(starts)
    }
    #[cfg(not(unix))]
    {
        let status = command.status().with_context(starts)?;
        Ok(status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .map_or(ExitCode::FAILURE, ExitCode::from))
    }
}

/// A mistake in what was asked: exit code 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Whether an error is a mistake in what was asked.
pub fn is_usage(error: &anyhow::Error) -> bool {
    #[cfg(feature = "worker")]
    if error.chain().any(names_nothing) {
        return true;
    }
    error.chain().any(|cause| cause.is::<Usage>())
}

/// Whether an error is that of a name which nothing has.
#[cfg(feature = "worker")]
fn names_nothing(cause: &(dyn std::error::Error + 'static)) -> bool {
    use bob_data::DataError;
    use bob_models::CreateError;
    cause.is::<bob_core::UnknownName>()
        || cause.is::<bob_core::device::DeviceError>()
        // Transparent errors hide what they hold from the chain.
        || matches!(cause.downcast_ref(), Some(DataError::Unknown(_)))
        || matches!(cause.downcast_ref(), Some(CreateError::Unknown(_)))
}
