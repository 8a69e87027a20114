//! Files that are cut, damaged, renamed or lie about their size: an error that says so, and no more memory than an
//! image of the declared limit needs.

use std::path::Path;

use bob_data::{Limits, RgbImage, decode, encode_jpeg};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

fn fixture(file: &str) -> Vec<u8> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/pixels"));
    std::fs::read(folder.join(file)).expect("the fixture is committed")
}

/// The fixture with the bytes from `at` on replaced.
fn patched(file: &str, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = fixture(file);
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

/// The JPEG with the bytes of its frame header, from the precision on, replaced.
fn jpeg_header(bytes: &[u8]) -> Vec<u8> {
    let file = fixture("face-420.jpg");
    let frame = file
        .windows(2)
        .position(|marker| marker == [0xff, 0xc0])
        .expect("a baseline JPEG has one");
    patched("face-420.jpg", frame + 4, bytes)
}

/// The JPEG with its scan header many times over.
fn jpeg_of_scans(count: usize) -> Vec<u8> {
    let file = fixture("cup-progressive-420.jpg");
    let scan = file
        .windows(2)
        .position(|marker| marker == [0xff, 0xda])
        .expect("a JPEG has a scan");
    [&file[..scan], &file[scan..scan + 14].repeat(count), &file[scan..]].concat()
}

/// A PNG with a header and the first bytes of its data.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let mut crc = flate2::Crc::new();
    crc.update(&header);
    let crc = crc.sum().to_be_bytes();
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\r".as_slice(),
        &header,
        &crc,
        b"\0\0\x10\0IDAT\x78\x9c\xed",
    ]
    .concat()
}

/// A little-endian TIFF of 8-bit grey whose one strip is said to start at byte 8.
fn tiff_header(width: u32, height: u32) -> Vec<u8> {
    let mut file = b"II*\0\x08\0\0\0\x07\0".to_vec();
    for (tag, value) in [
        (256, width),
        (257, height),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (279, width),
    ] {
        file.extend(u16::to_le_bytes(tag));
        file.extend([4, 0, 1, 0, 0, 0]);
        file.extend(value.to_le_bytes());
    }
    file.extend([0; 4]);
    file
}

fn check(bytes: &[u8], limits: &Limits, expected: &str) {
    let error = decode(bytes, limits).map_or_else(|error| error.to_string(), |image| format!("{image:?}"));
    assert!(error.contains(expected), "`{error}` does not contain `{expected}`");
}

