//! `--target tensorrt`: the folder that is written, and its proof.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{COMPILE, emoc, fixture, names, skipped, stderr, stdout};

const BUNDLE: &str = "emov2_1m_64_tensorrt";

/// Lets `emoc` find TensorRT-RTX in the folder, if it was fetched.
fn with_tensorrt_rtx(folder: &Path) -> bool {
    let wheels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tensorrt-rtx");
    let is_there = wheels.is_dir();
    match is_there {
        true => std::os::unix::fs::symlink(wheels, folder.join(".tensorrt-rtx")).expect("a link"),
        false => skipped("TensorRT-RTX: run scripts/fetch-tensorrt-rtx"),
    }
    is_there
}

fn compile(flags: &str) -> String {
    format!(
        "{} {flags}",
        COMPILE.replace("--target onnx", "--target tensorrt")
    )
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

/// The whole way: both precisions, checked in every runtime and built by TensorRT's own parser.
#[test]
fn a_bundle_is_written_and_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let has_builder = with_tensorrt_rtx(folder.path());
    let flags = "--precision f16 --islands auto --batch 1..8:4 --json";
    let made = emoc(folder.path(), &compile(flags));
    assert!(made.status.success(), "{}", stderr(&made));
    let report = json(&made.stdout);
    let rows = report["checks"].as_array().expect("rows");
    let verdicts: Vec<_> = rows
        .iter()
        .filter(|row| row["runtime"] == "TensorRT-RTX")
        .map(|row| {
            (
                row["model"].as_str().unwrap_or(""),
                row["verdict"].as_str().unwrap_or(""),
            )
        })
        .collect();
    let expected = if has_builder { "builds" } else { "not_found" };
    assert_eq!(verdicts, [("f32", expected), ("f16", expected)]);
    for path in [
        "build.sh",
        "build.py",
        "verify.sh",
        "README.md",
        "model.f32.onnx",
    ] {
        assert!(folder.path().join(BUNDLE).join(path).is_file(), "{path}");
    }
    let plan = json(&fs::read(folder.path().join(BUNDLE).join("plan.json")).expect("a plan"));
    assert_eq!(plan["profiles"][0]["opt"][0], 4);
    let islands = plan["models"][1]["islands"].as_array().map(Vec::len);
    assert!(islands.is_some_and(|count| count > 0), "{plan}");
    assert_eq!(plan, report["plan"]);

    // The files know what they are.
    let checked = emoc(folder.path(), &format!("check {BUNDLE} --per-block --json"));
    assert!(checked.status.success(), "{}", stderr(&checked));
    let blocks = json(&checked.stdout);
    let blocks = blocks["blocks"].as_array().expect("tables").iter();
    let models: Vec<_> = blocks.map(|table| table["model"].as_str()).collect();
    assert!(
        models.contains(&Some("f32")) && models.contains(&Some("f16")),
        "{models:?}"
    );
    let checked = emoc(folder.path(), &format!("check {BUNDLE}"));
    assert!(checked.status.success(), "{}", stderr(&checked));
    let table = stdout(&checked);
    for part in ["float32\n", "float16\n", "= 5e-3 x spread"] {
        assert!(table.contains(part), "no `{part}` in:\n{table}");
    }
    let inspected = stdout(&emoc(folder.path(), &format!("inspect {BUNDLE}")));
    assert!(inspected.contains("EMOv2 1M"), "{inspected}");

    // The same bytes again, in place of the first ones.
    let first = fs::read(folder.path().join(BUNDLE).join("plan.json")).expect("a plan");
    let again = emoc(folder.path(), &compile(&format!("{flags} --no-check")));
    assert!(again.status.success(), "{}", stderr(&again));
    let second = fs::read(folder.path().join(BUNDLE).join("plan.json")).expect("a plan");
    assert!(first == second, "other bytes");

    // What somebody changed is named, and not replaced.
    fs::write(folder.path().join(BUNDLE).join("build.sh"), "echo").expect("a file");
    let checked = emoc(folder.path(), &format!("check {BUNDLE}"));
    assert!(
        stderr(&checked).contains("build.sh was changed"),
        "{}",
        stderr(&checked)
    );
    let refused = emoc(folder.path(), &compile("--no-check"));
    assert_eq!(refused.status.code(), Some(4), "{}", stderr(&refused));
}

