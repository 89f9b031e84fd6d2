//! What commands answer: exit codes, messages, results.

use std::path::Path;

use crate::{COMPILE, emoc, expect, fixture, stderr, stdout};

#[test]
fn exit_codes() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("text.pth"), "no checkpoint").expect("a file");
    std::fs::write(folder.path().join("mine.onnx"), "mine").expect("a file");
    let check = |arguments: &str, code: i32, message: &str| {
        expect(folder.path(), arguments, code, message);
    };
    let tiny = fixture("tiny.pth");
    check("--help", 0, "");
    check("", 2, "Usage: emoc");
    check("compile", 2, "neither a checkpoint nor a variant");
    check("frobnicate", 2, "unrecognized subcommand");
    check("compile --variant 7M --target onnx", 2, "7M");
    check("inspect text.pth", 3, "no checkpoint that emoc knows");
    check("inspect missing.pth", 4, "missing.pth");
    check(
        "inspect text.pth --tensors --json",
        3,
        "no checkpoint that emoc knows",
    );
    check(&format!("inspect {tiny}"), 2, "--dim-head");
    check(&format!("inspect {tiny} --tensors --json"), 0, "");
    check(
        &format!("{COMPILE} --stop-after nothing"),
        2,
        "there is no pass `nothing`",
    );
    check(&format!("{COMPILE} --output mine.onnx"), 4, "--force");
    check(
        &format!("{COMPILE} --output no/such/folder.onnx"),
        4,
        "no/such",
    );
    check(
        &format!("compile --checkpoint {tiny} --seed 1"),
        2,
        "--seed makes weights",
    );
    check(
        &format!("{COMPILE} --weights ema"),
        2,
        "--weights speaks of a checkpoint",
    );
    check(
        &format!("{COMPILE} --print-after i2rmb --passes none"),
        2,
        "contradict",
    );
    check(
        &format!("{COMPILE} --labels text.pth"),
        3,
        "1 class names for a network with 1000 classes",
    );
    check(
        &format!("inspect {tiny} --expect-sha256 {}", "0".repeat(64)),
        3,
        "not the expected one",
    );
    check("check text.pth", 3, "not an ONNX model");
    check(
        &format!("{COMPILE} --output /dev/full"),
        4,
        "no regular file",
    );
    check(
        &format!("{COMPILE} --onnxruntime-lib text.pth"),
        5,
        "text.pth",
    );
    assert_eq!(
        std::fs::read(folder.path().join("mine.onnx")).expect("the file"),
        b"mine",
        "a refused run leaves what was there"
    );
}

#[test]
fn tensors_as_json() {
    let output = emoc(
        Path::new("."),
        &format!("inspect {} --tensors --json", fixture("tiny.safetensors")),
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let tensors = report["tensors"].as_array().expect("a list");
    let head = tensors
        .iter()
        .find(|tensor| tensor["name"] == "head.weight");
    let head = head.expect("the head");
    assert_eq!(head["dtype"], "F32");
    assert_eq!(head["shape"], serde_json::json!([10, 24]));
    assert_eq!(head["sha256"].as_str().map(str::len), Some(64));
}

#[test]
fn inspect_knows_what_it_is_given() {
    let folder = tempfile::tempdir().expect("a folder");
    let json = |arguments: &str| -> serde_json::Value {
        let output = emoc(folder.path(), arguments);
        assert!(output.status.success(), "{arguments}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    // Figures that the authors publish, and where they hold.
    for (arguments, macs, published) in [
        ("--variant 1M", 284_756_712, "285"),
        ("--variant 2M", 487_454_824, "487"),
        ("--variant 5M", 1_035_473_760, "1035"),
        ("--variant 5M --input-size 512", 5_627_331_840_u64, "5627"),
    ] {
        let report = json(&format!("inspect {arguments} --json"));
        assert_eq!(report["macs"], macs, "{arguments}");
        let mmacs = report["published"][0]["mmacs"].to_string();
        assert_eq!(mmacs, published, "{arguments}");
    }
    let tiny = format!("{} --dim-head 8,8 --attention hybrid", fixture("tiny.pth"));
    let report = json(&format!("inspect {tiny} --json"));
    assert_eq!(report["network"]["variant"], serde_json::Value::Null);
    assert_eq!(report["network"]["classes"], 10);
    assert_eq!(report["weights"]["choice"], "net");

    // An artifact says the same as the network that it was compiled from.
    let compiled = json(&format!("{COMPILE} --no-check --json"));
    let artifact = json("inspect emov2_1m_64.onnx --json");
    assert_eq!(artifact["network"], compiled["network"]);
    assert_eq!(artifact["sha256"], compiled["sha256"]);
    assert_eq!(artifact["nodes"], compiled["nodes"]);
    assert_eq!(artifact["metadata"]["weights"], "seeded");
    assert_eq!(
        artifact["metadata"]["weights_sha256"],
        compiled["weights"]["sha256"]
    );
}

#[test]
fn graphs_are_printed_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    for arguments in [
        "inspect --variant 1M --graph".to_owned(),
        format!("{COMPILE} --no-check --print-after layer-norm"),
    ] {
        let output = emoc(folder.path(), &arguments);
        assert!(output.status.success(), "{arguments}: {}", stderr(&output));
        let graph = emoc_ir::parse(&stdout(&output)).unwrap_or_else(|e| panic!("{arguments}: {e}"));
        graph
            .verify()
            .unwrap_or_else(|e| panic!("{arguments}: {e}"));
    }
}

#[test]
fn quiet_says_nothing_and_a_pipe_gets_no_colours() {
    let folder = tempfile::tempdir().expect("a folder");
    let quiet = emoc(folder.path(), &format!("{COMPILE} --no-check --quiet"));
    assert_eq!(stdout(&quiet) + &stderr(&quiet), "");
    let piped = emoc(folder.path(), &format!("{COMPILE} --verbose"));
    let text = stdout(&piped) + &stderr(&piped);
    assert!(text.contains("pass i2rmb: fired"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    // Nobody reads: not an error. A full disk is one.
    for (shell, code) in [("| true", 0), ("> /dev/full", 4)] {
        let program = env!("CARGO_BIN_EXE_emoc");
        let script =
            format!("{program} inspect --variant 1M --graph {shell}; exit ${{PIPESTATUS[0]}}");
        let output = std::process::Command::new("bash")
            .args(["-c", &script])
            .output();
        let output = output.expect("a shell");
        assert_eq!(
            output.status.code(),
            Some(code),
            "{shell}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = emoc(Path::new("."), &format!("completions {shell}"));
        assert!(stdout(&output).contains("input-size"), "{shell}");
    }
}
