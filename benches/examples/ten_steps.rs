//! Ten training steps from given weights on one given batch, as `cargo xtask measure --mode train` times them:
//! `fixtures/oracle/adamw.py` compares what comes out with PyTorch.
//!
//! ```text
//! cargo run --release -p bob-benches --features flex --example ten_steps -- flex resnet18 in.safetensors \
//!     data.safetensors out.safetensors
//! ```
//!
//! `in.safetensors` is a state dict in timm's names, loaded strictly; `data.safetensors` holds `images`
//! (`[n, 3, height, width]`) and `targets` (`[n, classes]`), both float32. `out.safetensors` is the state dict after the
//! steps; the loss before each goes to stdout.

#![expect(clippy::print_stdout, reason = "the losses are its output")]

use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use bob_core::check_input_size;
use bob_core::device::{BackendName, select};
use bob_efficiency::LEARNING_RATE;
use bob_models::weights::{LoadOptions, load_module, save};
use bob_models::{InitOptions, architectures};
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};

const STEPS: usize = 10;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [backend, architecture, weights, data, output] = arguments.as_slice() else {
        bail!("expected BACKEND ARCHITECTURE WEIGHTS DATA OUTPUT, found {arguments:?}");
    };
    let device = select(backend.parse::<BackendName>()?)?.autodiff();
    let bytes = fs::read(data).with_context(|| format!("`{data}`"))?;
    let tensors = SafeTensors::deserialize(&bytes).with_context(|| format!("`{data}` is no safetensors file"))?;
    let images: Tensor<4> = read(&tensors, "images", &device)?;
    let targets: Tensor<2> = read(&tensors, "targets", &device)?;

    let [_, _, height, width] = images.dims();
    let known = architectures();
    let architecture = bob_core::find("architecture", architecture, &known, |known| known.name)?;
    let options = InitOptions {
        num_classes: targets.dims()[1],
        input_size: [height, width],
    };
    let skeleton = (architecture.init)(&options, &device);
    let (backbone, _) = load_module(skeleton, Path::new(weights), &LoadOptions::default())?;
    check_input_size(&backbone, [height, width])?;

    let mut training = bob_efficiency::training(backbone, &device);
    for _ in 0..STEPS {
        let loss;
        (training, loss) = training.step(images.clone(), targets.clone(), LEARNING_RATE, 0.0);
        println!("{}", loss.into_scalar::<f32>());
    }
    Ok(save(&training.into_backbone(), Path::new(output))?)
}

/// The float32 tensor `name`, which has `D` dimensions.
fn read<const D: usize>(tensors: &SafeTensors, name: &str, device: &Device) -> Result<Tensor<D>> {
    let tensor = tensors
        .tensor(name)
        .with_context(|| format!("no `{name}` among {:?}", tensors.names()))?;
    let (shape, dtype) = (tensor.shape(), tensor.dtype());
    ensure!(
        dtype == Dtype::F32 && shape.len() == D,
        "`{name}` is {dtype:?} {shape:?}; expected F32 of {D} dimensions"
    );
    let values: Vec<f32> = tensor
        .data()
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        .collect();
    Ok(Tensor::from_data(TensorData::new(values, shape.to_vec()), device))
}
