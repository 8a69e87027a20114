//! Every operation against burn's own on random shapes, values and gradients; PyTorch's word on the same operations is
//! in `tests/oracle.rs`.

use burn::tensor::{Device, Distribution, Tensor, TensorData};
use proptest::prelude::*;

use crate::*;

/// How a function of some tensors is written down: each input by its shape.
type Function<'a> = &'a dyn Fn(&[Tensor<1>]) -> Tensor<1>;

fn shape_len(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Values and gradients of `ours` and of `theirs` for random inputs of the shapes' sizes; relative L2 below
/// `tolerance`.
fn check(shapes: &[&[usize]], ours: Function, theirs: Function, tolerance: f32) {
    let device = Device::flex().autodiff();
    device.seed(
        shapes
            .iter()
            .flat_map(|shape| shape.iter())
            .fold(1, |a, b| a * 31 + *b as u64),
    );
    let inputs: Vec<TensorData> = shapes
        .iter()
        .map(|shape| Tensor::<1>::random([shape_len(shape)], Distribution::Normal(0.0, 1.0), &device).into_data())
        .collect();
    let run = |function: Function| {
        let inputs: Vec<Tensor<1>> = inputs
            .iter()
            .map(|data| Tensor::from_data(data.clone(), &device).require_grad())
            .collect();
        let output = function(&inputs);
        // A gradient that is different everywhere.
        let count = output.dims()[0];
        let weights = Tensor::<1>::from_data(
            TensorData::new(
                (0..count).map(|i| (i as f32 * 0.7).sin() + 0.1).collect::<Vec<f32>>(),
                [count],
            ),
            &device,
        );
        let gradients = (output.clone() * weights).sum().backward();
        let mut found = vec![output.into_data()];
        for input in &inputs {
            found.push(input.grad(&gradients).expect("every input has a gradient").into_data());
        }
        found
    };
    for (i, (ours, theirs)) in run(ours).iter().zip(&run(theirs)).enumerate() {
        let error = relative_error(ours, theirs);
        assert!(error <= tolerance, "output {i} of {shapes:?}: {error:e}");
    }
}

fn relative_error(found: &TensorData, expected: &TensorData) -> f32 {
    let (found, expected) = (
        found.as_slice::<f32>().expect("floats"),
        expected.as_slice::<f32>().expect("floats"),
    );
    assert_eq!(found.len(), expected.len());
    let difference: f64 = found.iter().zip(expected).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let norm: f64 = expected.iter().map(|b| f64::from(*b).powi(2)).sum();
    // Few values may all be small by chance; their errors are those of the sums they are left of.
    (difference / norm.max(0.01 * found.len() as f64)).sqrt() as f32
}

fn flat<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let count = x.dims().iter().product::<usize>();
    x.reshape([count])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn linear_equals_burns(
        batch in 1..9_usize,
        tokens in 1..40_usize,
        inner in 1..300_usize,
        outer in 1..150_usize,
        residual in any::<bool>(),
        which in 0..3_usize,
    ) {
        let output = [batch, tokens, outer];
        let shapes: [&[usize]; 4] = [&[batch, tokens, inner], &[inner, outer], &[outer], &output];
        let activation = [None, Some(Activation::Relu), Some(Activation::Gelu)][which];
        type Linear = fn(Tensor<3>, Tensor<2>, Option<Tensor<1>>, Epilogue<3>) -> Tensor<3>;
        let with = |f: Linear| {
            move |x: &[Tensor<1>]| {
                let input = x[0].clone().reshape([batch, tokens, inner]);
                let epilogue = Epilogue {
                    residual: residual.then(|| x[3].clone().reshape(output)),
                    activation,
                };
                flat(f(input, x[1].clone().reshape([inner, outer]), Some(x[2].clone()), epilogue))
            }
        };
        let burn: Linear = |x, weight, bias, epilogue| epilogue.reference(burn::tensor::module::linear(x, weight, bias));
        check(&shapes[..if residual { 4 } else { 3 }], &with(linear), &with(burn), 4e-6);
    }

    #[test]
    fn mlp_equals_burns(
        batch in 1..9_usize,
        tokens in 1..40_usize,
        inner in 1..100_usize,
        hidden in 1..300_usize,
        outer in 1..100_usize,
        which in 0..3_usize,
    ) {
        let shapes: [&[usize]; 5] =
            [&[batch, tokens, inner], &[inner, hidden], &[hidden], &[hidden, outer], &[outer]];
        let activation = [Activation::Relu, Activation::Gelu, Activation::Silu][which];
        type Layer = (Tensor<2>, Option<Tensor<1>>);
        type Mlp = fn(Tensor<3>, Layer, Activation, Layer, Epilogue<3>) -> Tensor<3>;
        let with = |f: Mlp| {
            move |x: &[Tensor<1>]| {
                let input = x[0].clone().reshape([batch, tokens, inner]);
                let fc1 = (x[1].clone().reshape([inner, hidden]), Some(x[2].clone()));
                let fc2 = (x[3].clone().reshape([hidden, outer]), Some(x[4].clone()));
                flat(f(input, fc1, activation, fc2, Epilogue::none()))
            }
        };
        let burn: Mlp = |x, fc1, activation, fc2, _| {
            let hidden = activation.reference(burn::tensor::module::linear(x, fc1.0, fc1.1));
            burn::tensor::module::linear(hidden, fc2.0, fc2.1)
        };
        check(&shapes, &with(mlp), &with(burn), 4e-6);
    }

    #[test]
    fn conv2d_equals_burns(
        batch in 1..4_usize,
        size in [3..14_usize, 3..14_usize],
        channels in [1..20_usize, 1..40_usize],
        kernel in [1..4_usize, 1..4_usize],
        stride in [1..4_usize, 1..4_usize],
        padding in [[0..3_usize, 0..3_usize], [0..3_usize, 0..3_usize]],
        dilation in [1..3_usize, 1..3_usize],
        grouping in 0..3_usize,
        residual in any::<bool>(),
        which in 0..3_usize,
    ) {
        let [mut inner, mut outer] = channels;
        let mut groups = 1;
        match grouping {
            1 => { groups = 1 + inner % 4; inner = inner.next_multiple_of(groups); outer = outer.next_multiple_of(groups); }
            2 => { groups = inner; outer = inner; }
            _ => {}
        }
        let options = Conv2dOptions { stride, padding, dilation, groups };
        prop_assume!((0..2).all(|a| size[a] + padding[a][0] + padding[a][1] > (kernel[a] - 1) * dilation[a]));
        let input = [batch, size[0], size[1], inner];
        let weight = [outer, inner / groups, kernel[0], kernel[1]];
        let [height, width] = options.output(size, kernel);
        let output = [batch, height, width, outer];
        let activation = [None, Some(Activation::Relu), Some(Activation::Silu)][which];
        let with = |f: fn(Tensor<4>, Tensor<4>, Option<Tensor<1>>, Conv2dOptions, Epilogue<4>) -> Tensor<4>| {
            move |x: &[Tensor<1>]| {
                let epilogue = Epilogue {
                    residual: residual.then(|| x[3].clone().reshape(output)),
                    activation,
                };
                flat(f(x[0].clone().reshape(input), x[1].clone().reshape(weight), Some(x[2].clone()), options, epilogue))
            }
        };
        let shapes: [&[usize]; 4] = [&input, &weight, &[outer], &output];
        check(&shapes[..if residual { 4 } else { 3 }], &with(conv2d), &with(conv::reference), 4e-6);
    }

    #[test]
    fn batch_norm_equals_burns(rows in [1..4_usize, 2..12_usize, 2..12_usize], channels in 1..70_usize, which in 0..4_usize) {
        let shape = [rows[0], rows[1], rows[2], channels];
        let activation = [None, Some(Activation::Relu), Some(Activation::Silu), Some(Activation::Gelu)][which];
        let with = |f: fn(Tensor<4>, Tensor<1>, Tensor<1>, f64, Option<Activation>) -> BatchNormOutput| {
            move |x: &[Tensor<1>]| {
                let y = f(x[0].clone().reshape(shape), x[1].clone(), x[2].clone(), 1e-3, activation);
                Tensor::cat(vec![flat(y.output), y.mean, y.variance], 0)
            }
        };
        check(&[&shape, &[channels], &[channels]], &with(batch_norm), &with(norm::reference), 2e-5);
    }

    #[test]
    fn group_norm_equals_burns(
        rows in [1..4_usize, 1..16_usize, 2..16_usize],
        groups in 1..9_usize,
        size in 2..12_usize,
        which in 0..4_usize,
    ) {
        let shape = [rows[0], rows[1], rows[2], groups * size];
        let activation = [None, Some(Activation::Relu), Some(Activation::Silu), Some(Activation::Gelu)][which];
        let with = |f: fn(Tensor<4>, Tensor<1>, Tensor<1>, usize, f64, Option<Activation>) -> Tensor<4>| {
            move |x: &[Tensor<1>]| {
                flat(f(x[0].clone().reshape(shape), x[1].clone(), x[2].clone(), groups, 1e-3, activation))
            }
        };
        check(&[&shape, &[groups * size], &[groups * size]], &with(group_norm), &with(norm::group_norm_reference), 2e-5);
    }

    #[test]
    fn layer_norm_equals_burns(rows in 1..300_usize, channels in 16..200_usize) {
        let shape = [rows, channels];
        let with = |f: fn(Tensor<2>, Tensor<1>, Option<Tensor<1>>, f64) -> Tensor<2>| {
            move |x: &[Tensor<1>]| flat(f(x[0].clone().reshape(shape), x[1].clone(), Some(x[2].clone()), 1e-5))
        };
        check(&[&shape, &[channels], &[channels]], &with(layer_norm), &with(norm::layer_norm_reference), 1e-5);
    }

    #[test]
    fn attention_equals_burns(
        groups in 1..4_usize,
        rounds in 1..12_usize,
        tokens in 1..40_usize,
        heads in 1..4_usize,
        dim in 4..40_usize,
        biased in any::<bool>(),
        cosine in any::<bool>(),
    ) {
        let batch = groups * rounds;
        let qkv = [batch, tokens, 3 * heads * dim];
        let bias = [groups, heads, tokens, tokens];
        let mut shapes: Vec<&[usize]> = vec![&qkv];
        let scale = [heads];
        if cosine { shapes.push(&scale); }
        if biased { shapes.push(&bias); }
        let with = |f: fn(Tensor<3>, usize, Option<Tensor<1>>, Option<Tensor<4>>) -> Tensor<3>| {
            move |x: &[Tensor<1>]| {
                let scale = cosine.then(|| x[1].clone());
                let bias = biased.then(|| x[1 + usize::from(cosine)].clone().reshape(bias));
                flat(f(x[0].clone().reshape(qkv), heads, scale, bias))
            }
        };
        check(&shapes, &with(attention::run), &with(attention::reference), 2e-5);
    }

    #[test]
    fn activations_equal_burns(count in 1..40_000_usize, which in 0..5_usize) {
        let activation = [Activation::Relu, Activation::Relu6, Activation::Silu, Activation::Gelu, Activation::GeluTanh][which];
        check(&[&[count]], &|x| activation.forward(x[0].clone() * 3.0), &|x| activation.reference(x[0].clone() * 3.0), 2e-6);
    }

    #[test]
    fn add_relu_equals_burns(count in 1..40_000_usize) {
        let burn = |x: &[Tensor<1>]| burn::tensor::activation::relu(x[0].clone() + x[1].clone());
        check(&[&[count], &[count]], &|x| add_relu(x[0].clone(), x[1].clone()), &burn, 0.0);
    }

    #[test]
    fn add_equals_burns(count in 1..40_000_usize) {
        let burn = |x: &[Tensor<1>]| x[0].clone() + x[1].clone();
        check(&[&[count], &[count]], &|x| add(x[0].clone(), x[1].clone()), &burn, 0.0);
    }

    #[test]
    fn max_pool_equals_burns(batch in 1..3_usize, size in [3..14_usize, 3..14_usize], channels in 1..40_usize, which in 0..3_usize) {
        let [kernel, stride, padding] = [[3, 2, 1], [2, 2, 0], [3, 1, 1]][which];
        let shape = [batch, size[0], size[1], channels];
        let ours = |x: &[Tensor<1>]| flat(max_pool2d(x[0].clone().reshape(shape), kernel, stride, padding));
        let theirs = |x: &[Tensor<1>]| flat(pool::MaxPool { kernel, stride, padding }.reference(x[0].clone().reshape(shape)));
        check(&[&shape], &ours, &theirs, 1e-6);
    }

    #[test]
    fn windows_equal_burns(
        batch in 1..4_usize,
        resolution in [1..20_usize, 1..20_usize],
        size in [1..9_usize, 1..9_usize],
        shift in [0..9_usize, 0..9_usize],
        channels in 1..9_usize,
    ) {
        let shift = [0, 1].map(|axis| shift[axis] % resolution[axis]);
        let windows = Windows { resolution, size, shift };
        let [down, across] = windows.grid();
        let map = [batch, resolution[0], resolution[1], channels];
        let cut = [batch * down * across, windows.area(), channels];
        let ours = |x: &[Tensor<1>]| flat(windows.partition(x[0].clone().reshape(map)));
        let burns = |x: &[Tensor<1>]| flat(windows.partition_reference(x[0].clone().reshape(map)));
        check(&[&map], &ours, &burns, 0.0);
        let ours = |x: &[Tensor<1>]| flat(windows.merge(x[0].clone().reshape(cut)));
        let burns = |x: &[Tensor<1>]| flat(windows.merge_reference(x[0].clone().reshape(cut)));
        check(&[&cut], &ours, &burns, 0.0);
    }

    #[test]
    fn gates_and_means_equal_burns(batch in 1..4_usize, tokens in 1..200_usize, channels in 1..70_usize) {
        let shape = [batch, tokens, channels];
        let ours = |x: &[Tensor<1>]| {
            let x = [x[0].clone().reshape(shape), x[1].clone().reshape([batch, 1, channels])];
            flat(mean_pool(gate_channels(x[0].clone(), x[1].clone().squeeze_dim(1)).square()))
        };
        let theirs = |x: &[Tensor<1>]| {
            flat((x[0].clone().reshape(shape) * x[1].clone().reshape([batch, 1, channels])).square().mean_dim(1))
        };
        check(&[&shape, &[batch, channels]], &ours, &theirs, 1e-5);
    }

    #[test]
    fn cross_entropy_equals_burns(batch in 1..30_usize, classes in 1..200_usize) {
        let targets = |device: &Device| {
            let values: Vec<f32> = (0..batch * classes).map(|i| f32::from((i % classes) == (i / classes * 7) % classes)).collect();
            Tensor::<2>::from_data(TensorData::new(values, [batch, classes]), device)
        };
        let logits = |x: &Tensor<1>| (x.clone() * 4.0).reshape([batch, classes]);
        let ours = |x: &[Tensor<1>]| cross_entropy(logits(&x[0]), targets(&x[0].device()), 0.1);
        let theirs = |x: &[Tensor<1>]| {
            let smoothed = targets(&x[0].device()) * 0.9 + 0.1 / classes as f64;
            cross_entropy::reference(logits(&x[0]), smoothed)
        };
        check(&[&[batch, classes]], &ours, &theirs, 1e-5);
    }
}