/// A plan that somebody wrote is not believed.
#[test]
fn hostile_plans_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = emoc(folder.path(), &compile("--no-check --batch 1..8"));
    assert!(made.status.success(), "{}", stderr(&made));
    let path = folder.path().join(BUNDLE).join("plan.json");
    let good = fs::read_to_string(&path).expect("a plan");
    let check = |from: &str, to: &str, message: &str| {
        assert!(good.contains(from), "no {from} in the plan");
        fs::write(&path, good.replacen(from, to, 1)).expect("a file");
        let output = emoc(folder.path(), &format!("check {BUNDLE}"));
        assert_eq!(output.status.code(), Some(3), "{to}: {}", stderr(&output));
        assert!(
            stderr(&output).contains(message),
            "{to}: {}",
            stderr(&output)
        );
    };
    let batch = "\"golden\": {\n    \"batch\": ";
    for images in ["4611686018427387904", "18446744073709551615", "400000"] {
        let message = "is too large to check";
        check(&format!("{batch}2"), &format!("{batch}{images}"), message);
    }
    check(
        &format!("{batch}2"),
        &format!("{batch}0"),
        "golden.batch is no number of images",
    );
    let precision = "\"precision\": ";
    check(
        &format!("{precision}\"f32\""),
        &format!("{precision}\"f16\""),
        "computes in float32, and the plan disagrees",
    );
    check("\"build.py\"", "\"../build.py\"", "outside of the folder");
    check(
        "\"build.py\"",
        "\"built.py\"",
        "this file of its plan is missing",
    );
    check("\"schema\": 1", "\"schema\": 2", "a newer emoc wrote it");
}

/// A backbone has several outputs, and the batch may be fixed.
#[test]
fn a_backbone_is_a_bundle_too() {
    let folder = tempfile::tempdir().expect("a folder");
    with_tensorrt_rtx(folder.path());
    let checkpoint = fixture("tiny_mmdet.pth");
    let flags = "--dim-head 8,8 --attention hybrid --input-size 64 --window 10 --batch 3";
    let made = emoc(
        folder.path(),
        &format!("compile --target tensorrt --checkpoint {checkpoint} {flags} --output backbone"),
    );
    assert!(made.status.success(), "{}", stderr(&made));
    let plan = json(&fs::read(folder.path().join("backbone/plan.json")).expect("a plan"));
    assert_eq!(plan["outputs"].as_array().map(Vec::len), Some(4), "{plan}");
    assert_eq!(plan["profiles"].as_array().map(Vec::len), Some(0), "{plan}");
    assert_eq!(plan["golden"]["batch"], 3);
}

/// Engines for TensorRT-RTX are made here, of what each generation of GPUs can compute.
#[test]
fn engines_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    if !with_tensorrt_rtx(folder.path()) {
        return;
    }
    let compile = compile("--no-check").replace("--target tensorrt", "--target tensorrt-rtx");
    let made = emoc(folder.path(), &compile);
    assert!(made.status.success(), "{}", stderr(&made));
    // Turing has no float32 products.
    assert!(
        stderr(&made).contains("no engine for SM75, float32"),
        "{}",
        stderr(&made)
    );
    let plan = json(&fs::read(folder.path().join(BUNDLE).join("plan.json")).expect("a plan"));
    let engines = plan["engines"].as_array().expect("a list").iter();
    let files: Vec<_> = engines
        .map(|engine| engine["file"].as_str().unwrap_or(""))
        .collect();
    let expected = ["sm80", "sm86", "sm89"].map(|sm| format!("engines/f32.{sm}.engine"));
    assert_eq!(files, expected);
    for file in files {
        let bytes = fs::metadata(folder.path().join(BUNDLE).join(file))
            .expect("an engine")
            .len();
        assert!(bytes > 1_000_000, "{file}: {bytes} bytes");
    }
    let readme = fs::read_to_string(folder.path().join(BUNDLE).join("README.md")).expect("a text");
    assert!(readme.contains("no plans for TensorRT"), "{readme}");
    let again = emoc(folder.path(), &compile);
    assert!(again.status.success(), "{}", stderr(&again));
    let second = json(&fs::read(folder.path().join(BUNDLE).join("plan.json")).expect("a plan"));
    assert_eq!(plan, second);
}

#[test]
fn flags_that_do_not_fit() {
    let folder = tempfile::tempdir().expect("a folder");
    for (arguments, code, message) in [
        (compile("--batch 8..1"), 2, "1..8:4"),
        (
            compile("--crate-name a"),
            2,
            "--crate-name is for --target rust",
        ),
        (
            compile("--no-check --tensorrt-rtx"),
            2,
            "cannot be used with",
        ),
        (compile("--tensorrt-rtx"), 5, "TensorRT-RTX cannot be used"),
        (
            format!("{COMPILE} --batch 1..8"),
            2,
            "a range of batches is for compile --target tensorrt",
        ),
        (
            format!("{COMPILE} --tensorrt-rtx"),
            2,
            "--tensorrt-rtx is for --target tensorrt",
        ),
        (
            "inspect --variant 1M --batch 1..8".into(),
            2,
            "a range of batches is for",
        ),
        (
            "check nowhere --tensorrt-rtx".into(),
            2,
            "is for TensorRT bundles",
        ),
    ] {
        let output = emoc(folder.path(), &arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains(message),
            "{arguments}: {}",
            stderr(&output)
        );
    }
    assert!(names(folder.path()).is_empty());
}
