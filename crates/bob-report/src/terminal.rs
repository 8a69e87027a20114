//! The report for a terminal: as wide as it is, and readable without colour.

use bob_stats::RankReport;

use crate::Battle;
use crate::markdown::summary;
use crate::number::{p_value, rank, rank_interval, z};
use crate::table::{self, Column, Table};

/// What every output says where there is nothing to show.
pub(crate) const NO_RECORDS: &str = "No records to rank; run `cargo xtask bench-all` first";

/// Narrowest table; below it lines wrap, which loses nothing.
const NARROWEST: usize = 40;

/// Texts are not cut below this.
const SHORTEST_TEXT: usize = 12;

/// The battle as text of at most `width` columns: the ranking, the best of every setting, correlations, warnings.
///
/// Where the ranking does not fit, its least important columns are left out and a line says which.
pub fn terminal(battle: &Battle, width: usize, colour: bool) -> String {
    let style = Style { colour };
    let mut text = String::new();
    if let Some(line) = battle.fixtures_line() {
        text.push_str(&format!("{}\n\n", style.bold(line)));
    }
    text.push_str(&format!("{}\n", style.bold(&plain(&battle.title))));
    if battle.contenders.is_empty() {
        text.push_str(&format!("{NO_RECORDS}\n"));
        return text;
    }
    text.push_str(&format!("{}\n\n", style.dim(&summary(battle))));
    text.push_str(&render(table::ranking(battle), width, style));
    for table in [table::leaders(battle), table::correlations(battle)] {
        if !table.rows.is_empty() {
            text.push_str(&format!("\n{}", render(table, width, style)));
        }
    }
    if !battle.warnings.is_empty() {
        text.push('\n');
    }
    for warning in &battle.warnings {
        text.push_str(&format!("{} {}\n", style.bold("warning:"), plain(warning)));
    }
    text
}

/// The ranking of anybody's table of scores as text of at most `width` columns.
pub fn terminal_ranks(report: &RankReport, width: usize, colour: bool) -> String {
    let style = Style { colour };
    let number = |title: &str, expendable| Column {
        title: title.to_owned(),
        number: true,
        expendable,
    };
    let backbone = Column {
        title: "backbone".to_owned(),
        number: false,
        expendable: 0,
    };
    let mut columns = vec![
        number("rank", 0),
        number("interval", 1),
        backbone,
        number("mean z", 0),
        number("settings", 2),
    ];
    let settings = report.backbones.first().map_or(&[][..], |first| &first.z);
    columns.extend(settings.iter().map(|(setting, _)| number(setting, 3)));
    let rows = report.backbones.iter().map(|ranked| {
        let mut row = vec![
            rank(ranked.rank),
            rank_interval(ranked.rank_low, ranked.rank_high),
            ranked.backbone.clone(),
            z(ranked.mean_z),
            ranked.coverage.to_string(),
        ];
        row.extend(ranked.z.iter().map(|(_, score)| score.map_or(String::new(), z)));
        row
    });
    let mut text = render(
        Table {
            rows: rows.collect(),
            columns,
        },
        width,
        style,
    );
    if !report.correlations.is_empty() {
        let column = |title: &str, number| Column {
            title: title.to_owned(),
            number,
            expendable: 0,
        };
        let columns = vec![
            column("between", false),
            column("and", false),
            column("Spearman ρ", true),
            column("p", true),
        ];
        let rows = report.correlations.iter().map(|pair| {
            let rho = pair.spearman.map_or(String::new(), |rho| format!("{rho:+.2}"));
            vec![
                pair.a.clone(),
                pair.b.clone(),
                rho,
                pair.p_value.map_or(String::new(), |p| p_value(p, pair.n)),
            ]
        });
        text.push_str(&format!(
            "\n{}",
            render(
                Table {
                    rows: rows.collect(),
                    columns
                },
                width,
                style
            )
        ));
    }
    text
}

/// How lines stand out, where they may.
#[derive(Clone, Copy)]
struct Style {
    colour: bool,
}

impl Style {
    fn bold(self, text: &str) -> String {
        self.wrap(text, "1")
    }

    fn dim(self, text: &str) -> String {
        self.wrap(text, "2")
    }

    fn wrap(self, text: &str, code: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

fn render(mut table: Table, width: usize, style: Style) -> String {
    let width = width.max(NARROWEST);
    for row in &mut table.rows {
        for cell in row {
            *cell = plain(cell);
        }
    }
    let mut left_out = Vec::new();
    while total(&widths(&table)) > width {
        let Some((index, _)) = table
            .columns
            .iter()
            .enumerate()
            .filter(|(_, column)| column.expendable > 0)
            .max_by_key(|(index, column)| (column.expendable, *index))
        else {
            break;
        };
        left_out.insert(0, table.columns.remove(index).title);
        for row in &mut table.rows {
            row.remove(index);
        }
    }
    let mut widths = widths(&table);
    // What still does not fit is cut from the longest text, a character at a time.
    while total(&widths) > width {
        let texts = widths
            .iter_mut()
            .zip(&table.columns)
            .filter(|(_, column)| !column.number);
        match texts.map(|(width, _)| width).max() {
            Some(longest) if *longest > SHORTEST_TEXT => *longest -= 1,
            _ => break,
        }
    }
    let line = |cells: Vec<&str>| {
        let cells = cells
            .iter()
            .zip(&table.columns)
            .zip(&widths)
            .map(|((cell, column), &width)| {
                let cell = shorten(cell, width);
                if column.number {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let header = line(table.columns.iter().map(|column| column.title.as_str()).collect());
    let mut text = format!("{}\n", style.bold(&header));
    for row in &table.rows {
        text.push_str(&format!("{}\n", line(row.iter().map(String::as_str).collect())));
    }
    if !left_out.is_empty() {
        text.push_str(&format!(
            "{}\n",
            style.dim(&format!("not shown for want of room: {}", left_out.join(", ")))
        ));
    }
    text
}

fn widths(table: &Table) -> Vec<usize> {
    let width = |index: usize, column: &Column| {
        let cells = table.rows.iter().map(|row| row[index].chars().count());
        cells.max().unwrap_or(0).max(column.title.chars().count())
    };
    table
        .columns
        .iter()
        .enumerate()
        .map(|(index, column)| width(index, column))
        .collect()
}

fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)
}

fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars()
        .take(width.saturating_sub(1))
        .chain(std::iter::once('…'))
        .collect()
}

/// Text without control characters: a name must not move the cursor.
fn plain(text: &str) -> String {
    text.chars()
        .map(|character| if character.is_control() { '\u{FFFD}' } else { character })
        .collect()
}
