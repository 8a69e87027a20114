//! Every operation against PyTorch 2.9.1: outputs and the gradients of all inputs, computed there in float64.
//!
//! `fixtures/make_ops.py` made the cases: a few of each operation are committed, and where `BOB_OPS_DIR` names a folder
//! that the script filled, all of them are checked. Each runs many ways that must not matter: over views of larger,
//! transposed and flipped buffers, on inputs that nobody else holds, with each input frozen, with gradient
//! checkpointing, and without gradients, there also through the modules of burn.
//!
//! `cargo test --release -p bob-ops --features flex --test oracle -- --nocapture`

#![expect(clippy::print_stderr, reason = "a test says what it saw")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bob_core::device::{self, BackendName};
use bob_ops::{Activation, Conv2dOptions, Epilogue, nn};
use burn::module::{Module, Param, ParamId, RunningState};
use burn::nn::conv::Conv2dConfig;
use burn::nn::{BatchNormConfig, GroupNormConfig, LayerNormConfig, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use safetensors::SafeTensors;
use serde::Deserialize;

/// Relative L2 error that outputs and gradients may have in float32.
const TOLERANCE: f64 = 1e-5;

/// A case as `make_ops.py` describes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    operation: Operation,
    inputs: Vec<String>,
    outputs: Vec<String>,
    /// The inputs that have one.
    gradients: BTreeSet<String>,
}

impl Case {
    /// Whether burn's composition is known to differ: `clamp` has a gradient at its ends, and nothing has gradients
    /// where there are no images.
    fn is_beyond_burn(&self, file: &SafeTensors) -> bool {
        self.name.starts_with("bends/") || read(file, &format!("{}/upstream", self.name)).num_elements() == 0
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Operation {
    Conv2d {
        stride: [usize; 2],
        padding: [[usize; 2]; 2],
        dilation: [usize; 2],
        groups: usize,
        activation: Option<Name>,
    },
    Linear {
        activation: Option<Name>,
    },
    Mlp {
        activation: Name,
    },
    BatchNorm {
        epsilon: f64,
        activation: Option<Name>,
    },
    BatchNormModule {
        epsilon: f64,
        momentum: f64,
        activation: Option<Name>,
    },
    GroupNorm {
        groups: usize,
        epsilon: f64,
        activation: Option<Name>,
    },
    LayerNorm {
        epsilon: f64,
    },
    #[serde(rename = "layer_norm_2d")]
    LayerNorm2d {
        epsilon: f64,
    },
    Attention {
        heads: usize,
    },
    CosineAttention {
        heads: usize,
    },
    MaxPool2d {
        kernel: usize,
        stride: usize,
        padding: usize,
    },
    MeanPool {},
    GateChannels {},
    Activation {
        activation: Name,
    },
    AddRelu {},
    CrossEntropy {
        smoothing: f64,
    },
    StandardizeWeight {
        scale: f64,
        epsilon: f64,
    },
}

impl Operation {
    /// Its name in the report.
    fn name(&self) -> &'static str {
        match self {
            Self::Conv2d { .. } => "conv2d",
            Self::Linear { .. } => "linear",
            Self::Mlp { .. } => "mlp",
            Self::BatchNorm { .. } => "batch_norm",
            Self::BatchNormModule { .. } => "nn::batch_norm",
            Self::GroupNorm { .. } => "group_norm",
            Self::LayerNorm { .. } => "layer_norm",
            Self::LayerNorm2d { .. } => "layer_norm_2d",
            Self::Attention { .. } => "attention",
            Self::CosineAttention { .. } => "cosine_attention",
            Self::MaxPool2d { .. } => "max_pool2d",
            Self::MeanPool {} => "mean_pool",
            Self::GateChannels {} => "gate_channels",
            Self::Activation { .. } => "activation",
            Self::AddRelu {} => "add_relu",
            Self::CrossEntropy { .. } => "cross_entropy",
            Self::StandardizeWeight { .. } => "standardize_weight",
        }
    }
}

/// The name of an activation.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Name {
    Relu,
    Relu6,
    Silu,
    Gelu,
    GeluTanh,
}

