//! `bench-all`: plan the cells, run what is not done, one process each, and report.

pub mod cell;
mod plan;
mod profile;
mod run;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use bob_core::device::{BackendName, select};
use bob_stats::read_all;

use crate::args::BenchAll;
use crate::worker::provide::Store;
use crate::{places, report};
use plan::{Plan, State};
use profile::Profile;
use run::{Ending, run_cell};

/// Exit code after Ctrl-C: 128 and the number of SIGINT.
const INTERRUPTED: u8 = 130;

/// Run the battle.
pub fn run(args: &BenchAll) -> Result<ExitCode> {
    let backend: BackendName = args.backend.as_str().parse()?;
    select(backend)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::SeqCst)).context("Ctrl-C cannot be handled")?;

    let results = places::results(args.results.as_deref())?;
    let store = Store::new(args.fixtures)?;
    let plan = plan(args, &store, &results)?;
    plan.announce();
    if args.dry_run {
        for cell in &plan.cells {
            println!("{}", cell.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    battle(args, &plan, &results, &interrupted)
}

/// The plan of what is asked; of the quick profile on the repository's own images where no data set can be had.
fn plan(args: &BenchAll, store: &Store, results: &Path) -> Result<Plan> {
    if args.fixtures {
        return plan_on_fixtures(args, store, results, &[]);
    }
    let profile = Profile::open(args)?;
    let plan = Plan::make(args, &profile, store, results, false)?;
    let asks_for_data = !args.dataset.is_empty() || !args.images.is_empty();
    if profile.is_built_in() && !asks_for_data && plan.is_without_data() {
        return plan_on_fixtures(args, &Store::new(true)?, results, &plan.missing_data);
    }
    plan.checked(args)
}

fn plan_on_fixtures(args: &BenchAll, store: &Store, results: &Path, reasons: &[String]) -> Result<Plan> {
    eprintln!(
        "on fixtures: the repository's own images, which show that the path works and not which backbone is better; \
         every record says so"
    );
    for reason in reasons {
        eprintln!("{reason}");
    }
    Plan::make(args, &Profile::fixtures(args, store)?, store, results, true)?.checked(args)
}

fn battle(args: &BenchAll, plan: &Plan, results: &Path, interrupted: &AtomicBool) -> Result<ExitCode> {
    let mut failures: Vec<(String, String)> = Vec::new();
    let to_run = plan
        .cells
        .iter()
        .filter(|cell| matches!(cell.state, State::ToRun))
        .count();
    let (mut started, mut finished) = (0, 0);
    let mut stopped = false;
    for cell in &plan.cells {
        let failure = match &cell.state {
            State::Done => continue,
            State::Broken(reason) => reason.clone(),
            State::ToRun => {
                started += 1;
                eprintln!("[{started}/{to_run}] {}", cell.name);
                match run_cell(cell, interrupted)? {
                    Ending::Finished(line) => {
                        finished += 1;
                        eprintln!("  {line}");
                        summarise(plan, results)?;
                        continue;
                    }
                    Ending::Interrupted => return Ok(say_interrupted(plan, finished)),
                    Ending::Failed(reason) => reason,
                }
            }
        };
        eprintln!("  failed: {}: {failure}", cell.name);
        failures.push((
            cell.name.clone(),
            format!("{failure}\n  repeat it with `{}`", run::command_line(&cell.args)),
        ));
        if !args.keep_going {
            stopped = true;
            break;
        }
    }
    conclude(plan, results, &failures, stopped)
}

fn say_interrupted(plan: &Plan, finished: usize) -> ExitCode {
    let done = plan
        .cells
        .iter()
        .filter(|cell| matches!(cell.state, State::Done))
        .count()
        + finished;
    eprintln!("interrupted: {done} of {} cells are done and kept", plan.cells.len());
    eprintln!("hint: run the same command again to go on");
    ExitCode::from(INTERRUPTED)
}

/// Failures, then the ranking, then where the report is.
fn conclude(plan: &Plan, results: &Path, failures: &[(String, String)], stopped: bool) -> Result<ExitCode> {
    if !failures.is_empty() {
        eprintln!("\n{} of {} cells failed:", failures.len(), plan.cells.len());
    }
    for (name, reason) in failures {
        eprintln!("{name}: {reason}");
    }
    if stopped {
        eprintln!("hint: --keep-going runs the other cells after a failure");
    }
    let (battle, files) = summarise(plan, results)?;
    report::print(&battle)?;
    for file in files {
        eprintln!("written: `{}`", file.display());
    }
    Ok(if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Write the report of all records in the folder that are of this run's kind: on real images, or on fixtures.
fn summarise(plan: &Plan, results: &Path) -> Result<(bob_report::Battle, Vec<PathBuf>)> {
    // What cannot be read was said in the plan, or is no cell of this run.
    let (mut records, _) = read_all(results);
    records.retain(|record| plan.kinds.contains(&record.data.fixtures));
    report::write(&records, Vec::new(), &places::report(results))
}
