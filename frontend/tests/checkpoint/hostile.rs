//! Files that are something else, and broken legacy and safetensors files.

use std::path::Path;

use emoc_frontend::Checkpoint;
use emoc_ir::Kind;

use crate::support::{
    Case, Member, Pickle, archive, check_refused, legacy, legacy_with, safetensors, storage0,
};

#[test]
fn other_files_are_refused_by_their_names() {
    let tar = || {
        let mut tar = vec![b'a'; 512];
        tar[257..262].copy_from_slice(b"ustar");
        tar
    };
    let with = |name: &str, data: &[u8]| {
        let plain = archive(Pickle::new().tensor().raw(b"."));
        let member = Member::stored(name, data.to_vec());
        plain.edit(|archive| archive.members.push(member)).bytes()
    };
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    check_refused(vec![
        ("empty", vec![], "an empty file"),
        ("one byte", vec![0], "no checkpoint that emoc knows"),
        (
            "png",
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec(),
            "a PNG picture",
        ),
        (
            "jpeg",
            b"\xff\xd8\xff\xe0\0\x10JFIF\0".to_vec(),
            "a JPEG picture",
        ),
        (
            "gzip",
            b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec(),
            "a gzip file",
        ),
        ("tar", tar(), "a tar archive"),
        (
            "onnx",
            b"\x08\x0a\x12\x07pytorch\x1a\x05".to_vec(),
            "an ONNX model",
        ),
        ("numpy", b"\x93NUMPY\x01\0v\0".to_vec(), "a NumPy array"),
        ("hdf5", b"\x89HDF\r\n\x1a\n\0\0".to_vec(), "an HDF5 file"),
        ("lfs pointer", lfs.to_vec(), "a Git LFS pointer"),
        ("web page", b"<!DOCTYPE html><html>".to_vec(), "a web page"),
        (
            "text",
            b"hello, weights".to_vec(),
            "no checkpoint that emoc knows",
        ),
        ("json", b"{\"a\": 1}".to_vec(), "a JSON file"),
        ("empty zip", b"PK\x05\x06".to_vec(), "an empty zip file"),
        (
            "TorchScript",
            with("net/constants.pkl", b"x"),
            "a TorchScript archive",
        ),
        (
            "TorchScript code",
            with("net/code/m.py", b"x"),
            "a TorchScript archive",
        ),
        (
            "torch.export",
            with("net/archive_format", b"pt2"),
            "torch.export",
        ),
        (
            "torch.package",
            with("net/.data/extern_modules", b""),
            "torch.package",
        ),
    ]);
}

#[test]
fn paths_that_are_no_files_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let check = |path: &Path, kind: Kind, expected: &str| {
        let error = Checkpoint::open(path).expect_err("must be refused");
        assert_eq!(error.kind, kind, "{error}");
        let text = error.to_string();
        assert!(text.contains(expected), "expected `{expected}` in `{text}`");
        let name = path.display().to_string();
        assert!(text.contains(&name), "the file is not named: {text}");
    };
    check(folder.path(), Kind::Input, "is a directory");
    check(
        &folder.path().join("none.pth"),
        Kind::FileSystem,
        "cannot open",
    );
    let empty = folder.path().join("empty.pth");
    std::fs::write(&empty, b"").expect("a writable folder");
    check(&empty, Kind::Input, "empty file");
    #[cfg(unix)]
    check(Path::new("/dev/null"), Kind::Input, "not a regular file");
}

#[test]
fn broken_legacy_files_are_refused() {
    let good = || Pickle::new().tensor().raw(b".");
    let whole = || vec![(4, storage0())];
    let file = |keys: &[&str], storages: Vec<(i64, Vec<u8>)>| legacy(good(), keys, &storages);
    let mut trailing = file(&["0"], whole());
    trailing.push(0);
    let two = Pickle::new()
        .raw(b"](")
        .tensor()
        .view(("IntStorage", "0", 4), 0, &[4], &[1])
        .raw(b"e.");
    let view = Pickle::new()
        .raw(b"(")
        .str("storage")
        .global("torch", "FloatStorage")
        .str("0")
        .str("cpu")
        .int(4)
        .ints(&[0, 1])
        .raw(b"tQ.");
    let quantized = Pickle::new().storage("QInt8Storage", "0", 4).raw(b".");
    check_refused(vec![
        ("trailing byte", trailing, "bytes follow the last storage"),
        ("no keys", file(&[], whole()), "storage \"0\" is missing"),
        (
            "unused key",
            file(&["0", "1"], whole()),
            "listed, but not used",
        ),
        (
            "key twice",
            file(&["0", "0"], [whole(), whole()].concat()),
            "listed twice",
        ),
        (
            "fewer elements",
            file(&["0"], vec![(3, storage0())]),
            "has 3 elements",
        ),
        (
            "negative elements",
            file(&["0"], vec![(-1, storage0())]),
            "the pickle declares 4",
        ),
        (
            "huge elements",
            file(&["0"], vec![(1 << 62, storage0())]),
            "the pickle declares 4",
        ),
        (
            "short storage",
            file(&["0"], vec![(4, vec![0; 15])]),
            "cut off in storage",
        ),
        ("no storage", file(&["0"], vec![]), "cut off before storage"),
        (
            "version",
            legacy_with(1002, true, good(), &["0"], &whole()),
            "version",
        ),
        (
            "big-endian",
            legacy_with(1001, false, good(), &["0"], &whole()),
            "big-endian",
        ),
        (
            "two types",
            legacy(two, &["0"], &whole()),
            "declared in two ways",
        ),
        (
            "storage view",
            legacy(view, &["0"], &whole()),
            "views of others",
        ),
        (
            "quantized",
            legacy(quantized, &["0"], &[(4, vec![0; 4])]),
            "unsupported elements",
        ),
        ("plain pickle", good().0, "not one of `torch.save`"),
        (
            "plain hostile pickle",
            Pickle::new()
                .global("os", "system")
                .str("id")
                .raw(b"\x85R.")
                .0,
            "`os.system`",
        ),
    ]);
}

