//! What `diff` tells of two checkpoints or artifacts.

use std::path::Path;

use serde_json::{Value, json};

use crate::{COMPILE, emoc, expect, fixture, stderr, stdout};

/// The network of the fixtures, which is not published.
const TINY: &str = "--dim-head 8,8 --attention hybrid";

fn report(folder: &Path, arguments: &str) -> Value {
    let output = emoc(folder, &format!("diff {arguments} --json"));
    assert_eq!(
        output.status.code(),
        Some(0),
        "{arguments}: {}",
        stderr(&output)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn count(list: &Value) -> usize {
    list.as_array().expect("a list").len()
}

/// The tiny checkpoint with values of some weights replaced: the key, an index and a value.
fn altered(folder: &Path, name: &str, elements: &[(&str, usize, f32)]) {
    let mut bytes = std::fs::read(fixture("tiny.safetensors")).expect("the fixture");
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("a length"));
    let data = 8 + usize::try_from(header).expect("a length");
    let header: Value = serde_json::from_slice(&bytes[8..data]).expect("a header");
    for (key, index, value) in elements {
        let start = header[key]["data_offsets"][0].as_u64().expect("an offset");
        let at = data + usize::try_from(start).expect("an offset") + 4 * index;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    std::fs::write(folder.join(name), bytes).expect("a file");
}

/// The same weights are the same in every container, layout and with every prefix.
#[test]
fn layouts_of_one_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in [
        "tiny_ddp.pth",
        "tiny_legacy.pth",
        "tiny_strided.pth",
        "tiny_official_net.pth",
    ] {
        let found = report(
            folder.path(),
            &format!("{} {} {TINY}", fixture("tiny.safetensors"), fixture(name)),
        );
        let weights = &found["weights"];
        assert_eq!(weights["identical"], 130, "{name}: {weights}");
        for list in ["different", "other_shape", "only_in_a", "only_in_b"] {
            assert_eq!(count(&weights[list]), 0, "{name}: {weights}");
        }
        assert_eq!(found["differences"], json!([]), "{name}");
        assert_eq!(found["a"]["parameters"], found["b"]["parameters"], "{name}");
    }
    let half = report(
        folder.path(),
        &format!("{} {}", fixture("tiny.pth"), fixture("tiny_fp16.pth")),
    );
    let worst = &half["weights"]["different"][0];
    assert_eq!(worst["types"], json!(["F32", "F16"]), "{worst}");
    assert!(half["weights"]["cosine"].as_f64() > Some(0.999), "{half}");
    // Nothing says what network it is, and the weights are compared all the same.
    assert_eq!(half["a"]["macs"], Value::Null);
}

/// The network and its moving average in one file.
#[test]
fn net_and_ema() {
    let file = fixture("tiny_trainer_ckpt.pth");
    let folder = tempfile::tempdir().expect("a folder");
    let same = report(
        folder.path(),
        &format!("{file} {file} --weights ema {TINY}"),
    );
    assert_eq!(count(&same["weights"]["different"]), 0);
    let other = report(
        folder.path(),
        &format!("{file} {file} --weights net --other-weights ema {TINY}"),
    );
    assert!(count(&other["weights"]["different"]) > 100, "{other}");
    assert!(
        other["b"]["description"]
            .to_string()
            .contains("ema in `net_E`"),
        "{other}"
    );
    let far = other["weights"]["different"].as_array().expect("a list");
    let relative: Vec<_> = far
        .iter()
        .filter_map(|row| row["relative"].as_f64())
        .collect();
    let weights = relative.len() - far.iter().filter(|row| is_counter(row)).count();
    assert!(
        relative[..weights].is_sorted_by(|a, b| a >= b),
        "{relative:?}"
    );
    // Counters come last.
    assert!(!is_counter(&far[0]));
}

fn is_counter(row: &Value) -> bool {
    row["key"].to_string().contains("num_batches_tracked")
}

#[test]
fn numbers_of_weights() {
    let folder = tempfile::tempdir().expect("a folder");
    altered(folder.path(), "one.safetensors", &[("head.bias", 3, 100.0)]);
    altered(
        folder.path(),
        "two.safetensors",
        &[
            ("head.bias", 3, 99.0),
            ("norm.norm.bias", 0, f32::NAN),
            ("head.weight", 5, 7.5),
        ],
    );
    let found = report(folder.path(), "one.safetensors two.safetensors");
    let rows = found["weights"]["different"].as_array().expect("a list");
    let keys: Vec<_> = rows
        .iter()
        .map(|row| row["key"].as_str().expect("a key"))
        .collect();
    // What has no number is farthest off.
    assert_eq!(
        keys,
        ["norm.norm.bias", "head.weight", "head.bias"],
        "{rows:?}"
    );
    assert_eq!(rows[0]["max_abs"], Value::Null, "{rows:?}");
    assert_eq!(rows[2]["max_abs"], 1.0, "{rows:?}");
    assert_eq!(rows[2]["elements"], 1, "{rows:?}");
    // One value of 100 among ten small ones has a standard deviation near 30.
    let relative = rows[2]["relative"].as_f64().expect("a number");
    assert!((0.03..0.04).contains(&relative), "{relative}");
    assert_eq!(found["weights"]["identical"], 127);
    let quiet = emoc(
        folder.path(),
        "diff one.safetensors two.safetensors --quiet",
    );
    assert_eq!(quiet.status.code(), Some(0));
    assert_eq!(stdout(&quiet) + &stderr(&quiet), "");
}

/// What is NaN or infinite is counted, and hides no other difference.
#[test]
fn values_that_are_not_finite() {
    let folder = tempfile::tempdir().expect("a folder");
    let infinite = ("head.bias", 0, f32::INFINITY);
    altered(
        folder.path(),
        "one.safetensors",
        &[infinite, ("norm.norm.bias", 0, f32::NAN)],
    );
    altered(
        folder.path(),
        "two.safetensors",
        &[infinite, ("head.bias", 3, 1e6), ("head.weight", 5, 7.5)],
    );
    let found = report(folder.path(), "one.safetensors two.safetensors");
    let weights = &found["weights"];
    let rows = weights["different"].as_array().expect("a list");
    let keys: Vec<_> = rows.iter().map(|row| &row["key"]).collect();
    assert_eq!(
        keys,
        ["norm.norm.bias", "head.bias", "head.weight"],
        "{weights}"
    );
    let nonfinite: Vec<_> = rows.iter().map(|row| &row["nonfinite"]).collect();
    assert_eq!(nonfinite, [1, 1, 0], "{weights}");
    assert!(rows[1]["relative"].as_f64() > Some(1e6), "{weights}");
    assert_eq!(weights["nonfinite"], 2, "{weights}");
    assert!(weights["distance"].as_f64() > Some(1e3), "{weights}");

    let text = stdout(&emoc(folder.path(), "diff one.safetensors two.safetensors"));
    for expected in [
        "1 not finite",
        "without 2 elements that are NaN or infinite\nall together: cosine",
    ] {
        assert!(text.contains(expected), "no {expected:?} in\n{text}");
    }
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.len());
    }
}

