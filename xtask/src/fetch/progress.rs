//! How far a download is, on stderr: one line that is rewritten on a terminal, one every ten seconds elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

pub(super) struct Progress {
    label: String,
    started: Instant,
    shown: Instant,
    terminal: bool,
}

impl Progress {
    pub(super) fn new(label: impl Into<String>) -> Self {
        let label = label.into();
        let terminal = std::io::stderr().is_terminal();
        if !terminal {
            eprintln!("fetching {label}");
        }
        Self {
            label,
            started: Instant::now(),
            shown: Instant::now(),
            terminal,
        }
    }

    /// `done` bytes have come, of `total` where that is known.
    pub(super) fn show(&mut self, done: u64, total: Option<u64>) {
        let pause = if self.terminal {
            Duration::from_millis(200)
        } else {
            Duration::from_secs(10)
        };
        if self.shown.elapsed() < pause {
            return;
        }
        self.shown = Instant::now();
        let total = total.map_or(String::new(), |total| format!(" of {}", megabytes(total)));
        let line = format!(
            "{}: {}{total}, {} s",
            self.label,
            megabytes(done),
            self.started.elapsed().as_secs()
        );
        let mut stderr = std::io::stderr();
        // Progress is no reason to fail.
        let _ = if self.terminal {
            write!(stderr, "\r\x1b[K{line}")
        } else {
            writeln!(stderr, "{line}")
        };
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
