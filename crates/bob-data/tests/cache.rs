//! Kept embeddings and manifests: reused where they hold, refused where they are damaged.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bob_core::Embeddings;
use bob_core::device::BackendName;
use bob_data::{CacheError, CacheKey, EmbedError, EmbeddingCache, ImageSet, Manifest, datasets, embed};
use burn::tensor::{DType, Device};
use common::{Noise, PASSES, Tiny, transform};

fn key(weights: &str) -> CacheKey {
    let manifest = Manifest::compute(&Noise::new(5)).expect("sound");
    CacheKey::new(
        weights,
        "as it is",
        &manifest,
        &transform(),
        BackendName::Flex,
        DType::F32,
        false,
    )
}

fn embeddings() -> Embeddings {
    let values: Vec<f32> = (0..5 * 7).map(|value| value as f32 / 3.0 - 4.0).collect();
    let names = (0..5).map(|index| format!("käfer \"{index}\"\n")).collect();
    Embeddings::new(values, 7, vec![3, 1, 4, 1, 5], names).expect("they fit")
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Embed(#[from] EmbedError),
}

#[test]
fn a_second_protocol_computes_no_forward_pass() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = EmbeddingCache::new(folder.path().join("embeddings"));
    let device = Device::flex();
    let backbone = Tiny::new(&device);
    let set = Noise::new(11);
    let manifest = Manifest::compute(&set).expect("sound");
    let key = CacheKey::new(
        "a",
        "as it is",
        &manifest,
        &transform(),
        BackendName::Flex,
        DType::F32,
        false,
    );
    let protocol = || -> Result<Embeddings, Error> {
        cache.get_or_compute(&key, || {
            Ok(embed(&backbone, &set, &transform(), 4, 1, &device, &mut |_| ())?)
        })
    };

    let first = protocol().expect("computed");
    assert_eq!(PASSES.load(Ordering::SeqCst), 3);
    let second = protocol().expect("kept");
    assert_eq!(PASSES.load(Ordering::SeqCst), 3);
    assert_eq!(first.values(), second.values());
    assert_eq!((first.labels(), first.names()), (second.labels(), second.names()));

    let error = cache.get_or_compute(
        &CacheKey {
            weights: "b".to_owned(),
            ..key.clone()
        },
        || {
            Ok::<_, Error>(embed(
                &Tiny::spoilt(&device),
                &set,
                &transform(),
                4,
                1,
                &device,
                &mut |_| (),
            )?)
        },
    );
    assert!(error.is_err());
    assert_eq!(
        fs::read_dir(folder.path().join("embeddings")).expect("made").count(),
        1,
        "a fault is not kept"
    );
}

#[test]
fn every_part_of_the_key_counts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = EmbeddingCache::new(folder.path());
    let key = key("a");
    cache.store(&key, &embeddings()).expect("stored");
    let text = |part: &str| format!("{part} ");
    let others = [
        CacheKey {
            weights: text(&key.weights),
            ..key.clone()
        },
        CacheKey {
            setup: text(&key.setup),
            ..key.clone()
        },
        CacheKey {
            data: text(&key.data),
            ..key.clone()
        },
        CacheKey {
            preprocess: text(&key.preprocess),
            ..key.clone()
        },
        CacheKey {
            dtype: text(&key.dtype),
            ..key.clone()
        },
        CacheKey {
            folded: !key.folded,
            ..key.clone()
        },
        CacheKey {
            backend: text(&key.backend),
            ..key.clone()
        },
        CacheKey {
            burn: text(&key.burn),
            ..key.clone()
        },
    ];
    for other in others {
        assert!(cache.load(&other).expect("no fault").is_none(), "{other:?}");
    }
    let kept = cache.load(&key).expect("sound").expect("there");
    assert_eq!(kept.values(), embeddings().values());
    assert_eq!(kept.values().as_ptr() as usize % 64, 0);
    assert_eq!(kept.names(), embeddings().names());
    let workspace = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml")).expect("there");
    assert!(
        workspace.contains(&format!("burn = {{ version = \"={}\"", key.burn)),
        "the key names the version of burn"
    );
}

#[test]
fn a_damaged_cache_is_named_and_refused() {
    let check = |damage: &dyn Fn(&mut Vec<u8>), expected: &str| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cache = EmbeddingCache::new(folder.path());
        let key = key("a");
        cache.store(&key, &embeddings()).expect("stored");
        let path = cache.path(&key);
        let mut bytes = fs::read(&path).expect("there");
        damage(&mut bytes);
        fs::write(&path, bytes).expect("writes");
        let error = cache.load(&key).expect_err("damaged").to_string();
        let expected = format!("embedding cache `{}` {expected}", path.display());
        assert!(error.starts_with(&expected), "{error}\nexpected: {expected}");
        assert!(error.ends_with("; delete it to have it computed again"), "{error}");
    };
    check(
        &|bytes| bytes.clear(),
        "is damaged: its 0 bytes do not begin as an embedding cache does",
    );
    check(&|bytes| bytes[0] = b'X', "is damaged: its ");
    check(&|bytes| bytes[8] = 9, "has version 9; expected 1");
    check(
        &|bytes| bytes[12..16].fill(0xff),
        "is damaged: its header does not match its hash",
    );
    check(
        &|bytes| bytes[60] ^= 1,
        "is damaged: its header does not match its hash",
    );
    check(
        &|bytes| bytes.truncate(100),
        "is damaged: its header does not match its hash",
    );
    check(&|bytes| bytes.truncate(bytes.len() - 4), "is damaged: it has ");
    check(&|bytes| bytes.push(0), "is damaged: it has ");
    check(
        &|bytes| *bytes.last_mut().expect("not empty") ^= 1,
        "is damaged: its values do not match their hash",
    );

    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = EmbeddingCache::new(folder.path());
    cache.store(&key("a"), &embeddings()).expect("stored");
    fs::rename(cache.path(&key("a")), cache.path(&key("b"))).expect("renames");
    let error = cache.load(&key("b")).expect_err("of another key").to_string();
    assert!(error.contains("it holds the embeddings of another key"), "{error}");
}

