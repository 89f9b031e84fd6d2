//! Every kind of picture, against what Pillow's `convert("RGB")` makes of it
//! (`fixtures/pillow.py`).

use std::path::{Path, PathBuf};

use emoc_pictures::{Decoded, Format, open};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// What the name's ending says, and by how many levels the decoders may differ.
fn format(name: &str) -> (Format, u8) {
    match name.rsplit_once('.').expect("an ending").1 {
        // These pictures are small and noisy: most of their rows are near an edge.
        "jpg" => (Format::Jpeg, 9),
        "png" => (Format::Png, 0),
        "webp" => (Format::WebP, 0),
        "bmp" => (Format::Bmp, 0),
        other => panic!("{other}: no kind of picture"),
    }
}

/// What is wrong with `found`, if anything.
fn compare(found: &Decoded, line: &str, expected: &[u8]) -> Result<(), String> {
    let fields: Vec<&str> = line.split(' ').collect();
    let (format, tolerance) = format(fields[0]);
    let header = [
        found.width,
        found.height,
        found.orientation.unwrap_or(1).into(),
    ];
    let header = header.map(|number| number.to_string());
    if header != fields[1..] || found.format != format {
        return Err(format!("{header:?}, {:?}", found.format));
    }
    let levels = |(a, b): (&u8, &u8)| a.abs_diff(*b);
    let most = found.rgb.iter().zip(expected).map(levels).max();
    if found.rgb.len() == expected.len() && most <= Some(tolerance) {
        return Ok(());
    }
    let first = found.rgb.iter().zip(expected).position(|(a, b)| a != b);
    Err(format!(
        "{} bytes for {}, levels differ by up to {most:?}, the first at byte {first:?}",
        found.rgb.len(),
        expected.len()
    ))
}

#[test]
fn as_pillow() {
    let table = std::fs::read_to_string(fixture("pillow.txt")).expect("the table");
    let rgb = std::fs::read(fixture("pillow.rgb")).expect("the bytes");
    let mut rest = rgb.as_slice();
    let mut wrong = Vec::new();
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(' ').next().expect("a name");
        // All of them have the same size.
        let (expected, after) = rest.split_at(17 * 10 * 3);
        rest = after;
        let found = open(&fixture(name))
            .map_err(|error| error.to_string())
            .and_then(|found| compare(&found, line, expected));
        if let Err(error) = found {
            wrong.push(format!("{line}: {error}"));
        }
    }
    assert!(rest.is_empty(), "{} bytes too many", rest.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
