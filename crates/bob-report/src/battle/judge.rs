//! How records become settings, places, contenders and correlations.

use std::collections::{BTreeMap, BTreeSet};

use bob_stats::{
    Direction, RankedBackbone, RankedSetting, RankingOptions, Record, ScoreTable, Setting, rank, spearman,
};

use super::{BattleError, Cell, Contender, CostCorrelation, Import, SettingResults, TaskCorrelation};

/// What makes a setting: task, protocol with version, data set, metric, and whether it is better when lower.
type SettingKey = (String, String, String, String, bool);

/// Settings of the scored records, sorted by task and name.
pub(super) fn settings_of(scored: &[&Record]) -> Vec<SettingResults> {
    let mut groups: BTreeMap<SettingKey, BTreeMap<&str, Vec<&Record>>> = BTreeMap::new();
    for record in scored {
        let Some(metric) = record.primary() else { continue };
        let cell = &record.cell;
        let key = (
            cell.task.clone(),
            format!("{}@{}", cell.protocol, cell.version),
            cell.dataset.clone(),
            metric.name.clone(),
            metric.direction == Direction::LowerIsBetter,
        );
        groups
            .entry(key)
            .or_default()
            .entry(&cell.backbone)
            .or_default()
            .push(record);
    }
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for (_, protocol, dataset, _, _) in groups.keys() {
        *names.entry(format!("{protocol}/{dataset}")).or_default() += 1;
    }
    let setting = |(key, backbones): (SettingKey, BTreeMap<&str, Vec<&Record>>)| {
        let (task, protocol, dataset, metric, lower) = key;
        let mut name = format!("{protocol}/{dataset}");
        // Two tasks may have protocols of one name, and a protocol may have changed its metric.
        if names.get(&name).is_some_and(|&count| count > 1) {
            name = format!("{task}:{name}:{metric}{}", if lower { "↓" } else { "" });
        }
        let fixtures = backbones.values().flatten().any(|record| record.data.fixtures);
        let cell = |records: Vec<&Record>| {
            Cell::over_seeds(&records.iter().filter_map(|record| record.primary()).collect::<Vec<_>>())
        };
        SettingResults {
            name,
            task,
            metric,
            direction: if lower {
                Direction::LowerIsBetter
            } else {
                Direction::HigherIsBetter
            },
            flat: false,
            fixtures,
            cells: backbones
                .into_iter()
                .map(|(backbone, records)| (backbone.to_owned(), cell(records)))
                .collect(),
        }
    };
    groups.into_iter().map(setting).collect()
}

pub(super) fn imported(import: &Import) -> Vec<SettingResults> {
    let table = &import.table;
    let setting = |(index, setting): (usize, &Setting)| SettingResults {
        name: format!("{}/{}", import.name, setting.name),
        task: import.name.clone(),
        metric: setting.name.clone(),
        direction: setting.direction,
        flat: false,
        fixtures: false,
        cells: table
            .backbones()
            .iter()
            .zip(table.scores(index))
            .filter_map(|(backbone, score)| Some((backbone.clone(), Cell::of((*score)?))))
            .collect(),
    };
    table.settings().iter().enumerate().map(setting).collect()
}

/// Ranks the settings' backbones and writes the z-scores into the cells.
pub(super) fn judge(
    settings: &mut [SettingResults],
    options: RankingOptions,
) -> Result<(Vec<RankedBackbone>, Vec<RankedSetting>), BattleError> {
    if settings.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let backbones: BTreeSet<String> = settings
        .iter()
        .flat_map(|setting| setting.cells.keys().cloned())
        .collect();
    let columns = settings.iter().map(|setting| Setting {
        name: setting.name.clone(),
        task: setting.task.clone(),
        direction: setting.direction,
    });
    let scores = settings.iter().map(|setting| {
        backbones
            .iter()
            .map(|backbone| setting.cells.get(backbone).map(|cell| cell.value))
            .collect::<Vec<_>>()
    });
    let (columns, scores) = (columns.collect(), scores.collect());
    let table = ScoreTable::new(backbones.into_iter().collect(), columns, scores)?;
    let ranking = rank(&table, options)?;
    for (index, setting) in settings.iter_mut().enumerate() {
        setting.flat = ranking.settings[index].flat;
        for place in &ranking.backbones {
            if let Some(cell) = setting.cells.get_mut(&place.backbone) {
                cell.z = place.z[index].1;
            }
        }
    }
    Ok((ranking.backbones, ranking.settings))
}

pub(super) fn contenders_of(entered: &[&Record], costs: &[&Record], places: Vec<RankedBackbone>) -> Vec<Contender> {
    let ranked: BTreeSet<&str> = places.iter().map(|place| place.backbone.as_str()).collect();
    let timed: BTreeSet<&str> = entered.iter().map(|record| record.cell.backbone.as_str()).collect();
    let unranked: Vec<String> = timed.difference(&ranked).map(|name| (*name).to_owned()).collect();
    let ranked = places.into_iter().map(|place| (place.backbone.clone(), Some(place)));
    let unranked = unranked.into_iter().map(|name| (name, None));
    ranked
        .chain(unranked)
        .map(|(backbone, place)| contender(backbone, place, entered, costs))
        .collect()
}

