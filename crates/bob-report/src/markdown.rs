//! The report for a repository: tables that GitHub renders, nothing else.

use bob_stats::Overall;

use crate::number::{date, duration, plural};
use crate::table::{self, Table};
use crate::{Battle, terminal};

/// The battle in Markdown: ranking, scores per setting, correlations, provenance.
pub fn markdown(battle: &Battle) -> String {
    let mut page = String::new();
    if let Some(line) = battle.fixtures_line() {
        page.push_str(&format!("**{line}.**\n\n"));
    }
    page.push_str(&format!("# {}\n\n", escape(&battle.title)));
    if battle.contenders.is_empty() {
        page.push_str(&format!("{}.\n", terminal::NO_RECORDS));
        return page;
    }
    page.push_str(&format!("{}.\n", escape(&summary(battle))));
    for warning in &battle.warnings {
        page.push_str(&format!("\n> {}\n", code_spans(&sentence(warning))));
    }
    let sections = [
        ("Ranking", table::ranking(battle)),
        ("Scores", table::scores(battle)),
        ("Correlations", table::correlations(battle)),
        ("Machines and programs", table::environments(battle)),
        ("Weights, data and protocols", table::hashes(battle)),
    ];
    for (heading, table) in sections
        .iter()
        .filter(|(_, table)| !table.rows.is_empty() && table.columns.len() > 1)
    {
        page.push_str(&format!("\n## {heading}\n\n{}", render(table)));
    }
    page.push_str(&NOTES.replace("{mean_z}", mean_z_note(battle)));
    page
}

const NOTES: &str = "
## How to read this

* A z-score says how many standard deviations a backbone lies above the mean of all backbones in a setting; better is more.
* {mean_z}; a missing setting is left out.
* The interval of a rank is a bootstrap over settings: how far the rank moves with the choice of settings.
* `±` is half the bootstrap interval over the test set's items, at the 95 % level unless the protocol says otherwise.
* Speed and size are costs; they do not enter the ranking.
";

/// What the overall score is the mean of.
pub(crate) fn mean_z_note(battle: &Battle) -> &'static str {
    match battle.ranking.overall {
        Overall::TaskMeans => "Mean z is the mean of the task means, each over the settings that a backbone has",
        Overall::Settings => "Mean z is the mean over all settings that a backbone has",
    }
}

/// What the battle was, in a sentence without its full stop.
pub(crate) fn summary(battle: &Battle) -> String {
    let tasks = battle.tasks().len();
    let ranked = battle
        .contenders
        .iter()
        .filter(|contender| contender.place.is_some())
        .count();
    let mut summary = format!(
        "{} in {} of {} from {}",
        plural(ranked, "backbone"),
        plural(battle.settings.len(), "setting"),
        plural(tasks, "task"),
        plural(battle.records, "record"),
    );
    if let Some((first, last)) = battle.started_unix {
        let (first, last) = (date(first), date(last));
        let when = if first == last {
            first
        } else {
            format!("{first} to {last}")
        };
        summary.push_str(&format!(", run {when} in {}", duration(battle.wall_seconds)));
    }
    summary
}

fn render(table: &Table) -> String {
    let mut text = String::new();
    let mut line = |cells: Vec<String>| text.push_str(&format!("| {} |\n", cells.join(" | ")));
    line(table.columns.iter().map(|column| escape(&column.title)).collect());
    line(
        table
            .columns
            .iter()
            .map(|column| if column.number { "---:" } else { "---" }.to_owned())
            .collect(),
    );
    for row in &table.rows {
        line(row.iter().map(|cell| escape(cell)).collect());
    }
    text
}

/// A message as a sentence.
pub(crate) fn sentence(message: &str) -> String {
    let mut characters = message.chars();
    match characters.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), characters.as_str()),
        None => String::new(),
    }
}

/// Escaped text in which what stands between backticks stays code.
fn code_spans(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    // A lone backtick belongs to a name.
    if parts.len().is_multiple_of(2) {
        return escape(text);
    }
    let span = |(index, part): (usize, &&str)| match index % 2 {
        0 => escape(part),
        _ => format!("`{}`", part.replace(char::is_control, " ")),
    };
    parts.iter().enumerate().map(span).collect()
}

/// Text that Markdown shows as it is.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\\' | '|' | '*' | '[' | ']' | '`' => escaped.extend(['\\', character]),
            _ if character.is_control() => escaped.push(' '),
            _ => escaped.push(character),
        }
    }
    escaped
}
