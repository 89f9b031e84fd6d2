//! Crates through cargo: what builds and runs, and what does not.

#![allow(clippy::print_stdout, reason = "tests tell what they skipped")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use emoc_ir::Result;
use emoc_runtimes::{
    Children, InputFact, NamedTensor, Session,
    rust_crate::{Cargo, CrateSession},
    time_runs,
};

static CHILDREN: Children = Children::new();

/// What an emitted crate's example does, for a network that doubles and adds up three values.
const EXAMPLE: &str = r###"
use std::{env, fs};

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let bytes = fs::read(&arguments[1]).expect("images");
    let values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    let values: Vec<f32> = values.collect();
    let mut outputs = Vec::new();
    for image in values.chunks(3) {
        outputs.extend(image.iter().map(|x| 2.0 * x));
        outputs.push(image.iter().sum());
    }
    let bytes: Vec<u8> = outputs.iter().flat_map(|x| x.to_le_bytes()).collect();
    fs::write(&arguments[2], bytes).expect("outputs");
    let runs: usize = arguments[4].parse().expect("a number");
    let times = vec!["1.5"; runs].join(",");
    let threads = env::var("EMOC_THREADS").expect("a number of threads");
    println!(r##"{{"isa":"none","threads":{threads},"arena_bytes":64,"times_ms":[{times}]}}"##);
}
"###;

fn cargo() -> Cargo {
    let path = std::env::var_os("PATH");
    Cargo::find(path.as_deref(), &CHILDREN).expect("cargo runs this test")
}

fn crate_with(example: &str, folder: &Path) {
    let manifest = "[package]\nname = \"doubled\"\nedition = \"2024\"\n[workspace]\n";
    for (file, text) in [
        ("Cargo.toml", manifest),
        ("src/lib.rs", ""),
        ("examples/emoc_check.rs", example),
    ] {
        let path = folder.join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
}

fn fact(name: &str, shape: &[usize]) -> InputFact {
    InputFact {
        name: name.into(),
        shape: shape.to_vec(),
    }
}

fn session(example: &str, folder: &Path) -> Result<CrateSession<'static>> {
    crate_with(example, folder);
    let program = cargo().build(folder, &folder.join("target"), &CHILDREN)?;
    let (input, outputs) = (
        fact("input", &[1, 3, 1, 1]),
        vec![fact("doubled", &[1, 3, 1, 1]), fact("sum", &[1, 1])],
    );
    Ok(CrateSession::new(
        program, folder, input, outputs, &CHILDREN,
    ))
}

fn images(values: &[f32]) -> [NamedTensor; 1] {
    let shape = vec![values.len() / 3, 3, 1, 1];
    [NamedTensor::new("input", shape, values.to_vec()).expect("images")]
}

#[test]
fn a_batch_goes_through_image_by_image() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut session = session(EXAMPLE, folder.path()).expect("a crate");
    let outputs = session.run(&images(&[1.0, 2.0, 3.0, -1.0, 0.5, 0.0]));
    let outputs = outputs.expect("outputs");
    let found: Vec<_> = outputs
        .iter()
        .map(|output| (output.name.as_str(), &output.shape[..], &output.data[..]))
        .collect();
    let doubled = [2.0, 4.0, 6.0, -2.0, 1.0, 0.0];
    let expected: [(_, &[usize], &[f32]); 2] = [
        ("doubled", &[2, 3, 1, 1], &doubled),
        ("sum", &[2, 1], &[6.0, -0.5]),
    ];
    assert_eq!(found, expected);
    let timing = time_runs(&mut session, &images(&[0.0; 6]), 3).expect("times");
    assert_eq!((timing.min.as_micros(), timing.runs), (1500, 3));
    let report = session.report().expect("a report");
    assert_eq!((report.isa.as_str(), report.arena_bytes), ("none", 64));
    assert_eq!(session.threads(), 1);

    let other = NamedTensor::new("input", vec![1, 3, 2, 1], vec![0.0; 6]).expect("an image");
    let error = session.run(&[other]).expect_err("another size");
    assert!(
        error
            .message
            .contains("the crate takes images of [3, 1, 1]"),
        "{error}"
    );
}

#[test]
fn what_goes_wrong_is_said() {
    let check = |from: &str, to: &str, message: &str, detail: &str| {
        assert!(EXAMPLE.contains(from), "{from}");
        let folder = tempfile::tempdir().expect("a folder");
        let outcome = session(&EXAMPLE.replace(from, to), folder.path())
            .and_then(|mut session| session.run(&images(&[1.0, 2.0, 3.0])));
        let error = outcome.expect_err(message);
        assert!(error.message.contains(message), "{message}: {error}");
        let said = error.details.iter().any(|line| line.contains(detail));
        assert!(detail.is_empty() || said, "{detail}: {error}");
    };
    let builds = "the crate does not build: exit code 101";
    check("2.0 * x", "2.0 * y", builds, "cannot find value `y`");
    check(
        "chunks(3)",
        "chunks(0)",
        "the crate fails: exit code 101",
        "panicked",
    );
    let short = "gave 12 bytes of outputs instead of 16";
    check("outputs.push(image.iter().sum());", "", short, "");
    let write = "fs::write(&arguments[2], bytes)";
    check(write, "Some(bytes)", "cannot read the crate's outputs", "");
    check("\"isa\"", "isa", "report cannot be read", "");
}

#[test]
fn no_cargo_is_a_row_that_says_how_to_get_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |script: Option<&str>, reason: &str| {
        let program = folder.path().join("cargo");
        if let Some(script) = script {
            fs::write(&program, script).expect("a program");
            let all = fs::Permissions::from_mode(0o755);
            fs::set_permissions(&program, all).expect("permissions");
        }
        let found = Cargo::find(Some(folder.path().as_os_str()), &CHILDREN);
        let missing = found.expect_err(reason);
        assert!(missing.reason.contains(reason), "{reason}: {missing:?}");
        assert!(missing.help.contains("https://rustup.rs"), "{missing:?}");
    };
    check(None, "cargo not found");
    check(
        Some("#!/bin/sh\nexit 1\n"),
        "cargo does not run: exit code 1",
    );
    check(Some("#!/bin/sh\necho oats 1.0\n"), "cargo does not run");
    check(Some("no program"), "cargo does not run");
    assert!(Cargo::find(None, &CHILDREN).is_err());
}