/// Three steps of the optimizer, fused and composed.
#[test]
fn adamw_equals_burns() {
    use burn::optim::Optimizer;
    let device = Device::flex();
    let random = || Tensor::<2>::random([130, 140], Distribution::Normal(0.0, 1.0), &device);
    let (start, grads) = (random(), [random(), random(), random()]);
    let optimizer = AdamW::default();
    let (mut ours, mut state) = (start.clone(), None);
    let (mut theirs, mut moments) = (start.clone(), [start.zeros_like(), start.zeros_like()]);
    for (time, grad) in (1..).zip(grads) {
        (ours, state) = optimizer.step(0.1, ours, grad.clone(), state);
        let [moment_1, moment_2] = moments;
        let factors = optimizer.factors(0.1, time);
        let (next, moment_1, moment_2) = adamw::reference(factors, theirs, grad, moment_1, moment_2);
        (theirs, moments) = (next, [moment_1, moment_2]);
    }
    assert!(relative_error(&ours.into_data(), &theirs.into_data()) < 1e-6);
}

/// The same bits for one, two and four threads.
#[test]
fn threads_do_not_change_the_bits() {
    let device = Device::flex().autodiff();
    let random = |shape: [usize; 4]| Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &device).require_grad();
    let (x, weight) = (random([3, 23, 19, 32]), random([40, 32, 3, 3]));
    let qkv = Tensor::<3>::random([6, 49, 96], Distribution::Normal(0.0, 1.0), &device).require_grad();
    let one = Tensor::<1>::ones([40], &device).require_grad();
    // The sum over these rows is cut into parts.
    let (long, square) = (random([2, 82, 100, 8]), random([1, 1, 8, 8]));
    let run = || {
        let options = Conv2dOptions {
            padding: [[1, 1]; 2],
            ..Conv2dOptions::default()
        };
        let y = conv2d(x.clone(), weight.clone(), Some(one.clone()), options, Epilogue::none());
        let y = batch_norm(y, one.clone(), one.clone(), 1e-5, Some(Activation::Gelu)).output;
        let y = group_norm(y, one.clone(), one.clone(), 8, 1e-5, Some(Activation::Silu));
        let y = layer_norm(y, one.clone(), Some(one.clone()), 1e-5);
        let z = attention(qkv.clone(), 2, None);
        let w = linear(long.clone(), square.clone().reshape([8, 8]), None, Epilogue::none());
        let gradients = (y.clone().square().sum() + z.clone().square().sum() + w.clone().square().sum()).backward();
        let mut found = vec![y.into_data(), z.into_data(), w.into_data()];
        found.extend([&x, &weight, &square].map(|x| x.grad(&gradients).expect("a gradient").into_data()));
        found.push(qkv.grad(&gradients).expect("a gradient").into_data());
        found.push(one.grad(&gradients).expect("a gradient").into_data());
        found
    };
    let expected = run();
    for threads in [1, 2, 4] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("a pool");
        assert!(pool.install(run) == expected, "{threads} threads");
    }
}