impl From<Name> for Activation {
    fn from(name: Name) -> Self {
        match name {
            Name::Relu => Self::Relu,
            Name::Relu6 => Self::Relu6,
            Name::Silu => Self::Silu,
            Name::Gelu => Self::Gelu,
            Name::GeluTanh => Self::GeluTanh,
        }
    }
}

/// How the values of a tensor lie in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
enum View {
    /// Side by side.
    Plain,
    /// Side by side, and nobody else holds them: an operation may write over them.
    Owned,
    /// The axes in the opposite order.
    Permuted,
    /// From the last to the first, along every axis.
    Flipped,
    /// Within a larger buffer.
    Narrowed,
}

impl View {
    /// `x` as this view.
    fn of<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        let settled = |x: Tensor<D>| {
            let device = x.device();
            Tensor::<D>::from_data(x.into_data(), &device)
        };
        let turned = |x| self.turned(settled(self.turned(x)));
        match self {
            Self::Plain | Self::Owned => x,
            // burn-flex 0.22.1 panics on what it flipped of nothing.
            _ if x.dims().contains(&0) => x,
            Self::Permuted | Self::Flipped => turned(x),
            Self::Narrowed => {
                let inside = x.dims().map(|size| 1..size + 1);
                let larger = Tensor::full(x.dims().map(|size| size + 3), 7.5, &x.device());
                settled(larger.slice_assign(inside.clone(), x)).slice(inside)
            }
        }
    }

    /// Seen the other way, as permuted and flipped views are laid out; twice is once.
    fn turned<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            _ if x.dims().contains(&0) => x,
            Self::Permuted => x.permute(std::array::from_fn::<_, D, _>(|axis| (D - 1 - axis) as isize)),
            Self::Flipped => x.flip(std::array::from_fn::<_, D, _>(|axis| axis as isize)),
            _ => x,
        }
    }
}

/// How a case is run.
struct Way {
    device: Device,
    view: View,
    /// Inputs whose gradients are not asked for.
    frozen: BTreeSet<String>,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} inputs", self.view)?;
        match self.device.gradient_checkpointing_strategy() {
            None => f.write_str(", no gradients")?,
            Some(strategy) => write!(f, ", checkpointing {strategy:?}, frozen {:?}", self.frozen)?,
        }
        Ok(())
    }
}

/// Reads a tensor of some rank.
type Reader = Box<dyn Fn() -> TensorData>;
/// Reads the gradient of one, where it has one.
type GradientReader = Box<dyn Fn(&Gradients) -> Option<TensorData>>;

/// An input, as it was given.
struct Leaf {
    name: String,
    value: Reader,
    gradient: GradientReader,
}

/// The tensors of a case on the way into an operation.
struct Inputs<'a> {
    case: &'a Case,
    file: &'a SafeTensors<'a>,
    way: &'a Way,
    leaves: RefCell<Vec<Leaf>>,
}

/// What came of an operation.
#[derive(Default)]
struct Outcome {
    /// The product of the first output with its gradient.
    loss: Option<Tensor<1>>,
    outputs: Vec<(&'static str, Reader)>,
}

impl Outcome {
    /// Another output.
    fn and<const D: usize>(mut self, name: &'static str, output: Tensor<D>) -> Self {
        self.outputs.push((name, Box::new(move || output.clone().into_data())));
        self
    }
}

impl<'a> Inputs<'a> {
    fn new(case: &'a Case, file: &'a SafeTensors<'a>, way: &'a Way) -> Self {
        Self {
            case,
            file,
            way,
            leaves: RefCell::default(),
        }
    }

    /// Whether gradients are tracked at all.
    fn is_autodiff(&self) -> bool {
        self.way.device.is_autodiff()
    }

    /// The values of a tensor of the case.
    fn data(&self, key: &str) -> TensorData {
        read(self.file, &format!("{}/{key}", self.case.name))
    }

