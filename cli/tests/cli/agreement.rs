//! The check: what it proves, and what it says when an artifact is wrong.

use serde_json::Value;

use crate::{COMPILE, emoc, fixture, stderr, stdout};

const ARTIFACT: &str = "emov2_1m_64.onnx";

#[test]
fn checkpoints_compile_and_agree() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = "--dim-head 8,8 --attention hybrid --input-size 64";
    for (file, flags) in [
        ("tiny.pth", "--batch dynamic"),
        ("tiny.safetensors", "--passes none"),
        ("tiny_trainer_ckpt.pth", "--weights ema"),
        ("tiny_fp16.pth", "--opset 17"),
        ("tiny_mmdet.pth", "--window 10 --batch 3"),
    ] {
        let checkpoint = fixture(file);
        let arguments =
            format!("compile --checkpoint {checkpoint} {own} {flags} --output {file}.onnx --json");
        let output = emoc(folder.path(), &arguments);
        assert!(output.status.success(), "{file}: {}", stderr(&output));
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(report["checks"][0]["runtime"], "tract", "{file}");
        assert_eq!(report["checks"][0]["verdict"], "agrees", "{file}");
        // Without the flags: they are in the artifact.
        let again = format!("check {file}.onnx --checkpoint {checkpoint} --per-block --quiet");
        let output = emoc(folder.path(), &again);
        assert!(output.status.success(), "{file}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{file}");
    }
    let output = emoc(folder.path(), "check tiny.pth.onnx");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("add --checkpoint FILE"));
}

/// The artifact has other windows than the network it is compared with.
#[test]
fn a_disagreement_names_the_first_block() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = emoc(folder.path(), &format!("{COMPILE} --no-check"));
    assert!(made.status.success(), "{}", stderr(&made));
    let output = emoc(
        folder.path(),
        &format!("check {ARTIFACT} --window 2 --per-block"),
    );
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let expected = "block `stage3.1` (`stage3.0` still agrees)";
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    let table = stdout(&output);
    let row = |block: &str| table.lines().find(|line| line.starts_with(block));
    assert!(
        row("stage3.0").is_some_and(|row| row.contains("agrees")),
        "{table}"
    );
    assert!(
        row("stage3.1").is_some_and(|row| row.contains("DISAGREES")),
        "{table}"
    );
}

/// One weight of one block was changed after the artifact was written.
#[test]
fn a_damaged_weight_is_found_in_its_block() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = emoc(folder.path(), &format!("{COMPILE} --no-check"));
    assert!(made.status.success(), "{}", stderr(&made));
    let path = folder.path().join(ARTIFACT);
    let mut bytes = std::fs::read(&path).expect("the artifact");
    // An initializer's name is followed by its elements: the tag of field 9, the length, the bytes.
    let name = b"stage2.1.proj.conv.weight.folded\x4a";
    let at = bytes.windows(name.len()).position(|window| window == name);
    let start = at.expect("the weight's name") + name.len();
    let length_bytes = 1 + bytes[start..]
        .iter()
        .position(|byte| byte & 0x80 == 0)
        .expect("an end");
    let first = start + length_bytes;
    bytes[first..first + 4].copy_from_slice(&1e3_f32.to_le_bytes());
    std::fs::write(&path, bytes).expect("the artifact");

    let output = emoc(folder.path(), &format!("check {ARTIFACT}"));
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let expected = "block `stage2.1` (`stage2.0` still agrees)";
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
}