/// Zero images are no reason to panic.
#[test]
fn empty_batches_work() {
    let device = Device::flex();
    let x = Tensor::<4>::zeros([0, 8, 8, 16], &device);
    let weight = Tensor::zeros([4, 16, 3, 3], &device);
    assert_eq!(
        conv2d(x.clone(), weight, None, Conv2dOptions::default(), Epilogue::none()).dims(),
        [0, 6, 6, 4]
    );
    let depthwise = Conv2dOptions {
        groups: 16,
        ..Conv2dOptions::default()
    };
    assert_eq!(
        conv2d(
            x.clone(),
            Tensor::zeros([16, 1, 3, 3], &device),
            None,
            depthwise,
            Epilogue::none()
        )
        .dims(),
        [0, 6, 6, 16]
    );
    assert_eq!(
        linear(x.clone(), Tensor::zeros([16, 5], &device), None, Epilogue::none()).dims(),
        [0, 8, 8, 5]
    );
    let ones = Tensor::ones([16], &device);
    assert_eq!(layer_norm(x.clone(), ones.clone(), None, 1e-5).dims(), [0, 8, 8, 16]);
    assert_eq!(
        group_norm(x.clone(), ones.clone(), ones, 4, 1e-5, None).dims(),
        [0, 8, 8, 16]
    );
    assert_eq!(attention(Tensor::zeros([0, 7, 24], &device), 2, None).dims(), [0, 7, 8]);
    assert_eq!(Activation::Gelu.forward(x).dims(), [0, 8, 8, 16]);
}

