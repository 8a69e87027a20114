//! Ranks from z-scores: mean z per task and overall, average ranks for ties, an interval for every rank.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{Bootstrap, BootstrapError, Direction, ScoreTable, Standardized, standardize};

/// What the overall score of a backbone is the mean of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overall {
    /// The mean z of every task, so that a task with many data sets weighs no more than one with few.
    #[default]
    TaskMeans,
    /// The z of every setting.
    Settings,
}

/// How backbones are ranked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct RankingOptions {
    /// Taken from `n` in the deviation of a z-score: 0 for the population's, 1 for the sample's.
    pub ddof: usize,
    /// What the overall score is the mean of.
    pub overall: Overall,
    /// How rank intervals are drawn.
    #[serde(skip)]
    pub bootstrap: Bootstrap,
}

/// One backbone's place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankedBackbone {
    /// Its name.
    pub backbone: String,
    /// Overall score: mean of the z-scores it has.
    pub mean_z: f64,
    /// Its rank by overall score, 1 is best, ties share the average.
    pub rank: f64,
    /// Lower (better) end of the rank's bootstrap interval; absent with fewer than two settings.
    pub rank_low: Option<f64>,
    /// Upper (worse) end of the rank's bootstrap interval; absent with fewer than two settings.
    pub rank_high: Option<f64>,
    /// In how many settings it has a score.
    pub coverage: usize,
    /// z-score per setting, in the settings' order; `None` where it has no score.
    #[serde(serialize_with = "as_map")]
    pub z: Vec<(String, Option<f64>)>,
    /// Mean z per task.
    pub task_z: BTreeMap<String, f64>,
}

/// One setting of a ranking.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankedSetting {
    /// Its name.
    pub setting: String,
    /// Its task.
    pub task: String,
    /// Which way its scores are better.
    pub direction: Direction,
    /// Mean of its scores.
    pub mean: f64,
    /// Their standard deviation.
    pub deviation: f64,
    /// Whether it tells nobody apart.
    pub flat: bool,
    /// How many backbones have a score in it.
    pub n: usize,
}

/// Backbones in the order of their ranks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ranking {
    /// How it was made.
    pub options: RankingOptions,
    /// The settings, in the table's order.
    pub settings: Vec<RankedSetting>,
    /// The backbones, best first, ties by name.
    pub backbones: Vec<RankedBackbone>,
}

/// Ranks, 1 for the smallest, ties share the average of their ranks (scipy's `rankdata`).
pub fn average_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let ties = order[start..]
            .iter()
            .take_while(|&&i| values[i] == values[order[start]])
            .count();
        // Ranks start + 1 ..= start + ties.
        let shared = start as f64 + (ties as f64 + 1.0) / 2.0;
        for &index in &order[start..start + ties] {
            ranks[index] = shared;
        }
        start += ties;
    }
    ranks
}

/// Ranks the backbones of a table by their mean z-score.
///
/// A missing score is left out of the means, so a backbone's overall score is over the settings it has;
/// [`RankedBackbone::coverage`] says how many those are. Scores closer than 1e-9 share a rank.
///
/// The interval of a rank is the percentile bootstrap over settings: it answers how the rank would move had other
/// settings of this kind been chosen, not how it would move with other test items. Its ends are ranks that were
/// attained, rounded outwards. A resample in which a backbone has no setting is left out of its interval.
///
/// # Errors
/// Bad bootstrap settings.
pub fn rank(table: &ScoreTable, options: RankingOptions) -> Result<Ranking, BootstrapError> {
    let standardized: Vec<Standardized> = (0..table.settings().len())
        .map(|setting| standardize(table.scores(setting), table.settings()[setting].direction, options.ddof))
        .collect();
    let tasks = Tasks::of(table);
    let count = table.backbones().len();
    let all: Vec<usize> = (0..standardized.len()).collect();
    let mean_z = tasks.overall(&standardized, &all, count, options.overall);
    let ranks = ranks_of(&mean_z);
    let intervals = rank_intervals(&standardized, &tasks, count, options)?;

    let mut backbones = Vec::new();
    for (index, name) in table.backbones().iter().enumerate() {
        // A table has no backbone without a score.
        let (Some(mean_z), Some(rank)) = (mean_z[index], ranks[index]) else {
            continue;
        };
        let task_z = tasks
            .members
            .iter()
            .filter_map(|(task, settings)| Some((task.clone(), mean_of(&standardized, settings, index)?)))
            .collect();
        let z: Vec<_> = table
            .settings()
            .iter()
            .zip(&standardized)
            .map(|(setting, standardized)| (setting.name.clone(), standardized.z[index]))
            .collect();
        backbones.push(RankedBackbone {
            backbone: name.clone(),
            mean_z,
            rank,
            rank_low: intervals[index].map(|(low, _)| low),
            rank_high: intervals[index].map(|(_, high)| high),
            coverage: z.iter().filter(|(_, z)| z.is_some()).count(),
            z,
            task_z,
        });
    }
    backbones.sort_by(|a, b| a.rank.total_cmp(&b.rank).then_with(|| a.backbone.cmp(&b.backbone)));
    let settings = table
        .settings()
        .iter()
        .zip(&standardized)
        .map(|(setting, standardized)| RankedSetting {
            setting: setting.name.clone(),
            task: setting.task.clone(),
            direction: setting.direction,
            mean: standardized.mean,
            deviation: standardized.deviation,
            flat: standardized.flat,
            n: standardized.z.iter().flatten().count(),
        })
        .collect();
    Ok(Ranking {
        options,
        settings,
        backbones,
    })
}

