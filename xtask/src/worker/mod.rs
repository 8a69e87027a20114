//! The verbs that need a tensor library: this program built with a backend.

mod battle;
mod battle_table;
mod candidate;
mod environment;
mod extract;
mod images;
mod list;
mod measure;
mod progress;
mod protocol;
mod provide;

use std::process::ExitCode;

use anyhow::Result;

use crate::args::Verb;

/// Do what `verb` says.
pub fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::BenchAll(args) => battle::run(&args),
        Verb::Cell(args) => battle::cell::run(&args),
        Verb::List(args) => list::run(&args),
        Verb::Fetch(args) => provide::run(&args),
        Verb::Extract(args) => extract::run(&args),
        Verb::Measure(args) => measure::run(&args),
        Verb::Report(_) | Verb::Rank(_) | Verb::Setup(_) | Verb::Tidy => {
            unreachable!("the light driver does these itself")
        }
    }
}
