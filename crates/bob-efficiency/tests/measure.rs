//! The clock on a backbone whose cost is known.

use std::thread::sleep;
use std::time::Duration;

use bob_core::{Backbone, CostCounter, FeatureInfo};
use bob_efficiency::{Protocol, measure, protocols};
use bob_stats::Bootstrap;
use burn::module::{Module, ParamId};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::{Device, Tensor};

/// A convolution that takes at least `MILLISECONDS` for one image.
#[derive(Module, Debug)]
struct Slow {
    conv: Conv2d,
}

const MILLISECONDS: u64 = 5;

impl Backbone for Slow {
    fn feature_info(&self) -> Vec<FeatureInfo> {
        vec![FeatureInfo::new(4, 32, "conv")]
    }
    fn num_features(&self) -> usize {
        4
    }
    fn forward_intermediates(&self, images: Tensor<4>) -> Vec<Tensor<4>> {
        vec![self.conv.forward(images)]
    }
    fn forward_embedding(&self, images: Tensor<4>) -> Tensor<2> {
        sleep(Duration::from_millis(MILLISECONDS * images.dims()[0] as u64));
        self.conv.forward(images).mean_dim(3).mean_dim(2).flatten(1, 3)
    }
    fn layer_groups(&self) -> Vec<Vec<ParamId>> {
        Vec::new()
    }
    fn count(&self, counter: &mut CostCounter, [height, width]: [usize; 2]) {
        counter.conv2d(&self.conv, [height / 32, width / 32]);
    }
}

fn slow(device: &Device) -> Slow {
    Slow {
        conv: Conv2dConfig::new([3, 4], [32, 32]).with_stride([32, 32]).init(device),
    }
}

fn quick() -> Protocol {
    let mut protocol = protocols().remove(0);
    protocol.warmup_seconds = 0.02;
    protocol.throughput_seconds = 0.2;
    protocol.latency_seconds = 0.2;
    protocol
}

#[test]
fn the_clock_and_the_count_are_right() {
    let device = Device::flex();
    let measurement = measure(&slow(&device), [64, 64], &quick(), &device).expect("runs");
    let per_image = MILLISECONDS as f64;
    // Sleeping gives a floor on the latency and a ceiling on the rate; above the floor the machine's load decides.
    assert!(measurement.latency_ms(0.0) >= per_image);
    assert!(measurement.latency_ms(0.5) <= measurement.latency_ms(0.9));
    assert!(measurement.images_per_second() <= 1000.0 / per_image);
    assert!(
        measurement.images_per_second() > 100.0 / per_image,
        "{}",
        measurement.images_per_second()
    );
    assert_eq!(measurement.parameters, 4 * 3 * 32 * 32 + 4);
    let cost = measurement.cost.expect("counted");
    assert_eq!((cost.macs, cost.activations), (4 * 4 * 3 * 32 * 32, 4 * 4));

    let metrics = measurement.metrics(0.5, &Bootstrap::default()).expect("metrics");
    let primary: Vec<_> = metrics
        .iter()
        .filter(|metric| metric.primary)
        .map(|metric| metric.name.as_str())
        .collect();
    assert_eq!(primary, ["images_per_second"]);
    for metric in &metrics {
        if let Some(interval) = metric.interval {
            assert!(
                interval.low <= metric.value && metric.value <= interval.high,
                "{metric:?}"
            );
        }
    }
    let names: Vec<_> = metrics.iter().map(|metric| metric.name.as_str()).collect();
    let expected = [
        "images_per_second",
        "latency_p50_ms",
        "latency_p90_ms",
        "latency_p99_ms",
        "load_seconds",
        "peak_memory_bytes",
        "parameters",
        "macs",
        "activations",
    ];
    assert_eq!(names, expected);
}

#[test]
fn a_size_the_backbone_does_not_take_is_refused() {
    let device = Device::flex();
    let check = |size: [usize; 2], expected: &str| {
        let error = measure(&slow(&device), size, &quick(), &device).expect_err("must be refused");
        assert_eq!(error.to_string(), expected);
    };
    check([48, 64], "images of 48x64 pixels; expected multiples of 32");
    check([0, 64], "images of 0x64 pixels; expected multiples of 32");
}
