//! Bundles for TensorRT: what they say, and their scripts as far as they run without a GPU.
//!
//! The bundles stay in `target/tmp/bundles`, where `scripts/bundle-check` judges their texts.
//! Regenerate the snapshots with `INSTA_UPDATE=always scripts/test bundle`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use emoc_backends::{
    onnx,
    tensorrt::{
        self, Batch, Bundle, Golden, Model, PLAN, Plan, Precision, activation_memory, plan,
    },
};
use emoc_frontend::emo2::{self, Geometry, VARIANTS};
use emoc_ir::{Dim, Shape, Verified, seeded};
use emoc_passes::{optimise, precision};

/// The bundle of a seeded variant at 224. Its golden values are made up: no script looks at more
/// than their spread.
fn bundle(variant: &str, batch: Dim, range: [usize; 3], half: bool) -> Bundle {
    let geometry = Geometry {
        input_size: [224, 224],
        batch,
        window: 7,
    };
    let row = VARIANTS.iter().find(|row| row.name == variant);
    let model = emo2::seeded(row.expect("a variant"), geometry, 0).expect("a model");
    let macs = model.graph.cost(1).expect("costs").total.macs;
    let faithful = model.graph.verify().expect("a graph");
    let graph = optimise(faithful, None, &mut |_, _, _| {}).expect("a pipeline");
    let [min, opt, max] = range;
    let mut models = vec![model_of(Precision::F32, &graph, &[opt, max])];
    if half {
        let narrowed = precision::to_f16(&graph, &precision::standard(&graph)).expect("float16");
        let mut model = model_of(Precision::F16, &narrowed.graph, &[opt, max]);
        model.islands = narrowed.islands.iter().map(ToString::to_string).collect();
        models.push(model);
    }
    let values = |name: &str, shape: &Shape| seeded::values(name, &shape.resolve(1), 0);
    let outputs = graph.outputs().iter();
    let outputs = outputs.map(|output| values(&output.name, &graph.ty(output.value).shape));
    Bundle {
        name: graph.name.clone(),
        title: format!("EMOv2 {variant} at 224x224"),
        producer_version: "0.0.0".into(),
        models,
        batch: Batch { min, opt, max },
        preprocessing: plan::Preprocessing {
            color: "RGB".into(),
            resize: Some(plan::Resize {
                cover: [256, 256],
                filter: "bicubic, antialiased, 8 bits (Pillow)".into(),
                center_crop: [224, 224],
            }),
            scale: "1/255".into(),
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            layout: "NCHW".into(),
        },
        labels: Some((0..1000).map(|class| format!("class {class}")).collect()),
        macs,
        golden: Golden {
            input: values("input", &graph.ty(graph.inputs()[0]).shape),
            outputs: outputs.collect(),
        },
        engines: Vec::new(),
        provenance: vec![("weights".into(), "seeded".into())],
    }
}

fn model_of(precision: Precision, graph: &Verified, batches: &[usize]) -> Model {
    let memory = |&n: &usize| (n, activation_memory(graph, n).expect("a number"));
    Model {
        precision,
        onnx: onnx::emit(graph, &onnx::Options::default()).expect("a file"),
        islands: Vec::new(),
        activation_memory: batches.iter().map(memory).collect(),
    }
}

/// Writes a bundle, and returns its folder.
fn written(case: &str, bundle: &Bundle) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("bundles")
        .join(case);
    let _ = fs::remove_dir_all(&folder);
    for (name, bytes) in tensorrt::emit(bundle).unwrap_or_else(|e| panic!("{case}: {e}")) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    }
    folder
}

fn snapshot(name: &str, path: &Path) {
    let text = fs::read_to_string(path).expect("a text");
    insta::with_settings!({
        snapshot_path => "../../snapshots",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!(name, text) });
}

#[test]
fn bundles_say_the_same_again() {
    for variant in ["1M", "5M"] {
        let bundle = bundle(variant, Dim::Batch(1), [1, 4, 8], variant == "5M");
        let folder = written(variant, &bundle);
        let name = &bundle.name;
        snapshot(&format!("{name}.plan.json"), &folder.join(PLAN));
        let configs = folder.join("triton").join(name);
        snapshot(
            &format!("{name}.config.pbtxt"),
            &configs.join("config.pbtxt"),
        );
        snapshot(
            &format!("{name}.tensorrt.pbtxt"),
            &configs.join("configs/tensorrt.pbtxt"),
        );
        let plan = Plan::parse(&fs::read(folder.join(PLAN)).expect("a file"));
        assert!(plan.expect("a plan").models[0].audit.len() > 100);
    }
}