    /// Input `name`, where the case has it.
    fn optional<const D: usize>(&self, name: &str) -> Option<Tensor<D>> {
        if !self.case.inputs.iter().any(|input| input == name) {
            return None;
        }
        let x = self
            .way
            .view
            .of(Tensor::<D>::from_data(self.data(name), &self.way.device));
        let tracked = self.is_autodiff() && !self.way.frozen.contains(name) && !name.starts_with("running");
        let leaf = if tracked { x.require_grad() } else { x };
        let (value, gradient) = (leaf.clone(), leaf.clone());
        self.leaves.borrow_mut().push(Leaf {
            name: name.to_owned(),
            value: Box::new(move || value.clone().into_data()),
            gradient: Box::new(move |gradients| gradient.grad(gradients).map(Tensor::into_data)),
        });
        Some(if self.way.view == View::Owned { leaf * 1.0 } else { leaf })
    }

    /// Input `name`.
    fn get<const D: usize>(&self, name: &str) -> Tensor<D> {
        self.optional(name).expect("the case has this input")
    }

    /// What follows a product.
    fn epilogue<const D: usize>(&self, activation: Option<Name>) -> Epilogue<D> {
        Epilogue {
            residual: self.optional("residual"),
            activation: activation.map(Activation::from),
        }
    }

    /// The outcome of an operation whose first output this is.
    fn outcome<const D: usize>(&self, output: Tensor<D>) -> Outcome {
        let upstream = Tensor::<D>::from_data(self.data("upstream"), &self.way.device);
        // Turned, so that the gradient that comes back is a view too.
        let turned = self.way.view.turned(output.clone()) * self.way.view.turned(upstream);
        Outcome {
            loss: Some(turned.sum()),
            outputs: Vec::new(),
        }
        .and("output", output)
    }

    /// Run the operation on tensors of any rank.
    fn run_ranked<const D: usize>(&self) -> Outcome {
        match &self.case.operation {
            Operation::Linear { activation } => {
                let (x, weight, bias) = (self.get::<D>("x"), self.get::<2>("weight"), self.optional("bias"));
                let epilogue = self.epilogue(*activation);
                let output = bob_ops::linear(x.clone(), weight.clone(), bias.clone(), epilogue.clone());
                let outcome = self.outcome(output);
                if self.is_autodiff() {
                    return outcome;
                }
                let [inner, outer] = weight.dims();
                let mut layer = LinearConfig::new(inner, outer).init(&self.way.device);
                layer.weight = Param::initialized(ParamId::new(), weight);
                layer.bias = bias.map(|bias| Param::initialized(ParamId::new(), bias));
                outcome.and("output", nn::linear(&layer, x, epilogue))
            }
            Operation::Mlp { activation } => {
                let layer = |name: &str| {
                    let weight = self.get::<2>(&format!("{name}_weight"));
                    (weight, self.optional(&format!("{name}_bias")))
                };
                let (x, epilogue) = (self.get::<D>("x"), self.epilogue(None));
                self.outcome(bob_ops::mlp(
                    x,
                    layer("fc1"),
                    (*activation).into(),
                    layer("fc2"),
                    epilogue,
                ))
            }
            Operation::LayerNorm { epsilon } => {
                let (x, gamma, beta) = (self.get::<D>("x"), self.get::<1>("gamma"), self.optional("beta"));
                let output = bob_ops::layer_norm(x.clone(), gamma.clone(), beta.clone(), *epsilon);
                let outcome = self.outcome(output);
                if self.is_autodiff() {
                    return outcome;
                }
                let mut layer = LayerNormConfig::new(gamma.dims()[0]).init(&self.way.device);
                layer.gamma = Param::initialized(ParamId::new(), gamma);
                layer.beta = beta.map(|beta| Param::initialized(ParamId::new(), beta));
                outcome.and("output", nn::layer_norm(&layer, *epsilon, x))
            }
            Operation::Activation { activation } => {
                self.outcome(Activation::from(*activation).forward(self.get::<D>("x")))
            }
            Operation::AddRelu {} => self.outcome(bob_ops::add_relu(self.get::<D>("x"), self.get("shortcut"))),
            _ => unreachable!("the other operations have one rank"),
        }
    }

