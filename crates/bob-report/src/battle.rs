//! What the records say: settings, contenders, the ranking, and what must be warned of.

mod judge;

use std::collections::{BTreeMap, BTreeSet};

use bob_stats::{
    BootstrapError, Direction, Environment, Metric, RankedBackbone, RankingOptions, Record, ScoreTable, ScoreTableError,
};
use judge::{contenders_of, cost_correlations, imported, judge, mark_pareto, settings_of, task_correlations};
use serde::Serialize;

use crate::number::plural;

/// The task whose metrics are costs: shown beside the ranking, never part of it.
const EFFICIENCY: &str = "efficiency";

/// With fewer settings than this a bootstrap over them has too few outcomes: of four it draws 35 different samples, and
/// a backbone that leads in all of them has no interval at all.
const FEW_SETTINGS: usize = 5;

/// How a battle is judged.
#[derive(Clone, Debug)]
pub struct BattleOptions {
    /// Title of the report.
    pub title: String,
    /// How backbones are ranked.
    pub ranking: RankingOptions,
    /// Tables of scores from elsewhere that are ranked along.
    pub imports: Vec<Import>,
}

impl Default for BattleOptions {
    fn default() -> Self {
        let title = "Battle of the Backbones".to_owned();
        Self {
            title,
            ranking: RankingOptions::default(),
            imports: Vec::new(),
        }
    }
}

/// A table of scores from elsewhere; its columns become settings of a task of that name.
#[derive(Clone, Debug)]
pub struct Import {
    /// Name of the task, for example the file's stem.
    pub name: String,
    /// The scores.
    pub table: ScoreTable,
}

/// Why records are no battle.
#[derive(Debug, thiserror::Error)]
pub enum BattleError {
    /// The scores cannot be ranked.
    #[error("scores cannot be ranked: {0}")]
    Scores(#[from] ScoreTableError),
    /// The ranking's intervals cannot be drawn.
    #[error("ranks have no intervals: {0}")]
    Bootstrap(#[from] BootstrapError),
}

/// How much of a battle is on the repository's own fixtures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fixtures {
    /// Nothing.
    None,
    /// Some records.
    Some,
    /// Every record.
    All,
}

/// One backbone's number in one setting, over all its seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// Mean over seeds.
    pub value: f64,
    /// Lower end of the interval; over several seeds the mean of their lower ends, which is on the wide side.
    pub low: Option<f64>,
    /// Upper end of the interval.
    pub high: Option<f64>,
    /// Level of the interval.
    pub level: Option<f64>,
    /// Number of items it was computed on, the fewest of any seed; absent for imported scores.
    pub n: Option<usize>,
    /// Number of seeds.
    pub seeds: usize,
    /// Standard deviation over seeds (`n - 1`); absent with one seed.
    pub seed_deviation: Option<f64>,
    /// z-score in its setting; absent outside the ranking.
    pub z: Option<f64>,
}

impl Cell {
    /// A number without interval.
    pub(crate) fn of(value: f64) -> Self {
        Self {
            value,
            low: None,
            high: None,
            level: None,
            n: None,
            seeds: 1,
            seed_deviation: None,
            z: None,
        }
    }

    fn over_seeds(metrics: &[&Metric]) -> Self {
        let count = metrics.len() as f64;
        let mean = |f: &dyn Fn(&Metric) -> f64| metrics.iter().map(|metric| f(metric)).sum::<f64>() / count;
        let value = mean(&|metric| metric.value);
        let mut cell = Self {
            seeds: metrics.len(),
            n: metrics.iter().map(|metric| metric.n).min(),
            ..Self::of(value)
        };
        if metrics.len() > 1 {
            let squares: f64 = metrics.iter().map(|metric| (metric.value - value).powi(2)).sum();
            cell.seed_deviation = Some((squares / (count - 1.0)).sqrt());
        }
        // Ends of unlike levels have no mean.
        let level = metrics
            .first()
            .and_then(|metric| metric.interval)
            .map(|interval| interval.level);
        if level.is_some()
            && metrics
                .iter()
                .all(|metric| metric.interval.map(|interval| interval.level) == level)
        {
            cell.level = level;
            cell.low = Some(mean(&|metric| {
                metric.interval.map_or(metric.value, |interval| interval.low)
            }));
            cell.high = Some(mean(&|metric| {
                metric.interval.map_or(metric.value, |interval| interval.high)
            }));
        }
        cell
    }
}

