//! Milliseconds for an image, one thread: decoding, the resize, the transform, and all of it.
//!
//! `preprocess_speed FILE..` prints one JSON object; `benches/speed/preprocess.py` compares it with Pillow and timm.

#![expect(clippy::print_stdout, reason = "the report is the program's output")]

use std::hint::black_box;
use std::time::Instant;

use bob_core::Preprocess;
use bob_data::{EvalTransform, Limits, PassOrder, RgbImage, Window, decode, jpeg_decoder, resize};

/// Of which the fastest counts.
const REPEATS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = std::env::args_os()
        .skip(1)
        .map(std::fs::read)
        .collect::<Result<Vec<_>, _>>()?;
    let limits = Limits::default();
    let images = files
        .iter()
        .map(|file| decode(file, &limits))
        .collect::<Result<Vec<_>, _>>()?;
    let preprocess = Preprocess::imagenet(224);
    let transform = EvalTransform::new(&preprocess, PassOrder::default());
    let mut tensor = vec![0.0; 3 * 224 * 224];

    let mut normalized = |image: &RgbImage| transform.normalize_into(&transform.apply(image), black_box(&mut tensor));
    let decode_time = milliseconds(&files, |file| drop(black_box(decode(file, &limits))));
    let resize_time = milliseconds(&images, |image| drop(black_box(whole(image, &preprocess))));
    let transform_time = milliseconds(&images, &mut normalized);
    let all_time = milliseconds(&files, |file| decode(file, &limits).iter().for_each(&mut normalized));
    println!(
        "{{\"jpeg_decoder\":\"{}\",\"decode\":{decode_time},\"resize\":{resize_time},\
         \"transform\":{transform_time},\"all\":{all_time}}}",
        jpeg_decoder()
    );
    Ok(())
}

/// Shorter side 256, as `transform` has it, but without the crop: Pillow's work.
fn whole(image: &RgbImage, preprocess: &Preprocess) -> RgbImage {
    let short = image.width.min(image.height);
    let [height, width] = [image.height, image.width].map(|side| 256 * side / short);
    let window = Window {
        x: 0,
        y: 0,
        width,
        height,
    };
    resize(
        image,
        [height, width],
        window,
        preprocess.interpolation,
        PassOrder::default(),
    )
}

/// The mean over the inputs of the fastest repeat.
fn milliseconds<T>(inputs: &[T], mut step: impl FnMut(&T)) -> f64 {
    let fastest = inputs.iter().map(|input| {
        let times = (0..REPEATS).map(|_| {
            let start = Instant::now();
            step(input);
            start.elapsed().as_secs_f64()
        });
        times.fold(f64::INFINITY, f64::min)
    });
    fastest.sum::<f64>() * 1000.0 / inputs.len() as f64
}
