//! `emoc eval`: counts, shards, comparisons, and folders that are none.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{command, digits, emoc, expect, stderr, stdout};

fn eval() -> String {
    let (model, data) = (digits("digits.safetensors"), digits("pictures"));
    format!("eval {model} --input-size 64 --runtime tract --data {data}")
}

fn json(folder: &Path, arguments: &str) -> Value {
    let output = emoc(folder, &format!("{arguments} --json"));
    let errors = stderr(&output);
    assert!(output.status.success(), "{arguments}: {errors}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Without what differs from run to run.
fn timeless(mut result: Value) -> Value {
    result["time"] = Value::Null;
    result
}

#[test]
fn shards_merge_to_the_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let flags = format!("{} --logits", eval());
    let whole = timeless(json(path, &flags));
    assert_eq!(whole["images"], 40);
    assert_eq!(whole["top1"], 1.0);
    assert_eq!(whole["complete"], true);
    for shard in 1..=3 {
        let part = json(path, &format!("{flags} --shard {shard}/3"));
        assert_eq!(part["complete"], false);
        fs::write(path.join(format!("{shard}.json")), part.to_string()).expect("a file");
    }
    let merged = timeless(json(path, "eval --merge 3.json 1.json 2.json"));
    let expected = {
        let mut whole = whole.clone();
        whole["shards"] = json!([1, 2, 3]);
        whole["of_shards"] = json!(3);
        whole
    };
    assert_eq!(merged, expected);

    let check = |files: &str, code, message: &str| {
        expect(path, &format!("eval --merge {files}"), code, message);
    };
    check("1.json 2.json", 0, "shards are missing, of 3: 3");
    check("1.json 1.json", 3, "shard 1 is there twice");
    let mut other: Value =
        serde_json::from_slice(&fs::read(path.join("2.json")).expect("a file")).expect("JSON");
    other["runtime"] = json!("another");
    fs::write(path.join("other.json"), other.to_string()).expect("a file");
    check("1.json other.json", 3, "and another here");
    other["per_class"][0]["correct"] = json!(7);
    fs::write(path.join("other.json"), other.to_string()).expect("a file");
    check("other.json", 3, "contradict");
    check("missing.json", 4, "missing.json");
}

/// The network's own weights and their moving average guess alike, and differ in their logits.
#[test]
fn two_models_in_one_pass() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let checkpoint = digits("digits.safetensors");
    let compile = format!("compile --checkpoint {checkpoint} --input-size 64 --no-check");
    for (flags, name) in [
        ("", "whole.onnx"),
        ("--precision f16", "half.onnx"),
        ("--batch 3", "three.onnx"),
    ] {
        let output = emoc(path, &format!("{compile} {flags} --output {name}"));
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let data = digits("pictures");
    let half = format!("eval whole.onnx --data {data} --compare half.onnx --runtime tract");
    let result = json(path, &half);
    let compare = &result["compare"];
    assert_eq!(compare["agreement"], 1.0);
    assert_eq!(compare["flipped"], json!([]));
    let largest = compare["largest"][0]["max_abs"].as_f64().expect("a number");
    assert!((1e-5..2e-2).contains(&largest), "{largest}");
    assert!(stdout(&emoc(path, &half)).contains("they guess alike on 100.00 %"));

    // Three pictures at once, of forty: what fills up the last batch does not count.
    let three = format!("eval three.onnx --data {data} --runtime tract --compare {checkpoint}");
    let result = json(path, &format!("{three} --input-size 64"));
    assert_eq!(result["images"], 40);
    let largest = &result["compare"]["largest"][0]["max_abs"];
    assert!(largest.as_f64() < Some(1e-5), "{largest}");
}

#[test]
fn folders() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let copy = |from: &str, to: &str| {
        let to = path.join(to);
        fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        fs::copy(digits(from), to).expect("a copy");
    };
    let names: Vec<String> = (0..10).map(|digit| digit.to_string()).collect();
    fs::write(path.join("names.txt"), names.join("\n")).expect("a file");
    // Two classes, by name, one of them wrong, below `val`.
    copy("pictures/3/0.png", "part/val/3/a.png");
    copy("pictures/3/1.png", "part/val/3/b.png");
    copy("pictures/7/0.png", "part/val/3/c.png");
    copy("pictures/7/1.png", "part/val/7/d.png");
    fs::write(path.join("part/val/7/text.jpg"), "hello").expect("a file");
    copy("pictures/3/0.png", "hole/3/a.png");
    fs::create_dir_all(path.join("hole/7")).expect("a folder");
    fs::create_dir_all(path.join("nothing")).expect("a folder");
    fs::create_dir_all(path.join("text/3")).expect("a folder");
    fs::write(path.join("text/3/text.jpg"), "hello").expect("a file");

    let eval = format!(
        "eval {} --input-size 64 --runtime tract",
        digits("digits.safetensors")
    );
    let labels = "--labels names.txt";
    let result = json(path, &format!("{eval} {labels} --data part"));
    assert_eq!(result["images"], 4);
    assert_eq!(result["top1"], 0.75);
    assert_eq!(result["per_class"][0]["top1"], 2.0 / 3.0);
    assert_eq!(
        result["confusions"],
        json!([{"class": 3, "predicted": 7, "images": 1}])
    );
    assert_eq!(result["worst"][0]["file"], "3/c.png");
    assert_eq!(result["skipped"][0]["file"], "7/text.jpg");

    let check = |arguments: &str, code, message: &str| {
        expect(path, &format!("{eval} {arguments}"), code, message);
    };
    check("--data missing", 4, "missing");
    check("--data nothing", 3, "no class folder");
    check("--data hole", 3, "no pictures in class 7");
    check(
        "--data part",
        3,
        "the folder has 2 classes and the network 10",
    );
    check(
        &format!("--data text {labels}"),
        3,
        "no picture could be evaluated",
    );
    check(&format!("--data part {labels} --logits"), 2, "--json");
    check("", 2, "--data");
    check("--data part --shard 0/2", 2, "a shard is");
}

/// A signal ends the work and not the result.
#[test]
fn interrupted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let names: String = (0..10).map(|digit| format!("{digit}\n")).collect();
    fs::write(path.join("names.txt"), names).expect("a file");
    fs::create_dir_all(path.join("many/3")).expect("a folder");
    for number in 0..20_000 {
        let to = path.join(format!("many/3/{number}.png"));
        fs::hard_link(digits("pictures/3/0.png"), &to)
            .or_else(|_| fs::copy(digits("pictures/3/0.png"), &to).map(|_| ()))
            .expect("a picture");
    }
    let model = digits("digits.safetensors");
    let arguments = format!(
        "eval {model} --input-size 64 --runtime reference --data many --labels names.txt --json"
    );
    let child = command(path, &arguments)
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("emoc starts");
    std::thread::sleep(Duration::from_secs(3));
    let start = Instant::now();
    let interrupt = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(interrupt, rustix::process::Signal::INT).expect("a signal");
    let output = child.wait_with_output().expect("what it said");
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("interrupted: the result is of"));
    let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let images = result["images"].as_u64().expect("a number");
    assert!((1..20_000).contains(&images), "{images}");
    assert_eq!(result["complete"], false);
}
