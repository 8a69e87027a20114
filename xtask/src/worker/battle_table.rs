//! The rows of the battle as Markdown: a table of checkpoints, and what else differs as released.

use std::fmt::Write;

use bob_core::Preprocess;
use bob_models::{BattleRow, BattleTask, Released};

/// The table and the list.
pub fn markdown(rows: &[BattleRow]) -> String {
    let titles = BattleTask::ALL.map(BattleTask::title).join(" | ");
    let mut text = format!("| # | backbone | pretraining | as corrected | {titles} |\n|---|---|---|---|");
    text.push_str(&"---|".repeat(BattleTask::ALL.len()));
    text.push('\n');
    for row in rows {
        let number = row.number.map(|number| number.to_string()).unwrap_or_default();
        let cells: Vec<String> = row.as_released.iter().map(|one| cell(row, one)).collect();
        let _ = writeln!(
            text,
            "| {number} | {} | {} | `{}` | {} |",
            row.name,
            style(row),
            row.as_corrected.checkpoint,
            cells.join(" | ")
        );
    }
    text.push('\n');
    for row in rows {
        let mut notes = Vec::new();
        if !is_as_released(row) {
            notes.push(format!("as corrected: {}", row.as_corrected.reason));
        }
        // Tasks of which the same is to be said, in the order of the first of them.
        let mut said: Vec<(String, Vec<&str>)> = Vec::new();
        for released in &row.as_released {
            for note in remarks(released) {
                match said.iter_mut().find(|(other, _)| *other == note) {
                    Some((_, tasks)) => tasks.push(released.task.title()),
                    None => said.push((note, vec![released.task.title()])),
                }
            }
        }
        notes.extend(
            said.into_iter()
                .map(|(note, tasks)| format!("{}: {note}", tasks.join(", "))),
        );
        if !notes.is_empty() {
            let _ = writeln!(text, "* **{}**: {}.", row.name, notes.join("; "));
        }
    }
    text
}

/// Whether the corrected checkpoint is what all tasks had that were run, which goes without saying.
fn is_as_released(row: &BattleRow) -> bool {
    let mut ran = row
        .as_released
        .iter()
        .filter_map(|released| released.checkpoint)
        .peekable();
    ran.peek().is_some() && ran.all(|name| name == row.as_corrected.checkpoint)
}

fn style(row: &BattleRow) -> String {
    let value = serde_json::to_value(row.style).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

fn cell(row: &BattleRow, released: &Released) -> String {
    match released.checkpoint {
        Some(name) if name == row.as_corrected.checkpoint => "same".to_owned(),
        Some(name) => format!("`{name}`"),
        None => "none".to_owned(),
    }
}

fn remarks(released: &Released) -> Vec<String> {
    let prepared = released.preprocess.as_ref().map(prepared);
    prepared
        .into_iter()
        .chain(released.notes.iter().map(|&note| note.to_owned()))
        .collect()
}

/// `224 of 256 pixels, ImageNet's statistics`; every released preprocessing is bicubic and crops the centre.
fn prepared(preprocess: &Preprocess) -> String {
    let side = preprocess.input_size[0];
    let resized = (side as f64 / preprocess.crop_pct).floor();
    let statistics = match preprocess.mean {
        Preprocess::IMAGENET_MEAN => "ImageNet's statistics",
        Preprocess::CLIP_MEAN => "CLIP's statistics",
        _ => "statistics of 0.5",
    };
    format!("{side} of {resized} pixels, {statistics}")
}