/// Which settings belong to which task.
struct Tasks {
    members: BTreeMap<String, Vec<usize>>,
    /// Task of each setting, as a position in `members`.
    of_setting: Vec<usize>,
}

impl Tasks {
    fn of(table: &ScoreTable) -> Self {
        let mut members: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, setting) in table.settings().iter().enumerate() {
            members.entry(setting.task.clone()).or_default().push(index);
        }
        let mut of_setting = vec![0; table.settings().len()];
        for (task, settings) in members.values().enumerate() {
            for &setting in settings {
                of_setting[setting] = task;
            }
        }
        Self { members, of_setting }
    }

    /// Overall score of every backbone over `settings`, which may repeat.
    fn overall(
        &self,
        standardized: &[Standardized],
        settings: &[usize],
        count: usize,
        overall: Overall,
    ) -> Vec<Option<f64>> {
        if overall == Overall::Settings {
            return (0..count)
                .map(|backbone| mean_of(standardized, settings, backbone))
                .collect();
        }
        let mut by_task = vec![Vec::new(); self.members.len()];
        for &setting in settings {
            by_task[self.of_setting[setting]].push(setting);
        }
        let mean_of_tasks = |backbone| mean(by_task.iter().filter_map(|task| mean_of(standardized, task, backbone)));
        (0..count).map(mean_of_tasks).collect()
    }
}

fn mean_of(standardized: &[Standardized], settings: &[usize], backbone: usize) -> Option<f64> {
    mean(settings.iter().filter_map(|&setting| standardized[setting].z[backbone]))
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0_usize), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / n as f64)
}

/// Rank of every score that is there, 1 for the largest.
fn ranks_of(scores: &[Option<f64>]) -> Vec<Option<f64>> {
    // Rounded, so that means of the same z-scores added in another order tie.
    let present: Vec<f64> = scores.iter().flatten().map(|score| -(score * 1e9).round()).collect();
    let mut ranks = average_ranks(&present).into_iter();
    scores.iter().map(|score| score.and_then(|_| ranks.next())).collect()
}

fn rank_intervals(
    standardized: &[Standardized],
    tasks: &Tasks,
    count: usize,
    options: RankingOptions,
) -> Result<Vec<Option<(f64, f64)>>, BootstrapError> {
    let n = standardized.len();
    if n < 2 {
        return Ok(vec![None; count]);
    }
    let mut drawn = vec![Vec::new(); count];
    options.bootstrap.resample(n, |settings| {
        let ranks = ranks_of(&tasks.overall(standardized, settings, count, options.overall));
        for (drawn, rank) in drawn.iter_mut().zip(ranks) {
            drawn.extend(rank);
        }
    })?;
    let tail = (1.0 - options.bootstrap.level) / 2.0;
    let interval = |mut ranks: Vec<f64>| {
        if ranks.is_empty() {
            return None;
        }
        ranks.sort_by(f64::total_cmp);
        let last = (ranks.len() - 1) as f64;
        let low = ranks[(tail * last).floor() as usize];
        let high = ranks[((1.0 - tail) * last).ceil() as usize];
        Some((low, high))
    };
    Ok(drawn.into_iter().map(interval).collect())
}