    /// Run the operation.
    fn run(&self) -> Outcome {
        match &self.case.operation {
            Operation::Linear { .. }
            | Operation::Mlp { .. }
            | Operation::LayerNorm { .. }
            | Operation::Activation { .. }
            | Operation::AddRelu {} => match self.data("x").shape().len() {
                1 => self.run_ranked::<1>(),
                2 => self.run_ranked::<2>(),
                3 => self.run_ranked::<3>(),
                _ => self.run_ranked::<4>(),
            },
            Operation::Conv2d {
                stride,
                padding,
                dilation,
                groups,
                activation,
            } => {
                let options = Conv2dOptions {
                    stride: *stride,
                    padding: *padding,
                    dilation: *dilation,
                    groups: *groups,
                };
                let (x, weight, bias) = (self.get("x"), self.get::<4>("weight"), self.optional("bias"));
                let epilogue = self.epilogue(*activation);
                let output = bob_ops::conv2d(
                    Tensor::clone(&x),
                    weight.clone(),
                    Option::clone(&bias),
                    options,
                    epilogue.clone(),
                );
                let outcome = self.outcome(output);
                if self.is_autodiff() {
                    return outcome;
                }
                let [outer, inner, height, width] = weight.dims();
                let [[top, bottom], [left, right]] = *padding;
                let mut layer = Conv2dConfig::new([inner * groups, outer], [height, width])
                    .with_stride(*stride)
                    .with_dilation(*dilation)
                    .with_groups(*groups)
                    .with_padding(PaddingConfig2d::Explicit(top, left, bottom, right))
                    .init(&self.way.device);
                layer.weight = Param::initialized(ParamId::new(), weight);
                layer.bias = bias.map(|bias| Param::initialized(ParamId::new(), bias));
                let by_module = nn::conv2d(&layer, Tensor::clone(&x), epilogue.clone());
                nn::lay_out(&mut layer);
                outcome
                    .and("output", by_module)
                    .and("output", nn::conv2d(&layer, x, epilogue))
            }
            Operation::BatchNorm { epsilon, activation } => {
                let activation = activation.map(Activation::from);
                let found =
                    bob_ops::batch_norm(self.get("x"), self.get("gamma"), self.get("beta"), *epsilon, activation);
                self.outcome(found.output)
                    .and("mean", found.mean)
                    .and("variance", found.variance)
            }
            Operation::GroupNorm {
                groups,
                epsilon,
                activation,
            } => {
                let activation = activation.map(Activation::from);
                let (x, gamma, beta) = (self.get::<4>("x"), self.get::<1>("gamma"), self.get::<1>("beta"));
                let output = bob_ops::group_norm(x.clone(), gamma.clone(), beta.clone(), *groups, *epsilon, activation);
                let outcome = self.outcome(output);
                if self.is_autodiff() {
                    return outcome;
                }
                let mut layer = GroupNormConfig::new(*groups, gamma.dims()[0])
                    .with_epsilon(*epsilon)
                    .init(&self.way.device);
                layer.gamma = Some(Param::initialized(ParamId::new(), gamma));
                layer.beta = Some(Param::initialized(ParamId::new(), beta));
                outcome.and("output", nn::group_norm(&layer, x, activation))
            }
            Operation::BatchNormModule {
                epsilon,
                momentum,
                activation,
            } => {
                let activation = activation.map(Activation::from);
                let x = self.get::<4>("x");
                let mut layer = BatchNormConfig::new(x.dims()[3])
                    .with_epsilon(*epsilon)
                    .with_momentum(*momentum)
                    .init(&self.way.device);
                layer.gamma = Param::initialized(ParamId::new(), self.get("gamma"));
                layer.beta = Param::initialized(ParamId::new(), self.get("beta"));
                if !self.is_autodiff() {
                    let left = |name| RunningState::new(Tensor::from_data(self.data(name), &self.way.device));
                    layer.running_mean = left("output.running_mean");
                    layer.running_var = left("output.running_var");
                    return Outcome::default().and("inference", nn::batch_norm(&layer, x, activation));
                }
                layer.running_mean = RunningState::new(self.get("running_mean"));
                layer.running_var = RunningState::new(self.get("running_var"));
                nn::batch_norm(&layer, self.get("before"), None);
                let outcome = self.outcome(nn::batch_norm(&layer, x.clone(), activation));
                let inference = nn::batch_norm(&layer.valid(), x.inner(), activation);
                outcome
                    .and("running_mean", layer.running_mean.value_sync())
                    .and("running_var", layer.running_var.value_sync())
                    .and("inference", inference)
            }
            Operation::LayerNorm2d { epsilon } => {
                let (x, gamma, beta) = (self.get("x"), self.get("gamma"), self.optional("beta"));
                self.outcome(bob_ops::layer_norm_2d(x, gamma, beta, *epsilon))
            }
            Operation::Attention { heads } => {
                self.outcome(bob_ops::attention(self.get("qkv"), *heads, self.optional("bias")))
            }
            Operation::CosineAttention { heads } => {
                let (qkv, scale, bias) = (self.get("qkv"), self.get("scale"), self.optional("bias"));
                self.outcome(bob_ops::cosine_attention(qkv, *heads, scale, bias))
            }
            Operation::MaxPool2d {
                kernel,
                stride,
                padding,
            } => self.outcome(bob_ops::max_pool2d(self.get("x"), *kernel, *stride, *padding)),
            Operation::MeanPool {} => self.outcome(bob_ops::mean_pool(self.get("x"))),
            Operation::GateChannels {} => self.outcome(bob_ops::gate_channels(self.get("x"), self.get("gate"))),
            Operation::CrossEntropy { smoothing } => self.outcome(bob_ops::cross_entropy(
                self.get("logits"),
                self.get("targets"),
                *smoothing,
            )),
            Operation::StandardizeWeight { scale, epsilon } => self.outcome(bob_ops::standardize_weight(
                self.get("weight"),
                self.get("gain"),
                *scale,
                *epsilon,
            )),
        }
    }
}

/// The ways a case is run.
fn ways(case: &Case, device: &Device) -> Vec<Way> {
    let tracking = device.clone().autodiff();
    let way = |device: &Device, view| Way {
        device: device.clone(),
        view,
        frozen: BTreeSet::new(),
    };
    let mut ways = Vec::new();
    for view in [View::Plain, View::Owned, View::Permuted, View::Flipped, View::Narrowed] {
        ways.push(way(device, view));
        ways.push(way(&tracking, view));
    }
    let checkpointing = tracking.clone().gradient_checkpointing();
    ways.push(way(&checkpointing, View::Plain));
    ways.push(way(&checkpointing, View::Owned));
    if case.gradients.len() > 1 {
        for name in &case.gradients {
            let alone: BTreeSet<String> = [name.clone()].into();
            let others = &case.gradients - &alone;
            for frozen in [alone, others] {
                ways.push(Way {
                    frozen,
                    ..way(&tracking, View::Owned)
                });
            }
        }
    }
    ways
}

/// The largest error of an operation, and where.
#[derive(Default)]
struct Worst {
    cases: usize,
    comparisons: usize,
    error: f64,
    place: String,
}

/// What `make_ops.py` wrote into `folder`.
fn written(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("ops.safetensors")).expect("make_ops.py writes `ops.safetensors`")
}