fn contender(backbone: String, place: Option<RankedBackbone>, entered: &[&Record], costs: &[&Record]) -> Contender {
    let mine = |record: &&&Record| record.cell.backbone == backbone;
    let checkpoint = entered.iter().find(mine).map(|record| &record.checkpoint);
    let strongest = place.as_ref().and_then(|place| {
        let scored = place.z.iter().filter_map(|(setting, z)| Some((setting, (*z)?)));
        // The first of equals.
        scored
            .reduce(|best, other| if other.1 > best.1 { other } else { best })
            .map(|(setting, _)| setting.clone())
    });
    let cost = |name: &str| {
        let timed: Vec<&Record> = costs
            .iter()
            .filter(mine)
            .copied()
            .filter(|r| r.metric(name).is_some())
            .collect();
        // Another protocol or image size is another measurement: the first is shown, seeds of it are averaged.
        let first = timed.iter().map(|record| setting_of(record)).min()?;
        let of_first = timed.iter().filter(|record| setting_of(record) == first);
        Some(Cell::over_seeds(
            &of_first.filter_map(|record| record.metric(name)).collect::<Vec<_>>(),
        ))
    };
    Contender {
        strongest,
        style: checkpoint.map(|checkpoint| checkpoint.style.clone()),
        pretraining_data: checkpoint.map(|checkpoint| checkpoint.pretraining_data.clone()),
        pretraining_images: checkpoint.and_then(|checkpoint| checkpoint.pretraining_images),
        parameters: checkpoint.map(|checkpoint| checkpoint.parameters),
        macs: checkpoint.and_then(|checkpoint| checkpoint.macs),
        latency_p50_ms: cost("latency_p50_ms"),
        images_per_second: cost("images_per_second"),
        peak_memory_bytes: cost("peak_memory_bytes").map(|cell| cell.value),
        pareto: false,
        place,
        backbone,
    }
}

fn setting_of(record: &Record) -> (&str, u32, &str) {
    (&record.cell.protocol, record.cell.version, &record.cell.dataset)
}

pub(super) fn mark_pareto(contenders: &mut [Contender]) {
    let both = |contender: &Contender| {
        Some((
            contender.place.as_ref()?.mean_z,
            contender.latency_p50_ms.as_ref()?.value,
        ))
    };
    let points: Vec<(f64, f64)> = contenders.iter().filter_map(both).collect();
    for contender in contenders.iter_mut() {
        let Some((z, latency)) = both(contender) else { continue };
        let beaten = |&(other_z, other_latency): &(f64, f64)| {
            other_z >= z && other_latency <= latency && (other_z > z || other_latency < latency)
        };
        contender.pareto = !points.iter().any(beaten);
    }
}

pub(super) fn task_correlations(contenders: &[Contender], settings: &[RankedSetting]) -> Vec<TaskCorrelation> {
    let tasks: BTreeSet<&str> = settings.iter().map(|setting| setting.task.as_str()).collect();
    let tasks: Vec<&str> = tasks.into_iter().collect();
    let of_task = |task: &str| -> Vec<Option<f64>> {
        contenders
            .iter()
            .map(|contender| contender.place.as_ref()?.task_z.get(task).copied())
            .collect()
    };
    let mut correlations = Vec::new();
    for (index, a) in tasks.iter().enumerate() {
        for b in &tasks[index + 1..] {
            let Some(found) = spearman(&of_task(a), &of_task(b)) else {
                continue;
            };
            correlations.push(TaskCorrelation {
                a: (*a).to_owned(),
                b: (*b).to_owned(),
                spearman: found.coefficient,
                p_value: found.p_value,
                n: found.n,
            });
        }
    }
    correlations
}

pub(super) fn cost_correlations(contenders: &[Contender]) -> Vec<CostCorrelation> {
    type Cost = fn(&Contender) -> Option<f64>;
    let costs: [(&str, Cost); 5] = [
        ("parameters", |c| c.parameters.map(|count| count as f64)),
        ("macs", |c| c.macs.map(|count| count as f64)),
        ("latency_p50_ms", |c| c.latency_p50_ms.as_ref().map(|cell| cell.value)),
        ("images_per_second", |c| {
            c.images_per_second.as_ref().map(|cell| cell.value)
        }),
        ("pretraining_images", |c| c.pretraining_images.map(|count| count as f64)),
    ];
    let overall: Vec<_> = contenders
        .iter()
        .map(|c| c.place.as_ref().map(|place| place.mean_z))
        .collect();
    let correlation = |(name, cost): (&str, Cost)| {
        let found = spearman(&overall, &contenders.iter().map(cost).collect::<Vec<_>>())?;
        let (spearman, p_value, n) = (found.coefficient, found.p_value, found.n);
        Some(CostCorrelation {
            cost: name.to_owned(),
            spearman,
            p_value,
            n,
        })
    };
    costs.into_iter().filter_map(correlation).collect()
}
