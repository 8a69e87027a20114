//! `report`: records and imported tables into tables, plots and one page.

use std::env;
use std::fs;
use std::io::{ErrorKind, IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use bob_report::{Battle, BattleOptions, Import};
use bob_stats::{Record, RecordError, ScoreTable, read_all};

use crate::args::Report;
use crate::launch::Usage;
use crate::places;

/// Columns of the terminal table where nobody says how wide the terminal is.
const WIDTH: usize = 100;

/// Write the report and print its tables.
pub fn run(args: &Report) -> Result<ExitCode> {
    let results = places::results(args.results.as_deref())?;
    let imports = args
        .import
        .iter()
        .map(|file| import(file))
        .collect::<Result<Vec<_>>>()?;
    let (records, errors) = read_all(&results);
    let is_missing = |error: &RecordError| {
        matches!(error, RecordError::Io { path, source }
            if source.kind() == ErrorKind::NotFound && Path::new(path) == results)
    };
    if records.is_empty() && imports.is_empty() && errors.iter().all(is_missing) {
        let folder = results.display();
        return Err(Usage(format!("no records in `{folder}`; run `cargo xtask bench-all` first")).into());
    }
    let errors: Vec<&RecordError> = errors.iter().filter(|error| !is_missing(error)).collect();
    for error in &errors {
        eprintln!("error: {error}");
    }
    let folder = match &args.output {
        Some(folder) => folder.clone(),
        None => places::report(&results),
    };
    let (battle, files) = write(&records, imports, &folder)?;
    print(&battle)?;
    for file in files {
        eprintln!("written: `{}`", file.display());
    }
    Ok(if errors.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn import(file: &Path) -> Result<Import> {
    let shown = file.display();
    let text = fs::read(file).map_err(|error| Usage(format!("`{shown}`: {error}")))?;
    let table = ScoreTable::from_csv(&text).map_err(|error| Usage(format!("`{shown}`: {error}")))?;
    let name = file.file_stem().with_context(|| format!("`{shown}` has no name"))?;
    Ok(Import {
        name: name.to_string_lossy().into_owned(),
        table,
    })
}

/// Write every output of the report into `folder`.
pub fn write(records: &[Record], imports: Vec<Import>, folder: &Path) -> Result<(Battle, Vec<PathBuf>)> {
    let battle = Battle::from_records(
        records,
        &BattleOptions {
            imports,
            ..BattleOptions::default()
        },
    )?;
    fs::create_dir_all(folder).with_context(|| format!("`{}`", folder.display()))?;
    let outputs = [
        ("report.html", bob_report::html(&battle)),
        ("report.md", bob_report::markdown(&battle)),
        ("scores.csv", bob_report::csv(&battle)),
        ("ranking.csv", bob_report::ranking_csv(&battle)),
        ("report.json", bob_report::json(&battle)),
    ];
    let mut files = Vec::new();
    for (name, text) in outputs {
        let path = folder.join(name);
        // Whoever reads it meanwhile sees the previous one whole.
        let temporary = folder.join(format!(".{name}.{}.tmp", std::process::id()));
        fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("`{}` is not written", path.display()))?;
        files.push(path);
    }
    Ok((battle, files))
}

/// Print the terminal's tables on stdout.
pub fn print(battle: &Battle) -> Result<()> {
    put(&bob_report::terminal(battle, width(), colour()))
}

/// Print `text` on stdout; a reader that has seen enough is no failure.
pub fn put(text: &str) -> Result<()> {
    match stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Columns of the terminal.
pub fn width() -> usize {
    env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok())
        .unwrap_or(WIDTH)
}

/// Whether stdout shows colour and its reader wants it (<https://no-color.org>).
pub fn colour() -> bool {
    stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