/// What backbones were compared on, and how each did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SettingResults {
    /// Its name: `<protocol>@<version>/<data set>`.
    pub name: String,
    /// Its task.
    pub task: String,
    /// Name of the metric that is ranked.
    pub metric: String,
    /// Which way the metric is better.
    pub direction: Direction,
    /// Whether every backbone has the same score.
    pub flat: bool,
    /// Whether any of its records is on fixtures.
    pub fixtures: bool,
    /// The numbers, by backbone.
    pub cells: BTreeMap<String, Cell>,
}

/// One backbone: its place, what it is, what it costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Contender {
    /// Its name.
    pub backbone: String,
    /// Its place; absent where it was only timed.
    pub place: Option<RankedBackbone>,
    /// Name of the setting in which it has its highest z-score.
    pub strongest: Option<String>,
    /// Pretraining style, `random` for a baseline; absent for imported scores.
    pub style: Option<String>,
    /// Pretraining data.
    pub pretraining_data: Option<String>,
    /// Number of pretraining images, where it is known.
    pub pretraining_images: Option<u64>,
    /// Trainable parameters, classifier included.
    pub parameters: Option<u64>,
    /// Multiply-accumulates of one image.
    pub macs: Option<u64>,
    /// Median latency of one image in milliseconds.
    pub latency_p50_ms: Option<Cell>,
    /// Throughput at the efficiency protocol's batch.
    pub images_per_second: Option<Cell>,
    /// Largest resident memory of the timed process in bytes.
    pub peak_memory_bytes: Option<f64>,
    /// Whether no ranked backbone is both better overall and faster; false where either is unknown.
    pub pareto: bool,
}

/// How the mean z-scores of two tasks agree over backbones.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskCorrelation {
    /// One task.
    pub a: String,
    /// The other.
    pub b: String,
    /// Spearman's coefficient.
    pub spearman: f64,
    /// Two-sided p-value.
    pub p_value: f64,
    /// Number of backbones.
    pub n: usize,
}

/// How the overall z-score goes with a cost or with the size of the pretraining set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CostCorrelation {
    /// `parameters`, `macs`, `latency_p50_ms`, `images_per_second` or `pretraining_images`.
    pub cost: String,
    /// Spearman's coefficient with the overall mean z.
    pub spearman: f64,
    /// Two-sided p-value.
    pub p_value: f64,
    /// Number of backbones.
    pub n: usize,
}

/// One machine and program, and how many records come from it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Site {
    /// The machine and the program.
    pub environment: Environment,
    /// Number of records.
    pub records: usize,
}

/// The weights that a backbone ran with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Weights {
    /// SHA-256 of the weights file, or of the architecture and seed.
    pub sha256: String,
    /// Whether batch norm was folded into the convolutions.
    pub folded: bool,
}

/// The images that a data set stood for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Images {
    /// SHA-256 of the manifests of all splits.
    pub manifest_sha256: String,
    /// Number of images per split.
    pub counts: BTreeMap<String, usize>,
}

