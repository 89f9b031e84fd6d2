//! What `bench` measures and says.

use std::{path::Path, process::Stdio, thread, time::Duration};

use serde_json::{Value, json};

use crate::{COMPILE, command, emoc, expect, fixture, names, stderr, stdout};

fn compile(folder: &Path, arguments: &str) {
    let output = emoc(folder, arguments);
    assert!(output.status.success(), "{arguments}: {}", stderr(&output));
}

/// What there is to know of every candidate, whatever the numbers are.
fn check_results(report: &Value, rounds: u64) {
    assert_eq!(report["rounds"], rounds, "{report}");
    let results = report["results"].as_array().expect("a list");
    for (place, row) in results.iter().enumerate() {
        let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key}: {row}"));
        let [first, third] = [0, 1].map(|at| row["quartiles_ms"][at].as_f64().expect("a time"));
        assert_eq!(
            row["times_ms"].as_array().expect("a list").len() as u64,
            rounds
        );
        assert!(
            number("min_ms") > 0.0 && number("min_ms") <= number("median_ms"),
            "{row}"
        );
        assert!(
            first <= number("median_ms") && number("median_ms") <= third,
            "{row}"
        );
        assert!(number("cold_start_ms") > number("min_ms"), "{row}");
        let images = number("images") * 1e3 / number("median_ms");
        assert!(
            (number("images_per_second") - images).abs() < 1e-6 * images,
            "{row}"
        );
        if place == 0 {
            assert_eq!(row["ratio"], 1.0, "{row}");
        } else {
            let before = results[place - 1]["ratio"].as_f64();
            assert!(
                before <= row["ratio"].as_f64(),
                "the fastest first: {report}"
            );
        }
        if cfg!(target_os = "linux") {
            assert!(number("peak_memory") > 1e6, "{row}");
            assert!((0.0..=1.0).contains(&number("cpu_share")), "{row}");
            assert!(number("cpu_ms") > 0.0, "{row}");
        }
    }
}

#[test]
fn two_files_in_turn() {
    let folder = tempfile::tempdir().expect("a folder");
    compile(
        folder.path(),
        &format!("{COMPILE} --no-check --output a.onnx"),
    );
    compile(
        folder.path(),
        &format!("{COMPILE} --no-check --batch 3 --output b.onnx"),
    );
    let output = emoc(
        folder.path(),
        "bench a.onnx b.onnx --runtime tract --runs 4 --json",
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    check_results(&report, 4);
    assert_eq!(report["models"][1]["name"], "B");
    assert_eq!(report["models"][1]["path"], "b.onnx");
    assert_eq!(report["failed"], json!([]));
    let results = report["results"].as_array().expect("a list");
    // tract has one thread, so that there is no second row.
    assert_eq!(results.len(), 2, "{report}");
    for row in results {
        assert_eq!(row["threads"], 1);
        assert_eq!(row["images"], if row["model"] == "A" { 1 } else { 3 });
    }

    let output = emoc(
        folder.path(),
        "bench a.onnx b.onnx --runtime tract --runs 2",
    );
    let text = stdout(&output);
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert!(text.contains("2 rounds in turn"), "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.len());
    }
    assert_eq!(
        names(folder.path()),
        ["a.json", "a.onnx", "b.json", "b.onnx"]
    );

    let output = emoc(folder.path(), "bench a.onnx --runtime tract --runs 3 -v");
    let notes = stderr(&output);
    assert_eq!(notes.matches("measuring").count(), 1, "{notes}");
    let output = emoc(folder.path(), "bench a.onnx --runtime tract --runs 1 -q");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output) + &stderr(&output), "");
}