/// A sum of nothing is zero, and what follows it is done.
#[test]
fn a_linear_layer_of_no_inputs_gives_the_bias() {
    let device = Device::flex().autodiff();
    let bias = Tensor::<1>::from_data([1.0, -2.0], &device).require_grad();
    let (x, weight) = (Tensor::<2>::zeros([3, 0], &device), Tensor::zeros([0, 2], &device));
    for activation in [None, Some(Activation::Gelu)] {
        let epilogue = Epilogue {
            activation,
            ..Epilogue::none()
        };
        let found = linear(x.clone(), weight.clone(), Some(bias.clone()), epilogue);
        let expected = bias.clone().reshape([1, 2]).repeat_dim(0, 3);
        let expected = activation.map_or(expected.clone(), |activation| activation.forward(expected));
        assert_eq!(found.into_data(), expected.into_data());
    }
    // And none of nothing are none.
    let x = Tensor::<2>::ones([3, 2], &device).require_grad();
    let found = linear(x.clone(), Tensor::zeros([2, 0], &device), None, Epilogue::none());
    let gradients = found.sum().backward();
    let gradient = x.grad(&gradients).expect("a gradient").into_data();
    assert_eq!(gradient, Tensor::<2>::zeros([3, 2], &device).into_data());
}

/// A stride beyond the map costs no more than the map.
#[test]
fn a_long_stride_meets_one_pixel() {
    let device = Device::flex().autodiff();
    let x = Tensor::<4>::ones([1, 3, 4, 16], &device).require_grad();
    let options = Conv2dOptions {
        stride: [1 << 40, 1 << 40],
        ..Conv2dOptions::default()
    };
    let found = conv2d(
        x.clone(),
        Tensor::ones([5, 16, 1, 1], &device),
        None,
        options,
        Epilogue::none(),
    );
    let gradients = found.sum().backward();
    let gradient = x.grad(&gradients).expect("a gradient");
    assert_eq!(
        gradient.clone().slice([0..1, 0..1, 0..1]).sum().into_scalar::<f32>(),
        80.0
    );
    assert_eq!(gradient.sum().into_scalar::<f32>(), 80.0);
}

