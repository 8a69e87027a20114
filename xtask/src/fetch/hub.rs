//! Files of the Hugging Face hub over HTTPS, resumed where an earlier download stopped.
//!
//! `{endpoint}/{repo}/resolve/{revision}/{path}` redirects to storage. The redirect, and not the storage, carries
//! `X-Linked-Etag`: the SHA-256 of a large file.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

use super::progress::Progress;
use super::{remove, sha256_of};

const CONNECT: Duration = Duration::from_secs(10);
/// The longest wait for the next bytes.
const READ: Duration = Duration::from_secs(30);
const REDIRECTS: usize = 10;
/// Tries of one call; each goes on where the one before stopped.
const ATTEMPTS: usize = 3;

/// Download `url` to `part`, whole and with the SHA-256 that is expected or that the hub tells.
///
/// Where it stops, `part` stays, and the next call goes on from there.
pub(super) fn download(url: &str, part: &Path, sha256: Option<&str>) -> Result<()> {
    let mut failure = None;
    for _ in 0..ATTEMPTS {
        match attempt(url, part, sha256) {
            Ok(()) => return Ok(()),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Retry(error)) => failure = Some(error),
        }
    }
    Err(failure.context("no attempt was made")?)
}

enum Failure {
    /// Another try would end the same.
    Final(anyhow::Error),
    /// The connection broke, or what was there from before is not the start of this file.
    Retry(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Final(error.into())
    }
}

fn attempt(url: &str, part: &Path, sha256: Option<&str>) -> Result<(), Failure> {
    let had = fs::metadata(part).map_or(0, |metadata| metadata.len());
    let Reply { mut response, etag } = request(url, had).map_err(Failure::Retry)?;
    let status = response.status();
    let resumed = status == StatusCode::PARTIAL_CONTENT && starts_at(&response, had);
    match status {
        StatusCode::OK => {}
        StatusCode::PARTIAL_CONTENT if resumed => {}
        // All of it is there already, or more than all.
        StatusCode::RANGE_NOT_SATISFIABLE => {
            return check(part, sha256.or(etag.as_deref()), true);
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err(Failure::Final(anyhow::anyhow!(
                "{status} for {url}; it may ask for an account"
            )));
        }
        _ if status.is_server_error() => return Err(Failure::Retry(anyhow::anyhow!("{status} for {url}"))),
        _ => return Err(Failure::Final(anyhow::anyhow!("{status} for {url}"))),
    }

    let written = |error| anyhow::Error::new(error).context(format!("cannot write `{}`", part.display()));
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .append(resumed)
        .truncate(!resumed)
        .open(part)
        .map_err(written)?;
    let mut done = if resumed { had } else { 0 };
    let total = response.body().content_length().map(|rest| done + rest);
    let mut progress = Progress::new(url);
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = body
            .read(&mut buffer)
            .map_err(|error| Failure::Retry(stopped(url, done, total, error.into())))?;
        if read == 0 {
            break;
        }
        file.write_all(&buffer[..read]).map_err(written)?;
        done += read as u64;
        progress.show(done, total);
    }
    if total.is_some_and(|total| done != total) {
        return Err(Failure::Retry(stopped(
            url,
            done,
            total,
            anyhow::anyhow!("the connection was closed"),
        )));
    }
    file.sync_all().map_err(written)?;
    if sha256.is_none() && etag.is_none() {
        eprintln!("{url} tells no checksum and none is pinned: the file's own is recorded");
    }
    check(part, sha256.or(etag.as_deref()), resumed)
}

fn stopped(url: &str, done: u64, total: Option<u64>, error: anyhow::Error) -> anyhow::Error {
    let total = total.map_or("an unknown number".to_owned(), |total| total.to_string());
    error.context(format!(
        "{url} stopped after {done} of {total} bytes (kept; the next fetch goes on from there)"
    ))
}

/// Whether `part` is what it should be; where not it is removed, and tried again if some of it was from before.
fn check(part: &Path, expected: Option<&str>, resumed: bool) -> Result<(), Failure> {
    let found = sha256_of(part).with_context(|| format!("cannot read `{}`", part.display()))?;
    let error = match expected {
        Some(expected) if expected == found => return Ok(()),
        Some(expected) => anyhow::anyhow!("the file has the SHA-256 {found}, expected {expected}"),
        // Without a checksum nothing shows that the two halves belong together.
        None if resumed => anyhow::anyhow!("the file cannot be resumed without a checksum"),
        None => return Ok(()),
    };
    remove(part)?;
    Err(if resumed {
        Failure::Retry(error)
    } else {
        Failure::Final(error)
    })
}

struct Reply {
    response: Response<Body>,
    /// The hub's SHA-256 of the file, where it tells one.
    etag: Option<String>,
}

/// Get `url` from byte `from`, following redirects by hand for the headers on the way.
fn request(url: &str, from: u64) -> Result<Reply> {
    let agent: Agent = Agent::config_builder()
        .timeout_connect(Some(CONNECT))
        .timeout_resolve(Some(CONNECT))
        .timeout_recv_response(Some(READ))
        .timeout_per_read(Some(READ))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("bob/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let mut at = url.to_owned();
    let mut etag = None;
    for _ in 0..REDIRECTS {
        let mut request = agent.get(&at).header(header::ACCEPT_ENCODING, "identity");
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let response = request.call().with_context(|| format!("cannot get {at}"))?;
        etag = etag.or_else(|| linked_etag(&response));
        if !response.status().is_redirection() {
            return Ok(Reply { response, etag });
        }
        let location = response
            .headers()
            .get(header::LOCATION)
            .and_then(|location| location.to_str().ok());
        at = resolve(&at, location.with_context(|| format!("{at} redirects to nowhere"))?)?;
    }
    bail!("{url} redirects more than {REDIRECTS} times")
}

/// The SHA-256 that the hub tells, where it is one.
fn linked_etag<T>(response: &Response<T>) -> Option<String> {
    let etag = response.headers().get("x-linked-etag")?.to_str().ok()?;
    let etag = etag.trim_start_matches("W/").trim_matches('"').to_lowercase();
    (etag.len() == 64 && etag.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(etag)
}

/// `location` as seen from `url`; never from https to http.
fn resolve(url: &str, location: &str) -> Result<String> {
    let (scheme, rest) = url.split_once("://").with_context(|| format!("{url} is no URL"))?;
    let host = rest.split('/').next().unwrap_or(rest);
    let next = match location {
        _ if location.contains("://") => location.to_owned(),
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{host}{location}"),
        _ => bail!("{url} redirects to `{location}`, which is no address"),
    };
    ensure!(
        scheme == "http" || next.starts_with("https://"),
        "{url} redirects to {next}, which is not encrypted"
    );
    Ok(next)
}

/// Whether the part that `response` gives starts at byte `from`.
fn starts_at<T>(response: &Response<T>, from: u64) -> bool {
    let range = response
        .headers()
        .get(header::CONTENT_RANGE)
        .and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
}
