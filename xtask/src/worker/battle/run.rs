//! One process per cell: starting it, stopping it, and what it said.

use std::env;
use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bob_stats::{Direction, Metric, Record};

use crate::args::Cell;
use crate::launch;
use crate::worker::battle::plan::Planned;

/// How often the cell and Ctrl-C are looked at.
const POLL: Duration = Duration::from_millis(20);

/// How a cell ended.
pub enum Ending {
    /// Its record is written; a line that says what came out.
    Finished(String),
    /// It failed, and why.
    Failed(String),
    /// Ctrl-C stopped it.
    Interrupted,
}

/// Run `cell` in a process of its own, until it ends or `interrupted` is set.
pub fn run_cell(cell: &Planned, interrupted: &AtomicBool) -> Result<Ending> {
    let start = Instant::now();
    let mut command = Command::new(program()?);
    command
        .args(arguments(&cell.args))
        .arg("--supervised")
        // Held open as long as we live: the cell ends with it.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    launch::keep_heap(&mut command);
    let mut child = command.spawn().context("a cell does not start")?;
    let said = child.stdout.take().map(|mut stdout| {
        thread::spawn(move || {
            let mut text = String::new();
            // Whatever came before an error is all there is to say.
            let _ = stdout.read_to_string(&mut text);
            text
        })
    });
    let Some(status) = wait(&mut child, interrupted)? else {
        return Ok(Ending::Interrupted);
    };
    let said = said.and_then(|reader| reader.join().ok()).unwrap_or_default();
    if !status.success() {
        // Ctrl-C on a terminal reaches the cell too, perhaps before us.
        thread::sleep(POLL);
        if interrupted.load(Ordering::SeqCst) {
            return Ok(Ending::Interrupted);
        }
        let said = said.trim();
        return Ok(Ending::Failed(if said.is_empty() {
            describe(status)
        } else {
            said.to_owned()
        }));
    }
    Ok(match Record::read(&cell.path) {
        Ok(record) => Ending::Finished(line(&record, start.elapsed())),
        Err(error) => Ending::Failed(error.to_string()),
    })
}

/// The end of `child`, or none where it was stopped.
fn wait(child: &mut Child, interrupted: &AtomicBool) -> Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if interrupted.load(Ordering::SeqCst) {
            // It may have ended by itself.
            let _ = child.kill();
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

/// This program, even where its file was replaced by a newer build meanwhile.
fn program() -> Result<PathBuf> {
    let program = env::current_exe().context("this program has no path")?;
    let running = PathBuf::from("/proc/self/exe");
    Ok(if !program.exists() && running.exists() {
        running
    } else {
        program
    })
}

fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;
        if let Some(signal) = status.signal() {
            let hint = if signal == 9 {
                ", perhaps for want of memory"
            } else {
                ""
            };
            return format!("the process was killed by signal {signal}{hint}");
        }
    }
    format!("the process ended with {status}; its messages are above")
}

/// `top1 0.4120 ± 0.0300, 12.3 s`.
fn line(record: &Record, elapsed: Duration) -> String {
    let metric = record
        .primary()
        .or(record.metrics.first())
        .map_or_else(|| "no metric".to_owned(), shown);
    format!("{metric}, {:.1} s", elapsed.as_secs_f64())
}

fn shown(
    Metric {
        name,
        value,
        interval,
        direction,
        n,
        ..
    }: &Metric,
) -> String {
    let decimals = if value.abs() < 10.0 { 4 } else { 1 };
    let half = interval.map(|interval| format!(" ± {:.decimals$}", (interval.high - interval.low) / 2.0));
    let lower = if *direction == Direction::LowerIsBetter {
        ", lower is better"
    } else {
        ""
    };
    format!("{name} {value:.decimals$}{} (n = {n}{lower})", half.unwrap_or_default())
}

/// The verb and arguments that run `cell`.
pub fn arguments(cell: &Cell) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["cell".into()];
    let mut option = |name: &str, value: OsString| arguments.extend([format!("--{name}").into(), value]);
    option("backend", cell.backend.as_str().into());
    option("protocol", cell.protocol.clone().into());
    if let Some(dataset) = &cell.dataset {
        option("dataset", dataset.into());
    }
    if let Some(folder) = &cell.images {
        option("images", folder.into());
    }
    for (split, limit) in &cell.limit {
        option("limit", format!("{split}={limit}").into());
    }
    option("backbone", cell.backbone.clone().into());
    for file in &cell.own.checkpoints {
        option("checkpoints", file.into());
    }
    if let Some(side) = cell.input_size {
        option("input-size", side.to_string().into());
    }
    option("seed", cell.seed.to_string().into());
    option("results", cell.results.clone().into());
    if cell.fixtures {
        arguments.push("--fixtures".into());
    }
    arguments
}

/// What repeats `cell`, for a shell.
pub fn command_line(cell: &Cell) -> String {
    let mut line = "cargo xtask".to_owned();
    for argument in arguments(cell) {
        let argument = argument.to_string_lossy();
        let plain = argument
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_./=@+:,".contains(&byte));
        line.push(' ');
        if plain && !argument.is_empty() {
            line.push_str(&argument);
        } else {
            line.push_str(&format!("'{}'", argument.replace('\'', r"'\''")));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Backend, Cli, Own, Verb};

    #[test]
    fn the_command_that_repeats_a_cell_says_all_of_it() {
        let cell = Cell {
            own: Own {
                checkpoints: vec![PathBuf::from("/tmp/mine.toml")],
            },
            backend: Backend::Tch,
            backbone: "resnet18.random".to_owned(),
            protocol: "knn".to_owned(),
            dataset: None,
            images: Some(PathBuf::from("/tmp/flowers")),
            limit: vec![("test".to_owned(), 5), ("train".to_owned(), 7)],
            input_size: Some(64),
            seed: 3,
            results: PathBuf::from("/tmp/it's here"),
            fixtures: true,
            supervised: false,
        };
        let Ok(Cli {
            verb: Verb::Cell(parsed),
        }) = Cli::try_parse_from(["cargo xtask".into()].into_iter().chain(arguments(&cell)))
        else {
            panic!("the arguments are a cell's")
        };
        assert_eq!(format!("{parsed:?}"), format!("{cell:?}"));
        assert!(
            command_line(&cell).ends_with(r"--results '/tmp/it'\''s here' --fixtures"),
            "{}",
            command_line(&cell)
        );
    }
}