/// A crate runs itself, and a checkpoint becomes whatever runs it.
#[test]
fn crates_and_checkpoints() {
    let folder = tempfile::tempdir().expect("a folder");
    let tiny = format!("{} --dim-head 8,8 --attention hybrid", fixture("tiny.pth"));
    compile(
        folder.path(),
        &format!("compile --checkpoint {tiny} --input-size 64 --no-check --target rust -o crate"),
    );
    let arguments = format!("bench crate {tiny} --input-size 64 --runtime rust --runs 3 --json");
    let output = emoc(folder.path(), &arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    check_results(&report, 3);
    let results = report["results"].as_array().expect("a list");
    for model in ["A", "B"] {
        let of_model = results.iter().filter(|row| row["model"] == model);
        let threads: Vec<_> = of_model.map(|row| row["threads"].as_u64()).collect();
        assert!(threads.contains(&Some(1)), "{model}: {report}");
        assert!(
            threads.contains(&report["cores"].as_u64()),
            "{model}: {report}"
        );
    }
    assert!(results.iter().all(|row| row["isa"].is_string()), "{report}");
}

/// What cannot be measured is said, and the rest is measured.
#[test]
fn failures_are_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    compile(
        folder.path(),
        &format!("{COMPILE} --no-check --output a.onnx"),
    );
    let run = |arguments: &str| {
        let mut command = command(folder.path(), arguments);
        command
            .env("PATH", folder.path())
            .env("HOME", folder.path());
        command.output().expect("emoc starts")
    };
    let output = run("bench a.onnx --runs 1 --json");
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["failed"][0]["runtime"], "ONNX Runtime", "{report}");
    // It is about all numbers of threads.
    assert_eq!(report["failed"][0]["threads"], Value::Null, "{report}");
    check_results(&report, 1);
    let text = stdout(&run("bench a.onnx --runs 1"));
    assert!(text.contains("not measured: ONNX Runtime: "), "{text}");
    let output = run("bench a.onnx --runs 1 --runtime onnxruntime");
    assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
}

#[test]
fn nonsense() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("text.pth"), "no checkpoint").expect("a file");
    std::fs::create_dir(folder.path().join("empty")).expect("a folder");
    compile(
        folder.path(),
        &format!("{COMPILE} --no-check --output a.onnx"),
    );
    let check = |arguments: &str, code: i32, message: &str| {
        expect(folder.path(), arguments, code, message);
    };
    check("bench", 2, "Usage: emoc bench");
    check("bench missing.onnx", 4, "missing.onnx");
    check("bench text.pth", 3, "no checkpoint that emoc knows");
    check("bench empty", 3, "neither a crate nor a bundle");
    check("bench a.onnx text.pth", 3, "no checkpoint that emoc knows");
    check("bench a.onnx --runs 0", 2, "--runs");
    check("bench a.onnx --window 7", 2, "--window is for checkpoints");
    check("bench a.onnx --runtime reference", 2, "is not measured");
    check("bench a.onnx --runtime rust", 2, "leave its --runtime out");
    check("bench a.onnx --onnxruntime-lib text.pth", 5, "text.pth");
    check(
        "bench-worker text.pth --engine tract --input input --shape 1,3,64,64 --threads 1",
        3,
        "tract cannot load the model",
    );
    check(
        "bench-worker a.onnx --engine other --input input --shape 1,3,64,64 --threads 1",
        2,
        "no runtime",
    );
    check(
        "bench-worker a.onnx --engine tract --input input --shape 9999999999,3,64 --threads 1",
        3,
        "too large",
    );
}

/// An interrupted measurement leaves neither processes nor files.
#[test]
#[cfg(target_os = "linux")]
fn interrupted() {
    let folder = tempfile::tempdir().expect("a folder");
    let temporary = tempfile::tempdir().expect("a folder");
    compile(
        folder.path(),
        &format!("{COMPILE} --no-check --output a.onnx"),
    );
    let child = command(folder.path(), "bench a.onnx --runtime tract --runs 100000")
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.expect("emoc starts");
    let workers = || {
        let place = temporary.path().display().to_string();
        let processes = std::fs::read_dir("/proc").expect("processes").flatten();
        let commands = processes.filter_map(|process| {
            let line = std::fs::read(process.path().join("cmdline")).ok()?;
            Some(String::from_utf8_lossy(&line).into_owned())
        });
        commands.filter(|line| line.contains(&place)).count()
    };
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        for _ in 0..600 {
            if done() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("no {what} after half a minute");
    };
    wait("worker", &|| workers() > 0);
    thread::sleep(Duration::from_millis(300));
    let killed = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(killed.expect("kill").success());
    assert_eq!(child.wait().expect("an end").code(), Some(130));
    wait("end of the workers", &|| workers() == 0);
    assert_eq!(names(temporary.path()), Vec::<String>::new());
}
