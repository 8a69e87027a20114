//! The tables of a report, as text cells, before anyone lays them out.

use crate::number::{arrow, bytes, p_value, rank, rank_interval, si, significant, with_interval, z};
use crate::{Battle, Cell, Images, SettingResults, Weights};

/// One column.
pub(crate) struct Column {
    /// Its heading.
    pub(crate) title: String,
    /// Whether it holds numbers, which are set to the right.
    pub(crate) number: bool,
    /// Where room is short, columns with the highest number go first; 0 stays.
    pub(crate) expendable: u8,
}

/// Text cells; the first column that is not a number names the row.
pub(crate) struct Table {
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    fn new() -> Self {
        Self {
            columns: Vec::new(),
            rows: Vec::new(),
        }
    }

    fn text(mut self, title: impl Into<String>, expendable: u8) -> Self {
        self.columns.push(Column {
            title: title.into(),
            number: false,
            expendable,
        });
        self
    }

    fn number(mut self, title: impl Into<String>, expendable: u8) -> Self {
        self.columns.push(Column {
            title: title.into(),
            number: true,
            expendable,
        });
        self
    }

    /// Leaves out columns without any content.
    fn without_empty(mut self) -> Self {
        for column in (0..self.columns.len()).rev() {
            if self.rows.iter().all(|row| row[column].is_empty()) {
                self.columns.remove(column);
                for row in &mut self.rows {
                    row.remove(column);
                }
            }
        }
        self
    }

    /// The column that names a row.
    pub(crate) fn name_column(&self) -> usize {
        self.columns.iter().position(|column| !column.number).unwrap_or(0)
    }
}

/// The ranking: place, score, and what each backbone costs.
pub(crate) fn ranking(battle: &Battle) -> Table {
    let tasks = battle.tasks();
    let mut table = Table::new()
        .number("rank", 0)
        .number("interval", 2)
        .text("backbone", 0)
        .number("mean z", 0);
    // The only task is the overall score.
    if tasks.len() > 1 {
        for task in &tasks {
            table = table.number(*task, 3);
        }
    }
    table = table
        .number("settings", 5)
        .text("pretraining", 6)
        .number("parameters", 4)
        .number("MACs", 6)
        .number("latency p50, ms", 4)
        .number("images/s", 5)
        .number("peak memory", 7)
        .text("strongest in", 8);
    for contender in &battle.contenders {
        let place = contender.place.as_ref();
        let mut row = vec![
            place.map_or(String::new(), |place| rank(place.rank)),
            place.map_or(String::new(), |place| rank_interval(place.rank_low, place.rank_high)),
            contender.backbone.clone(),
            place.map_or(String::new(), |place| z(place.mean_z)),
        ];
        if tasks.len() > 1 {
            row.extend(
                tasks
                    .iter()
                    .map(|task| optional(place.and_then(|place| place.task_z.get(*task)), |score| z(*score))),
            );
        }
        row.extend([
            place.map_or(String::new(), |place| {
                format!("{} of {}", place.coverage, battle.settings.len())
            }),
            match (contender.style.as_deref(), contender.pretraining_data.as_deref()) {
                (Some("random"), _) => "random".to_owned(),
                (Some(style), Some(data)) => format!("{style}, {data}"),
                _ => String::new(),
            },
            optional(contender.parameters, |count| si(count as f64)),
            optional(contender.macs, |count| si(count as f64)),
            optional(contender.latency_p50_ms.as_ref(), with_interval),
            optional(contender.images_per_second.as_ref(), with_interval),
            optional(contender.peak_memory_bytes, bytes),
            contender.strongest.clone().unwrap_or_default(),
        ]);
        table.rows.push(row);
    }
    table.without_empty()
}

/// Every setting with its best backbone.
pub(crate) fn leaders(battle: &Battle) -> Table {
    let mut table = Table::new()
        .text("setting", 0)
        .text("metric", 4)
        .text("best backbone", 0)
        .number("value", 0)
        .number("n", 5);
    for setting in &battle.settings {
        if let Some((backbone, cell)) = sorted(setting).first() {
            table.rows.push(vec![
                setting_label(setting),
                metric_label(setting),
                (*backbone).clone(),
                with_interval(cell),
                optional(cell.n, |n| n.to_string()),
            ]);
        }
    }
    table
}

/// Backbones by settings, `value ± interval`.
pub(crate) fn scores(battle: &Battle) -> Table {
    let mut table = Table::new().text("backbone", 0);
    for setting in &battle.settings {
        table = table.number(format!("{}, {}", setting_label(setting), metric_label(setting)), 1);
    }
    for contender in battle.contenders.iter().filter(|contender| contender.place.is_some()) {
        let cells = battle
            .settings
            .iter()
            .map(|setting| optional(setting.cells.get(&contender.backbone), with_interval));
        table
            .rows
            .push(std::iter::once(contender.backbone.clone()).chain(cells).collect());
    }
    table
}

