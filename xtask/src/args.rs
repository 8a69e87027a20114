//! The command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

/// Battle of the Backbones: which pretrained vision backbone to choose, with intervals.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, help_expected = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the battle, from images and weights to the report.
    BenchAll(BenchAll),
    /// Names of what there is, one a line.
    List(List),
    /// Fetch weights and data sets, checked by SHA-256.
    Fetch(Fetch),
    /// Embeddings, logits and stage maps of images, into a safetensors file.
    Extract(Extract),
    /// Speed and memory of one backbone.
    Measure(Measure),
    /// Write the report of records and of other people's numbers.
    Report(Report),
    /// z-scores, ranks with intervals and correlations of anybody's table.
    Rank(Rank),
    /// Make ready what a backend needs.
    Setup(Setup),
    /// Check the invariants of docs/architecture.md.
    Tidy,
    /// Run one cell; what `bench-all` starts, and what repeats a failure.
    #[command(hide = true)]
    Cell(Cell),
}

/// A tensor backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// Pure Rust on the processor.
    #[default]
    Flex,
    /// Any GPU with Vulkan, Metal or DirectX; run `cargo xtask setup wgpu` first.
    Wgpu,
    /// LibTorch on the processor; run `cargo xtask setup tch` first.
    Tch,
}

impl Backend {
    /// Every backend.
    const ALL: [Self; 3] = [Self::Flex, Self::Wgpu, Self::Tch];

    /// Its name, also that of the Cargo feature that links it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Wgpu => "wgpu",
            Self::Tch => "tch",
        }
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if let Some(backend) = Self::ALL.into_iter().find(|backend| backend.as_str() == name) {
            return Ok(backend);
        }
        let nearest = Self::ALL
            .map(|backend| (strsim::jaro_winkler(&name.to_lowercase(), backend.as_str()), backend))
            .into_iter()
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(score, _)| *score > 0.7);
        Err(match nearest {
            Some((_, backend)) => format!("unknown backend `{name}`; did you mean `{backend}`?"),
            None => format!("unknown backend `{name}`; known: flex, wgpu, tch"),
        })
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Checkpoints that are not registered.
#[derive(Clone, Debug, Default, Args)]
pub struct Own {
    /// Also the checkpoints that this file describes; docs/adding-a-backbone.md has an example.
    #[arg(long, value_name = "FILE.toml")]
    pub checkpoints: Vec<PathBuf>,
}

/// Arguments of `bench-all`.
#[derive(Debug, Args)]
pub struct BenchAll {
    /// Checkpoints of one's own, which take part beside the profile's backbones.
    #[command(flatten)]
    pub own: Own,
    /// What to run: `quick`, or a TOML file like xtask/profiles/quick.toml.
    #[arg(long, value_name = "quick|PATH", default_value = "quick")]
    pub profile: String,
    /// Backend that computes.
    #[arg(long, value_name = "flex|wgpu|tch", default_value_t)]
    pub backend: Backend,
    /// Only backbones that match, of the profile or else of all there are.
    #[arg(long, value_name = "GLOB")]
    pub backbone: Vec<String>,
    /// Only protocols of the profile that match.
    #[arg(long, value_name = "GLOB")]
    pub protocol: Vec<String>,
    /// Only data sets of the profile that match.
    #[arg(long, value_name = "GLOB")]
    pub dataset: Vec<String>,
    /// Your own images instead of the profile's data sets: `train` and `test` (or `val`) with a folder a class, or the
    /// folders of the classes alone, a fifth of which is then tested on.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["dataset", "fixtures"])]
    pub images: Vec<PathBuf>,
    /// Take N images of a split of `--images`, the classes in turn.
    #[arg(long, value_name = "SPLIT=N", value_parser = split_limit, requires = "images")]
    pub limit: Vec<(String, usize)>,
    /// Run every cell with the seeds 0 to N - 1.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub seeds: u64,
    /// What runs the cells.
    #[arg(long, value_enum, default_value_t)]
    pub executor: Executor,
    /// Folder of the records [default: target/bob/results].
    #[arg(long, value_name = "DIR")]
    pub results: Option<PathBuf>,
    /// List every cell, done or not, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Run again what is done.
    #[arg(long)]
    pub fresh: bool,
    /// Run the other cells after one failed.
    #[arg(long)]
    pub keep_going: bool,
    /// Run on the repository's own images, without network; every record says so.
    #[arg(long, conflicts_with = "profile")]
    pub fixtures: bool,
}