/// The tensors of what was written, and the cases that they belong to.
fn parsed(bytes: &[u8]) -> (SafeTensors<'_>, Vec<Case>) {
    let file = SafeTensors::deserialize(bytes).expect("make_ops.py writes safetensors");
    let (_, header) = SafeTensors::read_metadata(bytes).expect("it was just read");
    let metadata = header.metadata().as_ref().expect("make_ops.py describes its cases");
    assert_eq!(metadata["torch"], "2.9.1");
    let cases = serde_json::from_str(&metadata["cases"]).expect("the cases have this test's layout");
    (file, cases)
}

/// Compare every case of `folder` on `backend`, report every difference at once, and say what was compared.
fn check(backend: BackendName, folder: &Path, at_least: usize) {
    let bytes = written(folder);
    let (file, cases) = parsed(&bytes);
    assert!(cases.len() >= at_least, "only {} cases", cases.len());
    let device = device::select(backend).expect("the caller knows what is linked");
    let composed = backend == BackendName::Wgpu;
    let mut worst: BTreeMap<&str, Worst> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in cases.iter().filter(|case| !composed || !case.is_beyond_burn(&file)) {
        let worst = worst.entry(case.operation.name()).or_default();
        worst.cases += 1;
        for way in ways(case, &device) {
            // burn-wgpu 0.22.1 gives wrong numbers for some views (a convolution over part of a map, a mean over
            // permuted axes), which is not for this crate to mend.
            if composed && !matches!(way.view, View::Plain | View::Owned) {
                continue;
            }
            let place = |what: &str| format!("{what} of {}, {way}", case.name);
            let mut compared = |what: &str, error: f64| {
                worst.comparisons += 1;
                if error > worst.error {
                    (worst.error, worst.place) = (error, place(what));
                }
                // Not a number is wrong too.
                if error.is_nan() || error > TOLERANCE {
                    wrong.push(format!("{}: {error:.2e}", place(what)));
                }
            };
            let run = AssertUnwindSafe(|| check_case(case, &file, &way, &mut compared));
            if catch_unwind(run).is_err() {
                wrong.push(format!("{}, see above", place("panic")));
            }
        }
    }
    for (operation, worst) in &worst {
        let Worst {
            cases,
            comparisons,
            error,
            place,
        } = worst;
        eprintln!("{operation} on {backend}: {cases} cases, {comparisons} comparisons, worst {error:.1e} ({place})");
    }
    assert!(wrong.is_empty(), "{} values are off\n{}", wrong.len(), wrong.join("\n"));
}

