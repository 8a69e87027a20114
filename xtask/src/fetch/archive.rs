//! Taking one file or folder out of an archive.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;

use super::create_dir;

/// How the archive of a source is packed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Archive {
    /// A wheel.
    Zip,
    /// A tarball of npm.
    TarGz,
    /// A Debian package, unpacked by `dpkg-deb`.
    Deb,
}

/// Write what the archive has at `inside` to `to`: a file, or where `inside` ends with `/` a folder.
///
/// Links are passed over, and no name leads out of `to`.
pub(super) fn extract(kind: Archive, archive: &Path, inside: &str, to: &Path) -> Result<()> {
    let mut wanted = Wanted { inside, to, found: 0 };
    let extracted = match kind {
        Archive::Zip => zip(archive, &mut wanted),
        Archive::TarGz => open(archive).and_then(|file| tar(GzDecoder::new(file), &mut wanted)),
        Archive::Deb => deb(archive, &mut wanted),
    };
    extracted.with_context(|| format!("cannot unpack `{}`", archive.display()))?;
    ensure!(wanted.found > 0, "its archive has no `{inside}`");
    Ok(())
}

fn open(archive: &Path) -> Result<BufReader<File>> {
    Ok(BufReader::new(File::open(archive)?))
}

fn zip(archive: &Path, wanted: &mut Wanted) -> Result<()> {
    let mut zip = zip::ZipArchive::new(open(archive)?)?;
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index)?;
        if entry.is_file() {
            let name = entry.name()?.into_owned();
            wanted.take(&name, &mut entry)?;
        }
    }
    Ok(())
}

fn tar(reader: impl Read, wanted: &mut Wanted) -> Result<()> {
    for entry in tar::Archive::new(reader).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            wanted.take(name.trim_start_matches("./"), &mut entry)?;
        }
    }
    Ok(())
}

fn deb(archive: &Path, wanted: &mut Wanted) -> Result<()> {
    let mut command = Command::new("dpkg-deb");
    command
        .arg("--fsys-tarfile")
        .arg(archive)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().context("cannot run `dpkg-deb`")?;
    let stdout = child.stdout.take().context("`dpkg-deb` has no output")?;
    let extracted = tar(BufReader::new(stdout), wanted);
    let status = child.wait().context("cannot wait for `dpkg-deb`")?;
    extracted?;
    if status.success() {
        Ok(())
    } else {
        bail!("`dpkg-deb` failed ({status})")
    }
}

/// What to take, and where to put it.
struct Wanted<'a> {
    inside: &'a str,
    to: &'a Path,
    found: usize,
}

impl Wanted<'_> {
    fn take(&mut self, name: &str, data: &mut impl Read) -> Result<()> {
        let Some(path) = self.path_of(name)? else { return Ok(()) };
        if let Some(folder) = path.parent() {
            create_dir(folder)?;
        }
        write(data, &path).with_context(|| format!("cannot write `{}`", path.display()))?;
        self.found += 1;
        Ok(())
    }

    /// Where the entry `name` goes, where it is wanted.
    fn path_of(&self, name: &str) -> Result<Option<PathBuf>> {
        if !self.inside.ends_with('/') {
            return Ok((name == self.inside).then(|| self.to.to_owned()));
        }
        let Some(below) = name.strip_prefix(self.inside).map(Path::new) else {
            return Ok(None);
        };
        let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
        ensure!(plain, "its entry `{name}` leads out of the archive");
        Ok(Some(self.to.join(below)))
    }
}

fn write(data: &mut impl Read, path: &Path) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    io::copy(data, &mut file)?;
    file.flush()
}
