//! The plan: every cell of a profile, and whether its record answers it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bob_data::Dataset;
use bob_data::datasets::image_folder::TestOrigin;
use bob_stats::Record;

use crate::args::{BenchAll, Cell, Own};
use crate::launch;
use crate::worker::battle::cell::{Asked, Data};
use crate::worker::battle::profile::{Profile, Setting};
use crate::worker::candidate::Candidate;
use crate::worker::images::Images;
use crate::worker::protocol::Protocol;
use crate::worker::provide::{DataSource, Store, open_folder};

/// One cell of the plan.
pub struct Planned {
    /// What repeats it.
    pub args: Cell,
    /// Its record's path below the results, without the ending.
    pub name: String,
    /// Its record's path.
    pub path: PathBuf,
    /// Whether it is to be run.
    pub state: State,
}

/// Whether a cell is to be run.
pub enum State {
    /// Its record is there and answers it.
    Done,
    /// It is to be run.
    ToRun,
    /// It cannot be run, and why.
    Broken(String),
}

/// Every cell that was asked for.
pub struct Plan {
    /// The cells, in the profile's order.
    pub cells: Vec<Planned>,
    /// Why data sets cannot be had, one line each.
    pub missing_data: Vec<String>,
    /// Whether its cells are on fixtures; both where a profile mixes them.
    pub kinds: BTreeSet<bool>,
    datasets: usize,
    backend: &'static str,
}

/// SHA-256 of a file of weights.
type Weights = String;

/// What was fetched, or why not.
type Had<T> = Result<T, String>;

impl Plan {
    /// Plan the cells of `profile`: fetch what they need, unless it is a dry run, and look at their records.
    pub fn make(args: &BenchAll, profile: &Profile, store: &Store, results: &Path, fixtures: bool) -> Result<Self> {
        let datasets = fetch_datasets(args, profile, store);
        let missing_data: Vec<String> = datasets
            .iter()
            .filter_map(|(name, had)| Some(format!("{name}: {}", had.as_ref().err()?)))
            .collect();
        let without_data = !datasets.is_empty() && missing_data.len() == datasets.len();
        // Without any data nothing is run, and weights need not be asked for.
        let weights = if without_data {
            HashMap::new()
        } else {
            fetch_weights(args, profile, store)
        };

        let mut plan = Self {
            cells: Vec::new(),
            missing_data,
            kinds: BTreeSet::new(),
            datasets: datasets.len(),
            backend: args.backend.as_str(),
        };
        for setting in &profile.settings {
            let data = data_of(args, setting, &datasets, fixtures)?;
            if let Ok(Some(data)) = &data {
                plan.kinds.insert(data.record().fixtures);
            }
            for protocol in &setting.protocols {
                for candidate in &profile.candidates {
                    for seed in 0..args.seeds {
                        let weights = weights.get(candidate.name());
                        let cell = Inputs {
                            args,
                            profile,
                            setting,
                            data: &data,
                            weights,
                        };
                        plan.cells
                            .push(cell.plan(protocol, candidate, seed, results, fixtures)?);
                    }
                }
            }
        }
        Ok(plan)
    }

    /// Whether it has data sets and none of them can be had, for another reason than that they are damaged.
    pub fn is_without_data(&self) -> bool {
        let damaged = self.missing_data.iter().any(|reason| reason.contains("SHA-256"));
        self.datasets > 0 && self.missing_data.len() == self.datasets && !damaged
    }

    /// A cell that cannot run stops the run before it begins, unless the others are to go on.
    pub fn checked(self, args: &BenchAll) -> Result<Self> {
        if args.keep_going || args.dry_run {
            return Ok(self);
        }
        let reasons: BTreeSet<&String> = self
            .cells
            .iter()
            .filter_map(|cell| match &cell.state {
                State::Broken(reason) => Some(reason),
                _ => None,
            })
            .collect();
        if reasons.is_empty() {
            return Ok(self);
        }
        let mut text = String::new();
        for reason in reasons {
            let _ = writeln!(text, "{reason}");
        }
        anyhow::bail!(
            "{text}hint: nothing was run and nothing is lost; --keep-going runs the cells that can be run, --fixtures \
             runs on the repository's own images"
        )
    }

    /// Say on stderr what is going to happen.
    pub fn announce(&self) {
        let count = |wanted: fn(&State) -> bool| self.cells.iter().filter(|cell| wanted(&cell.state)).count();
        let done = count(|state| matches!(state, State::Done));
        let to_run = count(|state| matches!(state, State::ToRun));
        let broken = count(|state| matches!(state, State::Broken(_)));
        let broken = if broken == 0 {
            String::new()
        } else {
            format!(", {broken} that cannot run")
        };
        eprintln!(
            "{} cells, {done} done, {to_run} to run on `{}`{broken}",
            self.cells.len(),
            self.backend
        );
    }
}

fn fetch_datasets(args: &BenchAll, profile: &Profile, store: &Store) -> BTreeMap<String, Had<Option<Dataset>>> {
    let mut datasets = BTreeMap::new();
    for source in profile.settings.iter().filter_map(|setting| setting.data.as_ref()) {
        datasets.entry(source.name().to_owned()).or_insert_with(|| {
            let had = match source {
                DataSource::Folder { path, .. } => open_folder(path).map(|(dataset, origin)| {
                    eprintln!("{}: {}", dataset.name, tested_on(&dataset, origin));
                    Some(dataset)
                }),
                DataSource::Listed(info) if args.dry_run => store.dataset_here(info),
                DataSource::Listed(info) => store.dataset(info).map(Some),
            };
            had.map_err(|error| format!("{error:#}"))
        });
    }
    datasets
}