#[test]
fn networks_in_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |arguments: &str| {
        let output = emoc(folder.path(), arguments);
        assert!(output.status.success(), "{arguments}: {}", stderr(&output));
    };
    std::fs::write(folder.path().join("names"), "class\n".repeat(1000)).expect("a file");
    run(&format!("{COMPILE} --no-check --output a.onnx"));
    run(&format!("{COMPILE} --no-check --output same.onnx"));
    run(&format!(
        "{COMPILE} --no-check --seed 1 --window 2 --opset 17 --labels names --output b.onnx"
    ));
    run("compile --variant 2M --input-size 64 --no-check --precision f16 --output c.onnx");
    let check = |other: &str, expected: &[(&str, &str, &str)]| {
        let found = report(folder.path(), &format!("a.onnx {other}"));
        let changes = found["differences"].as_array().expect("a list");
        for (what, a, b) in expected {
            let change = json!({"what": what, "a": a, "b": b});
            assert!(
                changes.contains(&change),
                "{other}: no {change} in {changes:?}"
            );
        }
        assert_eq!(changes.is_empty(), expected.is_empty(), "{changes:?}");
        found
    };
    let same = check("same.onnx", &[]);
    assert_eq!(count(&same["weights"]["different"]), 0);
    let other = check(
        "b.onnx",
        &[
            ("window", "7", "2"),
            ("opset", "20", "17"),
            ("class names", "none", "1000"),
            ("compiled from", "seeded, seed 0", "seeded, seed 1"),
            ("Erf nodes", "0", "11"),
        ],
    );
    // Constants of the graph are no weights.
    assert!(!other["weights"].to_string().contains("const."), "{other}");
    let larger = check(
        "c.onnx",
        &[
            ("variant", "1M", "2M"),
            ("stage 3 channels", "80", "120"),
            ("precision", "float32", "float16"),
        ],
    );
    assert!(count(&larger["weights"]["other_shape"]) > 50, "{larger}");

    for arguments in ["a.onnx b.onnx", "a.onnx c.onnx", "a.onnx same.onnx"] {
        let text = stdout(&emoc(folder.path(), &format!("diff {arguments}")));
        assert!(!text.contains('\u{1b}'), "{text:?}");
        // What is said in words is folded by a terminal's width, tables are not.
        for line in text.lines().filter(|line| !line.contains(" -> ")) {
            assert!(line.chars().count() <= 80, "{} columns: {line}", line.len());
        }
    }
    let listed = |flag: &str| {
        let text = stdout(&emoc(folder.path(), &format!("diff a.onnx b.onnx {flag}")));
        text.lines()
            .filter(|line| line.starts_with("stage"))
            .count()
    };
    let (some, all) = (listed(""), listed("--all"));
    assert!(some <= 20 && all > 60, "{some} and {all} weights");
}

