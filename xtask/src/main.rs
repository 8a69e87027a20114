//! The driver of the battle: `cargo xtask VERB`.
//!
//! Light by default: what needs no tensor library (reports, rankings, set-up, the tidy checks) runs here. The other
//! verbs are handed to the *worker*, this same program built in release with the backend that is asked for.
//! stdout is data, stderr is talk; exit code 0 is good, 1 a failure, 2 a mistake in what was asked.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the driver is the one program that talks"
)]

mod args;
#[cfg(feature = "worker")]
mod fetch;
#[cfg(not(feature = "worker"))]
mod handover;
mod launch;
mod places;
mod rank;
mod report;
mod setup;
mod tidy;
#[cfg(feature = "worker")]
mod worker;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Verb};
#[cfg(not(feature = "worker"))]
use handover as worker;

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Report(args) => report::run(&args),
        Verb::Rank(args) => rank::run(&args),
        Verb::Setup(args) => setup::run(&args),
        Verb::Tidy => tidy::run(),
        verb => worker::run(verb),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        if launch::is_usage(&error) {
            ExitCode::from(2)
        } else {
            ExitCode::FAILURE
        }
    })
}
