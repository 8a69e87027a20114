//! Damaged files of weights are refused without a panic, a hang, or memory that only their claims ask for.
//!
//! Every file is loaded from one place, where the one that failed stays. `BOB_FUZZ_SECONDS=3600 cargo test --release
//! -p bob-models --test fuzz -- --nocapture` goes on for an hour; `BOB_FUZZ_SEED` gives other files.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod tiny;

use std::alloc::System;
use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use bob_models::weights::{LoadOptions, load_module};
use burn::tensor::Device;
use cap::Cap;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tiny::{Tiny, fixture, of_haiku, of_keras, of_lightning, of_onnx};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// Memory past its limit is not given, which ends the process.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// What a load may take besides the file three times over: the network, the names, buffers of readers.
const ROOM: usize = 1 << 19;
/// No file of this size takes longer, by far.
const PATIENCE: Duration = Duration::from_secs(5);

/// An entry of an archive, or a whole file under the name "".
type Part = (String, Vec<u8>);

/// The entries of an archive; another file is one part.
fn parts(file: &[u8]) -> Vec<Part> {
    let Ok(mut archive) = ZipArchive::new(Cursor::new(file)) else {
        return vec![(String::new(), file.to_vec())];
    };
    (0..archive.len())
        .map(|index| {
            let mut entry = archive.by_index(index).unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.name().unwrap().into_owned(), bytes)
        })
        .collect()
}

/// The file that has these parts, with checksums that fit.
fn joined(parts: &[Part], compression: CompressionMethod) -> Vec<u8> {
    if let [(name, bytes)] = parts
        && name.is_empty()
    {
        return bytes.clone();
    }
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(compression);
    for (name, bytes) in parts {
        writer.start_file(name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Change a few bytes: at random, to what often ends a count or begins an opcode, or by moving what stands there.
fn damage(bytes: &mut Vec<u8>, rng: &mut StdRng) {
    for _ in 0..rng.random_range(1..5) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.random_range(0..bytes.len());
        let end = (at + rng.random_range(1..17)).min(bytes.len());
        match rng.random_range(0..9) {
            0 => bytes[at] = rng.random(),
            1 => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => bytes[at] = *[0, 1, 0x7f, 0x80, 0xff].choose(rng).unwrap(),
            3 => bytes[at..end].fill(*[0, 0xff].choose(rng).unwrap()),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            6 => {
                // Opcodes of a pickle that build, call, remember or fetch.
                let opcode = *b"(].}0uaesbRctq\x81\x85\x86\x87\x89\x8a\x8cXBhjKMJ"
                    .choose(rng)
                    .unwrap();
                bytes.insert(at, opcode);
            }
            7 => {
                // A number in a text.
                let digits: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at].is_ascii_digit()).collect();
                if let Some(at) = digits.choose(rng) {
                    let digit = rng.random_range(b'0'..=b'9');
                    if rng.random() {
                        bytes[*at] = digit
                    } else {
                        bytes.insert(*at, digit)
                    }
                }
            }
            _ => bytes.truncate(at),
        }
    }
}

/// One changed file of `name`'s.
fn changed(file: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let mut parts = parts(file);
    if rng.random_range(0..4) > 0 {
        let part = rng.random_range(0..parts.len());
        damage(&mut parts[part].1, rng);
    }
    let mut file = joined(&parts, CompressionMethod::Stored);
    if parts.len() == 1 || rng.random_range(0..4) == 0 {
        damage(&mut file, rng);
    }
    file
}

fn load(path: &Path, options: &LoadOptions) -> bool {
    load_module(Tiny::init(&Device::flex()), path, options).is_ok()
}

// One test: memory is counted over the process.
#[test]
fn damaged_files_neither_panic_nor_hang_nor_take_memory_they_do_not_have() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let time = Duration::from_secs(number("BOB_FUZZ_SECONDS", 10));
    let seed = number("BOB_FUZZ_SEED", 0);
    let plain = LoadOptions::default();
    let nested = plain.clone().with_top_level_key("state_dict");
    let files = [
        ("tiny.safetensors", plain.clone()),
        ("zip.pth", plain.clone()),
        ("legacy.pth", plain.clone()),
        ("strided_zip.pth", plain.clone()),
        ("strided_legacy.pth", plain.clone()),
        ("protocol4.pth", plain.clone()),
        ("nested.pth", nested),
        ("payload.pth", plain.clone()),
        ("payload_legacy.pth", plain.clone()),
        ("torchscript.pt", plain),
        ("lightning.ckpt", of_lightning()),
        ("tiny.h5", of_keras()),
        ("tiny_chunks.h5", of_keras()),
        ("tiny.npz", of_haiku()),
        ("tiny_compressed.npz", of_haiku()),
        ("tiny_protocol3.pkl", of_haiku()),
        ("tiny_protocol4.pkl", of_haiku()),
        ("tiny_columns.pkl", of_haiku()),
        ("tiny.onnx", of_onnx()),
    ]
    .map(|(name, options)| (name, fs::read(fixture(name)).unwrap(), options));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = folder.join("fuzzed");
    // What a first load keeps for good is no file's fault.
    for (_, file, options) in &files {
        fs::write(&path, file).unwrap();
        load(&path, options);
    }

    let mut rng = StdRng::seed_from_u64(seed);
    let (mut tried, mut loaded) = (0_u64, 0_u64);
    let start = Instant::now();
    while start.elapsed() < time {
        let (name, file, options) = files.choose(&mut rng).unwrap();
        let file = changed(file, &mut rng);
        fs::write(&path, &file).unwrap();
        let case = Instant::now();
        ALLOCATOR
            .set_limit(ALLOCATOR.allocated() + 3 * file.len() + ROOM)
            .unwrap();
        loaded += u64::from(load(&path, options));
        ALLOCATOR.set_limit(usize::MAX).unwrap();
        let took = case.elapsed();
        assert!(took < PATIENCE, "{name}, kept as `{}`: {took:?}", path.display());
        tried += 1;
    }
    fs::remove_file(&path).unwrap();
    eprintln!("{tried} damaged files, {loaded} of them loaded all the same");
    assert!(
        loaded < tried / 2,
        "the damage does too little: {loaded} of {tried} load"
    );
}
