//! A profile: which backbones meet which protocols on which data.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bob_core::parse_toml;
use glob::Pattern;
use serde::Deserialize;

use crate::args::BenchAll;
use crate::launch::Usage;
use crate::worker::candidate::{Candidate, Candidates};
use crate::worker::protocol::Protocol;
use crate::worker::provide::{DataSource, Store};

/// The built-in profiles by name.
const QUICK: (&str, &str) = ("quick", include_str!("../../../profiles/quick.toml"));
const FIXTURES: (&str, &str) = ("fixtures", include_str!("../../../profiles/fixtures.toml"));

/// What is asked of a folder of one's own: all that needs nothing but classes.
const OF_FOLDERS: [&str; 4] = ["knn", "linear-probe", "few-shot", "class-retrieval"];

/// A profile as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    backbones: Vec<String>,
    /// Files that describe checkpoints of one's own, relative to the folder of the profile.
    #[serde(default)]
    checkpoints: Vec<PathBuf>,
    /// Side of the images of random-initialised backbones, in pixels.
    input_size: Option<usize>,
    setting: Vec<SettingFile>,
}

/// Protocols on a data set, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingFile {
    /// Absent for protocols that read no images.
    dataset: Option<String>,
    /// A folder of one's own in the place of a data set, relative to that of the profile.
    images: Option<PathBuf>,
    /// Images to take of a split.
    #[serde(default)]
    limit: BTreeMap<String, usize>,
    protocols: Vec<String>,
}

/// A profile whose names are known, after the filters of the command line.
#[derive(Debug)]
pub struct Profile {
    built_in: bool,
    /// The backbones, in the profile's order.
    pub candidates: Vec<Candidate>,
    /// Side of the images of random-initialised backbones, in pixels.
    pub input_size: Option<usize>,
    /// The settings, in the profile's order.
    pub settings: Vec<Setting>,
}

/// Protocols on a data set.
#[derive(Debug)]
pub struct Setting {
    /// Absent for protocols that read no images.
    pub data: Option<DataSource>,
    /// Images to take of a split.
    pub limit: BTreeMap<String, usize>,
    /// The protocols, in the profile's order.
    pub protocols: Vec<Protocol>,
}

impl Profile {
    /// The profile that is asked for.
    pub fn open(args: &BenchAll) -> Result<Self> {
        if args.profile == QUICK.0 {
            return Self::parse(QUICK.1, QUICK.0, true, args);
        }
        let text = fs::read_to_string(&args.profile).map_err(|error| {
            Usage(format!(
                "profile `{}`: {error}; expected `{}` or a TOML file",
                args.profile, QUICK.0
            ))
        })?;
        Self::parse(&text, &args.profile, false, args)
    }

    /// The profile on the repository's own images: the checkpoints that are here, and random weights.
    pub fn fixtures(args: &BenchAll, store: &Store) -> Result<Self> {
        let mut profile = Self::parse(FIXTURES.1, FIXTURES.0, true, args)?;
        let mut missing = Vec::new();
        profile.candidates.retain(|candidate| {
            let here = candidate.is_random() || matches!(store.weights_here(candidate), Ok(Some(_)));
            if !here {
                missing.push(candidate.name().to_owned());
            }
            here
        });
        if !missing.is_empty() {
            eprintln!("left out, as their weights are not here: {}", missing.join(", "));
        }
        Ok(profile)
    }

    /// Whether it came with the program.
    pub fn is_built_in(&self) -> bool {
        self.built_in
    }

    fn parse(text: &str, origin: &str, built_in: bool, args: &BenchAll) -> Result<Self> {
        let file: ProfileFile = parse_toml(text).map_err(|error| Usage(format!("profile `{origin}`, {error}")))?;
        let folder = Path::new(origin).parent().unwrap_or(Path::new(""));
        let of_profile = file.checkpoints.iter().map(|path| folder.join(path));
        let all = Candidates::open(
            &args
                .own
                .checkpoints
                .iter()
                .cloned()
                .chain(of_profile)
                .collect::<Vec<_>>(),
        )?;
        let mut candidates = file
            .backbones
            .iter()
            .map(|name| all.find(name))
            .collect::<Result<Vec<_>, _>>()?;
        // Who brings checkpoints wants them to take part; the profile's own are among its backbones where they do.
        let brought = args
            .own
            .checkpoints
            .iter()
            .map(std::path::absolute)
            .collect::<Result<Vec<_>, _>>()?;
        for candidate in all.iter() {
            let is_brought = candidate
                .described_in()
                .is_some_and(|file| brought.iter().any(|one| one == file));
            if is_brought && !candidates.iter().any(|one| one.name() == candidate.name()) {
                candidates.push(candidate.clone());
            }
        }
        let mut settings = file
            .setting
            .into_iter()
            .map(|setting| setting.resolve(folder))
            .collect::<Result<Vec<_>>>()?;
        if !args.images.is_empty() {
            settings.retain(|setting| setting.data.is_none());
            for (at, path) in args.images.iter().enumerate() {
                settings.insert(at, Setting::of_folder(path, &args.limit)?);
            }
        }
        check_names(&settings)?;

        candidates = filter_candidates(candidates, &args.backbone, &all)?;
        let protocols: Vec<String> = settings
            .iter()
            .flat_map(|setting| &setting.protocols)
            .map(|one| one.name().to_owned())
            .collect();
        let data: Vec<&str> = settings
            .iter()
            .filter_map(|setting| Some(setting.data.as_ref()?.name()))
            .collect();
        let wanted_protocol = Filter::new(&args.protocol)?;
        wanted_protocol.check(&format!("protocol of profile `{origin}`"), &protocols)?;
        let wanted_data = Filter::new(&args.dataset)?;
        wanted_data.check(&format!("data set of profile `{origin}`"), &data)?;
        for setting in &mut settings {
            setting
                .protocols
                .retain(|protocol| wanted_protocol.takes(protocol.name()));
        }
        settings.retain(|setting| {
            let wanted = match &setting.data {
                Some(data) => wanted_data.takes(data.name()),
                None => wanted_data.is_empty(),
            };
            wanted && !setting.protocols.is_empty()
        });
        if let Some(side) = file.input_size {
            let resized = |candidate: Candidate| {
                if candidate.is_random() {
                    candidate.at_input_size(side)
                } else {
                    Ok(candidate)
                }
            };
            candidates = candidates.into_iter().map(resized).collect::<Result<_, _>>()?;
        }
        Ok(Self {
            built_in,
            candidates,
            input_size: file.input_size,
            settings,
        })
    }
}

