//! Damage at every place of a file: cut off, or a bit flipped.

use crate::support::{
    Archive, Member, Pickle, archive, fixture, legacy, load, safetensors, storage0,
};

fn small_zip() -> Archive {
    let pickle = Pickle::new()
        .raw(b"}(")
        .str("a")
        .tensor()
        .str("b")
        .view(("LongStorage", "1", 1), 0, &[], &[])
        .raw(b"u.");
    archive(pickle).edit(|archive| {
        let number = Member::stored("net/data/1", 7i64.to_le_bytes().to_vec());
        archive.members.push(number);
        let deflated = Member::deflated("net/data/0", &storage0());
        *archive.member("data/0") = deflated;
        for member in &mut archive.members {
            *member = member.clone().with_descriptor();
        }
        archive.zip64 = Some(|_| ());
    })
}

fn small_legacy() -> Vec<u8> {
    let pickle = Pickle::new().raw(b"}").str("a").tensor().raw(b"s.");
    legacy(pickle, &["0"], &[(4, storage0())])
}

fn small_safetensors() -> Vec<u8> {
    let header = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
    safetensors(header, &storage0())
}

/// A file that is cut off anywhere is refused, never read as something shorter.
#[test]
fn every_strict_prefix_is_refused() {
    let read = |name| std::fs::read(fixture(name)).expect("the fixture exists");
    // The small files at every byte, real ones at some.
    let files = [
        ("zip", small_zip().bytes(), 1),
        ("legacy", small_legacy(), 1),
        ("safetensors", small_safetensors(), 1),
        ("tiny.pth", read("tiny.pth"), 1009),
        ("tiny_legacy.pth", read("tiny_legacy.pth"), 1009),
        ("tiny.safetensors", read("tiny.safetensors"), 1009),
    ];
    for (name, bytes, step) in files {
        load(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        for len in (0..bytes.len()).step_by(step) {
            let refused = load(&bytes[..len]).is_err();
            assert!(refused, "{name}: the first {len} bytes load");
        }
    }
}

/// A flipped bit in a zip file is refused or harmless; it never changes a tensor.
#[test]
fn no_flipped_bit_in_a_zip_changes_a_tensor() {
    let bytes = small_zip().bytes();
    let whole = load(&bytes).expect("the file is good");
    let mut harmless = 0;
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            if let Ok(tensors) = load(&flipped) {
                assert_eq!(tensors, whole, "bit {bit} of byte {at}");
                harmless += 1;
            }
        }
    }
    // Times, versions and the like.
    let bits = bytes.len() * 8;
    assert!(
        harmless < bits / 4,
        "{harmless} of {bits} flips are not noticed"
    );
}

/// Legacy and safetensors files carry no checksum: flips may load, but never end in a panic.
#[test]
fn no_flipped_bit_panics() {
    for bytes in [small_legacy(), small_safetensors()] {
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                let _ = load(&flipped);
            }
        }
    }
}