#[test]
fn a_scale_of_zero_has_a_gradient() {
    let one_head = |x: &[Tensor<1>], operation: &dyn Fn(Tensor<3>, Tensor<1>) -> Tensor<3>| {
        flat(operation(
            x[0].clone().reshape([2, 5, 24]),
            x[1].clone() - x[1].clone().detach(),
        ))
    };
    check(
        &[&[2, 5, 24], &[2]],
        &|x| one_head(x, &|qkv, scale| cosine_attention(qkv, 2, scale, None)),
        &|x| one_head(x, &|qkv, scale| attention::reference(qkv, 2, Some(scale), None)),
        1e-5,
    );
}

#[test]
fn limits_are_met() {
    let device = Device::flex().autodiff();
    let x = Tensor::<1>::from_data([-1e37, -3e38, -100.0, 3e38], &device).require_grad();
    let found = Activation::Silu.forward(x.clone());
    let gradients = found.clone().sum().backward();
    let check = |found: Tensor<1>, last: f32| {
        let found = found.into_data();
        let found = found.as_slice::<f32>().expect("floats");
        assert!(
            found[..3].iter().all(|x| x.abs() < 1e-35) && found[3] == last,
            "{found:?}"
        );
    };
    check(found, 3e38);
    check(x.grad(&gradients).expect("a gradient"), 1.0);
    let nothing = mean_pool(Tensor::zeros([2, 0, 3], &device)).into_data();
    assert!(nothing.as_slice::<f32>().expect("floats").iter().all(|x| x.is_nan()));
    let none = Tensor::<1>::zeros([0], &device);
    let normed = group_norm(Tensor::zeros([1, 4, 4, 0], &device), none.clone(), none, 1, 1e-5, None);
    assert_eq!(normed.dims(), [1, 4, 4, 0]);
}