/// The temporary file of a write is made to be `/dev/full`, which takes no byte.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_told_and_keeps_nothing() {
    let full = |path: &Path| {
        let name = path.file_name().expect("a file").to_string_lossy();
        let temporary = path.with_file_name(format!("{name}.{}.tmp", std::process::id()));
        std::os::unix::fs::symlink("/dev/full", temporary).expect("links");
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = EmbeddingCache::new(folder.path());
    let path = cache.path(&key("a"));
    full(&path);
    let error = cache.store(&key("a"), &embeddings()).expect_err("no space is left");
    assert!(matches!(&error, CacheError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull));
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");

    let path = folder.path().join("manifest.json");
    full(&path);
    let error = Manifest::load_or_compute(&Noise::new(5), &path)
        .expect_err("no space is left")
        .to_string();
    assert!(
        error.contains("manifest.json") && error.contains("No space left"),
        "{error}"
    );
    assert_eq!(
        fs::read_dir(folder.path()).expect("a folder").count(),
        0,
        "nothing is kept"
    );
}

fn clipart(root: &Path) -> Arc<dyn ImageSet> {
    datasets::image_folder::open(root).expect("sound").splits["test"].clone()
}

fn small_folder(root: &Path) {
    for (class, name) in [("a", "1.jpg"), ("a", "2.jpg"), ("b", "1.jpg")] {
        fs::create_dir_all(root.join(class)).expect("makes");
        fs::write(root.join(class).join(name), format!("bytes of {class}/{name}")).expect("writes");
    }
}

#[test]
fn a_manifest_is_reused_until_a_file_changes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (root, kept) = (folder.path().join("images"), folder.path().join("kept/manifest.json"));
    small_folder(&root);
    let first = Manifest::load_or_compute(&*clipart(&root), &kept).expect("computed");
    assert_eq!(first.entries().len(), 3);
    assert_eq!(
        (first.entries()[2].name.as_str(), first.entries()[2].label),
        ("b/1.jpg", 1)
    );
    assert_eq!(first.entries()[2].size, "bytes of b/1.jpg".len() as u64);

    // A mark that only a reused file shows.
    let written = fs::metadata(&kept).and_then(|file| file.modified()).expect("there");
    let second = Manifest::load_or_compute(&*clipart(&root), &kept).expect("kept");
    assert_eq!(second, first);
    assert_eq!(
        fs::metadata(&kept).and_then(|file| file.modified()).expect("there"),
        written,
        "it was written again"
    );

    let change = |what: &dyn Fn()| {
        let before = Manifest::load_or_compute(&*clipart(&root), &kept).expect("kept");
        what();
        let after = Manifest::load_or_compute(&*clipart(&root), &kept).expect("computed");
        assert_ne!(before.sha256(), after.sha256());
        assert_eq!(after, Manifest::compute(&*clipart(&root)).expect("computed"));
    };
    change(&|| fs::write(root.join("a/2.jpg"), "longer than it was before").expect("writes"));
    change(&|| fs::rename(root.join("a/2.jpg"), root.join("a/3.jpg")).expect("renames"));
    change(&|| fs::rename(root.join("b"), root.join("0")).expect("renames"));
    change(&|| fs::remove_file(root.join("a/3.jpg")).expect("removes"));
}

#[test]
fn a_damaged_manifest_is_named_and_refused() {
    let check = |damage: &dyn Fn(String) -> String, expected: &str| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (root, kept) = (folder.path().join("images"), folder.path().join("manifest.json"));
        small_folder(&root);
        Manifest::load_or_compute(&*clipart(&root), &kept).expect("computed");
        fs::write(&kept, damage(fs::read_to_string(&kept).expect("there"))).expect("writes");
        let error = Manifest::load_or_compute(&*clipart(&root), &kept)
            .expect_err("damaged")
            .to_string();
        assert!(
            error.starts_with(&format!("manifest `{}` is damaged: ", kept.display())),
            "{error}"
        );
        assert!(
            error.contains(expected) && error.ends_with("; delete it to have it made again"),
            "{error}"
        );
    };
    check(&|_| String::new(), "EOF");
    check(&|text| text[..text.len() / 2].to_owned(), "EOF");
    check(
        &|text| text.replace("\"label\":1", "\"label\":0"),
        "its entries have the hash",
    );
    check(
        &|text| text.replace("\"version\":1", "\"version\":2"),
        "it has version 2; expected 1",
    );
    check(
        &|text| text.replace("\"version\":1", "\"version\":1,\"colour\":1"),
        "unknown field `colour`",
    );
}
