//! `emoc eval`: counts, shards, comparisons, and folders that are none.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{command, digits, emoc, expect, stderr, stdout};

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

/// Copies a picture of the example.
fn copy(folder: &Path, from: &str, to: &str) {
    let to = folder.join(to);
    fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
    fs::copy(digits(from), to).expect("a copy");
}

fn compile(folder: &Path, flags: &str, name: &str) {
    let checkpoint = digits("digits.safetensors");
    let compile = format!("compile --checkpoint {checkpoint} --input-size 64 --no-check");
    expect(folder, &format!("{compile} {flags} --output {name}"), 0, "");
}

/// Of pictures half of which are in wrong folders, so that every list has entries.
#[test]
fn shards_merge_to_the_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    for digit in 0..10 {
        for number in 0..4 {
            let class = (digit + number % 2 * (1 + digit % 3)) % 10;
            let picture = format!("pictures/{digit}/{number}.png");
            copy(
                path,
                &picture,
                &format!("data/{class}/{digit}-{number}.png"),
            );
        }
    }
    fs::write(path.join("data/4/text.jpg"), "hello").expect("a file");
    compile(path, "--precision f16", "half.onnx");
    let model = digits("digits.safetensors");
    let flags = "--input-size 64 --runtime tract --data data --compare half.onnx --logits";
    let whole = timeless(json(path, &format!("eval {model} {flags}")));
    assert_eq!(whole["images"], 40);
    assert_eq!(whole["top1"], 0.5);
    assert_eq!(whole["worst"].as_array().map(Vec::len), Some(20));
    assert_eq!(whole["skipped"][0]["file"], "4/text.jpg");
    assert_eq!(whole["complete"], true);
    // As many shards as pictures and two more: some are empty, one has no usable picture.
    for shard in 1..=43 {
        let part = json(path, &format!("eval {model} {flags} --shard {shard}/43"));
        assert_eq!(part["complete"], false);
        fs::write(path.join(format!("{shard}.json")), part.to_string()).expect("a file");
    }
    let files: Vec<_> = (1..=43)
        .rev()
        .map(|shard| format!("{shard}.json"))
        .collect();
    let merged = timeless(json(path, &format!("eval --merge {}", files.join(" "))));
    let mut expected = whole;
    expected["shards"] = (1..=43).collect();
    expected["of_shards"] = json!(43);
    assert_eq!(merged, expected);
}

#[test]
fn what_does_not_merge() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let (model, data) = (digits("digits.safetensors"), digits("pictures"));
    let flags = format!("eval {model} --input-size 64 --runtime tract --data {data}");
    for shard in 1..=3 {
        let part = json(path, &format!("{flags} --shard {shard}/3"));
        fs::write(path.join(format!("{shard}.json")), part.to_string()).expect("a file");
    }
    let second = fs::read(path.join("2.json")).expect("a file");
    let second: Value = serde_json::from_slice(&second).expect("JSON");
    let check = |files: &str, code, message: &str| {
        expect(path, &format!("eval --merge {files}"), code, message);
    };
    check("1.json 2.json", 0, "shards are missing, of 3: 3");
    check("1.json 1.json", 3, "shard 1 is there twice");
    check("missing.json", 4, "missing.json");
    let changed = |pointer: &str, value: Value, code, message: &str| {
        let mut other = second.clone();
        *other.pointer_mut(pointer).expect("a place") = value;
        fs::write(path.join("other.json"), other.to_string()).expect("a file");
        check("1.json other.json", code, message);
    };
    changed("/runtime", json!("another"), 3, "and another here");
    changed(
        "/data/sha256",
        json!("another"),
        3,
        "other classes or pictures",
    );
    changed("/of_shards", json!(4), 3, "another number of shards");
    changed("/model/classes", json!(9), 3, "the models are not the same");
    changed(
        "/per_class/0/name",
        json!("x"),
        3,
        "the classes are not the same",
    );
    changed("/per_class/0/correct", json!(7), 3, "contradict");
    changed("/per_class/0/images", json!(u64::MAX), 3, "contradict");
    changed("/shards", json!([2, 2]), 3, "contradict");
    changed("/schema", json!(0), 3, "contradict");
    // What follows from the counts is computed again.
    changed("/top1", json!(0.25), 0, "");
    let merged = json(path, "eval --merge other.json");
    assert_eq!(merged["top1"], 1.0);
}

/// Float32 and float16 guess alike, and differ in their logits.
#[test]
fn two_models_in_one_pass() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let checkpoint = digits("digits.safetensors");
    compile(path, "", "whole.onnx");
    compile(path, "--precision f16", "half.onnx");
    compile(path, "--batch 3", "three.onnx");
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
    let names: Vec<String> = (0..10).map(|digit| digit.to_string()).collect();
    fs::write(path.join("names.txt"), names.join("\n")).expect("a file");
    // Two classes, by name, one of them wrong, below `val`.
    copy(path, "pictures/3/0.png", "part/val/3/a.png");
    copy(path, "pictures/3/1.png", "part/val/3/b.png");
    copy(path, "pictures/7/0.png", "part/val/3/c.png");
    copy(path, "pictures/7/1.png", "part/val/7/d.png");
    fs::write(path.join("part/val/7/text.jpg"), "hello").expect("a file");
    copy(path, "pictures/3/0.png", "hole/3/a.png");
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
    // One folder is named after no class: sorted, it would move all others.
    for (digit, name) in names.iter().enumerate() {
        let name = if digit == 9 { "-nine" } else { name };
        copy(
            path,
            &format!("pictures/{digit}/0.png"),
            &format!("odd/{name}/a.png"),
        );
    }
    check(
        &format!("--data odd {labels}"),
        3,
        "`-nine` is none of the network's classes",
    );
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
        "eval {model} --input-size 64 --runtime reference --data many --labels names.txt --json -v"
    );
    let mut child = command(path, &arguments)
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("emoc starts");
    // Said once the work begins.
    let mut said = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let listed = said.find(|line| line.as_ref().is_ok_and(|line| line.contains("listing")));
    assert!(listed.is_some());
    std::thread::sleep(Duration::from_millis(500));
    let start = Instant::now();
    let interrupt = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(interrupt, rustix::process::Signal::INT).expect("a signal");
    let said: Vec<String> = said.map_while(Result::ok).collect();
    let output = child.wait_with_output().expect("what it said");
    assert!(start.elapsed() < Duration::from_secs(10));
    let said = said.join("\n");
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("interrupted: the result is of"), "{said}");
    let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let images = result["images"].as_u64().expect("a number");
    assert!((1..20_000).contains(&images), "{images}");
    assert_eq!(result["complete"], false);
}