/// What the records say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Battle {
    /// Title of the report.
    pub title: String,
    /// How backbones were ranked.
    pub ranking: RankingOptions,
    /// How much of it is on fixtures.
    pub fixtures: Fixtures,
    /// Number of records that entered.
    pub records: usize,
    /// Number of limited records, which did not.
    pub limited: usize,
    /// Backbones: ranked ones first, best first, then those that were only timed.
    pub contenders: Vec<Contender>,
    /// Ranked settings, by task and name.
    pub settings: Vec<SettingResults>,
    /// Agreement between tasks.
    pub task_correlations: Vec<TaskCorrelation>,
    /// Agreement of the overall score with costs.
    pub cost_correlations: Vec<CostCorrelation>,
    /// What a reader must know before comparing.
    pub warnings: Vec<String>,
    /// Machines and programs.
    pub environments: Vec<Site>,
    /// Weights by backbone, more than one where they differ.
    pub checkpoints: BTreeMap<String, BTreeSet<Weights>>,
    /// Images by data set, more than one where they differ.
    pub datasets: BTreeMap<String, BTreeSet<Images>>,
    /// Protocols: `<protocol>@<version>`, and every SHA-256.
    pub protocols: BTreeMap<String, BTreeSet<String>>,
    /// Sum of the records' wall times in seconds.
    pub wall_seconds: f64,
    /// First and last start of a run, seconds since 1970.
    pub started_unix: Option<(u64, u64)>,
}

impl Battle {
    /// Judges the records.
    ///
    /// A setting is the primary metric of a task, protocol and data set. Limited records never enter. Several seeds of
    /// a cell are averaged. Records of the task `efficiency` are costs: BoB ranks quality alone, so they stand beside
    /// the ranking (columns, the plot against latency, the Pareto front) and have no z-score.
    ///
    /// # Errors
    /// A score that is not finite, or bad bootstrap settings.
    pub fn from_records(records: &[Record], options: &BattleOptions) -> Result<Self, BattleError> {
        let (entered, limited): (Vec<&Record>, Vec<&Record>) = records.iter().partition(|record| !record.limited);
        let (costs, scored): (Vec<&Record>, Vec<&Record>) =
            entered.iter().partition(|record| record.cell.task == EFFICIENCY);
        let mut settings = settings_of(&scored);
        settings.extend(options.imports.iter().flat_map(imported));
        let (places, judged) = judge(&mut settings, options.ranking)?;

        let mut contenders = contenders_of(&entered, &costs, places);
        mark_pareto(&mut contenders);
        let on_fixtures = entered.iter().filter(|record| record.data.fixtures).count();
        let mut battle = Self {
            title: options.title.clone(),
            ranking: options.ranking,
            fixtures: match on_fixtures {
                0 => Fixtures::None,
                some if some == entered.len() => Fixtures::All,
                _ => Fixtures::Some,
            },
            records: entered.len(),
            limited: limited.len(),
            task_correlations: task_correlations(&contenders, &judged),
            cost_correlations: cost_correlations(&contenders),
            contenders,
            settings,
            warnings: Vec::new(),
            environments: Vec::new(),
            checkpoints: BTreeMap::new(),
            datasets: BTreeMap::new(),
            protocols: BTreeMap::new(),
            wall_seconds: entered.iter().map(|record| record.wall_seconds).sum(),
            started_unix: entered
                .iter()
                .map(|record| (record.started_unix, record.started_unix))
                .reduce(|(low, high), (start, _)| (low.min(start), high.max(start))),
        };
        battle.note_provenance(&entered);
        battle.warn(&entered, &costs);
        Ok(battle)
    }

    /// The tasks of the ranking, sorted.
    pub fn tasks(&self) -> Vec<&str> {
        let tasks: BTreeSet<&str> = self.settings.iter().map(|setting| setting.task.as_str()).collect();
        tasks.into_iter().collect()
    }

