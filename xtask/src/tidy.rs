//! `tidy`: the invariants of `docs/architecture.md`, from `cargo metadata` and the sources.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::places;

/// Crates of tasks: siblings that see no model and not each other.
const TASKS: [&str; 4] = ["bob-classification", "bob-retrieval", "bob-ood", "bob-efficiency"];
/// The crate that they train with, which sees neither.
const TRAIN: &str = "bob-train";
/// Crates that read and rank records without a tensor library.
const NO_TENSORS: [&str; 2] = ["bob-stats", "bob-report"];
/// Features that link a backend.
const BACKENDS: [&str; 3] = ["flex", "wgpu", "tch"];
/// Crates that read images, and the one crate that may depend on them.
const IMAGE_READERS: [&str; 3] = ["image", "mozjpeg", "turbojpeg"];
/// Largest committed file in bytes.
const LARGEST_FILE: u64 = 1 << 20;

/// Words that a library's sources do not contain, where they may be, and why.
const FORBIDDEN: &[Forbidden] = &[
    Forbidden {
        words: &[
            "Device::flex",
            "Device::wgpu",
            "Device::libtorch",
            "Device::ndarray",
            "Device::cuda",
        ],
        allowed: &["crates/bob-core/src/device.rs"],
        rule: "only bob-core::device names a backend",
    },
    Forbidden {
        words: &["println!", "print!(", "eprint!(", "dbg!("],
        allowed: &["xtask/", "benches/"],
        rule: "only xtask and benches print",
    },
    Forbidden {
        words: &["std::env", "env::var", "env::args", "env::current_dir"],
        allowed: &["xtask/", "benches/"],
        rule: "only xtask and benches read the environment",
    },
    Forbidden {
        words: &["burn::store", "burn_store"],
        allowed: &["crates/bob-models/src/weights"],
        rule: "only bob-models::weights reads checkpoints",
    },
];

struct Forbidden {
    words: &'static [&'static str],
    allowed: &'static [&'static str],
    rule: &'static str,
}

/// Print every violation; exit code 1 where there is one.
pub fn run() -> Result<ExitCode> {
    let violations = violations(places::workspace())?;
    for violation in &violations {
        println!("{violation}");
    }
    if violations.is_empty() {
        eprintln!("tidy");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{} violations of docs/architecture.md", violations.len());
    Ok(ExitCode::FAILURE)
}

/// Every violation below `root`, one sentence each.
fn violations(root: &Path) -> Result<Vec<String>> {
    let workspace = Workspace::read()?;
    let files = committed(root)?;
    let mut violations = dependencies(&workspace);
    violations.extend(folders(&workspace));
    violations.extend(readme(root, &workspace)?);
    for file in &files {
        violations.extend(contents(root, file)?);
    }
    Ok(violations)
}

/// What a crate may depend on, dev-dependencies aside.
fn dependencies(workspace: &Workspace) -> Vec<String> {
    let mut violations = Vec::new();
    for task in TASKS.into_iter().chain([TRAIN]) {
        let reached = workspace.reached_from(task);
        for other in TASKS
            .iter()
            .chain(&["bob-models"])
            .filter(|other| **other != task && reached.contains(**other))
        {
            violations.push(format!(
                "`{task}` depends on `{other}`: a task crate and `{TRAIN}` see neither models nor other tasks"
            ));
        }
    }
    for name in NO_TENSORS {
        let burn = workspace
            .reached_from(name)
            .into_iter()
            .find(|reached| reached.starts_with("burn"));
        if let Some(burn) = burn {
            violations.push(format!(
                "`{name}` depends on `{burn}`: records are read without a tensor library"
            ));
        }
    }
    for package in &workspace.members {
        for dependency in package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind.is_none())
        {
            if IMAGE_READERS.contains(&dependency.name.as_str()) && package.name != "bob-data" {
                let (name, dependency) = (&package.name, &dependency.name);
                violations.push(format!(
                    "`{name}` depends on `{dependency}`: only bob-data reads images"
                ));
            }
            let backend = dependency
                .features
                .iter()
                .find(|feature| BACKENDS.contains(&feature.as_str()));
            if let Some(backend) = backend.filter(|_| package.is_library()) {
                violations.push(format!(
                    "`{}` enables `{backend}` of `{}`: only xtask and benches choose a backend",
                    package.name, dependency.name
                ));
            }
        }
        let defaults = package.features.get("default").into_iter().flatten();
        for backend in defaults.filter(|feature| BACKENDS.contains(&feature.as_str())) {
            violations.push(format!("`{}` has `{backend}` among its default features", package.name));
        }
    }
    violations
}

/// A crate lies in the folder of its name.
fn folders(workspace: &Workspace) -> Vec<String> {
    let misplaced = |package: &&Package| {
        package.is_library()
            && package
                .folder()
                .and_then(Path::file_name)
                .is_none_or(|name| name != package.name.as_str())
    };
    let name = |package: &Package| format!("`{}` is not in a folder of its name", package.name);
    workspace.members.iter().filter(misplaced).map(name).collect()
}