/// A stand-in for trtexec that says its version and writes what it was told.
const TRTEXEC: &str = r#"#!/bin/sh
echo "&&&& RUNNING TensorRT.trtexec [TensorRT v$STUB_VERSION]"
case $1 in --help) exit 0 ;; esac
[ -z "${STUB_FAILS:-}" ] || exit 1
for flag; do
    case $flag in --saveEngine=*) echo engine >"${flag#*=}" ;; esac
done
"#;

fn run(
    program: &str,
    folder: &Path,
    script: &str,
    flags: &str,
    variables: &[(&str, &str)],
) -> Output {
    let mut command = Command::new(program);
    command
        .arg(folder.join(script))
        .args(flags.split_whitespace());
    command
        .env("TRTEXEC", folder.join("trtexec"))
        .env("PYTHONNOUSERSITE", "1");
    command.envs(variables.iter().copied());
    command
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"))
}

/// Runs a script: its exit code, and words that it says.
fn check(output: &Output, what: &str, code: i32, words: &[&str]) {
    let said = [&output.stdout[..], &output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(output.status.code(), Some(code), "{what}: {said}");
    for word in words {
        // A word that must be missing has a `!` before it.
        match word.strip_prefix('!') {
            Some(word) => assert!(!said.contains(word), "{what}: `{word}` in {said}"),
            None => assert!(said.contains(word), "{what}: no `{word}` in {said}"),
        }
    }
}

#[test]
fn a_bundle_builds_with_trtexec() {
    let dynamic = written(
        "trtexec-dynamic",
        &bundle("1M", Dim::Batch(1), [1, 4, 8], false),
    );
    let fixed = written(
        "trtexec-fixed",
        &bundle("1M", Dim::Fixed(1), [1, 1, 1], false),
    );
    for folder in [&dynamic, &fixed] {
        let stub = folder.join("trtexec");
        fs::write(&stub, TRTEXEC).expect("a file");
        fs::set_permissions(&stub, fs::Permissions::from_mode(0o755)).expect("permissions");
    }
    let shapes =
        "--minShapes=input:1x3x224x224 --optShapes=input:4x3x224x224 --maxShapes=input:8x3x224x224";
    let compatible =
        "--dry-run --version-compatible --hardware-compatible ampere+ --measure --tf32";
    let rows: [(&Path, &str, &str, i32, &[&str]); 12] = [
        (
            &dynamic,
            "101501",
            "--dry-run",
            0,
            &["--stronglyTyped", shapes, "--noTF32", "--skipInference"],
        ),
        (
            &dynamic,
            "110001",
            "--dry-run",
            0,
            &["!--stronglyTyped", shapes],
        ),
        (
            &fixed,
            "101501",
            "--dry-run",
            0,
            &["!Shapes=", "!--versionCompatible"],
        ),
        (
            &fixed,
            "101501",
            compatible,
            0,
            &[
                "--versionCompatible --hardwareCompatibilityLevel=ampere+",
                "!--skipInference",
                "!--noTF32",
            ],
        ),
        (
            &fixed,
            "8601",
            "",
            1,
            &["this is TensorRT 8.6, and the network needs 10.0 or later"],
        ),
        (
            &fixed,
            "120000",
            "--dry-run",
            0,
            &["TensorRT 12 is newer than this bundle"],
        ),
        (&fixed, "", "", 1, &["does not say its version"]),
        (
            &fixed,
            "101501",
            "--precision f16",
            2,
            &["there is no model of precision 'f16': choose f32"],
        ),
        (&fixed, "101501", "--fp16", 2, &["'--fp16' is no option"]),
        (&fixed, "101501", "--output", 2, &["--output needs a value"]),
        (
            &fixed,
            "101501",
            "--output /nowhere/engine",
            1,
            &["the folder of /nowhere/engine does not exist"],
        ),
        (
            &fixed,
            "101501",
            "--triton",
            0,
            &["/1/model.plan for TensorRT 10.15 and this GPU"],
        ),
    ];
    for (folder, version, flags, code, words) in rows {
        let output = run(
            "sh",
            folder,
            "build.sh",
            flags,
            &[("STUB_VERSION", version)],
        );
        check(&output, &format!("{version} {flags}"), code, words);
    }
    let variables = [("STUB_VERSION", "101501"), ("STUB_FAILS", "1")];
    check(
        &run("sh", &fixed, "build.sh", "", &variables),
        "a failure",
        1,
        &["trtexec failed"],
    );
    check(
        &run("sh", &fixed, "build.sh", "", &[("TRTEXEC", "/nowhere")]),
        "none",
        1,
        &["trtexec is not here"],
    );
    let verify = |flags| run("sh", &fixed, "verify.sh", flags, &[]);
    check(
        &verify(""),
        "verify",
        1,
        &["engine.f32.plan does not exist: build it with sh build.sh"],
    );
    check(
        &verify("--engine"),
        "verify",
        2,
        &["--engine needs a value"],
    );
    fs::write(fixed.join("model.f32.onnx"), "other").expect("a file");
    let variables = [("STUB_VERSION", "101501")];
    check(
        &run("sh", &fixed, "build.sh", "", &variables),
        "changed",
        1,
        &["copy the bundle again"],
    );
}

#[test]
fn a_bundle_builds_with_python() {
    let folder = written("python", &bundle("1M", Dim::Batch(1), [1, 4, 8], false));
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: build.py: there is no python3");
        return;
    }
    let build = |flags: &str| run("python3", &folder, "build.py", flags, &[]);
    check(&build("--help"), "help", 0, &["--timing-cache"]);
    check(
        &build("--precision f16"),
        "f16",
        1,
        &["no model of precision 'f16': choose f32"],
    );
    check(
        &build("--plan /nowhere"),
        "no plan",
        1,
        &["cannot read /nowhere"],
    );
    check(
        &build("--triton --output x"),
        "two places",
        2,
        &["contradict each other"],
    );
    let here = Command::new("python3")
        .args(["-c", "import tensorrt"])
        .output();
    if here.is_ok_and(|output| !output.status.success()) {
        check(
            &build(""),
            "no package",
            1,
            &["the Python package tensorrt is needed"],
        );
    }
    fs::write(
        folder.join("other.json"),
        r#"{"producer": "emoc", "schema": 9}"#,
    )
    .expect("a file");
    let other = format!("--plan {}", folder.join("other.json").display());
    check(
        &build(&other),
        "a newer plan",
        1,
        &["has schema 9, and this script reads 1"],
    );
    fs::write(folder.join("model.f32.onnx"), "other").expect("a file");
    check(&build(""), "changed", 1, &["copy the bundle again"]);
}

