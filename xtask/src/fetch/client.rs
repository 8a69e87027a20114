//! Running a package client: pip, npm, apt-get.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::progress::Progress;
use super::with_suffix;

/// A client that takes longer than this is stopped: it waits for something that will not come.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

/// Whether `program` with `args` can be run and says that all is well.
pub(super) fn exists(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Run `command` in the folder `into` and give the one file with `extension` that it leaves there.
pub(super) fn download(mut command: Command, label: &str, into: &Path, extension: &str) -> Result<PathBuf> {
    let program = command.get_program().to_string_lossy().into_owned();
    let log = with_suffix(into, ".log");
    let output = File::create(&log).with_context(|| format!("cannot write `{}`", log.display()))?;
    let errors = output
        .try_clone()
        .with_context(|| format!("cannot write `{}`", log.display()))?;
    // What a client unpacks on the way counts as progress and goes with the folder.
    command
        .current_dir(into)
        .env("TMPDIR", into)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("there is no `{program}` on this machine"),
        Err(error) => return Err(error).with_context(|| format!("cannot run `{program}`")),
    };
    let mut progress = Progress::new(label);
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child
            .try_wait()
            .with_context(|| format!("cannot wait for `{program}`"))?
        {
            break status;
        }
        if started.elapsed() > DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            bail!("`{program}` was stopped after {} minutes", DEADLINE.as_secs() / 60);
        }
        progress.show(size(into), None);
        thread::sleep(Duration::from_millis(100));
    };
    drop(progress);
    let said = last_lines(&log);
    let _ = fs::remove_file(&log);
    if !status.success() {
        bail!("`{program}` failed ({status}): {said}");
    }
    let mut files = fs::read_dir(into)
        .with_context(|| format!("cannot read `{}`", into.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect::<Vec<_>>();
    match (files.pop(), files.len()) {
        (Some(file), 0) => Ok(file),
        (None, _) => bail!("`{program}` left no `.{extension}` file: {said}"),
        (_, more) => bail!("`{program}` left {} files with `.{extension}`, expected one", more + 1),
    }
}

/// What a client said last: its reason, in one line.
fn last_lines(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    // npm ends with where its log lies, in a folder that is removed.
    let said = |line: &&str| !line.is_empty() && !line.contains("A complete log of this run");
    let lines = text.lines().map(str::trim).filter(said).collect::<Vec<_>>();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

/// Bytes of all files below `folder`.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => size(&entry.path()),
            Ok(_) => entry.metadata().map_or(0, |metadata| metadata.len()),
            Err(_) => 0,
        })
        .sum()
}