/// `crates/README.md` has one sentence per crate: a line that names it first and ends in a full stop.
fn readme(root: &Path, workspace: &Workspace) -> Result<Vec<String>> {
    let path = root.join("crates/README.md");
    let text = fs::read_to_string(&path).with_context(|| format!("`{}`", path.display()))?;
    let mut lines: HashMap<&str, Vec<&str>> = HashMap::new();
    for line in text.lines() {
        if let Some(name) = line.split('`').nth(1) {
            lines.entry(name).or_default().push(line.trim_end_matches([' ', '|']));
        }
    }
    Ok(workspace
        .members
        .iter()
        .filter(|package| package.is_library())
        .filter(|package| !matches!(lines.get(package.name.as_str()).map(Vec::as_slice), Some([line]) if line.ends_with('.')))
        .map(|package| format!("crates/README.md has not exactly one line with one sentence about `{}`", package.name))
        .collect())
}

/// What a committed file may hold.
fn contents(root: &Path, file: &str) -> Result<Vec<String>> {
    let path = root.join(file);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        // Listed by git and removed since.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("`{}`", path.display())),
    };
    let mut violations = Vec::new();
    if bytes.len() as u64 > LARGEST_FILE {
        violations.push(format!(
            "{file}: {} bytes; a committed file has at most {LARGEST_FILE}",
            bytes.len()
        ));
    }
    if let Some(home) = home_path(&bytes) {
        violations.push(format!("{file}: names the home path `{home}`"));
    }
    if is_source(file)
        && let Ok(text) = std::str::from_utf8(&bytes)
    {
        for (number, line) in code(text) {
            for Forbidden { words, allowed, rule } in FORBIDDEN {
                let word = words.iter().find(|word| line.contains(**word));
                if let Some(word) = word.filter(|_| !allowed.iter().any(|place| file.starts_with(place))) {
                    violations.push(format!("{file}:{number}: `{word}`: {rule}"));
                }
            }
        }
    }
    Ok(violations)
}

/// Whether a file is source of a library or program, tests and benchmarks aside.
fn is_source(file: &str) -> bool {
    let test = |part: &str| matches!(part, "tests" | "tests.rs" | "benches.rs" | "examples");
    file.ends_with(".rs")
        && ["crates/", "xtask/src/", "benches/"].iter().any(|root| file.starts_with(root))
        && !file.split('/').any(test)
        // This file names the words.
        && file != "xtask/src/tidy.rs"
}

/// The numbered lines of a source that are neither comments nor the tests at its end.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..)
        .zip(text.lines())
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]") && !line.starts_with("#[cfg(all(test"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The first path below somebody's home folder in `bytes`.
fn home_path(bytes: &[u8]) -> Option<String> {
    // In two halves, so that this file does not name one.
    let roots = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Use", "rs/")];
    roots.iter().find_map(|root| {
        let at = bytes.windows(root.len()).position(|window| window == root.as_bytes())?;
        // A folder of that name within a path (`docs` + root) is nobody's home.
        let inside = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || b"._-".contains(&bytes[at - 1]));
        let rest = &bytes[at..(at + root.len() + 24).min(bytes.len())];
        let named = rest
            .get(root.len())
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'.');
        let end = rest
            .iter()
            .position(|byte| !byte.is_ascii_graphic())
            .unwrap_or(rest.len());
        (!inside && named).then(|| String::from_utf8_lossy(&rest[..end]).into_owned())
    })
}

/// Every file that is committed or would be.
fn committed(root: &Path) -> Result<BTreeSet<String>> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("git does not start")?;
    if !output.status.success() {
        bail!(
            "git ls-files failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let text = String::from_utf8(output.stdout).context("a committed file has a name that is no UTF-8")?;
    Ok(text
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect())
}

/// The part of `cargo metadata` that is looked at.
struct Workspace {
    members: Vec<Package>,
    /// Normal dependencies by package id, and the name of every id.
    edges: HashMap<String, Vec<String>>,
    names: HashMap<String, String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Clone, Deserialize)]
struct Package {
    id: String,
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
    features: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    features: Vec<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<EdgeKind>,
}

#[derive(Deserialize)]
struct EdgeKind {
    kind: Option<String>,
}

impl Package {
    fn folder(&self) -> Option<&Path> {
        self.manifest_path.parent()
    }

    fn is_library(&self) -> bool {
        self.folder()
            .and_then(Path::parent)
            .and_then(Path::file_name)
            .is_some_and(|name| name == "crates")
    }
}

