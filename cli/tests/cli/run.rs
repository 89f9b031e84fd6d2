//! `emoc run`: what is seen in pictures, and what is said of files that are none.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{command, digits, emoc, expect, fixture, stderr, stdout};

/// The example's checkpoint, and the size it was trained at.
fn model() -> String {
    format!("{} --input-size 64", digits("digits.safetensors"))
}

fn json(folder: &Path, arguments: &str) -> Value {
    let output = emoc(folder, &format!("{arguments} --json"));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        let (out, err) = (stdout(&output), stderr(&output));
        panic!("{arguments}: {error}\n{out}{err}")
    })
}

#[test]
fn pictures_and_faults() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    fs::write(path.join("text.jpg"), "hello").expect("a file");
    fs::write(path.join("empty.png"), "").expect("a file");
    fs::create_dir(path.join("folder.png")).expect("a folder");
    for (name, width, height) in [("pixel.png", 1, 1), ("long.png", 20_000, 20)] {
        let picture = image::RgbImage::from_pixel(width, height, image::Rgb([9, 120, 40]));
        picture.save(path.join(name)).expect("a picture");
    }
    let three = digits("pictures/3/0.png");
    let model = model();
    let check = |arguments: &str, code: i32, out: &str, err: &str| {
        let stdout = stdout(&expect(path, arguments, code, err));
        assert!(stdout.contains(out), "{arguments}: `{out}` not in {stdout}");
    };
    check(&format!("run {model} {three}"), 0, "class 3", "");
    check(&format!("run {model} pixel.png"), 0, "1x1", "");
    check(&format!("run {model} long.png"), 0, "20000x20", "");
    check(&format!("run {model} text.jpg"), 3, "", "neither JPEG");
    check(&format!("run {model} empty.png"), 3, "", "empty.png");
    check(&format!("run {model} folder.png"), 3, "", "is a folder");
    check(&format!("run {model} missing.png"), 4, "", "missing.png");
    let both = format!("run {model} text.jpg {three}");
    check(&both, 3, "class 3", "1 of 2 pictures cannot be used");
    check("run missing.pth pixel.png", 4, "", "missing.pth");
    check("run text.jpg pixel.png", 3, "", "no checkpoint");
    check(
        "run folder.png pixel.png",
        3,
        "",
        "neither a crate nor a bundle",
    );
    check(&format!("run {model}"), 2, "", "<PICTURE>");
    check(
        &format!("run {model} {three} --labels {}", digits("pictures")),
        0,
        "3  3\n",
        "",
    );
    fs::write(path.join("names.txt"), "a\nb\n").expect("a file");
    let names = format!("run {model} {three} --labels names.txt");
    check(&names, 3, "", "2 class names for a network with 10");
    let backbone = fixture("tiny_mmdet.pth");
    check(
        &format!("run {backbone} {three} --dim-head 8,8 --attention hybrid --window 7"),
        3,
        "",
        "backbone",
    );
    check(
        &format!("run {model} {three} --runtime tract --onnxruntime-lib x"),
        2,
        "",
        "another runtime",
    );
    check(
        &format!("run {model} {three} --onnxruntime-lib text.jpg"),
        5,
        "",
        "demanded",
    );
}

/// Artifacts know their size, their names and what runs them; flags that repeat it are refused.
#[test]
fn artifacts() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let labels = format!("--labels {}", digits("pictures"));
    let checkpoint = format!("--checkpoint {} --no-check", model());
    for target in ["onnx", "tensorrt", "rust"] {
        let compile = format!("compile {checkpoint} {labels} --target {target} --output {target}");
        let output = emoc(path, &compile.replace("output onnx", "output digits.onnx"));
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let seven = digits("pictures/7/1.png");
    for (artifact, runtime) in [
        ("digits.onnx", "tract"),
        ("tensorrt", "tract"),
        ("rust", "Rust crate"),
    ] {
        let flag = match runtime {
            "tract" => "--runtime tract",
            _ => "",
        };
        let result = json(path, &format!("run {artifact} {seven} {flag}"));
        let best = &result["pictures"][0]["top"][0];
        assert_eq!(result["runtime"], runtime, "{artifact}");
        assert_eq!(best["label"], "7", "{artifact}: {result}");
        assert_eq!(best["class"], 7, "{artifact}");
        let logit = best["logit"].as_f64().expect("a number");
        assert!((logit - 4.16).abs() < 0.1, "{artifact}: {logit}");

        let output = emoc(path, &format!("run {artifact} {seven} --window 7"));
        assert_eq!(output.status.code(), Some(2), "{artifact}");
        assert!(stderr(&output).contains("--window is for checkpoints"));
    }
    for (artifact, runtime) in [("rust", "tract"), ("digits.onnx", "reference")] {
        let output = emoc(path, &format!("run {artifact} {seven} --runtime {runtime}"));
        assert_eq!(output.status.code(), Some(2), "{artifact} in {runtime}");
    }
}

/// What a file says of itself is printed, and must not move the cursor.
#[test]
fn plain_where_nobody_looks() {
    let folder = tempfile::tempdir().expect("a folder");
    let names: String = (0..10)
        .map(|class| format!("name {class}\u{202e}\n"))
        .collect();
    fs::write(folder.path().join("names.txt"), names).expect("a file");
    let three = digits("pictures/3/0.png");
    let run = format!("run {} {three} --labels names.txt", model());
    let output = command(folder.path(), &run).env("NO_COLOR", "1").output();
    let text = stdout(&output.expect("emoc starts"));
    assert!(text.contains("name 3\\u{202e}"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
    let longest = text.lines().filter(|line| !line.contains(&three));
    let longest = longest.map(|line| line.chars().count()).max();
    assert!(longest <= Some(80), "{longest:?} columns\n{text}");
}
