//! Weights and data sets on this machine; and the verb `fetch`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use bob_data::datasets::image_folder::{self, TestOrigin};
use bob_data::{Dataset, DatasetInfo, datasets};

use crate::args::Fetch;
use crate::fetch::Fetcher;
use crate::launch::Usage;
use crate::places;
use crate::worker::candidate::{Candidate, Candidates};

/// Folder of weights in the cache.
const WEIGHTS: &str = "weights";
/// Folder of data sets in the cache.
const DATASETS: &str = "datasets";

/// Where weights and data sets come from.
#[derive(Debug)]
pub struct Store {
    fetcher: Fetcher,
}

impl Store {
    /// The user's cache; with `offline` (or BOB_OFFLINE in the environment) nothing is fetched into it.
    /// HF_ENDPOINT names a mirror of the Hugging Face hub.
    pub fn new(offline: bool) -> Result<Self> {
        let hub = env::var("HF_ENDPOINT").ok().filter(|address| !address.is_empty());
        let hub = hub.unwrap_or_else(|| "https://huggingface.co".to_owned());
        let offline = offline || env::var_os("BOB_OFFLINE").is_some_and(|value| !value.is_empty());
        Ok(Self {
            fetcher: Fetcher::new(places::cache()?, offline, hub),
        })
    }

    /// The weights file of `candidate`, fetched where it is not there; none for random weights.
    pub fn weights(&self, candidate: &Candidate) -> Result<Option<PathBuf>> {
        if candidate.is_random() {
            return Ok(None);
        }
        if let Some(path) = candidate.file() {
            return own_file(candidate, path).map(Some);
        }
        let checkpoint = &candidate.checkpoint;
        let sha256 = checkpoint.sha256.as_deref();
        let name = candidate.fetched_as();
        self.fetcher
            .fetch(WEIGHTS, name, &checkpoint.file, sha256, &checkpoint.sources)
            .map(Some)
    }

    /// The weights file of `candidate` where it is there, without fetching.
    pub fn weights_here(&self, candidate: &Candidate) -> Result<Option<PathBuf>> {
        if candidate.is_random() {
            return Ok(None);
        }
        if let Some(path) = candidate.file() {
            return own_file(candidate, path).map(Some);
        }
        let checkpoint = &candidate.checkpoint;
        let sha256 = checkpoint.sha256.as_deref();
        let name = candidate.fetched_as();
        self.fetcher
            .cached(WEIGHTS, name, &checkpoint.file, sha256, &checkpoint.sources)
    }

    /// The data set, its files fetched where they are not there.
    pub fn dataset(&self, info: &DatasetInfo) -> Result<Dataset> {
        for (file, sources) in (info.files)() {
            self.fetcher.fetch(DATASETS, info.folder, &file, None, &sources)?;
        }
        Self::open(info)
    }

    /// The data set where all its files are there, without fetching.
    pub fn dataset_here(&self, info: &DatasetInfo) -> Result<Option<Dataset>> {
        for (file, sources) in (info.files)() {
            if self
                .fetcher
                .cached(DATASETS, info.folder, &file, None, &sources)?
                .is_none()
            {
                return Ok(None);
            }
        }
        Self::open(info).map(Some)
    }

    fn open(info: &DatasetInfo) -> Result<Dataset> {
        let root = places::cache()?.join(DATASETS);
        datasets::open(info.name, &root).with_context(|| format!("data set `{}`", info.name))
    }
}

/// Where the images of a setting come from.
#[derive(Clone, Debug)]
pub enum DataSource {
    /// A row of the table of data sets.
    Listed(&'static DatasetInfo),
    /// A folder of one's own.
    Folder {
        /// Name of the folder, which records and reports have.
        name: String,
        /// Where it is, from the root.
        path: PathBuf,
    },
}

impl DataSource {
    /// The data set `name` of the table.
    ///
    /// # Errors
    /// Where there is none, with the nearest name.
    pub fn listed(name: &str) -> Result<Self> {
        Ok(Self::Listed(datasets::info(name)?))
    }

