//! A line on stderr that says how far a cell is: rewritten in place on a terminal, now and then elsewhere.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// Seconds between two lines where stderr is no terminal.
const PLAIN: Duration = Duration::from_secs(10);
/// Seconds between two drawings on a terminal.
const DRAWN: Duration = Duration::from_millis(100);

/// Progress of one thing of known length.
pub struct Progress {
    label: String,
    total: usize,
    start: Instant,
    shown: Instant,
    terminal: bool,
    drawn: bool,
}

impl Progress {
    /// Nothing of `total` done.
    pub fn new(label: impl Into<String>, total: usize) -> Self {
        let now = Instant::now();
        Self {
            label: label.into(),
            total,
            start: now,
            shown: now,
            terminal: stderr().is_terminal(),
            drawn: false,
        }
    }

    /// `done` are done.
    pub fn show(&mut self, done: usize) {
        if self.shown.elapsed() < if self.terminal { DRAWN } else { PLAIN } {
            return;
        }
        self.shown = Instant::now();
        let rate = done as f64 / self.start.elapsed().as_secs_f64();
        let Self { label, total, .. } = self;
        if self.terminal {
            // Narrow on purpose: a line that wraps cannot be rewritten.
            eprint!("\r\x1b[K  {label}: {done} of {total} images, {rate:.1}/s");
            let _ = stderr().flush();
            self.drawn = true;
        } else {
            eprintln!("  {label}: {done} of {total} images, {rate:.1}/s");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn {
            eprint!("\r\x1b[K");
        }
    }
}
