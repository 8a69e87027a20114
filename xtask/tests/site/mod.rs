//! A temporary folder with a cache and results of its own, and the driver run in it.
#![allow(dead_code, reason = "not every test file uses all of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::SystemTime;

use tempfile::TempDir;

/// A temporary folder to run in.
pub struct Site {
    folder: TempDir,
}

/// What a run said, and how it ended.
pub struct Said {
    /// stdout.
    pub out: String,
    /// stderr.
    pub err: String,
    code: Option<i32>,
}

impl Said {
    /// The same, once it is sure that it ended with `code`.
    pub fn ends_with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Self {
            out: text(output.stdout),
            err: text(output.stderr),
            code: output.status.code(),
        }
    }
}

impl Site {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .env("BOB_CACHE", self.path("cache"))
            .env("BOB_OFFLINE", "1")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    /// Run the driver to its end.
    pub fn bob(&self, arguments: &[&str]) -> Said {
        self.command(env!("CARGO_BIN_EXE_xtask"))
            .args(arguments)
            .output()
            .expect("the driver starts")
            .into()
    }

    /// Run `script` with the driver and its arguments as `$@`.
    pub fn shell(&self, script: &str, arguments: &[&str]) -> Said {
        let mut shell = self.command("sh");
        shell
            .args(["-c", script, "sh", env!("CARGO_BIN_EXE_xtask")])
            .args(arguments);
        shell.output().expect("the shell starts").into()
    }

    /// Start the driver.
    pub fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(env!("CARGO_BIN_EXE_xtask"));
        command
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the driver starts")
    }

    /// The records, with the times they were written, sorted by path.
    pub fn records(&self) -> Vec<(PathBuf, SystemTime)> {
        let records = self.files_below("results").into_iter().filter(|path| !is_hidden(path));
        records
            .map(|path| {
                let written = path
                    .metadata()
                    .and_then(|metadata| metadata.modified())
                    .expect("it is there");
                (path, written)
            })
            .collect()
    }

    /// Every file, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        self.files_below("")
    }

    /// Every file below a folder, sorted.
    pub fn files_below(&self, name: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.path(name)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let path = entry.expect("readable").path();
                if path.is_dir() {
                    folders.push(path)
                } else {
                    files.push(path)
                }
            }
        }
        files.sort();
        files
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with('.'))
}