/// A weight that one precision multiplies with from the other side is the same weight.
#[test]
fn transposed_weights_are_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    for precision in ["f32", "f16"] {
        let arguments = format!("{COMPILE} --no-check --precision {precision} -o {precision}.onnx");
        let output = emoc(folder.path(), &arguments);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let found = report(folder.path(), "f32.onnx f16.onnx");
    assert_eq!(count(&found["weights"]["other_shape"]), 0, "{found}");
    let farthest = found["weights"]["different"][0]["relative"].as_f64();
    assert!(
        farthest < Some(0.02),
        "{}",
        found["weights"]["different"][0]
    );
}

/// A checkpoint beside what was compiled from it has the same weights, whatever it is.
#[test]
fn checkpoints_beside_artifacts() {
    let folder = tempfile::tempdir().expect("a folder");
    let tiny = fixture("tiny.pth");
    altered(
        folder.path(),
        "other.safetensors",
        &[("head.bias", 3, 100.0)],
    );
    std::fs::write(folder.path().join("names"), "class\n".repeat(10)).expect("a file");
    let compile =
        format!("compile --checkpoint {tiny} {TINY} --input-size 64 --window 4 --no-check");
    for (artifact, flags) in [
        ("a.onnx", "--labels names"),
        ("half.onnx", "--precision f16 --batch dynamic"),
        ("crate", "--target rust"),
        ("half-crate", "--target rust --weights-dtype f16"),
        ("bundle", "--target tensorrt"),
    ] {
        let output = emoc(
            folder.path(),
            &format!("{compile} {flags} --output {artifact}"),
        );
        assert!(output.status.success(), "{artifact}: {}", stderr(&output));
        for sides in [format!("{tiny} {artifact}"), format!("{artifact} {tiny}")] {
            let found = report(folder.path(), &sides);
            assert_eq!(found["differences"], json!([]), "{sides}");
            assert_eq!(count(&found["weights"]["different"]), 0, "{sides}");
            assert_ne!(found["weights"]["identical"], 0, "{sides}");
        }
        let found = report(folder.path(), &format!("other.safetensors {artifact}"));
        assert_eq!(
            count(&found["weights"]["different"]),
            1,
            "{artifact}: {found}"
        );
    }
    let packed = report(folder.path(), "a.onnx crate");
    assert_eq!(packed["weights"], Value::Null);
    let bundle = report(folder.path(), "bundle a.onnx");
    assert_eq!(count(&bundle["weights"]["different"]), 0, "{bundle}");
}

#[test]
fn nonsense() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("text.pth"), "no checkpoint").expect("a file");
    std::fs::write(folder.path().join("bad.onnx"), b"\x08\x09\x12\xff\xff").expect("a file");
    std::fs::create_dir(folder.path().join("empty")).expect("a folder");
    let output = emoc(
        folder.path(),
        &format!("{COMPILE} --no-check --output a.onnx"),
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let tiny = fixture("tiny.pth");
    let check = |arguments: &str, code: i32, message: &str| {
        let output = expect(folder.path(), &format!("diff {arguments}"), code, message);
        assert_eq!(stdout(&output), "", "{arguments}");
    };
    check("", 2, "Usage: emoc diff");
    check("a.onnx", 2, "<B>");
    check("missing.pth a.onnx", 4, "missing.pth");
    check("a.onnx missing.onnx", 4, "missing.onnx");
    check(
        &format!("text.pth {tiny}"),
        3,
        "no checkpoint that emoc knows",
    );
    check("a.onnx bad.onnx", 3, "not an ONNX model");
    check("a.onnx empty", 3, "no crate that emoc wrote");
    check(&format!("{tiny} {tiny} --weights ema"), 2, "no EMA weights");
    check("a.onnx a.onnx --weights ema", 2, "both are artifacts");
    check("a.onnx a.onnx --window 7", 2, "both are artifacts");
    check(
        &format!("{tiny} a.onnx --other-weights ema"),
        2,
        "no checkpoint",
    );
    check(&format!("{tiny} a.onnx"), 3, "another network");
    check(&format!("{tiny} {tiny} --input-size 0"), 2, "--input-size");
}
