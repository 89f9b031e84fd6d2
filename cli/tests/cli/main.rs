//! The command line as a user meets it.

mod agreement;
mod bench;
mod commands;
mod diff;
mod digits;
mod doctor;
mod eval;
mod inspect;
mod precision;
mod report;
mod run;
mod rust_crate;
mod tensorrt;
mod writing;

use std::{
    io::Write,
    path::Path,
    process::{Command, Output},
};

/// Compiles in a fraction of a second.
const COMPILE: &str = "compile --variant 1M --target onnx --input-size 64";

/// `emoc` with these arguments, split at spaces, in a folder.
fn command(folder: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_emoc"));
    command
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .env_remove("ORT_DYLIB_PATH");
    command
}

fn emoc(folder: &Path, arguments: &str) -> Output {
    command(folder, arguments).output().expect("emoc starts")
}

/// Runs emoc and expects this exit code, and this in what it says on the standard error.
#[track_caller]
fn expect(folder: &Path, arguments: &str, code: i32, message: &str) -> Output {
    let output = emoc(folder, arguments);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments}: {said}");
    assert!(
        said.contains(message),
        "{arguments}: `{message}` is not in:\n{said}"
    );
    assert!(!said.contains("panicked"), "{arguments}: {said}");
    output
}

fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
    folder.join(name).display().to_string()
}

/// A file of the example.
fn digits(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/digits");
    folder.join(name).display().to_string()
}

/// Says so past the test harness, which hides what passing tests print.
fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {}", why.trim());
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Names of everything in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.expect("an entry").file_name();
        name.to_string_lossy().into_owned()
    };
    let mut names: Vec<_> = entries.map(name).collect();
    names.sort();
    names
}
