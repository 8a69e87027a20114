//! Images per second at batch 8, and the latency of one image.

use std::time::Duration;

use bob_benches::subjects;
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};

/// Images of one pass of the throughput group.
const BATCH: usize = 8;

fn main() -> anyhow::Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    let subjects = subjects()?;
    for (group, batch) in [("throughput", BATCH), ("latency", 1)] {
        let mut group = criterion.benchmark_group(group);
        group
            .sampling_mode(SamplingMode::Flat)
            .sample_size(10)
            .warm_up_time(Duration::from_secs(1))
            .measurement_time(Duration::from_secs(5))
            .throughput(Throughput::Elements(batch as u64));
        for subject in &subjects {
            group.bench_function(BenchmarkId::from_parameter(&subject.id), |bencher| {
                bencher.iter_custom(|passes| subject.time(batch, passes).expect("the device works"));
            });
        }
        group.finish();
    }
    criterion.final_summary();
    Ok(())
}