fn as_map<S: Serializer>(pairs: &[(String, Option<f64>)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(pairs.len()))?;
    for (key, value) in pairs {
        map.serialize_entry(key, value)?;
    }
    map.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Setting;
    use proptest::prelude::*;

    fn table(settings: &[(&str, &str, &[Option<f64>])]) -> ScoreTable {
        let names = settings.iter().map(|(name, task, _)| Setting {
            name: (*name).into(),
            task: (*task).into(),
            direction: Direction::HigherIsBetter,
        });
        let backbones = (0..settings[0].2.len()).map(|index| format!("b{index}")).collect();
        ScoreTable::new(
            backbones,
            names.collect(),
            settings.iter().map(|(_, _, scores)| scores.to_vec()).collect(),
        )
        .unwrap()
    }

    fn by_name(ranking: &Ranking, name: &str) -> RankedBackbone {
        ranking
            .backbones
            .iter()
            .find(|ranked| ranked.backbone == name)
            .unwrap()
            .clone()
    }

    #[test]
    fn tasks_weigh_the_same_unless_settings_do() {
        let up = [Some(1.0), Some(2.0)];
        let down = [Some(2.0), Some(1.0)];
        let table = table(&[("x1", "x", &up), ("x2", "x", &up), ("x3", "x", &up), ("y1", "y", &down)]);
        let tasks = rank(&table, RankingOptions::default()).unwrap();
        assert_eq!(by_name(&tasks, "b1").mean_z, 0.0);
        assert_eq!(by_name(&tasks, "b1").rank, 1.5);
        assert_eq!(
            by_name(&tasks, "b1").task_z,
            BTreeMap::from([("x".into(), 1.0), ("y".into(), -1.0)])
        );
        let settings = rank(
            &table,
            RankingOptions {
                overall: Overall::Settings,
                ..Default::default()
            },
        )
        .unwrap();
        assert_eq!(by_name(&settings, "b1").mean_z, 0.5);
        assert_eq!(by_name(&settings, "b1").rank, 1.0);
    }

    #[test]
    fn missing_scores_are_left_out_and_counted() {
        let table = table(&[
            ("x", "t", &[Some(1.0), Some(2.0), None]),
            ("y", "t", &[Some(1.0), Some(2.0), Some(3.0)]),
        ]);
        let ranking = rank(&table, RankingOptions::default()).unwrap();
        let last = by_name(&ranking, "b2");
        assert_eq!((last.coverage, last.z[0].1), (1, None));
        assert!((last.mean_z - 1.5_f64.sqrt()).abs() < 1e-12);
        assert_eq!(by_name(&ranking, "b0").coverage, 2);
    }

    #[test]
    fn one_setting_has_ranks_without_intervals() {
        let ranking = rank(
            &table(&[("x", "t", &[Some(1.0), Some(2.0)])]),
            RankingOptions::default(),
        )
        .unwrap();
        let first = &ranking.backbones[0];
        assert_eq!((first.backbone.as_str(), first.rank, first.rank_low), ("b1", 1.0, None));
    }

    #[test]
    fn settings_that_agree_give_a_certain_rank_and_others_do_not() {
        let best: [Option<f64>; 3] = [Some(9.0), Some(2.0), Some(1.0)];
        let other: [Option<f64>; 3] = [Some(9.0), Some(1.0), Some(2.0)];
        let table = table(&[
            ("a", "t", &best),
            ("b", "t", &other),
            ("c", "t", &best),
            ("d", "t", &other),
        ]);
        let ranking = rank(&table, RankingOptions::default()).unwrap();
        let interval = |name| {
            let ranked = by_name(&ranking, name);
            (ranked.rank, ranked.rank_low, ranked.rank_high)
        };
        assert_eq!(interval("b0"), (1.0, Some(1.0), Some(1.0)));
        assert_eq!(interval("b1"), (2.5, Some(2.0), Some(3.0)));
    }

    proptest! {
        #[test]
        fn ranks_are_a_partition_and_follow_the_order(values in proptest::collection::vec(0..6i32, 0..30)) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let ranks = average_ranks(&values);
            let n = values.len() as f64;
            prop_assert!((ranks.iter().sum::<f64>() - n * (n + 1.0) / 2.0).abs() < 1e-9);
            for i in 0..values.len() {
                for j in 0..values.len() {
                    prop_assert_eq!(values[i] < values[j], ranks[i] < ranks[j]);
                    prop_assert_eq!(values[i] == values[j], ranks[i] == ranks[j]);
                }
            }
        }

        #[test]
        fn intervals_lie_in_the_table(rows in proptest::collection::vec(proptest::collection::vec(0.0..1.0f64, 5), 2..6)) {
            let columns: Vec<Vec<Option<f64>>> = rows.iter().map(|row| row.iter().copied().map(Some).collect()).collect();
            let names: Vec<String> = (0..columns.len()).map(|i| i.to_string()).collect();
            let settings: Vec<_> = names.iter().zip(&columns).map(|(n, c)| (n.as_str(), "t", c.as_slice())).collect();
            let bootstrap = Bootstrap { resamples: 50, ..Default::default() };
            let ranking = rank(&table(&settings), RankingOptions { bootstrap, ..Default::default() }).unwrap();
            for ranked in ranking.backbones {
                let (low, high) = (ranked.rank_low.unwrap(), ranked.rank_high.unwrap());
                prop_assert!(1.0 <= low && low <= high && high <= 5.0);
            }
        }
    }
}
