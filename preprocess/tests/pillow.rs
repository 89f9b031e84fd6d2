//! Every byte of the crop and every bit of the tensor, against what Pillow and torchvision made.

#![allow(
    clippy::print_stdout,
    reason = "skipped tests and measured differences are reported"
)]

use std::path::{Path, PathBuf};

use emoc_preprocess::{Picture, Transform};
use image::RgbImage;
use safetensors::SafeTensors;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn open(path: &Path) -> RgbImage {
    image::open(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .to_rgb8()
}

fn picture(image: &RgbImage) -> Picture<'_> {
    Picture::new(image.width(), image.height(), image.as_raw()).expect("a valid picture")
}

/// Fails with the first difference, as row, column and channel of a crop `width` pixels wide.
fn check_crop(name: &str, found: &[u8], expected: &[u8], width: usize) {
    assert_eq!(found.len(), expected.len(), "{name}: number of bytes");
    let differ = found.iter().zip(expected).filter(|(a, b)| a != b).count();
    if let Some(i) = found.iter().zip(expected).position(|(a, b)| a != b) {
        let (row, column, channel) = (i / 3 / width, i / 3 % width, i % 3);
        panic!(
            "{name}: {differ} bytes differ, the first at row {row}, column {column}, \
             channel {channel}: {} instead of {}",
            found[i], expected[i]
        );
    }
}

/// `fixtures/pillow.py` draws the same noise.
fn noise(width: u32, height: u32) -> Vec<u8> {
    let mut state = u64::from(width) << 32 | u64::from(height);
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 56) as u8
    };
    (0..width * height * 3).map(|_| next()).collect()
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |digest, byte| {
        (digest ^ u64::from(*byte)).wrapping_mul(0x100_0000_01B3)
    })
}

/// Noise shows every weight; the sizes are the awkward ones: 1 pixel, 1:33, one more or less than
/// the resized size, tall, wide, targets that are not square.
#[test]
fn noise_of_114_sizes() {
    let table = std::fs::read_to_string(fixture("pillow.txt")).expect("the table");
    let mut cases = 0;
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(' ').collect();
        let size = |i: usize| fields[i].parse::<u32>().expect("a size");
        let (width, height) = (size(0), size(1));
        let rgb = noise(width, height);
        let picture = Picture::new(width, height, &rgb).expect("a valid picture");
        let crop = Transform::new(size(2), size(3))
            .expect("a valid target")
            .crop(&picture);
        assert_eq!(format!("{:016x}", fnv1a(&crop)), fields[4], "{line}");
        cases += 1;
    }
    assert_eq!(cases, 114);
}

#[test]
fn photos() {
    for (name, crop) in [
        ("coins.png", "coins.crop.png"),
        ("microaneurysms.png", "microaneurysms.crop.png"),
    ] {
        let transform = Transform::new(224, 224).expect("a valid target");
        let found = transform.crop(&picture(&open(&fixture(name))));
        check_crop(name, &found, open(&fixture(crop)).as_raw(), 224);
    }
}

/// Seven photos and their tensors, too large to be part of the repository.
#[test]
fn reference_photos() {
    let Some(folder) = std::env::var_os("EMOC_REFERENCE_DIR") else {
        println!("skipped: EMOC_REFERENCE_DIR is not set");
        return;
    };
    let folder = Path::new(&folder).join("preprocess");
    let bytes = std::fs::read(folder.join("preprocess_golden.safetensors")).expect("the goldens");
    let goldens = SafeTensors::deserialize(&bytes).expect("the goldens");
    let golden = |name: &str| goldens.tensor(name).expect("a golden").data().to_vec();

    let pictures = [
        ("chelsea.png", "chelsea.png"),
        ("china.jpg", "china.decoded.png"),
        ("coffee_rgba.png", "coffee_rgba.png"),
        ("coins.png", "coins.png"),
        ("microaneurysms.png", "microaneurysms.png"),
        ("retina.jpg", "retina.decoded.png"),
        (
            "rocket_progressive_exif6.jpg",
            "rocket_progressive_exif6.decoded.png",
        ),
    ];
    let transform = Transform::new(224, 224).expect("a valid target");
    for (name, decoded) in pictures {
        let image = open(&folder.join(decoded));
        let crop = transform.crop(&picture(&image));
        check_crop(name, &crop, &golden(&format!("{name}.u8")), 224);

        let expected = golden(name);
        let mut planes = vec![0.0; crop.len()];
        transform
            .normalize_into(&crop, &mut planes)
            .expect("the right lengths");
        assert_eq!(planes, transform.apply(&picture(&image)), "{name}: apply");
        for (i, (found, expected)) in planes.iter().zip(expected.chunks_exact(4)).enumerate() {
            let expected = f32::from_le_bytes(expected.try_into().expect("4 bytes"));
            assert_eq!(
                found.to_bits(),
                expected.to_bits(),
                "{name}: element {i}: {found} {expected}"
            );
        }
        assert_eq!(planes.len() * 4, expected.len(), "{name}: number of floats");

        if name.ends_with(".jpg") {
            report_decoder(name, &open(&folder.join(name)), &image, &transform);
        }
    }
}

/// JPEG decoders round differently: prints by how much `image`'s differs from Pillow's, before and
/// after the transform. Not this crate's doing, but what a user will see.
fn report_decoder(name: &str, ours: &RgbImage, pillow: &RgbImage, transform: &Transform) {
    assert_eq!(
        ours.dimensions(),
        pillow.dimensions(),
        "{name}: EXIF orientation is not applied"
    );
    let stages = [
        ("decoded", ours.as_raw().clone(), pillow.as_raw().clone()),
        (
            "crop",
            transform.crop(&picture(ours)),
            transform.crop(&picture(pillow)),
        ),
    ];
    for (stage, ours, pillow) in stages {
        let levels: Vec<u8> = ours
            .iter()
            .zip(&pillow)
            .map(|(a, b)| a.abs_diff(*b))
            .collect();
        let most = levels.iter().max().expect("not empty");
        let share = levels.iter().filter(|level| **level > 0).count() as f64 / levels.len() as f64;
        println!(
            "{name}, {stage}: {:.2} % of the bytes differ, by at most {most}",
            share * 100.0
        );
    }
}