/// Run a case one way, and give every value's relative error.
fn check_case(case: &Case, file: &SafeTensors, way: &Way, report: &mut dyn FnMut(&str, f64)) {
    let inputs = Inputs::new(case, file, way);
    let Outcome { loss, outputs } = inputs.run();
    let norm_of_upstream = norm(&inputs.data("upstream"));
    let gradients = loss.filter(|_| inputs.is_autodiff()).map(|loss| loss.backward());
    // After the backward pass, so that what it wrote over shows.
    let mut seen = BTreeSet::new();
    for (name, output) in outputs {
        seen.insert(name.to_owned());
        report(
            name,
            relative_error(&output(), &inputs.data(&format!("output.{name}")), 0.0),
        );
    }
    if inputs.is_autodiff() {
        assert_eq!(seen, case.outputs.iter().cloned().collect(), "{}", case.name);
    }
    for leaf in inputs.leaves.borrow().iter() {
        let given = inputs.data(&leaf.name);
        assert_eq!(
            (leaf.value)().as_slice::<f32>().expect("floats"),
            given.as_slice::<f32>().expect("floats"),
            "{} of {} was written over, {way}",
            leaf.name,
            case.name
        );
        let Some(gradients) = &gradients else { continue };
        let found = (leaf.gradient)(gradients);
        let wanted = case.gradients.contains(&leaf.name) && !way.frozen.contains(&leaf.name);
        assert_eq!(
            found.is_some(),
            wanted,
            "whether {} of {} has a gradient, {way}",
            leaf.name,
            case.name
        );
        if let Some(found) = found {
            let expected = inputs.data(&format!("gradient.{}", leaf.name));
            report(
                &format!("gradient of {}", leaf.name),
                relative_error(&found, &expected, norm_of_upstream),
            );
        }
    }
}

/// The L2 norm of the difference over that of the expected values; over `otherwise` where these are zero.
fn relative_error(found: &TensorData, expected: &TensorData, otherwise: f64) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    let [found, expected_values] = [found, expected].map(|data| data.as_slice::<f32>().expect("floats"));
    let difference = found
        .iter()
        .zip(expected_values)
        .map(|(a, b)| f64::from(*a) - f64::from(*b));
    let difference = difference.map(|x| x * x).sum::<f64>().sqrt();
    let norm = norm(expected);
    let scale = if norm > 0.0 { norm } else { otherwise };
    if difference == 0.0 { 0.0 } else { difference / scale }
}

fn norm(data: &TensorData) -> f64 {
    let values = data.as_slice::<f32>().expect("floats");
    values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

fn read(file: &SafeTensors, key: &str) -> TensorData {
    let view = file.tensor(key).unwrap_or_else(|error| panic!("`{key}`: {error}"));
    let values = view.data().chunks_exact(4);
    let values: Vec<f32> = values.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    TensorData::new(values, view.shape().to_vec())
}

fn committed() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/ops"))
}

