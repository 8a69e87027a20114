//! One cell: what it is asked, and the record of what came out.

use std::cell::{Cell as Counter, OnceCell};
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use bob_classification::{Method, linear_probe};
use bob_core::device::{BackendName, float_dtype, select};
use bob_core::{Backbone, Embeddings, check_input_size};
use bob_data::{CacheKey, EmbeddingCache, EvalTransform, ImageSet, Manifest, PassOrder, embed};
use bob_efficiency::memory::peak_resident_bytes;
use bob_models::AnyBackbone;
use bob_ood::{Predictions, ShiftedPredictions, ShiftedSet};
use bob_stats::{Bootstrap, CellKey, CheckpointRecord, DataRecord, Environment, Metric, Record, SCHEMA_VERSION};
use burn::tensor::Device;
use sha2::{Digest, Sha256};

use crate::args::Cell;
use crate::launch::Usage;
use crate::places;
use crate::worker::candidate::{Candidate, Candidates};
use crate::worker::environment::{adapter, environment, threads};
use crate::worker::images::{Images, hex};
use crate::worker::progress::Progress;
use crate::worker::protocol::{Protocol, classifier_of};
use crate::worker::provide::{DataSource, Store, open_folder};

/// Images of one pass where embeddings are computed.
const BATCH: usize = 8;

/// What a cell reads.
pub enum Data {
    /// A data set.
    Images(Box<Images>),
    /// Noise at the checkpoint's input size; what is measured is the machine.
    Noise {
        /// Name of the setting, `noise-flex`: another backend is another setting.
        name: String,
        /// What the record says.
        record: DataRecord,
    },
}

impl Data {
    /// A data set.
    pub fn images(images: Images) -> Self {
        Self::Images(Box::new(images))
    }

    /// Noise for `backend`, perhaps as part of a run on fixtures.
    pub fn noise(backend: &str, fixtures: bool) -> Self {
        let name = format!("noise-{backend}");
        let manifest_sha256 = hex(&Sha256::digest(format!("{name} {fixtures}")));
        Self::Noise {
            name,
            record: DataRecord {
                manifest_sha256,
                counts: Default::default(),
                fixtures,
            },
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Images(images) => &images.dataset.name,
            Self::Noise { name, .. } => name,
        }
    }

    /// What a record says of it.
    pub fn record(&self) -> DataRecord {
        match self {
            Self::Images(images) => images.record(),
            Self::Noise { record, .. } => record.clone(),
        }
    }
}

/// What a cell is asked, resolved: what its record is named by and judged by.
pub struct Asked {
    /// What names it.
    pub key: CellKey,
    /// The resolved protocol.
    pub protocol: serde_json::Value,
    /// SHA-256 of it.
    pub protocol_sha256: String,
    /// What tells the weights from others.
    pub checkpoint_sha256: String,
    /// What tells their use from others.
    pub setup_sha256: String,
    /// The data.
    pub data: DataRecord,
}

impl Asked {
    /// What `args` asks, with everything found that it names; `identity` tells the weights from others.
    pub fn new(args: &Cell, protocol: &Protocol, candidate: &Candidate, identity: String, data: &Data) -> Result<Self> {
        let mut resolved = protocol.resolved();
        if let Data::Noise { .. } = data {
            // Speed is measured on a machine: on another one the record answers nothing.
            let backend: BackendName = args.backend.as_str().parse()?;
            resolved["machine"] = format!("{}, {} threads", adapter(backend, &select(backend)?), threads()).into();
        }
        Ok(Self {
            key: CellKey {
                task: protocol.task().to_owned(),
                protocol: protocol.name().to_owned(),
                version: protocol.version(),
                dataset: data.name().to_owned(),
                backbone: candidate.name().to_owned(),
                seed: args.seed,
            },
            protocol_sha256: hex(&Sha256::digest(resolved.to_string())),
            protocol: resolved,
            checkpoint_sha256: identity,
            setup_sha256: candidate.setup(),
            data: data.record(),
        })
    }
}

