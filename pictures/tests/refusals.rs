//! What is no picture, or not a whole one.

use std::{fs, path::Path, process::Command};

use emoc_ir::{Diagnostic, Kind};
use emoc_pictures::{MAX_PIXELS, decode, open};
use proptest::prelude::*;

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `found` must be refused with `kind` and a message that contains `expected`.
fn check(case: &str, found: Result<impl Sized, Box<Diagnostic>>, kind: Kind, expected: &str) {
    let Err(error) = found else {
        panic!("{case}: not refused");
    };
    assert_eq!(error.kind, kind, "{case}: {error}");
    assert!(error.message.contains(expected), "{case}: {error}");
}

/// A header that claims `width` x `height`, and next to nothing after it.
fn bmp(width: i32, height: i32) -> Vec<u8> {
    let mut bytes = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    bytes.extend(width.to_le_bytes());
    bytes.extend(height.to_le_bytes());
    bytes.extend(b"\x01\0\x18\0");
    bytes.resize(80, 0);
    bytes
}

#[test]
fn bytes() {
    let png = fixture("rgb8.png");
    let jpeg = fixture("420.jpg");
    let webp = fixture("rgb_lossy.webp");
    let progressive = fixture("420_progressive.jpg");
    let none = "no picture: neither JPEG, PNG, WebP nor BMP";
    #[rustfmt::skip]
    let cases: [(&str, &[u8], &str); 16] = [
        ("empty", b"", "the picture is an empty file"),
        ("a text", b"not a picture at all\n", none),
        ("one byte", b"\xFF", none),
        ("a GIF", b"GIF89a\x01\0\x01\0\0\0\0;", none),
        ("an AVI", b"RIFF\x10\0\0\0AVI LIST\0\0\0\0", none),
        ("half a PNG", &png[..png.len() / 2], "the PNG picture is truncated"),
        ("a PNG's signature", &png[..8], "the PNG picture is truncated"),
        ("half a JPEG", &jpeg[..jpeg.len() / 2], "the JPEG picture is truncated"),
        ("a JPEG without its end", &jpeg[..jpeg.len() - 2], "the JPEG picture is truncated"),
        ("half a progressive JPEG", &progressive[..progressive.len() - 40], "the JPEG picture is truncated"),
        ("half a WebP", &webp[..webp.len() / 2], "the WebP picture is truncated"),
        ("half a BMP", &fixture("rgb.bmp")[..300], "the BMP picture is truncated"),
        ("a JPEG of nothing", b"\xFF\xD8\xFF\xD9", "the JPEG picture is damaged"),
        ("more pixels than Pillow reads", &bmp(20_000, 10_000), "has 20000x10000 pixels; no more than"),
        ("as many as it reads, and no data", &bmp(13_377, 13_377), "the BMP picture is truncated"),
        ("no columns", &bmp(0, 5), "the BMP picture is of a kind that is not read"),
    ];
    const { assert!(13_377 * 13_377 <= MAX_PIXELS) };
    for (case, bytes, expected) in cases {
        check(case, decode(bytes), Kind::Input, expected);
    }
}

#[test]
fn paths() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("text.jpg"), "hello").expect("a file");
    check(
        "a text",
        open(&path("text.jpg")),
        Kind::Input,
        "no picture: neither",
    );
    check(
        "a folder",
        open(folder.path()),
        Kind::Input,
        "is a folder, not a file",
    );
    check(
        "nothing",
        open(&path("none.png")),
        Kind::FileSystem,
        "cannot read the picture",
    );
    let made = Command::new("mkfifo").arg(path("pipe.png")).status();
    if made.is_ok_and(|status| status.success()) {
        check(
            "a pipe",
            open(&path("pipe.png")),
            Kind::Input,
            "is not a regular file",
        );
    }
    let error = open(&path("text.jpg")).expect_err("a refusal");
    assert!(
        error
            .file
            .as_ref()
            .is_some_and(|file| file.ends_with("text.jpg")),
        "{error}"
    );
}

/// The name of a file decides nothing.
#[test]
fn names() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("photo.jpg");
    fs::write(&path, fixture("rgb_lossless.webp")).expect("a file");
    let found = open(&path).expect("a picture");
    assert_eq!(found.format.to_string(), "WebP");
    assert_eq!(found.picture().expect("a picture").width(), 17);
}

/// Long and thin pictures are pictures.
#[test]
fn sizes() {
    for (width, height) in [(1, 1), (20_000, 20), (20, 20_000)] {
        let mut bytes = bmp(width, height);
        let stride = (width as usize * 3).next_multiple_of(4);
        bytes.resize(54 + stride * height as usize, 77);
        let found = decode(&bytes).expect("a picture");
        assert_eq!(
            (found.width, found.height),
            (width as u32, height as u32),
            "size"
        );
        assert_eq!(found.rgb.len(), (width * height * 3) as usize);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Damage of any kind is refused or decoded, never a panic; what is decoded is whole.
    #[test]
    fn damage(
        name in prop::sample::select(vec![
            "420.jpg", "420_progressive.jpg", "optimised_restarts.jpg", "ycck.jpg", "animated.png",
            "palette4.png", "rgb8_interlaced.png", "animated.webp", "rgba_lossy.webp",
            "rgba_lossless.webp", "rle4.bmp", "rle8.bmp", "v4_alpha.bmp", "rgb565.bmp",
        ]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..6),
    ) {
        let mut bytes = fixture(name);
        for (at, byte, kind) in edits {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.drain(at..(at + 4).min(bytes.len() - 1).max(at))),
            }
        }
        if let Ok(found) = decode(&bytes) {
            prop_assert_eq!(found.rgb.len() as u64, u64::from(found.width) * u64::from(found.height) * 3);
        }
    }
}