impl SettingFile {
    /// With everything found that it names, folders from `folder`.
    fn resolve(self, folder: &Path) -> Result<Setting> {
        let protocols = self
            .protocols
            .iter()
            .map(|name| Protocol::find(name))
            .collect::<Result<Vec<_>, _>>()?;
        let data = match (&self.dataset, &self.images) {
            (Some(_), Some(_)) => return Err(Usage("profile: a setting has `dataset` or `images`".to_owned()).into()),
            (Some(name), None) => Some(DataSource::listed(name)?),
            (None, Some(path)) => Some(DataSource::folder(&folder.join(path))?),
            (None, None) => None,
        };
        for protocol in &protocols {
            if protocol.reads_images() != data.is_some() {
                let needs = if data.is_some() {
                    "reads no images, so its setting has no `dataset` or `images`"
                } else {
                    "needs a `dataset` or `images`"
                };
                return Err(Usage(format!("profile: protocol `{}` {needs}", protocol.name())).into());
            }
        }
        Ok(Setting {
            data,
            limit: self.limit,
            protocols,
        })
    }
}

impl Setting {
    /// What is asked of the images of a folder of one's own.
    fn of_folder(path: &Path, limit: &[(String, usize)]) -> Result<Self> {
        let protocols = OF_FOLDERS.iter().map(|name| Protocol::find(name));
        Ok(Self {
            data: Some(DataSource::folder(path)?),
            limit: limit.iter().cloned().collect(),
            protocols: protocols.collect::<Result<_, _>>()?,
        })
    }
}

/// That no two folders have one name: their records would be each other's.
fn check_names(settings: &[Setting]) -> Result<(), Usage> {
    let mut known: BTreeMap<&str, &Path> = BTreeMap::new();
    for data in settings.iter().filter_map(|setting| setting.data.as_ref()) {
        let Some(path) = data.path() else { continue };
        let first = *known.entry(data.name()).or_insert(path);
        if first != path {
            let (first, second, name) = (first.display(), path.display(), data.name());
            return Err(Usage(format!(
                "images `{first}` and `{second}` are both called `{name}`; rename one"
            )));
        }
    }
    Ok(())
}

/// The candidates that a glob takes; one that takes none of them takes of all there are.
fn filter_candidates(of_profile: Vec<Candidate>, globs: &[String], all: &Candidates) -> Result<Vec<Candidate>> {
    if globs.is_empty() {
        return Ok(of_profile);
    }
    let mut taken: Vec<Candidate> = Vec::new();
    for glob in globs {
        let filter = Filter::new(std::slice::from_ref(glob))?;
        let mut found: Vec<&Candidate> = of_profile.iter().filter(|one| filter.takes(one.name())).collect();
        if found.is_empty() {
            filter.check("backbone", &all.iter().map(Candidate::name).collect::<Vec<_>>())?;
            found = all.iter().filter(|one| filter.takes(one.name())).collect();
        }
        for candidate in found {
            if !taken.iter().any(|one| one.name() == candidate.name()) {
                taken.push(candidate.clone());
            }
        }
    }
    Ok(taken)
}

/// Globs, of which one must match; none take everything.
struct Filter {
    patterns: Vec<Pattern>,
}

impl Filter {
    fn new(globs: &[String]) -> Result<Self, Usage> {
        let pattern = |glob: &String| Pattern::new(glob).map_err(|error| Usage(format!("glob `{glob}`: {error}")));
        Ok(Self {
            patterns: globs.iter().map(pattern).collect::<Result<_, _>>()?,
        })
    }

    fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    fn takes(&self, name: &str) -> bool {
        self.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(name))
    }

    /// Every glob must match one of `names`: otherwise it is a slip.
    fn check(&self, kind: &str, names: &[impl AsRef<str>]) -> Result<()> {
        for pattern in &self.patterns {
            if !names.iter().any(|name| pattern.matches(name.as_ref())) {
                bob_core::find(kind, pattern.as_str(), names, |name| name.as_ref())?;
            }
        }
        Ok(())
    }
}
