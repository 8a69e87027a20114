//! What the benchmarks share: which backbones on which backends, and a clock that waits for the device.
//!
//! `cargo bench -p bob-benches --features flex` times a short list; `BOB_BENCH="resnet50 vit_small_patch16_224"` other
//! architectures, `--features flex,wgpu,tch` more backends, and criterion's own arguments select and compare:
//!
//! ```text
//! cargo bench -p bob-benches --features flex -- throughput --save-baseline main
//! cargo bench -p bob-benches --features flex -- throughput --baseline main
//! ```

use std::env;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use bob_core::Backbone;
use bob_core::device::{BackendName, select};
use bob_models::{AnyBackbone, InitOptions, architectures, create_random};
use burn::tensor::{Device, Distribution, Tensor};

/// What is timed unless `BOB_BENCH` says otherwise: a small member of every family.
const SHORT: &str =
    "resnet18 convnext_atto vit_tiny_patch16_224 swinv2_micro_window7_224 efficientnet_b0 mobilenetv2_100";
/// Passes before the clock starts, beside criterion's own warm-up: the first compiles shaders and picks kernels.
const WARM_UP_PASSES: usize = 2;
/// Inputs that take turns.
const DISTINCT_INPUTS: usize = 4;

/// A backbone with random weights, batch norm folded, on a device.
pub struct Subject {
    /// `backend/architecture`, for criterion.
    pub id: String,
    backbone: AnyBackbone,
    device: Device,
    input_size: [usize; 2],
}

/// The subjects that were asked for, on every backend that was compiled in.
///
/// # Errors
/// Where an architecture is unknown or no backend was compiled in.
pub fn subjects() -> Result<Vec<Subject>> {
    let backends: Vec<BackendName> = BackendName::ALL
        .into_iter()
        .filter(|backend| backend.is_compiled())
        .collect();
    if backends.is_empty() {
        return Err(anyhow!(
            "no backend is compiled in; run `cargo bench -p bob-benches --features flex`"
        ));
    }
    let names = env::var("BOB_BENCH").unwrap_or_else(|_| SHORT.to_owned());
    let mut subjects = Vec::new();
    for backend in backends {
        for name in names.split([' ', ',']).filter(|name| !name.is_empty()) {
            subjects.push(Subject::new(name, backend)?);
        }
    }
    Ok(subjects)
}

impl Subject {
    fn new(name: &str, backend: BackendName) -> Result<Self> {
        let device = select(backend)?;
        let architectures = architectures();
        let architecture = bob_core::find("architecture", name, &architectures, |architecture| architecture.name)?;
        let options = InitOptions {
            num_classes: 0,
            input_size: architecture.input_size,
        };
        let backbone = create_random(name, &options, 0, &device)?.fuse();
        Ok(Self {
            id: format!("{backend}/{name}"),
            backbone,
            device,
            input_size: architecture.input_size,
        })
    }

    /// The time of `passes` passes of `batch` images each, the device idle before and after.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn time(&self, batch: usize, passes: u64) -> Result<Duration> {
        let [height, width] = self.input_size;
        let input = || Tensor::<4>::random([batch, 3, height, width], Distribution::Normal(0.0, 1.0), &self.device);
        let inputs: Vec<Tensor<4>> = (0..DISTINCT_INPUTS).map(|_| input()).collect();
        for images in inputs.iter().take(WARM_UP_PASSES) {
            self.pass(images)?;
        }
        let start = Instant::now();
        for pass in 0..passes {
            self.pass(&inputs[pass as usize % DISTINCT_INPUTS])?;
        }
        Ok(start.elapsed())
    }

    fn pass(&self, images: &Tensor<4>) -> Result<()> {
        let embedding = self.backbone.forward_embedding(images.clone());
        self.device
            .sync()
            .map_err(|error| anyhow!("{error}"))
            .with_context(|| self.id.clone())?;
        drop(embedding);
        Ok(())
    }
}
