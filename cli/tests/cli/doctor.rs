//! What `doctor` finds, and says of what it does not find.

use std::path::Path;

use serde_json::{Value, json};

use crate::{command, emoc, stderr, stdout};

fn report(command: &mut std::process::Command) -> Value {
    let output = command.output().expect("emoc starts");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Name, and whether it is there.
fn found(report: &Value) -> Vec<(String, bool)> {
    let items = report["found"].as_array().expect("a list").iter();
    let item = |item: &Value| {
        let name = item["name"].as_str().expect("a name").to_owned();
        (name, item["found"] == json!(true))
    };
    items.map(item).collect()
}

/// Whatever is missing is told how to be got, and nothing of it is an error.
#[test]
fn an_empty_machine() {
    let folder = tempfile::tempdir().expect("a folder");
    let empty = |arguments: &str| {
        let mut command = command(folder.path(), arguments);
        command
            .env("PATH", folder.path())
            .env("HOME", folder.path());
        command
    };
    let report = report(&mut empty("doctor --json"));
    let expected = [
        ("tract", true),
        ("ONNX Runtime", false),
        ("cargo", false),
        ("python3", false),
        ("TensorRT-RTX", false),
    ];
    let expected: Vec<_> = expected.map(|(name, is)| (name.to_owned(), is)).into();
    assert_eq!(found(&report), expected);
    for item in report["found"].as_array().expect("a list") {
        assert_ne!(item["gives"], "", "{item}");
        let help = item["missing"]["help"].as_str().unwrap_or_default();
        assert_eq!(help.is_empty(), item["found"] == json!(true), "{item}");
    }
    let output = empty("doctor").output().expect("emoc starts");
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(text.matches("missing").count(), 5, "{text}");
    assert!(text.contains("scripts/fetch-onnxruntime"), "{text}");
    let output = empty("doctor --quiet").output().expect("emoc starts");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output) + &stderr(&output), "");
}

#[test]
fn this_machine() {
    let report = report(&mut command(Path::new("."), "doctor --json"));
    assert_eq!(report["emoc"], env!("CARGO_PKG_VERSION"));
    assert!(report["cpu"]["cores"].as_u64() > Some(0), "{report}");
    assert_eq!(report["cpu"]["available"][0], report["cpu"]["isa"]);
    // It runs this test.
    let found = found(&report);
    assert!(found.contains(&("cargo".into(), true)), "{found:?}");
    assert!(
        report["found"][2]["path"]
            .as_str()
            .is_some_and(|path| path.starts_with('/'))
    );

    let output = emoc(Path::new("."), "doctor");
    let text = stdout(&output);
    let (table, _) = text.split_once("\n\nwhere\n").unwrap_or((&text, ""));
    for line in table.lines() {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.len());
    }
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

/// A library that somebody set and that is none is a row, as is a program that is none.
#[test]
fn broken_parts() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("a mode");
        path
    };
    file("cargo", "#!/bin/sh\necho no, I will not >&2\nexit 3\n");
    file("python3", "#!/bin/sh\nprintf 'Python 3.99\\033[2J.1'\n");
    let mut command = command(folder.path(), "doctor --json");
    command
        .env("PATH", folder.path())
        .env("HOME", folder.path())
        .env("ORT_DYLIB_PATH", file("library.so", "no library"));
    let report = report(&mut command);
    let check = |index: usize, name: &str, reason: &str, refused: &str| {
        let item = &report["found"][index];
        assert_eq!(item["name"], name);
        let missing = &item["missing"];
        assert!(missing["reason"].to_string().contains(reason), "{item}");
        assert!(missing["refused"].to_string().contains(refused), "{item}");
    };
    check(1, "ONNX Runtime", "ORT_DYLIB_PATH", "not a shared library");
    check(2, "cargo", "does not run: exit code 3", "no, I will not");
    assert_eq!(report["found"][3]["version"], "3.99[2J.1");
}

#[test]
fn nonsense() {
    for arguments in ["doctor now", "doctor --target onnx", "doctor --quiet -v"] {
        let output = emoc(Path::new("."), arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments}: {}",
            stderr(&output)
        );
    }
}
