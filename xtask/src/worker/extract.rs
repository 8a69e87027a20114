//! `extract`: embeddings, logits and stage maps of images, into a safetensors file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use bob_core::{Autocast, Backbone, check_input_size};
use bob_data::datasets::image_folder;
use bob_data::{EvalTransform, ImageSet, Loader, PassOrder};
use burn::tensor::{DType, Device, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors, View};

use crate::args::Extract;
use crate::launch::Usage;
use crate::worker::candidate::{Candidate, Candidates};
use crate::worker::environment::computing;
use crate::worker::progress::Progress;
use crate::worker::provide::Store;

/// Write what the backbone makes of the images.
pub fn run(args: &Extract) -> Result<ExitCode> {
    let (backend, precision, device) = computing(args.backend, &args.dtype)?;
    let candidate = find(args)?;
    let input = match (&args.images, &args.tensors) {
        (Some(folder), None) => Input::of_folder(folder, &candidate)?,
        (None, Some(file)) => Input::of_file(file)?,
        _ => bail!("either --images or --tensors"),
    };
    let weights = match &args.weights {
        Some(file) => Some(file.clone()),
        None => Store::new(false)?.weights(&candidate)?,
    };
    let backbone = Autocast::new(candidate.load(weights.as_deref(), 0, &device)?, backend, precision)?;
    let backbone = if args.no_fuse { backbone } else { backbone.fuse() };
    check_input_size(&backbone, [input.height, input.width])?;

    let mut outputs = Outputs::default();
    let mut progress = Progress::new("extracting", input.len);
    let mut done = 0;
    input.for_each_batch(args.batch, |values| {
        let shape = [values.len() / input.image_len(), 3, input.height, input.width];
        if args.pixels {
            outputs.add("pixels", &shape, &values);
        }
        outputs.pass(
            &backbone,
            Tensor::from_data(TensorData::new(values, shape), &device),
            &device,
        )?;
        done += shape[0];
        progress.show(done);
        Ok(())
    })?;
    drop(progress);
    let metadata = input
        .files
        .map(|files| Ok::<_, serde_json::Error>(("files".to_owned(), serde_json::to_string(&files)?)));
    outputs.write(&args.output, metadata.transpose()?)?;
    eprintln!("{} images, written to `{}`", input.len, args.output.display());
    Ok(ExitCode::SUCCESS)
}

/// The backbone that is asked for; with weights of one's own, an architecture will do.
fn find(args: &Extract) -> Result<Candidate> {
    let candidates = Candidates::open(&args.own.checkpoints)?;
    match (candidates.find(&args.backbone), &args.weights) {
        (Err(unknown), Some(_)) if !args.backbone.contains('.') => Ok(candidates
            .find(&format!("{}.random", args.backbone))
            .map_err(|_| unknown)?),
        (found, _) => Ok(found?),
    }
}

/// Images to come, all of one size.
struct Input {
    len: usize,
    height: usize,
    width: usize,
    /// Relative names of image files.
    files: Option<Vec<String>>,
    source: Source,
}

enum Source {
    Folder(Box<dyn ImageSet>, Box<EvalTransform>),
    Values(Vec<f32>),
}

impl Input {
    fn of_folder(folder: &Path, candidate: &Candidate) -> Result<Self> {
        let set = image_folder::flat(folder)?;
        let preprocess = &candidate.checkpoint.preprocess;
        let [height, width] = preprocess.input_size;
        Ok(Self {
            len: set.len(),
            height,
            width,
            files: Some((0..set.len()).map(|index| set.name(index)).collect()),
            source: Source::Folder(
                Box::new(set),
                Box::new(EvalTransform::new(preprocess, PassOrder::default())),
            ),
        })
    }

    fn of_file(file: &Path) -> Result<Self> {
        let name = file.display();
        let bytes = fs::read(file).map_err(|error| Usage(format!("`{name}`: {error}")))?;
        let tensors = SafeTensors::deserialize(&bytes).with_context(|| format!("`{name}` is no safetensors file"))?;
        let images = tensors
            .tensor("images")
            .map_err(|_| Usage(format!("`{name}` has {:?}; expected `images`", tensors.names())))?;
        let (shape, dtype) = (images.shape(), images.dtype());
        ensure!(
            shape.len() == 4 && shape[1] == 3 && shape.iter().all(|&side| side > 0) && dtype == Dtype::F32,
            "`images` of `{name}` is {dtype:?} {shape:?}; expected F32 [n, 3, h, w]"
        );
        let values = images
            .data()
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        Ok(Self {
            len: shape[0],
            height: shape[2],
            width: shape[3],
            files: None,
            source: Source::Values(values.collect()),
        })
    }

    /// Values of one image.
    fn image_len(&self) -> usize {
        3 * self.height * self.width
    }

    /// Give `pass` the images in order, `batch` at a time and fewer at the end: `[n, 3, height, width]`.
    fn for_each_batch(&self, batch: usize, mut pass: impl FnMut(Vec<f32>) -> Result<()>) -> Result<()> {
        match &self.source {
            Source::Values(values) => values
                .chunks(batch.saturating_mul(self.image_len()))
                .try_for_each(|values| pass(values.to_vec())),
            Source::Folder(set, transform) => {
                let decoders = thread::available_parallelism().map_or(1, usize::from);
                thread::scope(|scope| {
                    Loader::new(scope, &**set, transform, batch, decoders).try_for_each(|batch| pass(batch?.images))
                })
            }
        }
    }
}

/// Tensors that grow by a batch at a time.
#[derive(Default)]
struct Outputs {
    tensors: HashMap<String, Output>,
}

#[derive(Default)]
struct Output {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Outputs {
    fn pass<B: Backbone>(&mut self, backbone: &B, images: Tensor<4>, device: &Device) -> Result<()> {
        for (stage, map) in backbone.forward_intermediates(images.clone()).into_iter().enumerate() {
            let shape = map.dims();
            self.add(&format!("stage{stage}"), &shape, &read(map)?);
        }
        let embedding = backbone.forward_embedding(images);
        let shape = embedding.dims();
        if let Some(logits) = backbone.forward_classifier(embedding.clone()) {
            let shape = logits.dims();
            self.add("logits", &shape, &read(logits)?);
        }
        self.add("embedding", &shape, &read(embedding)?);
        device
            .sync()
            .map_err(|error| anyhow::anyhow!("the device failed: {error}"))
    }

    fn add(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let output = self.tensors.entry(name.to_owned()).or_default();
        let count = output.shape.first().copied().unwrap_or(0);
        output.shape = shape.to_vec();
        output.shape[0] += count;
        output.bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    /// Through a temporary file, so that what is there is whole.
    fn write(self, path: &Path, metadata: Option<(String, String)>) -> Result<()> {
        let mut tensors: Vec<_> = self.tensors.into_iter().collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        let metadata = metadata.map(|pair| HashMap::from([pair]));
        let written = safetensors::serialize_to_file(tensors, metadata, &temporary)
            .map_err(anyhow::Error::from)
            .and_then(|()| Ok(fs::rename(&temporary, path)?));
        if written.is_err() {
            // The reason is the first error.
            let _ = fs::remove_file(&temporary);
        }
        written.with_context(|| format!("`{}` is not written", path.display()))
    }
}

impl View for Output {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

fn read<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    let data = tensor
        .try_into_data()
        .map_err(|error| anyhow::anyhow!("the device failed: {error}"))?;
    data.convert_dtype(DType::F32)
        .try_into_vec()
        .map_err(|error| anyhow::anyhow!("the output cannot be read: {error:?}"))
}