/// A shape that does not fit names the operation.
#[test]
fn misfits_name_the_operation() {
    let device = Device::flex();
    let check = |name: &str, run: &dyn Fn()| {
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).expect_err(name);
        let message = panic.downcast_ref::<String>().expect("a message");
        assert!(message.contains(&format!("{name}: ")), "{message}");
    };
    let maps = |channels| Tensor::<4>::zeros([1, 4, 4, channels], &device);
    check("conv2d", &|| {
        drop(conv2d(
            maps(3),
            Tensor::zeros([4, 4, 3, 3], &device),
            None,
            Conv2dOptions::default(),
            Epilogue::none(),
        ))
    });
    check("conv2d", &|| {
        drop(conv2d(
            maps(3),
            Tensor::zeros([4, 3, 7, 7], &device),
            None,
            Conv2dOptions::default(),
            Epilogue::none(),
        ))
    });
    let huge = Conv2dOptions {
        padding: [[usize::MAX, 1]; 2],
        ..Conv2dOptions::default()
    };
    check("conv2d", &|| {
        drop(conv2d(
            maps(3),
            Tensor::zeros([4, 3, 3, 3], &device),
            None,
            huge,
            Epilogue::none(),
        ))
    });
    // What wraps around would be few values.
    for (x, weight, groups, stride, padding) in [
        ([1, 1, 1, 16], [3, 16, 1, 1], 1, [1, 1], [[1, 0], [0, usize::MAX / 6]]),
        ([1, 1, 1, 2], [2, 1, 1, 1], 2, [1, 1], [[1, 0], [0, 1 << 63]]),
        ([1, 1, 1, 4], [1, 4, 1, 1], 1, [1, 1 << 62], [[0, 0], [1 << 62, 0]]),
    ] {
        let options = Conv2dOptions {
            stride,
            padding,
            groups,
            ..Conv2dOptions::default()
        };
        let [x, weight] = [x, weight].map(|shape| Tensor::<4>::ones(shape, &device));
        check("conv2d", &|| {
            drop(conv2d(x.clone(), weight.clone(), None, options, Epilogue::none()));
        });
    }
    check("max_pool2d", &|| drop(max_pool2d(maps(3), 2, 0, 0)));
    check("linear", &|| {
        let weight = Tensor::<2>::zeros([3, 4], &device).cast(burn::tensor::DType::F64);
        drop(linear(maps(3), weight, None, Epilogue::none()));
    });
    for (resolution, size, shift) in [
        ([4, 4], [0, 2], [0, 0]),
        ([4, 4], [2, 2], [0, 4]),
        ([0, 4], [2, 2], [0, 0]),
    ] {
        let windows = Windows {
            resolution,
            size,
            shift,
        };
        check("windows", &|| drop(windows.partition(maps(3))));
        check("windows", &|| drop(windows.merge(Tensor::zeros([4, 4, 3], &device))));
    }
    check("linear", &|| {
        drop(linear(maps(3), Tensor::zeros([4, 4], &device), None, Epilogue::none()))
    });
    check("layer_norm", &|| {
        drop(layer_norm(maps(3), Tensor::ones([4], &device), None, 1e-5))
    });
    check("batch_norm", &|| {
        drop(batch_norm(
            maps(3),
            Tensor::ones([4], &device),
            Tensor::ones([3], &device),
            0.1,
            None,
        ))
    });
    check("group_norm", &|| {
        let ones = Tensor::ones([4], &device);
        drop(group_norm(maps(4), ones.clone(), ones, 3, 0.1, None))
    });
    check("attention", &|| {
        drop(attention(Tensor::zeros([1, 4, 10], &device), 2, None))
    });
    check("cross_entropy", &|| {
        drop(cross_entropy(
            Tensor::zeros([1, 4], &device),
            Tensor::zeros([1, 5], &device),
            0.0,
        ));
    });
}
