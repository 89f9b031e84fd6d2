//! `--precision f16`: what is written, judged and said.

use serde_json::Value;

use crate::{COMPILE, emoc, names, stderr, stdout};

const ARTIFACT: &str = "emov2_1m_64.onnx";

#[test]
fn float16_is_judged_as_float16() {
    let folder = tempfile::tempdir().expect("a folder");
    let wide = emoc(
        folder.path(),
        &format!("{COMPILE} --no-check --output wide.onnx"),
    );
    assert!(wide.status.success(), "{}", stderr(&wide));
    let made = emoc(folder.path(), &format!("{COMPILE} --precision f16"));
    assert!(made.status.success(), "{}", stderr(&made));
    let report = stdout(&made);
    for part in [
        "= 5e-3 x spread",
        "in float32: head, stage0; softmax of stage3.1, stage3.2,",
        "opset 20, float16, seeded weights",
    ] {
        assert!(report.contains(part), "no `{part}` in:\n{report}");
    }
    let size = |name: &str| {
        std::fs::metadata(folder.path().join(name))
            .expect("a file")
            .len()
    };
    // The classifier, a fifth of all weights, stays float32.
    assert!(
        size(ARTIFACT) * 10 < size("wide.onnx") * 7,
        "{}",
        size(ARTIFACT)
    );

    // The metadata knows, so no flag is needed.
    let checked = emoc(folder.path(), &format!("check {ARTIFACT} --per-block"));
    assert!(checked.status.success(), "{}", stderr(&checked));
    let table = stdout(&checked);
    assert!(
        table.contains("relative") && table.contains("stage4.2"),
        "{table}"
    );
    assert!(!table.contains("DISAGREES"), "{table}");
    let inspected = stdout(&emoc(folder.path(), &format!("inspect {ARTIFACT}")));
    assert!(inspected.contains("precision      f16"), "{inspected}");
    assert!(inspected.contains("softmax of stage3.1"), "{inspected}");

    let bytes = std::fs::read(folder.path().join(ARTIFACT)).expect("the artifact");
    emoc(
        folder.path(),
        &format!("{COMPILE} --precision f16 --output again.onnx"),
    );
    let again = std::fs::read(folder.path().join("again.onnx")).expect("the artifact");
    assert!(bytes == again, "other bytes");
}

#[test]
fn islands_are_measured() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = "--precision f16 --islands auto --json";
    let made = emoc(folder.path(), &format!("{COMPILE} {flags}"));
    assert!(made.status.success(), "{}", stderr(&made));
    let report: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    assert_eq!(report["precision"], "f16");
    assert_eq!(report["chosen"], "auto");
    let measured = &report["measured"];
    let number = |name: &str| measured[name].as_f64().expect("a number");
    assert!(number("error") <= number("target"), "{measured}");
    // Every candidate was measured, unless none was needed.
    let gains = measured["gains"].as_array().expect("a list").len();
    let needed = number("error_without_islands") > number("target");
    assert_eq!(gains > 0, needed, "{measured}");
    let manifest = std::fs::read(folder.path().join("emov2_1m_64.json")).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    assert_eq!(manifest["options"]["islands"], report["islands"]);
    assert_eq!(manifest["check"]["tolerance"], "5e-3 x spread");
}

#[test]
fn flags_that_do_not_fit() {
    let folder = tempfile::tempdir().expect("a folder");
    for (flags, message) in [
        ("--islands auto", "--islands is for --precision f16"),
        (
            "--precision f32 --islands standard",
            "--islands is for --precision f16",
        ),
        ("--precision int8", "int8"),
    ] {
        let output = emoc(folder.path(), &format!("{COMPILE} {flags}"));
        assert_eq!(output.status.code(), Some(2), "{flags}");
        assert!(
            stderr(&output).contains(message),
            "{flags}: {}",
            stderr(&output)
        );
    }
    let compile = COMPILE.replace("--target onnx", "--target rust");
    let output = emoc(folder.path(), &format!("{compile} --precision f16"));
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--precision is for --target onnx"));
    assert!(names(folder.path()).is_empty());
}
