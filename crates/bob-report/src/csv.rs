//! Tables for other programs: full precision, one header line, empty where a number is missing.

use crate::{Battle, Cell};
use bob_stats::Direction;

/// One line per backbone and setting: everything that is known of the cell.
pub fn csv(battle: &Battle) -> String {
    let header = [
        "backbone",
        "task",
        "setting",
        "metric",
        "direction",
        "value",
        "low",
        "high",
        "level",
        "n",
        "seeds",
        "seed_deviation",
        "z",
        "fixtures",
    ];
    let rows = battle.settings.iter().flat_map(|setting| {
        setting.cells.iter().map(move |(backbone, cell)| {
            let direction = match setting.direction {
                Direction::HigherIsBetter => "higher-is-better",
                Direction::LowerIsBetter => "lower-is-better",
            };
            let Cell {
                value,
                low,
                high,
                level,
                n,
                seeds,
                seed_deviation,
                z,
            } = cell;
            vec![
                backbone.clone(),
                setting.task.clone(),
                setting.name.clone(),
                setting.metric.clone(),
                direction.to_owned(),
                value.to_string(),
                text(*low),
                text(*high),
                text(*level),
                text(*n),
                seeds.to_string(),
                text(*seed_deviation),
                text(*z),
                setting.fixtures.to_string(),
            ]
        })
    });
    write(&header, rows)
}

/// One line per backbone: place, scores and costs; then the value in every setting.
pub fn ranking_csv(battle: &Battle) -> String {
    let tasks = battle.tasks();
    let mut header: Vec<String> = ["rank", "rank_low", "rank_high", "backbone", "mean_z"]
        .into_iter()
        .map(str::to_owned)
        .collect();
    header.extend(tasks.iter().map(|task| format!("mean_z:{task}")));
    header.extend(
        [
            "settings",
            "style",
            "pretraining_data",
            "pretraining_images",
            "parameters",
            "macs",
            "latency_p50_ms",
            "images_per_second",
            "peak_memory_bytes",
            "pareto",
        ]
        .into_iter()
        .map(str::to_owned),
    );
    header.extend(battle.settings.iter().map(|setting| setting.name.clone()));
    let rows = battle.contenders.iter().map(|contender| {
        let place = contender.place.as_ref();
        let cell = |cell: &Option<Cell>| text(cell.as_ref().map(|cell| cell.value));
        let mut row = vec![
            text(place.map(|place| place.rank)),
            text(place.and_then(|place| place.rank_low)),
            text(place.and_then(|place| place.rank_high)),
            contender.backbone.clone(),
            text(place.map(|place| place.mean_z)),
        ];
        row.extend(
            tasks
                .iter()
                .map(|task| text(place.and_then(|place| place.task_z.get(*task)))),
        );
        row.extend([
            text(place.map(|place| place.coverage)),
            text(contender.style.as_ref()),
            text(contender.pretraining_data.as_ref()),
            text(contender.pretraining_images),
            text(contender.parameters),
            text(contender.macs),
            cell(&contender.latency_p50_ms),
            cell(&contender.images_per_second),
            text(contender.peak_memory_bytes),
            contender.pareto.to_string(),
        ]);
        let values = battle
            .settings
            .iter()
            .map(|setting| setting.cells.get(&contender.backbone));
        row.extend(values.map(|cell| text(cell.map(|cell| cell.value))));
        row
    });
    write(&header, rows)
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

fn write<H: AsRef<[u8]>>(header: &[H], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    writer.write_record(header).expect("memory takes every record");
    for row in rows {
        writer.write_record(&row).expect("rows are as long as the header");
    }
    let bytes = writer.into_inner().expect("memory takes every record");
    String::from_utf8(bytes).expect("the fields are text")
}