/// Which images of a folder of one's own are tested on.
fn tested_on(dataset: &Dataset, origin: TestOrigin) -> String {
    let [train, test] = ["train", "test"].map(|split| dataset.splits.get(split).map_or(0, |set| set.len()));
    let classes = dataset.classes.len();
    let which = match origin {
        TestOrigin::Test => "`test`",
        TestOrigin::Val => "`val`",
        TestOrigin::Cut => "a fifth of every class, by the hashes of names, as there is no `test` or `val`",
    };
    format!("{classes} classes, {train} images to train on, {test} to test on: {which}")
}

fn fetch_weights(args: &BenchAll, profile: &Profile, store: &Store) -> HashMap<String, Had<Option<Weights>>> {
    let fetched = |candidate: &Candidate| {
        let had = if args.dry_run {
            store.weights_here(candidate)
        } else {
            store.weights(candidate)
        };
        let known = had.and_then(|path| path.map(|path| candidate.identity(Some(&path), 0)).transpose());
        (candidate.name().to_owned(), known.map_err(|error| format!("{error:#}")))
    };
    profile.candidates.iter().map(fetched).collect()
}

/// The images of a setting: absent where they are not here yet.
fn data_of(
    args: &BenchAll,
    setting: &Setting,
    datasets: &BTreeMap<String, Had<Option<Dataset>>>,
    fixtures: bool,
) -> Result<Had<Option<Data>>> {
    let Some(source) = &setting.data else {
        return Ok(Ok(Some(Data::noise(args.backend.as_str(), fixtures))));
    };
    let dataset = match &datasets[source.name()] {
        Err(reason) => return Ok(Err(reason.clone())),
        Ok(None) => return Ok(Ok(None)),
        Ok(Some(dataset)) => dataset,
    };
    match Images::open(dataset, &setting.limit, !args.dry_run) {
        // A slip in the profile is no cell's failure.
        Err(error) if launch::is_usage(&error) => Err(error),
        opened => Ok(opened
            .map(|images| {
                if let (Some(_), Some(leak)) = (source.path(), images.leak()) {
                    eprintln!("warning: {}: {leak}", source.name());
                }
                Some(Data::images(images))
            })
            .map_err(|error| format!("{error:#}"))),
    }
}

/// What the cells of one setting and candidate share.
struct Inputs<'a> {
    args: &'a BenchAll,
    profile: &'a Profile,
    setting: &'a Setting,
    data: &'a Had<Option<Data>>,
    weights: Option<&'a Had<Option<Weights>>>,
}

impl Inputs<'_> {
    fn plan(
        &self,
        protocol: &Protocol,
        candidate: &Candidate,
        seed: u64,
        results: &Path,
        fixtures: bool,
    ) -> Result<Planned> {
        let data = self.setting.data.as_ref();
        let args = Cell {
            own: Own {
                checkpoints: candidate.described_in().map(Path::to_owned).into_iter().collect(),
            },
            backend: self.args.backend,
            backbone: candidate.name().to_owned(),
            protocol: protocol.name().to_owned(),
            dataset: data
                .filter(|data| data.path().is_none())
                .map(|data| data.name().to_owned()),
            images: data.and_then(DataSource::path).map(Path::to_owned),
            limit: self.setting.limit.clone().into_iter().collect(),
            input_size: self.profile.input_size.filter(|_| candidate.is_random()),
            seed,
            results: results.to_owned(),
            fixtures,
            supervised: false,
        };
        let unnamed = |reason: Option<String>| {
            let dataset = data.map_or("noise", DataSource::name);
            let name = format!(
                "{}@{}/{dataset}/{}/{seed}",
                protocol.name(),
                protocol.version(),
                candidate.name()
            );
            let state = reason.map_or(State::ToRun, State::Broken);
            Planned {
                path: results.join(&name),
                args: args.clone(),
                name,
                state,
            }
        };
        let (data, weights) = match (self.data, self.weights) {
            (Err(reason), _) | (_, Some(Err(reason))) => return Ok(unnamed(Some(reason.clone()))),
            // A dry run that would fetch them.
            (Ok(None), _) | (_, None) => return Ok(unnamed(None)),
            (Ok(Some(_)), Some(Ok(None))) if !candidate.is_random() => return Ok(unnamed(None)),
            (Ok(Some(data)), Some(Ok(weights))) => (data, weights),
        };
        let identity = weights.clone().map_or_else(|| candidate.identity(None, seed), Ok)?;
        let asked = Asked::new(&args, protocol, candidate, identity, data)?;
        let path = asked.key.path(results);
        let name = path
            .strip_prefix(results)
            .unwrap_or(&path)
            .with_extension("")
            .display()
            .to_string();
        let state = self.state(&asked, &path);
        Ok(Planned {
            args,
            name,
            path,
            state,
        })
    }

    fn state(&self, asked: &Asked, path: &Path) -> State {
        if self.args.fresh || !path.exists() {
            return State::ToRun;
        }
        match Record::read(path) {
            Err(error) => State::Broken(error.to_string()),
            Ok(record) => {
                let done = record.is_done(
                    &asked.protocol_sha256,
                    &asked.checkpoint_sha256,
                    &asked.setup_sha256,
                    &asked.data.manifest_sha256,
                );
                if done { State::Done } else { State::ToRun }
            }
        }
    }
}