/// One setting, best backbone first.
pub(crate) fn setting(setting: &SettingResults) -> Table {
    let mut table = Table::new()
        .text("backbone", 0)
        .number("value", 0)
        .number("from", 1)
        .number("to", 1)
        .number("n", 2)
        .number("seeds", 3)
        .number("seed deviation", 3)
        .number("z", 0);
    for (backbone, cell) in sorted(setting) {
        table.rows.push(vec![
            backbone.clone(),
            with_interval(cell),
            optional(cell.low, significant),
            optional(cell.high, significant),
            optional(cell.n, |n| n.to_string()),
            cell.seeds.to_string(),
            optional(cell.seed_deviation, significant),
            optional(cell.z, z),
        ]);
    }
    table.without_empty()
}

/// How tasks agree, and how quality goes with costs.
pub(crate) fn correlations(battle: &Battle) -> Table {
    let mut table = Table::new()
        .text("between", 0)
        .text("and", 0)
        .number("Spearman ρ", 0)
        .number("p", 0)
        .number("backbones", 1);
    for pair in &battle.task_correlations {
        let numbers = [
            format!("{:+.2}", pair.spearman),
            p_value(pair.p_value, pair.n),
            pair.n.to_string(),
        ];
        table
            .rows
            .push([pair.a.clone(), pair.b.clone()].into_iter().chain(numbers).collect());
    }
    for pair in &battle.cost_correlations {
        let numbers = [
            format!("{:+.2}", pair.spearman),
            p_value(pair.p_value, pair.n),
            pair.n.to_string(),
        ];
        table.rows.push(
            ["overall mean z".to_owned(), cost_label(&pair.cost)]
                .into_iter()
                .chain(numbers)
                .collect(),
        );
    }
    table.without_empty()
}

/// Machines and programs.
pub(crate) fn environments(battle: &Battle) -> Table {
    let mut table = Table::new()
        .text("commit", 0)
        .text("backend", 0)
        .text("adapter", 0)
        .text("dtype", 0)
        .number("threads", 0)
        .text("host", 0)
        .text("heap", 1)
        .text("JPEG decoder", 1)
        .text("bob", 1)
        .text("burn", 1)
        .number("records", 0);
    for site in &battle.environments {
        let environment = &site.environment;
        let commit = if environment.commit.is_empty() {
            "unknown"
        } else {
            short(&environment.commit)
        };
        table.rows.push(vec![
            format!(
                "{commit}{}",
                if environment.dirty {
                    ", with uncommitted changes"
                } else {
                    ""
                }
            ),
            environment.backend.clone(),
            environment.adapter.clone(),
            environment.dtype.clone(),
            environment.threads.to_string(),
            environment.host.clone(),
            environment.heap.clone(),
            environment.jpeg.clone(),
            environment.bob_version.clone(),
            environment.burn_version.clone(),
            site.records.to_string(),
        ]);
    }
    table
}

/// What ran: weights, data and protocols with the start of their hashes.
pub(crate) fn hashes(battle: &Battle) -> Table {
    let mut table = Table::new()
        .text("name", 0)
        .text("kind", 0)
        .text("SHA-256", 0)
        .text("notes", 1);
    let mut row = |kind: &str, name: &str, hash: &str, note: String| {
        table
            .rows
            .push(vec![name.to_owned(), kind.to_owned(), short(hash).to_owned(), note]);
    };
    for (name, hashes) in &battle.checkpoints {
        for Weights { sha256, folded } in hashes {
            let note = if *folded {
                "batch norm folded"
            } else {
                "batch norm not folded"
            };
            row("weights", name, sha256, note.to_owned());
        }
    }
    for (name, hashes) in &battle.datasets {
        for Images {
            manifest_sha256,
            counts,
        } in hashes
        {
            let counts: Vec<String> = counts.iter().map(|(split, count)| format!("{split} {count}")).collect();
            row("data", name, manifest_sha256, counts.join(", "));
        }
    }
    for (name, hashes) in &battle.protocols {
        for hash in hashes {
            row("protocol", name, hash, String::new());
        }
    }
    table
}

/// A setting's cells, best first, ties by name.
fn sorted(setting: &SettingResults) -> Vec<(&String, &Cell)> {
    let mut cells: Vec<_> = setting.cells.iter().collect();
    let z = |cell: &Cell| cell.z.unwrap_or(f64::NEG_INFINITY);
    cells.sort_by(|(_, a), (_, b)| z(b).total_cmp(&z(a)));
    cells
}

/// A setting's name, marked where it is on fixtures.
pub(crate) fn setting_label(setting: &SettingResults) -> String {
    format!("{}{}", setting.name, if setting.fixtures { " (fixtures)" } else { "" })
}

/// A metric's name with the arrow that points where it is better.
pub(crate) fn metric_label(setting: &SettingResults) -> String {
    format!("{} {}", setting.metric, arrow(setting.direction))
}

fn cost_label(cost: &str) -> String {
    match cost {
        "macs" => "MACs".to_owned(),
        "latency_p50_ms" => "latency p50".to_owned(),
        "images_per_second" => "images/s".to_owned(),
        other => other.replace('_', " "),
    }
}

/// The first twelve characters of a hash: enough to tell two apart.
fn short(hash: &str) -> &str {
    hash.char_indices().nth(12).map_or(hash, |(end, _)| &hash[..end])
}

fn optional<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or(String::new(), text)
}
