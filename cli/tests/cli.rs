//! The command line as a user meets it: exit codes, messages, files.

use std::{
    path::Path,
    process::{Command, Output},
};

/// Runs `emoc` with these arguments, split at spaces, in a folder.
fn emoc(folder: &Path, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_emoc"))
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .env_remove("ORT_DYLIB_PATH")
        .output()
        .expect("emoc starts")
}

fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    folder.join(name).display().to_string()
}

const COMPILE: &str = "compile --variant 1M --target onnx --input-size 64";

#[test]
fn exit_codes() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("text.pth"), "no checkpoint").expect("a file");
    std::fs::write(folder.path().join("mine.onnx"), "mine").expect("a file");
    let check = |arguments: &str, code: i32, message: &str| {
        let output = emoc(folder.path(), arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments}: {stderr}");
        assert!(
            stderr.contains(message),
            "{arguments}: `{message}` is not in:\n{stderr}"
        );
        assert!(!stderr.contains("panicked"), "{arguments}: {stderr}");
    };
    let tiny = fixture("tiny.pth");
    check("--help", 0, "");
    check("frobnicate", 2, "unrecognized subcommand");
    check("compile --variant 7M --target onnx", 2, "7M");
    check("inspect text.pth", 3, "no checkpoint that emoc knows");
    check("inspect missing.pth", 4, "missing.pth");
    check(
        "inspect text.pth --tensors --json",
        3,
        "no checkpoint that emoc knows",
    );
    check(&format!("inspect {tiny}"), 2, "--dim-head");
    check(&format!("inspect {tiny} --tensors --json"), 0, "");
    check(
        &format!("{COMPILE} --stop-after nothing"),
        2,
        "there is no pass `nothing`",
    );
    check(&format!("{COMPILE} --output mine.onnx"), 4, "--force");
    check(
        &format!("{COMPILE} --output no/such/folder.onnx"),
        4,
        "no/such",
    );
    check(
        &format!("{COMPILE} --onnxruntime-lib text.pth"),
        5,
        "text.pth",
    );
    assert_eq!(
        std::fs::read(folder.path().join("mine.onnx")).expect("the file"),
        b"mine",
        "a refused run leaves what was there"
    );
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let artifact = folder.path().join("emov2_1m_64.onnx");
    let manifest = folder.path().join("emov2_1m_64.json");
    let mut first = None;
    // The second run also shows that emoc's own artifact is replaced without --force.
    for _ in 0..2 {
        let output = emoc(folder.path(), COMPILE);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        assert!(stderr.contains("made from seed 0"), "{stderr}");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(
            stdout.contains("tract") && stdout.contains("agrees"),
            "{stdout}"
        );
        assert!(
            !stdout.contains('\u{1b}'),
            "colours only on a terminal: {stdout}"
        );
        let files = [&artifact, &manifest].map(|path| std::fs::read(path).expect("a file"));
        assert_eq!(first.get_or_insert(files.clone()), &files);
    }
    let left = std::fs::read_dir(folder.path())
        .expect("the folder")
        .count();
    assert_eq!(left, 2, "nothing but the artifact and its manifest is left");
}

#[test]
fn tensors_as_json() {
    let output = emoc(
        Path::new("."),
        &format!("inspect {} --tensors --json", fixture("tiny.safetensors")),
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let tensors = report["tensors"].as_array().expect("a list");
    let head = tensors
        .iter()
        .find(|tensor| tensor["name"] == "head.weight");
    let head = head.expect("the head");
    assert_eq!(head["dtype"], "F32");
    assert_eq!(head["shape"], serde_json::json!([10, 24]));
    assert_eq!(head["sha256"].as_str().map(str::len), Some(64));
}