    /// The sentence that comes first where records are on fixtures.
    pub fn fixtures_line(&self) -> Option<&'static str> {
        match self.fixtures {
            Fixtures::None => None,
            Fixtures::All => Some(
                "All records are on the repository's fixtures, a handful of images: they show that the path works, \
                 not which backbone is better",
            ),
            Fixtures::Some => Some(
                "Some records are on the repository's fixtures, a handful of images: settings marked as fixtures say \
                 nothing about which backbone is better",
            ),
        }
    }

    fn note_provenance(&mut self, entered: &[&Record]) {
        for record in entered {
            match self
                .environments
                .iter_mut()
                .find(|site| site.environment == record.environment)
            {
                Some(site) => site.records += 1,
                None => self.environments.push(Site {
                    environment: record.environment.clone(),
                    records: 1,
                }),
            }
            let (cell, checkpoint, data) = (&record.cell, &record.checkpoint, &record.data);
            let weights = self.checkpoints.entry(cell.backbone.clone()).or_default();
            weights.insert(Weights {
                sha256: checkpoint.sha256.clone(),
                folded: checkpoint.folded,
            });
            let images = self.datasets.entry(cell.dataset.clone()).or_default();
            images.insert(Images {
                manifest_sha256: data.manifest_sha256.clone(),
                counts: data.counts.clone(),
            });
            let protocol = self
                .protocols
                .entry(format!("{}@{}", cell.protocol, cell.version))
                .or_default();
            protocol.insert(record.protocol_sha256.clone());
        }
        self.environments.sort_by_key(|site| std::cmp::Reverse(site.records));
    }

    fn warn(&mut self, entered: &[&Record], costs: &[&Record]) {
        let mut warnings = Vec::new();
        if self.limited > 0 {
            let left_out = plural(self.limited, "limited record");
            warnings.push(format!(
                "{left_out} left out: runs that were cut short do not enter a ranking"
            ));
        }
        for (protocol, hashes) in self.protocols.iter().filter(|(_, hashes)| hashes.len() > 1) {
            warnings.push(format!(
                "protocol `{protocol}` was resolved in {} ways; its records differ in more than the backbone",
                hashes.len()
            ));
        }
        for (dataset, hashes) in self.datasets.iter().filter(|(_, hashes)| hashes.len() > 1) {
            warnings.push(format!(
                "data set `{dataset}` has {} manifests; backbones were tested on different images",
                hashes.len()
            ));
        }
        for (backbone, hashes) in &self.checkpoints {
            let weights: BTreeSet<_> = hashes.iter().map(|weights| &weights.sha256).collect();
            if weights.len() > 1 {
                warnings.push(format!(
                    "backbone `{backbone}` ran with {} different weights",
                    weights.len()
                ));
            }
        }
        let machines: BTreeSet<_> = costs
            .iter()
            .map(|record| &record.environment)
            .map(|site| (&site.backend, &site.adapter, &site.dtype, &site.host, site.threads))
            .collect();
        if machines.len() > 1 {
            warnings.push(format!(
                "speeds were measured in {} environments; compare them only within one",
                machines.len()
            ));
        }
        let without = entered
            .iter()
            .filter(|record| record.cell.task != EFFICIENCY && record.primary().is_none())
            .count();
        if without > 0 {
            warnings.push(format!(
                "{} without a primary metric left out of the ranking",
                plural(without, "record")
            ));
        }
        for setting in self
            .settings
            .iter()
            .filter(|setting| setting.flat && setting.cells.len() > 1)
        {
            warnings.push(format!(
                "setting `{}` gives every backbone the same score; its z-scores are 0",
                setting.name
            ));
        }
        let of = self.settings.len();
        if (2..FEW_SETTINGS).contains(&of) {
            warnings.push(format!(
                "rank intervals rest on {of} settings; below {FEW_SETTINGS} they are too narrow"
            ));
        }
        for place in self.contenders.iter().filter_map(|contender| contender.place.as_ref()) {
            if place.coverage < of {
                let (name, coverage) = (&place.backbone, place.coverage);
                warnings.push(format!(
                    "backbone `{name}` has {coverage} of {of} settings; its mean z is over those"
                ));
            }
        }
        self.warnings = warnings;
    }
}