/// What runs the cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Executor {
    /// This machine, one process a cell.
    #[default]
    Local,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct List {
    /// Checkpoints of one's own.
    #[command(flatten)]
    pub own: Own,
    /// Of what.
    #[arg(value_enum)]
    pub what: Listed,
    /// All that is known, as a JSON array of objects.
    #[arg(long)]
    pub json: bool,
}

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Listed {
    /// All that `--backbone` takes: checkpoints, and architectures with random weights.
    Backbones,
    /// Pretrained weights.
    Checkpoints,
    /// Data sets.
    Datasets,
    /// Protocols.
    Protocols,
    /// The rows of Battle of the Backbones, as a table: which checkpoint each is in each task, as released and corrected.
    Battle,
}

/// Arguments of `fetch`.
#[derive(Debug, Args)]
pub struct Fetch {
    /// Checkpoints of one's own.
    #[command(flatten)]
    pub own: Own,
    /// Checkpoints and data sets.
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// Arguments of `extract`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("input").required(true).args(["images", "tensors"]))]
pub struct Extract {
    /// Checkpoints of one's own.
    #[command(flatten)]
    pub own: Own,
    /// Backbone: a checkpoint, `ARCHITECTURE.random`, or with `--weights` an architecture.
    #[arg(long, value_name = "NAME")]
    pub backbone: String,
    /// Weights file to load instead of the checkpoint's own.
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Every image below this folder, in sorted order, with the checkpoint's preprocessing.
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// `images` of this safetensors file: `[n, 3, h, w]`, normalised.
    #[arg(long, value_name = "FILE")]
    pub tensors: Option<PathBuf>,
    /// Safetensors file to write.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Also write the preprocessed `pixels` of `--images`.
    #[arg(long, requires = "images")]
    pub pixels: bool,
    /// Leave batch norm as it is instead of folding it into the convolutions.
    #[arg(long)]
    pub no_fuse: bool,
    /// Images of one pass.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = positive)]
    pub batch: usize,
    /// Backend that computes.
    #[arg(long, value_name = "flex|wgpu|tch", default_value_t)]
    pub backend: Backend,
    /// Type that the backbone multiplies in; `bf16` on `tch` alone, with float32 parameters.
    #[arg(long, value_name = "f32|bf16", default_value = "f32")]
    pub dtype: String,
}

/// Arguments of `measure`.
#[derive(Debug, Args)]
pub struct Measure {
    /// Checkpoints of one's own.
    #[command(flatten)]
    pub own: Own,
    /// Backbone: a checkpoint, or `ARCHITECTURE.random`.
    #[arg(long, value_name = "NAME")]
    pub backbone: String,
    /// What to time.
    #[arg(long, value_enum, default_value_t)]
    pub mode: Mode,
    /// Images of one pass of the throughput clock, or of one step [default: the protocol's].
    #[arg(long, value_name = "N", value_parser = positive)]
    pub batch: Option<usize>,
    /// Side of the images [default: the checkpoint's].
    #[arg(long, value_name = "PX", value_parser = positive)]
    pub size: Option<usize>,
    /// Backend that computes.
    #[arg(long, value_name = "flex|wgpu|tch", default_value_t)]
    pub backend: Backend,
    /// Type that the backbone multiplies in; `bf16` on `tch` alone, with float32 parameters.
    #[arg(long, value_name = "f32|bf16", default_value = "f32")]
    pub dtype: String,
    /// Leave batch norm as it is instead of folding it into the convolutions, as training always does.
    #[arg(long)]
    pub no_fuse: bool,
    /// Say what each kind of operation takes of a pass, instead of timing passes; on `flex` and `tch`.
    #[arg(long)]
    pub profile: bool,
    /// In training, compute the activations of every block again instead of keeping them.
    #[arg(long)]
    pub grad_checkpointing: bool,
    /// One JSON object on stdout instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// What `measure` times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// The forward pass.
    #[default]
    Infer,
    /// A training step: forward, backward and AdamW apart.
    Train,
}

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct Report {
    /// Folder of the records [default: target/bob/results].
    #[arg(long, value_name = "DIR")]
    pub results: Option<PathBuf>,
    /// Also take the scores of a table like `rank`'s.
    #[arg(long, value_name = "FILE.csv")]
    pub import: Vec<PathBuf>,
    /// Folder to write to [default: `report` beside the results].
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// Arguments of `rank`.
#[derive(Debug, Args)]
pub struct Rank {
    /// A `backbone` column and one numeric column a setting; `lower:` before a column's name where lower is better.
    #[arg(value_name = "SCORES.csv")]
    pub scores: PathBuf,
    /// One JSON object on stdout instead of a table.
    #[arg(long)]
    pub json: bool,
    /// 1 for the sample's deviation in z-scores, 0 for the population's.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=1))]
    pub ddof: u8,
}

/// Arguments of `setup`.
#[derive(Debug, Args)]
pub struct Setup {
    /// The backend.
    #[command(subcommand)]
    pub backend: SetupBackend,
}

/// A backend that needs something installed.
#[derive(Debug, Subcommand)]
pub enum SetupBackend {
    /// Find LibTorch 2.9 in LIBTORCH, in a Python that has torch 2.9, or install it with pip into the cache.
    Tch {
        /// An interpreter that has torch 2.9.
        #[arg(long, value_name = "PATH")]
        python: Option<PathBuf>,
    },
    /// Find a Vulkan driver, or say what to install.
    Wgpu,
}

/// Arguments of `cell`.
#[derive(Clone, Debug, Args)]
pub struct Cell {
    /// Checkpoints of one's own.
    #[command(flatten)]
    pub own: Own,
    /// Backend that computes.
    #[arg(long, value_name = "flex|wgpu|tch", default_value_t)]
    pub backend: Backend,
    /// Backbone.
    #[arg(long, value_name = "NAME")]
    pub backbone: String,
    /// Protocol.
    #[arg(long, value_name = "NAME")]
    pub protocol: String,
    /// Data set; none for a protocol that reads no images.
    #[arg(long, value_name = "NAME")]
    pub dataset: Option<String>,
    /// Images of one's own instead.
    #[arg(long, value_name = "DIR", conflicts_with = "dataset")]
    pub images: Option<PathBuf>,
    /// Take N images of a split, the classes in turn.
    #[arg(long, value_name = "SPLIT=N", value_parser = split_limit)]
    pub limit: Vec<(String, usize)>,
    /// Side of the images of a random-initialised backbone, in pixels.
    #[arg(long, value_name = "PX", value_parser = positive)]
    pub input_size: Option<usize>,
    /// Seed of everything that is drawn.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Folder of the records.
    #[arg(long, value_name = "DIR")]
    pub results: PathBuf,
    /// Part of a run on the repository's own images.
    #[arg(long)]
    pub fixtures: bool,
    /// Started by `bench-all`: end when stdin does, and say on stdout why a cell failed.
    #[arg(long, hide = true)]
    pub supervised: bool,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("expected at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("expected a whole number".to_owned()),
    }
}

fn split_limit(text: &str) -> Result<(String, usize), String> {
    let (split, limit) = text.split_once('=').ok_or("expected SPLIT=N, for example train=600")?;
    Ok((split.to_owned(), positive(limit)?))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_slip_in_a_backend_is_put_right() {
        let check = |name: &str, expected: &str| {
            assert_eq!(name.parse::<Backend>().expect_err("must be refused"), expected);
        };
        check("flx", "unknown backend `flx`; did you mean `flex`?");
        check("WGPU", "unknown backend `WGPU`; did you mean `wgpu`?");
        check("cuda", "unknown backend `cuda`; known: flex, wgpu, tch");
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