#[test]
fn an_error_names_the_format_and_the_reason() {
    let two_thirds = |file: &str| {
        let file = fixture(file);
        file[..file.len() * 2 / 3].to_vec()
    };
    let huge = u16::MAX.to_le_bytes();
    for (bytes, expected) in [
        (Vec::new(), "the file is empty"),
        (b"\xff".to_vec(), r#"it starts with "\xff""#),
        (
            b"<!DOCTYPE html>".to_vec(),
            r#"it starts with "<!DOCTYP", as no JPEG, PNG"#,
        ),
        (
            b"PK\x03\x04 an archive named cat.jpg".to_vec(),
            r#"it starts with "PK\x03\x04 an "#,
        ),
        (
            b"\xff\xd8\xff".to_vec(),
            "the JPEG is truncated: its 3 bytes end before the image does",
        ),
        (two_thirds("face-420.jpg"), "the JPEG is truncated"),
        (two_thirds("cup-progressive-420.jpg"), "the JPEG is truncated"),
        (two_thirds("cup-cmyk.jpg"), "the JPEG is truncated"),
        (two_thirds("png-rgb.png"), "the PNG is truncated"),
        (two_thirds("png-adam7.png"), "the PNG is truncated"),
        (two_thirds("webp-lossless.webp"), "the WebP is truncated"),
        (two_thirds("webp-alpha.webp"), "the WebP is truncated"),
        (two_thirds("gif-plain.gif"), "the GIF is truncated"),
        (two_thirds("bmp-palette.bmp"), "the BMP is truncated"),
        (two_thirds("tiff-lzw.tiff"), "the TIFF is "),
        (fixture("png-rgb.png")[..8].to_vec(), "the PNG is truncated"),
        (b"GIF89a".to_vec(), "the GIF is truncated"),
        (b"BM".to_vec(), "the BMP is truncated"),
        (b"II*\0\xff\xff\xff\x7f".to_vec(), "the TIFF is "),
        (b"RIFF\x04\0\0\0WEBP".to_vec(), "the WebP is "),
        (patched("png-rgb.png", 16, &[0; 4]), "the PNG is damaged"),
        (patched("png-rgb.png", 9000, &[0; 4]), "the PNG is damaged"),
        (jpeg_header(&[8, 0, 0]), "the JPEG is damaged"),
        (jpeg_header(&[8, 0, 150, 0, 0]), "the JPEG is damaged"),
        (
            jpeg_header(&[12]),
            "the JPEG is damaged: Unsupported JPEG data precision 12",
        ),
        (
            jpeg_header(&[8, 0, 150, 0, 201, 2]),
            "the JPEG is damaged: Bogus marker length",
        ),
        (jpeg_of_scans(1500), "the JPEG is damaged: it has more than 1000 scans"),
        (
            patched("bmp-palette.bmp", 28, &[16, 0]),
            "the BMP uses what is not supported: 16 bits a pixel",
        ),
        (
            patched("bmp-palette.bmp", 30, &[1]),
            "the BMP uses what is not supported: run-length encoding",
        ),
        // Sizes that are not there, from a few bytes.
        (
            jpeg_header(&[8, 0xff, 0xdc, 0xff, 0xdc]),
            "the JPEG declares 65500 x 65500 pixels, more than the 178956970",
        ),
        (
            png_header(60_000, 50_000),
            "the PNG declares 60000 x 50000 pixels, more than the 178956970 that are allowed",
        ),
        (
            png_header(1 << 20, 1 << 20),
            "the PNG declares 1048576 x 1048576 pixels",
        ),
        (tiff_header(60_000, 50_000), "the TIFF declares 60000 x 50000 pixels"),
        (
            patched("bmp-palette.bmp", 18, &[0x60, 0xea, 0, 0, 0x60, 0xea]),
            "the BMP declares 60000 x 60000 pixels",
        ),
        (
            patched("gif-plain.gif", 6, &[huge, huge].concat()),
            "the GIF declares 65535 x 65535 pixels",
        ),
        (
            patched("webp-alpha.webp", 24, &[0x1f, 0x4e, 0, 0x1f, 0x4e, 0]),
            "the WebP declares 20000 x 20000 pixels",
        ),
    ] {
        check(&bytes, &Limits::default(), expected);
    }
}

#[test]
fn the_limit_is_on_the_number_of_pixels() {
    let file = fixture("17x9.jpg");
    assert!(decode(&file, &Limits { max_pixels: 17 * 9 }).is_ok());
    check(
        &file,
        &Limits { max_pixels: 17 * 9 - 1 },
        "the JPEG declares 17 x 9 pixels, more than the 152 that",
    );
}

#[test]
fn what_jpeg_cannot_hold_is_an_error() {
    let image = |width, height, bytes| RgbImage {
        width,
        height,
        pixels: vec![0; bytes],
    };
    for (image, quality, expected) in [
        (image(1, 1, 3), 0, "quality 0 is not between 1 and 100"),
        (image(1, 1, 3), 101, "quality 101 is not between 1 and 100"),
        (image(0, 1, 0), 75, "0 x 1 pixels in 0 bytes are not an RGB image"),
        (image(65_501, 1, 3 * 65_501), 75, "65501 x 1 pixels in 196503 bytes"),
        (image(2, 2, 4), 75, "2 x 2 pixels in 4 bytes"),
    ] {
        let error = encode_jpeg(&image, quality).expect_err(expected).to_string();
        assert!(error.contains(expected), "`{error}` does not contain `{expected}`");
    }
    assert!(encode_jpeg(&image(65_500, 1, 3 * 65_500), 75).is_ok());
}

/// Most address space that this process has had, in bytes.
#[cfg(target_os = "linux")]
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmPeak:"))
        .expect("Linux has it");
    line.split_whitespace()
        .nth(1)
        .and_then(|size| size.parse::<usize>().ok())
        .expect("in KiB")
        * 1024
}