    /// The folder at `path`.
    ///
    /// # Errors
    /// Where it is none, or has a name that a data set of the table could have in a record.
    pub fn folder(path: &Path) -> Result<Self> {
        let found = path
            .canonicalize()
            .map_err(|error| Usage(format!("images `{}`: {error}", path.display())))?;
        let name = found.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A part of a data set is called by its name and the numbers of its images.
        let taken = datasets::datasets().iter().map(|info| info.name).find(|known| {
            let rest = name.strip_prefix(known);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        });
        if let Some(taken) = taken {
            let path = path.display();
            return Err(Usage(format!(
                "images `{path}`: records could not tell it from `{taken}`; rename it"
            ))
            .into());
        }
        if !found.is_dir() || name.is_empty() {
            return Err(Usage(format!("images `{}`: expected a folder with a name", path.display())).into());
        }
        Ok(Self::Folder { name, path: found })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Listed(info) => info.name,
            Self::Folder { name, .. } => name,
        }
    }

    /// Its folder, where it is one's own.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Listed(_) => None,
            Self::Folder { path, .. } => Some(path),
        }
    }
}

/// The images of a folder of one's own, and where those come from that are tested on.
pub fn open_folder(path: &Path) -> Result<(Dataset, TestOrigin)> {
    image_folder::train_and_test(path).with_context(|| format!("images `{}`", path.display()))
}

/// The file of a checkpoint of one's own, checked where its SHA-256 is given.
fn own_file(candidate: &Candidate, path: &Path) -> Result<PathBuf> {
    if let Some(expected) = &candidate.checkpoint.sha256 {
        let found = candidate.identity(Some(path), 0)?;
        ensure!(
            found == *expected,
            "`{}` of `{}` has the SHA-256 {found}, expected {expected}",
            path.display(),
            candidate.name()
        );
    }
    Ok(path.to_owned())
}

/// Fetch checkpoints and data sets by name, and say where they lie.
pub fn run(args: &Fetch) -> Result<ExitCode> {
    let store = Store::new(false)?;
    // All names first: a slip in the last is known before the first is fetched.
    let candidates = Candidates::open(&args.own.checkpoints)?;
    let wanted = args
        .names
        .iter()
        .map(|name| Wanted::find(name, &candidates))
        .collect::<Result<Vec<_>>>()?;
    let mut failures = 0;
    for (name, wanted) in args.names.iter().zip(wanted) {
        match wanted.fetch(&store) {
            Ok(path) => println!("{}", path.display()),
            Err(error) => {
                failures += 1;
                eprintln!("error: {name}: {error:#}");
            }
        }
    }
    Ok(if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

enum Wanted {
    Weights(Box<Candidate>),
    Dataset(&'static DatasetInfo),
}

impl Wanted {
    fn find(name: &str, candidates: &Candidates) -> Result<Self> {
        if let Some(info) = datasets::datasets().iter().find(|info| info.name == name) {
            return Ok(Self::Dataset(info));
        }
        let fetched = candidates.iter().filter(|candidate| !candidate.is_random());
        if let Some(candidate) = fetched.clone().find(|candidate| candidate.name() == name) {
            return Ok(Self::Weights(Box::new(candidate.clone())));
        }
        let known: Vec<&str> = datasets::datasets()
            .iter()
            .map(|info| info.name)
            .chain(fetched.map(Candidate::name))
            .collect();
        Err(bob_core::find("checkpoint or data set", name, &known, |name| name)
            .expect_err("it is neither a data set nor a checkpoint")
            .into())
    }

    fn fetch(self, store: &Store) -> Result<PathBuf> {
        match self {
            Self::Weights(candidate) => store.weights(&candidate)?.context("a checkpoint has a file"),
            Self::Dataset(info) => {
                store.dataset(info)?;
                Ok(places::cache()?.join(DATASETS).join(info.folder))
            }
        }
    }
}