/// TensorRT-RTX under the name of TensorRT, whose interface it has as far as the network goes.
const STAND_IN: &str = "from tensorrt_rtx_bindings import *
from tensorrt_rtx_bindings import __version__

__name__ = 'tensorrt_rtx'
";

#[test]
fn a_bundle_is_parsed_by_tensorrt_rtx() {
    let wheels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tensorrt-rtx");
    if !wheels.join("version").exists() {
        println!("skipped: build.py: no .tensorrt-rtx; scripts/fetch-tensorrt-rtx gets it");
        return;
    }
    let bundle = bundle("1M", Dim::Batch(1), [1, 4, 8], true);
    let folder = written("tensorrt-rtx", &bundle);
    let stand_in = folder.join("stand-in");
    fs::create_dir(&stand_in).expect("a folder");
    fs::write(stand_in.join("tensorrt.py"), STAND_IN).expect("a file");
    let path = format!("{}:{}", stand_in.display(), wheels.display());
    let variables = [("PYTHONPATH", &*path), ("PYTHONDONTWRITEBYTECODE", "1")];
    for precision in ["f32", "f16"] {
        let flags = format!("--check --precision {precision}");
        let output = run("python3", &folder, "build.py", &flags, &variables);
        let taken = format!("model.{precision}.onnx: ");
        check(&output, precision, 0, &["takes", &taken, " layers"]);
    }
    // A plan that says another shape is found out.
    let plan = fs::read_to_string(folder.join(PLAN)).expect("a plan");
    let other = plan.replace("\"shape\": [\"N\", 1000]", "\"shape\": [\"N\", 999]");
    assert!(plan != other, "nothing was changed");
    fs::write(folder.join(PLAN), other).expect("a file");
    let output = run("python3", &folder, "build.py", "--check", &variables);
    check(&output, "another shape", 1, &["the network's outputs are"]);
    fs::remove_dir_all(&stand_in).expect("the folder");
}