/// The folder of all cases where there is one, else of the committed ones, and how many there are at least.
fn folder() -> (PathBuf, usize) {
    match std::env::var_os("BOB_OPS_DIR") {
        Some(folder) => (folder.into(), 200),
        None => {
            eprintln!("BOB_OPS_DIR is not set: only the committed cases are checked");
            (committed(), 30)
        }
    }
}

fn check_all(backend: BackendName) {
    let (folder, at_least) = folder();
    check(backend, &folder, at_least);
}

#[test]
fn flex_equals_pytorch() {
    check_all(BackendName::Flex);
}

/// Every output and every gradient of a case.
fn values(case: &Case, file: &SafeTensors, way: &Way) -> Vec<TensorData> {
    let inputs = Inputs::new(case, file, way);
    let Outcome { loss, outputs } = inputs.run();
    let gradients = loss.filter(|_| inputs.is_autodiff()).map(|loss| loss.backward());
    let mut values: Vec<_> = outputs.iter().map(|(_, output)| output()).collect();
    let leaves = inputs.leaves.borrow();
    values.extend(leaves.iter().filter_map(|leaf| (leaf.gradient)(gradients.as_ref()?)));
    values
}

/// One, two and four threads give the same bits, and so does the same again.
#[test]
fn flex_gives_the_same_bits_on_any_number_of_threads() {
    let bytes = written(&folder().0);
    let (file, cases) = parsed(&bytes);
    let pools = [1, 2, 4, 4].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        (threads, pool.build().expect("a pool"))
    });
    let device = Device::flex();
    for case in &cases {
        for device in [device.clone(), device.clone().autodiff()] {
            let way = Way {
                device,
                view: View::Plain,
                frozen: BTreeSet::new(),
            };
            let run = || values(case, &file, &way);
            let expected = run();
            for (threads, pool) in &pools {
                assert!(pool.install(run) == expected, "{}, {way}, {threads} threads", case.name);
            }
        }
    }
}

#[cfg(feature = "tch")]
#[test]
fn tch_equals_pytorch() {
    check_all(BackendName::Tch);
}

/// burn's composition, which runs wherever there are no kernels; the committed cases, for shaders take long to compile.
#[cfg(feature = "wgpu")]
#[test]
fn wgpu_equals_pytorch() {
    check(BackendName::Wgpu, &committed(), 30);
}

/// A weight that is a flipped view has negative strides on flex.
#[test]
fn linear_takes_a_flipped_weight() {
    let device = Device::flex().autodiff();
    let x = Tensor::<2>::from_data([[1.0, 2.0], [3.0, 5.0]], &device).require_grad();
    let weight = Tensor::<2>::from_data([[1.0, 10.0, 100.0], [2.0, 20.0, 200.0]], &device).require_grad();
    for (axis, expected, x_grad, weight_grad) in [
        (
            0,
            [[4.0, 40.0, 400.0], [11.0, 110.0, 1100.0]],
            [[222.0, 111.0]; 2],
            [[7.0; 3], [4.0; 3]],
        ),
        (
            1,
            [[500.0, 50.0, 5.0], [1300.0, 130.0, 13.0]],
            [[111.0, 222.0]; 2],
            [[4.0; 3], [7.0; 3]],
        ),
    ] {
        let output = bob_ops::linear(x.clone(), weight.clone().flip([axis]), None, Epilogue::none());
        output.clone().into_data().assert_eq(&TensorData::from(expected), false);
        let gradients = output.sum().backward();
        let gradient = |x: &Tensor<2>| x.grad(&gradients).expect("both have gradients").into_data();
        gradient(&x).assert_eq(&TensorData::from(x_grad), false);
        gradient(&weight).assert_eq(&TensorData::from(weight_grad), false);
    }
}

/// The largest of a window with something that is not a number is not a number, wherever in it that is.
#[test]
fn max_pool_keeps_what_is_not_a_number() {
    for place in 0..4 {
        let mut values = [1.0, 2.0, 3.0, 4.0];
        values[place] = f32::NAN;
        let x = Tensor::<4>::from_data(TensorData::new(values.to_vec(), [1, 2, 2, 1]), &Device::flex());
        let found = bob_ops::max_pool2d(x, 2, 2, 0).into_scalar::<f32>();
        assert!(found.is_nan(), "{found} with place {place}");
    }
}