#[test]
#[cfg(target_os = "linux")]
fn a_declared_size_takes_no_memory() {
    let before = peak_memory();
    for bytes in [
        png_header(60_000, 50_000),
        tiff_header(60_000, 50_000),
        jpeg_header(&[8, 0xff, 0xdc, 0xff, 0xdc]),
    ] {
        decode(&bytes, &Limits::default()).expect_err("it is too large");
    }
    let taken = peak_memory().saturating_sub(before);
    // What the test threads reserve counts too; one of these images would take 9 GB.
    assert!(taken < 2 << 30, "{taken} bytes");
}

/// A change to a file.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        if file.is_empty() {
            return;
        }
        match self {
            Self::Set(at, byte) => {
                let at = at.index(file.len());
                file[at] = *byte;
            }
            Self::Cut(at) => file.truncate(at.index(file.len())),
            Self::Insert(at, bytes) => {
                let at = at.index(file.len());
                file.splice(at..at, bytes.iter().copied());
            }
            Self::Remove(at, count) => {
                let at = at.index(file.len());
                file.drain(at..file.len().min(at + count));
            }
        }
    }
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        8 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => any::<Index>().prop_map(Change::Cut),
        1 => (any::<Index>(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => (any::<Index>(), 1_usize..40).prop_map(|(at, count)| Change::Remove(at, count)),
    ];
    vec(change, 1..8)
}

/// Changes among the first bytes, where the headers are.
fn header_changes() -> impl Strategy<Value = Vec<(usize, u8)>> {
    vec((0_usize..200, any::<u8>()), 1..6)
}

const FILES: [&str; 14] = [
    "17x9.jpg",
    "2x33.jpg",
    "cup-progressive-420.jpg",
    "cup-cmyk.jpg",
    "cat-restart.jpg",
    "png-bit.png",
    "png-palette-bytes.png",
    "png-rgb16.png",
    "webp-lossy-q30.webp",
    "webp-alpha.webp",
    "webp-lossless.webp",
    "gif-smaller-frame.gif",
    "bmp-bit.bmp",
    "tiff-lzw.tiff",
];

/// An image that fills the size it declares, within the limit, or an error with a reason; never a panic.
fn sound(bytes: &[u8]) -> Result<(), TestCaseError> {
    let limits = Limits { max_pixels: 1 << 18 };
    match decode(bytes, &limits) {
        Ok(RgbImage { width, height, pixels }) => {
            prop_assert!((1..=1 << 18).contains(&(width * height)), "{width} x {height}");
            prop_assert_eq!(pixels.len(), width * height * 3);
        }
        Err(error) => prop_assert!(error.to_string().len() > 15, "{}", error),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_is_an_image_or_an_error(file in select(&FILES), changes in changes()) {
        let mut bytes = fixture(file);
        changes.iter().for_each(|change| change.apply(&mut bytes));
        sound(&bytes)?;
    }

    #[test]
    fn a_damaged_header_is_an_image_or_an_error(file in select(&FILES), changes in header_changes()) {
        let mut bytes = fixture(file);
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        sound(&bytes)?;
    }

    #[test]
    fn noise_after_a_signature_is_an_error(
        start in select(vec!["\u{89}PNG\r\n\u{1a}\n", "GIF89a", "BM", "II*\0", "RIFF\0\0\0\0WEBPVP8 "]),
        noise in vec(any::<u8>(), 0..300),
    ) {
        let start: Vec<u8> = start.chars().map(|byte| byte as u8).collect();
        sound(&[start, noise].concat())?;
    }
}
