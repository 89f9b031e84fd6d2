//! The example of the repository, used as its README says, and held to what PyTorch answers.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde::Deserialize;
use serde_json::Value;

use crate::{digits, emoc, skipped, stderr};

/// PyTorch's logits by picture.
type Goldens = BTreeMap<String, Vec<f64>>;

/// What PyTorch's logits may be off by, whatever computes them.
const TOLERANCE: f64 = 1e-4;

/// Everything that runs a checkpoint.
const RUNTIMES: &[&str] = &["reference", "tract", "onnxruntime", "rust"];

/// Runs the evaluation in every runtime: all logits are PyTorch's, and every guess is right.
fn check(folder: &Path, model: &str, data: &str, goldens: &Goldens, runtimes: &[&str]) {
    for runtime in runtimes {
        let flags = format!("--data {data} --input-size 64 --logits --json --runtime {runtime}");
        let output = emoc(folder, &format!("eval {model} {flags}"));
        if output.status.code() == Some(5) {
            skipped(&format!("digits in {runtime}: {}", stderr(&output)));
            continue;
        }
        assert!(output.status.success(), "{runtime}: {}", stderr(&output));
        let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(result["images"], goldens.len(), "{model} in {runtime}");
        assert_eq!(result["top1"], 1.0, "{model} in {runtime}");
        let rows = result["logits"].as_array().expect("logits");
        assert_eq!(rows.len(), goldens.len(), "{model} in {runtime}");
        for row in rows {
            let file = row["file"].as_str().expect("a name");
            let logits = row["logits"].as_array().expect("logits");
            let golden = &goldens[file];
            assert_eq!(logits.len(), golden.len(), "{file}");
            for (class, (logit, golden)) in logits.iter().zip(golden).enumerate() {
                let logit = logit.as_f64().expect("a number");
                assert!(
                    (logit - golden).abs() <= TOLERANCE,
                    "{model} in {runtime}: {file}, class {class}: {logit} instead of {golden}"
                );
            }
        }
    }
}

#[test]
fn the_example_answers_as_pytorch_does() {
    #[derive(Deserialize)]
    struct Row {
        file: String,
        logits: Vec<f64>,
    }
    let folder = tempfile::tempdir().expect("a folder");
    link_onnxruntime(folder.path());
    let text = fs::read(digits("golden.json")).expect("the goldens");
    let rows: Vec<Row> = serde_json::from_slice(&text).expect("goldens");
    let goldens = rows.into_iter().map(|row| (row.file, row.logits)).collect();
    let (model, data) = (digits("digits.safetensors"), digits("pictures"));
    check(folder.path(), &model, &data, &goldens, RUNTIMES);
}

/// All 200 pictures, through the network and its moving average.
#[test]
fn every_digit() {
    #[derive(Deserialize)]
    struct File {
        images: Vec<Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        file: String,
        logits_net: Vec<f64>,
        #[serde(rename = "logits_net_E")]
        logits_ema: Vec<f64>,
    }
    let Some(reference) = std::env::var_os("EMOC_REFERENCE_DIR") else {
        return skipped("all digits: EMOC_REFERENCE_DIR is not set");
    };
    let reference = Path::new(&reference);
    let folder = tempfile::tempdir().expect("a folder");
    link_onnxruntime(folder.path());
    let archive = fs::File::open(reference.join("digits_val.tar")).expect("the pictures");
    let unpacked = tar::Archive::new(archive).unpack(folder.path());
    unpacked.expect("pictures");
    let text = fs::read(reference.join("digits_golden.json")).expect("the goldens");
    let file: File = serde_json::from_slice(&text).expect("goldens");
    let model = reference.join("digits.pth").display().to_string();
    let goldens = |logits: fn(&Row) -> &Vec<f64>| {
        let rows = file.images.iter();
        let name = |row: &Row| row.file.trim_start_matches("digits_val/").to_owned();
        rows.map(|row| (name(row), logits(row).clone())).collect()
    };
    let net = goldens(|row| &row.logits_net);
    // Two more crates to build are for the full run.
    let runtimes = match std::env::var_os("EMOC_TEST_FULL") {
        Some(_) => RUNTIMES,
        None => &RUNTIMES[..3],
    };
    check(folder.path(), &model, "digits_val", &net, runtimes);
    let ema = goldens(|row| &row.logits_ema);
    check(
        folder.path(),
        &format!("{model} --weights ema"),
        "digits_val",
        &ema,
        runtimes,
    );
}

/// Makes a folder like the checkout, where emoc finds ONNX Runtime.
fn link_onnxruntime(folder: &Path) {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.onnxruntime");
    if found.exists() {
        std::os::unix::fs::symlink(found, folder.join(".onnxruntime")).expect("a link");
    }
}

/// Every command of the example's README prints what stands below it, but for times and the last
/// digits of differences.
#[test]
fn the_tour() {
    let folder = tempfile::tempdir().expect("a folder");
    link_onnxruntime(folder.path());
    if !folder.path().join(".onnxruntime").exists() {
        return skipped("the tour: it shows ONNX Runtime, which is not there");
    }
    for name in ["digits.safetensors", "pictures"] {
        let link = folder.path().join(name);
        std::os::unix::fs::symlink(digits(name), link).expect("a link");
    }
    let readme = fs::read_to_string(digits("README.md")).expect("the README");
    let mut commands = 0;
    for block in readme.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        let (line, expected) = block.split_once('\n').expect("a command");
        let command = line.strip_prefix("$ ").expect("a command");
        let binary = Path::new(env!("CARGO_BIN_EXE_emoc"));
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("sh")
            .args(["-c", &format!("{command} 2>&1")])
            .current_dir(folder.path())
            .env(
                "PATH",
                format!("{}:{path}", binary.parent().expect("a folder").display()),
            )
            .output()
            .expect("a shell");
        let found = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{command}\n{found}");
        let lines = |text: &str| text.lines().map(steady).collect::<Vec<_>>();
        assert_eq!(lines(&found), lines(expected), "{command}\nprints\n{found}");
        commands += 1;
    }
    assert!(commands >= 5, "the tour has {commands} commands");
}

/// A line without what changes from run to run and from machine to machine: times, rates, small
/// differences, the spaces that they move, the number of cores and what they are.
fn steady(line: &str) -> String {
    // Which picture differs most in float16 depends on the CPU.
    let most = "differs by at most";
    let line = line.split_once(most).map_or(line, |(before, _)| before);
    let words: Vec<_> = line.split_whitespace().collect();
    let number = |word: &str| word.trim_matches([',', '(']).parse::<f64>().is_ok();
    let unit = |word: Option<&&str>| {
        let units = ["ms", "s", "a", "threads", "at", "kB)"];
        word.is_some_and(|word| units.contains(&word.trim_end_matches([',', ':'])))
    };
    let mask = |(index, word): (usize, &&str)| {
        let small = word.contains("e-") || word.starts_with("0.99999") || *word == "1.0000000";
        match number(word) && (unit(words.get(index + 1)) || small) {
            true => "#".to_owned(),
            false => word.to_string(),
        }
    };
    let words: Vec<_> = words.iter().enumerate().map(mask).collect();
    words.join(" ")
}