impl Workspace {
    fn read() -> Result<Self> {
        let version = places::cargo().arg("-vV").output().context("cargo does not start")?;
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let host = version
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .context("cargo -vV names no host")?;
        // For this platform only: the other platforms' packages need not be here.
        let metadata: Metadata = serde_json::from_value(places::metadata(&["--filter-platform", host])?)?;
        let edges = metadata
            .resolve
            .nodes
            .into_iter()
            .map(|node| {
                let normal = |edge: &Edge| edge.dep_kinds.iter().any(|kind| kind.kind.is_none());
                (
                    node.id,
                    node.deps.into_iter().filter(normal).map(|edge| edge.pkg).collect(),
                )
            })
            .collect();
        let names = metadata
            .packages
            .iter()
            .map(|package| (package.id.clone(), package.name.clone()))
            .collect();
        let members = metadata
            .packages
            .into_iter()
            .filter(|package| metadata.workspace_members.contains(&package.id))
            .collect();
        Ok(Self { members, edges, names })
    }

    /// Names of all that `name` depends on, dev- and build-dependencies aside.
    fn reached_from(&self, name: &str) -> BTreeSet<&str> {
        let mut open: Vec<&str> = self
            .members
            .iter()
            .filter(|package| package.name == name)
            .map(|package| package.id.as_str())
            .collect();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        while let Some(id) = open.pop() {
            for next in self.edges.get(id).into_iter().flatten() {
                if seen.insert(next) {
                    open.push(next);
                }
            }
        }
        seen.iter()
            .filter_map(|id| self.names.get(*id))
            .map(String::as_str)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        let violations = violations(places::workspace()).expect("the workspace can be read");
        assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
    }

    fn package(name: &str, dependencies: &[(&str, &[&str])]) -> Package {
        Package {
            id: name.to_owned(),
            name: name.to_owned(),
            manifest_path: Path::new("/w/crates").join(name).join("Cargo.toml"),
            dependencies: dependencies
                .iter()
                .map(|(name, features)| Dependency {
                    name: (*name).to_owned(),
                    kind: None,
                    features: features.iter().map(|feature| (*feature).to_owned()).collect(),
                })
                .collect(),
            features: BTreeMap::new(),
        }
    }

    #[test]
    fn an_edge_that_must_not_be_is_found_through_others() {
        let check = |edges: &[(&str, &str)], members: Vec<Package>, expected: &[&str]| {
            let ids = members.iter().map(|package| package.name.clone());
            let ends = edges
                .iter()
                .flat_map(|(from, to)| [(*from).to_owned(), (*to).to_owned()]);
            let names = ids.chain(ends).map(|name| (name.clone(), name)).collect();
            let mut map: HashMap<String, Vec<String>> = HashMap::new();
            for (from, to) in edges {
                map.entry((*from).to_owned()).or_default().push((*to).to_owned());
            }
            let violations = dependencies(&Workspace {
                members,
                edges: map,
                names,
            });
            assert_eq!(violations.len(), expected.len(), "{violations:?}");
            for (violation, expected) in violations.iter().zip(expected) {
                assert!(violation.contains(expected), "{violation}");
            }
        };
        let ood = || vec![package("bob-ood", &[])];
        check(&[("bob-ood", "bob-data"), ("bob-data", "bob-core")], ood(), &[]);
        check(
            &[("bob-ood", "bob-data"), ("bob-data", "bob-models")],
            ood(),
            &["`bob-ood` depends on `bob-models`"],
        );
        check(
            &[("bob-ood", "bob-retrieval")],
            ood(),
            &["`bob-ood` depends on `bob-retrieval`"],
        );
        check(
            &[("bob-train", "bob-models")],
            vec![package("bob-train", &[])],
            &["`bob-train` depends on `bob-models`"],
        );
        check(
            &[("bob-stats", "x"), ("x", "burn-tensor")],
            vec![package("bob-stats", &[])],
            &["depends on `burn-tensor`"],
        );
        check(
            &[],
            vec![package("bob-core", &[("burn", &["flex"])])],
            &["enables `flex` of `burn`"],
        );
        check(
            &[],
            vec![package("bob-models", &[("image", &[])])],
            &["only bob-data reads images"],
        );
    }

    #[test]
    fn forbidden_words_are_found_in_code_only() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let check = |file: &str, text: &str, expected: usize| {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(&path, text).expect("written");
            let violations = contents(folder.path(), file).expect("read");
            assert_eq!(violations.len(), expected, "{violations:?}");
        };
        check(
            "crates/a/src/lib.rs",
            "/// Device::flex()\nfn f() {}\n#[cfg(test)]\nmod tests { Device::flex() }",
            0,
        );
        check(
            "crates/a/src/lib.rs",
            "fn f() { Device::flex() }\nfn g() { println!() }",
            2,
        );
        check("crates/a/tests/t.rs", "fn f() { Device::flex() }", 0);
        check(
            "xtask/src/main.rs",
            "fn f() { println!(\"{:?}\", std::env::args()) }",
            0,
        );
        check("crates/a/src/lib.rs", "use burn::store::SafetensorsStore;", 1);
        check(
            "crates/bob-models/src/weights/mod.rs",
            "use burn::store::SafetensorsStore;",
            0,
        );
        check("notes.md", concat!("see /ro", "ot/.cache and x/ro", "ot/y"), 1);
        check("big.bin", &"x".repeat((1 << 20) + 1), 1);
    }
}