#[test]
fn broken_safetensors_files_are_refused() {
    let file = |tensors: &str| safetensors(tensors, &[0; 8]);
    let one = |info: &str| file(&format!("{{\"a\":{info}}}"));
    let a = r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    let pair = |second: &str| file(&format!("{{\"a\":{a},{second}}}"));
    let info = |dtype: &str, shape: &str, offsets: &str| {
        one(&format!(
            r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#
        ))
    };
    let length = |length: u64| [&length.to_le_bytes()[..], b"{}"].concat();
    let long = format!("{{\"{}\":{a}}}", "n".repeat(1025));
    check_refused(vec![
        ("header beyond the file", length(3), "cut off or lies"),
        ("header of 26 MB", length(26_000_000), "at most 25000000"),
        ("header of 2^63", length(1 << 63), "at most 25000000"),
        (
            "no JSON",
            safetensors("{not json", &[]),
            "the header is not allowed",
        ),
        (
            "bytes after the JSON",
            safetensors("{}{}", &[]),
            "trailing characters",
        ),
        (
            "duplicate",
            pair(&format!("\"a\":{a}")),
            "duplicate key `a`",
        ),
        (
            "escaped duplicate",
            pair(&format!("\"\\u0061\":{a}")),
            "duplicate key `a`",
        ),
        (
            "duplicate field",
            one(r#"{"dtype":"F32","dtype":"F32"}"#),
            "duplicate field",
        ),
        (
            "unknown field",
            one(r#"{"dtype":"F32","x":1}"#),
            "unknown field",
        ),
        (
            "deep",
            file(&format!("{{\"a\":{}}}", "[".repeat(1000))),
            "not allowed",
        ),
        (
            "deep metadata",
            file(r#"{"__metadata__":{"a":{"b":"c"}}}"#),
            "expected a string",
        ),
        (
            "metadata twice",
            file(r#"{"__metadata__":{},"__metadata__":{}}"#),
            "twice",
        ),
        ("float", info("F32", "[2.0]", "[0,8]"), "expected u64"),
        ("exponent", info("F32", "[2e0]", "[0,8]"), "expected u64"),
        ("negative", info("F32", "[-2]", "[0,8]"), "expected u64"),
        (
            "beyond 64 bits",
            info("F32", "[99999999999999999999]", "[0,8]"),
            "expected u64",
        ),
        ("one offset", info("F32", "[2]", "[0]"), "invalid length"),
        (
            "unknown type",
            info("F4", "[2]", "[0,8]"),
            "unknown element type `F4`",
        ),
        (
            "lower-case type",
            info("f32", "[2]", "[0,8]"),
            "unknown element type `f32`",
        ),
        (
            "reversed offsets",
            info("F32", "[2]", "[8,0]"),
            "bytes 8 to 0",
        ),
        (
            "beyond the data",
            info("F32", "[4]", "[0,16]"),
            "of 8 bytes of data",
        ),
        (
            "wrong size",
            info("F32", "[3]", "[0,8]"),
            "8 bytes are given",
        ),
        (
            "overflow",
            info("F64", "[2147483647,2147483647,4]", "[0,8]"),
            "8 bytes are given",
        ),
        (
            "long axis",
            info("U8", "[2147483648]", "[0,8]"),
            "an axis of",
        ),
        (
            "rank 9",
            info("U8", "[1,1,1,1,1,1,1,1,8]", "[0,8]"),
            "more than 8 axes",
        ),
        (
            "hole before",
            info("U8", "[7]", "[1,8]"),
            "no tensor covers the data at byte",
        ),
        (
            "hole after",
            info("U8", "[7]", "[0,7]"),
            "no tensor covers the data from byte",
        ),
        (
            "overlap",
            pair(r#""b":{"dtype":"U8","shape":[1],"data_offsets":[7,8]}"#),
            "two tensors overlap",
        ),
        (
            "data without tensors",
            file("{}"),
            "no tensor covers the data",
        ),
        ("long name", file(&long), "longer than 1 KiB"),
        (
            "escape in a name",
            file(&format!("{{\"a\\u001b[2J\":{a}}}")),
            "control characters",
        ),
    ] as Vec<Case>);
}
