//! Seconds by operation, while somebody asks.
//!
//! The clock runs around each operation of this crate on a backend that computes at once (`flex`, and `tch` on the
//! processor). It is off unless [`start`] was called, and one for the whole process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

static ON: AtomicBool = AtomicBool::new(false);
static TIMES: Mutex<BTreeMap<&'static str, Times>> = Mutex::new(BTreeMap::new());

#[derive(Clone, Copy, Default)]
struct Times {
    calls: u64,
    forward: f64,
    backward: f64,
}

/// What one kind of operation took between [`start`] and [`stop`].
#[derive(Clone, Debug, PartialEq)]
pub struct OperationTime {
    /// The operation, for example `linear`.
    pub name: &'static str,
    /// Forward passes through it.
    pub calls: u64,
    /// Seconds of the forward passes.
    pub forward: f64,
    /// Seconds of the backward passes.
    pub backward: f64,
}

impl OperationTime {
    /// Seconds of both.
    pub fn total(&self) -> f64 {
        self.forward + self.backward
    }
}

/// Begin to measure, from zero.
pub fn start() {
    TIMES.lock().unwrap_or_else(PoisonError::into_inner).clear();
    ON.store(true, Ordering::SeqCst);
}

/// End it: every operation that ran, the slowest first.
pub fn stop() -> Vec<OperationTime> {
    ON.store(false, Ordering::SeqCst);
    let times = std::mem::take(&mut *TIMES.lock().unwrap_or_else(PoisonError::into_inner));
    let mut found: Vec<_> = times
        .into_iter()
        .map(|(name, times)| OperationTime {
            name,
            calls: times.calls,
            forward: times.forward,
            backward: times.backward,
        })
        .collect();
    found.sort_by(|a, b| b.total().total_cmp(&a.total()));
    found
}

/// Whether an operation runs to give its result or its gradients.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    Forward,
    Backward,
}

/// Run `f`, a `pass` of the operation `name`.
pub(crate) fn timed<R>(name: &'static str, pass: Pass, f: impl FnOnce() -> R) -> R {
    if !ON.load(Ordering::Relaxed) {
        return f();
    }
    let start = Instant::now();
    let result = f();
    let seconds = start.elapsed().as_secs_f64();
    let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = times.entry(name).or_default();
    match pass {
        Pass::Forward => {
            entry.calls += 1;
            entry.forward += seconds;
        }
        Pass::Backward => entry.backward += seconds,
    }
    result
}
