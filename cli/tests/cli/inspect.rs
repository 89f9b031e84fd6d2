//! What `inspect` finds in weights, and what it needs to look at them.

use std::{io::Read, path::Path, process::Stdio};

use serde_json::{Value, json};

use crate::{command, emoc, fixture, skipped, stderr, stdout};

/// Writes the tiny checkpoint with one element of some weights replaced.
fn damaged(folder: &Path, elements: &[(&str, usize, f32)]) {
    let mut bytes = std::fs::read(fixture("tiny.safetensors")).expect("the fixture");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("a length"));
    let data = 8 + usize::try_from(header).expect("a length");
    let header: Value = serde_json::from_slice(&bytes[8..data]).expect("a header");
    for (key, index, value) in elements {
        assert_eq!(header[key]["dtype"], "F32", "{key}");
        let start = header[key]["data_offsets"][0].as_u64().expect("an offset");
        let at = data + usize::try_from(start).expect("an offset") + 4 * index;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    std::fs::write(folder.join("damaged.safetensors"), bytes).expect("a file");
}

const HINTS: &str = "--dim-head 8,8 --attention hybrid";

/// `inspect` only looks, so it reports what `compile` refuses, in the same words.
#[test]
fn unusable_numbers() {
    let folder = tempfile::tempdir().expect("a folder");
    damaged(
        folder.path(),
        &[
            ("head.bias", 3, f32::NAN),
            ("head.bias", 7, f32::NEG_INFINITY),
            ("stage0.0.norm.running_var", 2, -1e-9),
            // Only a variance must not be negative.
            ("stage0.0.norm.running_mean", 2, -1e9),
        ],
    );
    let faults = [
        "head.bias: NaN or infinity at index 3, 2 of 10 values",
        "stage0.0.norm.running_var: a negative variance at index 2, 1 of 4 values",
    ];
    let run = |command: &str, code: i32| {
        let output = emoc(folder.path(), &format!("{command} {HINTS}"));
        assert_eq!(
            output.status.code(),
            Some(code),
            "{command}: {}",
            stderr(&output)
        );
        output
    };
    let compile = stderr(&run("compile --checkpoint damaged.safetensors", 3));
    let inspect = run("inspect damaged.safetensors", 0);
    for fault in faults {
        assert!(compile.contains(fault), "`{fault}` is not in:\n{compile}");
        let text = stdout(&inspect);
        assert!(text.contains(fault), "`{fault}` is not in:\n{text}");
    }
    for output in [inspect, run("inspect damaged.safetensors --graph", 0)] {
        let warning = stderr(&output);
        let expected = "warning: 2 weights hold unusable numbers";
        assert!(warning.contains(expected), "{warning}");
    }
    let unusable = |command: &str| {
        let output = run(command, 0);
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        report["unusable"].clone()
    };
    assert_eq!(
        unusable("inspect damaged.safetensors --json"),
        json!([
            {"key": "head.bias", "problem": "nonfinite", "first": 3, "count": 2, "values": 10},
            {"key": "stage0.0.norm.running_var", "problem": "negative_variance", "first": 2,
             "count": 1, "values": 4},
        ])
    );
    let sound = fixture("tiny.safetensors");
    assert_eq!(unusable(&format!("inspect {sound} --json")), json!([]));
}

/// The weights of the largest variant take 190 MiB, but only one of them is there at a time.
#[test]
fn seeded_weights_are_made_one_by_one() {
    let mut command = command(Path::new("."), "inspect --variant 50M --graph");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.expect("emoc starts");
    let mut pipe = child.stdout.take().expect("a pipe");
    // The text is longer than a pipe holds: once it begins, emoc has done all its work and
    // waits for a reader.
    let mut text = vec![0];
    pipe.read_exact(&mut text).expect("a graph");
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
    pipe.read_to_end(&mut text).expect("a graph");
    assert!(child.wait().expect("an end").success());
    assert!(text.len() > 100_000, "{} bytes", text.len());
    let peak = status.ok().and_then(|status| {
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    match peak {
        Some(kib) => assert!(kib < 60 * 1024, "a peak of {kib} KiB"),
        None => skipped("this system does not tell the peak memory"),
    }
}
