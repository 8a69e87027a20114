//! Records in; a terminal table, CSV, Markdown, JSON and one self-contained HTML page out.
//!
//! This crate knows no tensors. [`Battle::from_records`] judges the records once (what enters the ranking, what is
//! averaged, what must be warned of); every output is a function of the [`Battle`] alone, so the outputs agree, and the
//! same records give the same bytes.
//!
//! # How numbers are shown
//!
//! * Scores are raw, shares in \[0, 1\], with four significant digits: a table whose columns are shares, reciprocal ranks
//!   and milliseconds reads more safely without percent signs on some of them.
//! * `value ± half`: half the width of the bootstrap interval, with as many decimals as the value. Near the ends of a
//!   scale an interval is lopsided; CSV, JSON and the page's tables of single settings give its two ends.
//! * z-scores have a sign and two decimals, better is always more.
//! * Counts have SI prefixes, memory binary ones.

mod battle;
mod csv;
mod html;
mod markdown;
mod number;
mod table;
mod terminal;

pub use battle::{
    Battle, BattleError, BattleOptions, Cell, Contender, CostCorrelation, Fixtures, Images, Import, SettingResults,
    Site, TaskCorrelation, Weights,
};
pub use csv::{csv, ranking_csv};
pub use html::html;
pub use markdown::markdown;
pub use terminal::{terminal, terminal_ranks};

/// The whole battle as JSON, pretty-printed, with a newline at its end.
pub fn json(battle: &Battle) -> String {
    let mut text = serde_json::to_string_pretty(battle).expect("a battle has string keys and finite numbers");
    text.push('\n');
    text
}