/// Run the cell and write its record.
pub fn run(args: &Cell) -> Result<ExitCode> {
    if !args.supervised {
        let record = measured(args)?;
        for metric in &record.metrics {
            println!("{} {}", metric.name, metric.value);
        }
        return Ok(ExitCode::SUCCESS);
    }
    thread::spawn(|| {
        // The end of stdin is the end of who started us; an error is too.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
    match measured(args) {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            println!("{error:#}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn measured(args: &Cell) -> Result<Record> {
    let (start, started) = (Instant::now(), SystemTime::now());
    let backend: BackendName = args.backend.as_str().parse()?;
    let device = select(backend)?;
    let protocol = Protocol::find(&args.protocol)?;
    let candidate = Candidates::open(&args.own.checkpoints)?.find(&args.backbone)?;
    let candidate = match args.input_size {
        Some(side) => candidate.at_input_size(side)?,
        None => candidate,
    };
    let store = Store::new(args.fixtures)?;
    let data = open_data(args, &protocol, &store)?;
    let weights = store.weights(&candidate)?;
    let identity = candidate.identity(weights.as_deref(), args.seed)?;
    let asked = Asked::new(args, &protocol, &candidate, identity, &data)?;

    let source = Source {
        seed: args.seed,
        identity: asked.checkpoint_sha256.clone(),
        transform: EvalTransform::new(&candidate.checkpoint.preprocess, PassOrder::default()),
        cache: EmbeddingCache::new(places::cache()?.join("embeddings")),
        candidate,
        weights,
        backend,
        device,
        loaded: OnceCell::new(),
        passed: Counter::new(0),
    };
    let metrics = source.measure(&protocol, &data)?;
    if protocol.reads_images() {
        eprintln!("  {} images through the backbone", source.passed.get());
    }
    let record = Record {
        schema: SCHEMA_VERSION,
        checkpoint: source.checkpoint_record(asked.checkpoint_sha256, asked.setup_sha256),
        environment: source.environment(),
        cell: asked.key,
        protocol: asked.protocol,
        protocol_sha256: asked.protocol_sha256,
        data: asked.data,
        limited: false,
        wall_seconds: start.elapsed().as_secs_f64(),
        peak_memory_bytes: peak_resident_bytes().unwrap_or(0),
        started_unix: started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        metrics,
    };
    record.write(&record.cell.path(&args.results))?;
    Ok(record)
}

fn open_data(args: &Cell, protocol: &Protocol, store: &Store) -> Result<Data> {
    let source = match (&args.dataset, &args.images) {
        (Some(name), _) => Some(DataSource::listed(name)?),
        (None, Some(path)) => Some(DataSource::folder(path)?),
        (None, None) => None,
    };
    match (&source, protocol.reads_images()) {
        (Some(source), true) => {
            let dataset = match source {
                DataSource::Listed(info) => store.dataset(info)?,
                DataSource::Folder { path, .. } => open_folder(path)?.0,
            };
            Ok(Data::images(Images::open(
                &dataset,
                &args.limit.iter().cloned().collect(),
                true,
            )?))
        }
        (None, false) => Ok(Data::noise(args.backend.as_str(), args.fixtures)),
        (None, true) => Err(Usage(format!("protocol `{}` needs --dataset or --images", args.protocol)).into()),
        (Some(_), false) => Err(Usage(format!(
            "protocol `{}` reads no images; leave --dataset and --images out",
            args.protocol
        ))
        .into()),
    }
}

/// Where a cell's embeddings come from: the cache, or a backbone that is loaded when the first one is missing.
struct Source {
    candidate: Candidate,
    weights: Option<PathBuf>,
    identity: String,
    seed: u64,
    backend: BackendName,
    device: Device,
    transform: EvalTransform,
    cache: EmbeddingCache,
    loaded: OnceCell<AnyBackbone>,
    /// Images that went through the backbone.
    passed: Counter<usize>,
}

impl Source {
    /// The backbone, batch norm folded.
    fn backbone(&self) -> Result<&AnyBackbone> {
        if self.loaded.get().is_none() {
            let backbone = self.candidate.load(self.weights.as_deref(), self.seed, &self.device)?;
            check_input_size(&backbone, self.candidate.checkpoint.preprocess.input_size)?;
            // Nothing was there, and no other thread is here.
            let _ = self.loaded.set(backbone.fuse());
        }
        self.loaded.get().context("the backbone was loaded")
    }

    /// The embeddings of `set`, which `manifest` describes.
    fn embeddings(&self, label: &str, set: &dyn ImageSet, manifest: &Manifest) -> Result<Embeddings> {
        let dtype = float_dtype(&self.device);
        let key = CacheKey::new(
            &self.identity,
            &self.candidate.setup(),
            manifest,
            &self.transform,
            self.backend,
            dtype,
            true,
        );
        self.cache.get_or_compute(&key, || {
            let backbone = self.backbone()?;
            let mut progress = Progress::new(format!("embedding {label}"), set.len());
            let embeddings = embed(
                backbone,
                set,
                &self.transform,
                BATCH,
                passes(self.backend),
                &self.device,
                &mut |done| progress.show(done),
            )?;
            self.passed.set(self.passed.get() + set.len());
            Ok(embeddings)
        })
    }

    /// The embeddings of a split.
    fn split(&self, images: &Images, split: &str) -> Result<Embeddings> {
        let set: &dyn ImageSet = &**images.dataset.split(split)?;
        let manifest = images
            .manifest(split)
            .with_context(|| format!("split `{split}` has no manifest"))?;
        self.embeddings(split, set, manifest)
    }

    fn checkpoint_record(&self, sha256: String, setup_sha256: String) -> CheckpointRecord {
        let (parameters, cost) = self.candidate.size(&self.device);
        let checkpoint = &self.candidate.checkpoint;
        let style = serde_json::to_value(checkpoint.pretraining.style).ok();
        CheckpointRecord {
            sha256,
            setup_sha256,
            architecture: checkpoint.architecture.clone(),
            style: style
                .as_ref()
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            pretraining_data: checkpoint.pretraining.data.clone(),
            pretraining_images: checkpoint.pretraining.images,
            parameters,
            macs: cost.map(|cost| cost.macs),
            folded: true,
        }
    }

    fn environment(&self) -> Environment {
        environment(self.backend, &self.device)
    }

    /// The metrics of the protocol: one arm a task.
    fn measure(&self, protocol: &Protocol, data: &Data) -> Result<Vec<Metric>> {
        let bootstrap = Bootstrap::default();
        match (protocol, data) {
            (Protocol::Classification(protocol), Data::Images(images)) => {
                let (train, test) = (self.split(images, "train")?, self.split(images, "test")?);
                Ok(bob_classification::run(protocol, &train, &test, self.seed, &bootstrap)?)
            }
            (Protocol::Retrieval(protocol), Data::Images(images)) => {
                let queries = self.split(images, &protocol.queries)?;
                let gallery = self.split(images, &protocol.gallery)?;
                Ok(bob_retrieval::run(protocol, &queries, &gallery, &bootstrap)?)
            }
            (Protocol::Ood(protocol), Data::Images(images)) => self.shifted(protocol, images, &bootstrap),
            (Protocol::Efficiency(protocol), Data::Noise { .. }) => {
                let start = Instant::now();
                let backbone = self.backbone()?;
                let load_seconds = start.elapsed().as_secs_f64();
                let size = self.candidate.checkpoint.preprocess.input_size;
                let mut measurement = bob_efficiency::measure(backbone, size, protocol, &self.device)?;
                // Folding takes away parameters that the published count has.
                measurement.parameters = self.candidate.size(&self.device).0;
                Ok(measurement.metrics(load_seconds, &bootstrap)?)
            }
            (protocol, data) => bail!("protocol `{}` does not run on `{}`", protocol.name(), data.name()),
        }
    }
}

impl Source {
    /// A probe trained on clean images, and what it says of the test images under every shift.
    fn shifted(&self, protocol: &bob_ood::Protocol, images: &Images, bootstrap: &Bootstrap) -> Result<Vec<Metric>> {
        let Method::LinearProbe(settings) = classifier_of(protocol)?.method else {
            bail!(
                "protocol `{}` wants the classifier `{}`; only probes predict here",
                protocol.name(),
                protocol.classifier
            )
        };
        let (train, test) = (self.split(images, "train")?, self.split(images, "test")?);
        let classifier = linear_probe(&train, &settings, self.seed)?.classifier;
        let clean = Predictions {
            labels: test.labels().to_vec(),
            predicted: classifier.predict(&test)?,
        };
        let mut shifted = Vec::new();
        for (corruption, severity) in protocol.shifts() {
            let set = ShiftedSet::new(images.dataset.split("test")?.clone(), corruption, severity, self.seed);
            let manifest = Manifest::compute(&set)?;
            let label = format!("{} {severity}", corruption.name);
            let predicted = classifier.predict(&self.embeddings(&label, &set, &manifest)?)?;
            shifted.push(ShiftedPredictions {
                corruption: corruption.name.to_owned(),
                severity,
                predicted,
            });
        }
        Ok(bob_ood::run(protocol, &clean, &shifted, bootstrap)?)
    }
}

/// Passes that run at a time.
const fn passes(backend: BackendName) -> usize {
    match backend {
        BackendName::Flex | BackendName::Wgpu | BackendName::Tch => 1,
    }
}
