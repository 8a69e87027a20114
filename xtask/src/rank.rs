//! `rank`: z-scores, ranks and correlations of anybody's table.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use bob_stats::{RankReport, RankingOptions, ScoreTable};

use crate::args::Rank;
use crate::launch::Usage;
use crate::report::{colour, put, width};

/// Rank the table and print it.
pub fn run(args: &Rank) -> Result<ExitCode> {
    let file = args.scores.display();
    let text = fs::read(&args.scores).map_err(|error| Usage(format!("`{file}`: {error}")))?;
    let table = ScoreTable::from_csv(&text).map_err(|error| Usage(format!("`{file}`: {error}")))?;
    let options = RankingOptions {
        ddof: usize::from(args.ddof),
        ..RankingOptions::default()
    };
    let report = RankReport::new(&table, options).with_context(|| format!("`{file}`"))?;
    let text = if args.json {
        format!("{}\n", serde_json::to_string_pretty(&report)?)
    } else {
        bob_report::terminal_ranks(&report, width(), colour())
    };
    put(&text)?;
    Ok(ExitCode::SUCCESS)
}
