//! TensorRT-RTX's parser and builder on small models: engines without a GPU, and refusals that say
//! which node and why.

use std::{fs, path::Path};

use emoc_ir::{Diagnostic, Result};
use emoc_runtimes::{
    Children, Missing, OnnxModel,
    tensorrt_rtx::{Builder, Capability, Engine, ShapeRange},
};
use tract_onnx::pb::{
    AttributeProto, ModelProto, NodeProto, TensorProto, attribute_proto::AttributeType,
    tensor_proto::DataType,
};

use crate::models;

static CHILDREN: Children = Children::new();

fn find(wheels: &Path) -> Result<Builder, Missing> {
    let path = std::env::var_os("PATH");
    Builder::find(Some(wheels), path.as_deref(), &CHILDREN)
}

/// The builder, if `scripts/fetch-tensorrt-rtx` has been run.
fn builder() -> Option<Builder> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let found = find(&root.join(".tensorrt-rtx"));
    let skipped = |missing: &Missing| eprintln!("skipped: TensorRT-RTX, {missing:?}");
    found.inspect_err(skipped).ok()
}

fn build(
    builder: &Builder,
    model: &ModelProto,
    ranges: &[ShapeRange],
    capabilities: &[Capability],
) -> Result<Engine> {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = models::bytes(model);
    let model = OnnxModel::read(&bytes)?;
    builder.build(&model, ranges, capabilities, folder.path(), &CHILDREN)
}

fn range(input: &str, sizes: [&[usize]; 3]) -> ShapeRange {
    let [min, opt, max] = sizes.map(<[usize]>::to_vec);
    let input = input.into();
    ShapeRange {
        input,
        min,
        opt,
        max,
    }
}

/// One to eight rows for [`models::two_layers`].
fn batches() -> Vec<ShapeRange> {
    vec![range("input", [&[1, 2], &[4, 2], &[8, 2]])]
}

/// The model is refused with these words, at this node.
#[track_caller]
fn check_refused(
    model: &ModelProto,
    ranges: &[ShapeRange],
    capability: Capability,
    words: &str,
    node: Option<&str>,
) {
    let Some(builder) = builder() else { return };
    let outcome = build(&builder, model, ranges, &[capability]);
    let error: Box<Diagnostic> = outcome
        .map(|engine| engine.layers)
        .expect_err("a bad model");
    println!("{error}\n");
    let text = error.to_string();
    assert!(text.contains(words), "{text}\nlacks: {words}");
    assert_eq!(error.node.as_deref(), node, "{text}");
}

#[test]
fn engines_are_built_without_a_gpu() {
    let Some(builder) = builder() else { return };
    assert!(builder.version().starts_with("1."), "{}", builder.version());
    for (model, ranges) in [
        (models::two_inputs(), vec![]),
        (models::two_layers(), batches()),
    ] {
        let targets = [Capability::Sm89, Capability::Sm80, Capability::Sm89];
        let engine = build(&builder, &model, &ranges, &targets).expect("an engine");
        assert_eq!(engine.warnings, [""; 0]);
        assert_eq!(engine.capabilities, [Capability::Sm80, Capability::Sm89]);
        assert!(engine.layers > 0 && engine.bytes.len() > 1000);
    }
}

/// Unsigned numbers become signed ones, and only a warning says so.
#[test]
fn what_the_parser_changes_is_told() {
    let Some(builder) = builder() else { return };
    let nodes = [
        models::node("QuantizeLinear", &["input", "scale", "zero"], "q"),
        models::node("DequantizeLinear", &["q", "scale", "zero"], "out"),
    ];
    let [input, output] = ["input", "out"].map(|name| models::float(name, &[1, 2]));
    let model = models::model(&[input], &[scale(), byte("zero", &[])], &nodes, &[output]);
    let engine = build(&builder, &model, &[], &[Capability::Sm80]).expect("an engine");
    let text = engine.warnings.join("\n");
    assert!(text.contains("Defaulting to INT8"), "{text}");
}

#[test]
fn profiles_that_do_not_fit_are_refused() {
    let check = |ranges: &[ShapeRange], words| {
        let model = models::two_layers();
        check_refused(&model, ranges, Capability::Sm80, words, None);
    };
    check(&[], "`input` has a symbolic dimension and no range");
    check(&[batches(), batches()].concat(), "`input` is given twice");
    let other = range("image", [&[1, 2], &[1, 2], &[1, 2]]);
    check(
        &[batches(), vec![other]].concat(),
        "`image` is no input of the model",
    );
    let check = |sizes, words| check(&[range("input", sizes)], words);
    check([&[1], &[4], &[8]], "`input` has 2 dimensions");
    check([&[1, 2], &[9, 2], &[8, 2]], "do not rise from at least 1");
    check([&[0, 2], &[4, 2], &[8, 2]], "do not rise from at least 1");
    check([&[1, 2], &[4, 2], &[1 << 31, 2]], "do not rise");
    check(
        [&[1, 2], &[4, 3], &[8, 4]],
        "a dimension that the model fixes",
    );
}

fn cast(input: &str, output: &str, to: DataType) -> NodeProto {
    let mut node = models::node("Cast", &[input], output);
    node.attribute = vec![AttributeProto {
        name: "to".into(),
        r#type: AttributeType::Int as i32,
        i: to as i64,
        ..AttributeProto::default()
    }];
    node
}

fn byte(name: &str, dims: &[i64]) -> TensorProto {
    let mut tensor = models::weights(name, dims, &[]);
    tensor.data_type = DataType::Uint8 as i32;
    tensor.raw_data = vec![0];
    tensor
}

fn scale() -> TensorProto {
    models::weights("scale", &[], &[0.5])
}

/// What onnx-tensorrt's table of operators says is not taken, is not.
#[test]
fn graphs_that_tensorrt_does_not_take_are_refused_at_their_node() {
    let check = |nodes: &[_], initializer: &[_], words, node| {
        let [input, output] = ["input", "out"].map(|name| models::float(name, &[1, 1, 4, 4]));
        let model = models::model(&[input], initializer, nodes, &[output]);
        check_refused(&model, &[], Capability::Sm80, words, Some(node));
    };
    let constants = [byte("zero", &[]), byte("kernel", &[1, 1, 1, 1]), scale()];
    let quantised = [
        models::node("QuantizeLinear", &["input", "scale", "zero"], "q"),
        models::node(
            "QLinearConv",
            &[
                "q", "scale", "zero", "kernel", "scale", "zero", "scale", "zero",
            ],
            "conv",
        ),
        models::node("DequantizeLinear", &["conv", "scale", "zero"], "out"),
    ];
    check(
        &quantised,
        &constants,
        "`QLinearConv`: UNSUPPORTED_NODE",
        "node.conv",
    );
    let bytes = [
        models::node("Relu", &["input"], "relu"),
        cast("relu", "byte", DataType::Uint8),
        cast("byte", "out", DataType::Float),
    ];
    check(&bytes, &[], "UINT8", "node.byte");
    let unknown = [models::node("Frobnicate", &["input"], "out")];
    check(&unknown, &[], "`Frobnicate`", "node.out");
}

/// Not the parser but the builder says so, in the middle of a sentence.
#[test]
fn a_gpu_without_float32_products_is_refused_with_the_node() {
    let (model, turing) = (models::two_layers(), Capability::Sm75);
    check_refused(
        &model,
        &batches(),
        turing,
        "SM80 and later",
        Some("node.logits"),
    );
}

/// An error, never the end of this process.
#[test]
fn damaged_models_are_errors() {
    let Some(builder) = builder() else { return };
    let edited = |edit: fn(&mut ModelProto)| {
        let mut model = models::two_layers();
        edit(&mut model);
        model
    };
    let cases = [
        (
            "fewer values",
            edited(|model| graph(model).initializer[0].raw_data.truncate(8)),
        ),
        (
            "a cycle",
            edited(|model| graph(model).node[0].input[0] = "logits".into()),
        ),
        (
            "no such value",
            edited(|model| graph(model).node[0].input[0] = "nowhere".into()),
        ),
        (
            "no operator",
            edited(|model| graph(model).node[0].op_type.clear()),
        ),
        (
            "no operand",
            edited(|model| graph(model).node[1].input.clear()),
        ),
        (
            "no type",
            edited(|model| graph(model).input[0].r#type = None),
        ),
    ];
    for (name, model) in cases {
        let outcome = build(&builder, &model, &batches(), &[Capability::Sm80]);
        let error = outcome.map(|engine| engine.layers).expect_err(name);
        println!("{name}: {error}\n");
        assert!(error.message.contains("TensorRT-RTX"), "{name}: {error}");
    }
}

fn graph(model: &mut ModelProto) -> &mut tract_onnx::pb::GraphProto {
    model.graph.as_mut().expect("a graph")
}

/// Wheels that are in order until something is built.
const BINDINGS: &str = "
class ILogger:
    pass
__version__ = '1.0'
";

/// Lays out wheels of which only a Python file is there.
fn wheels(program: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let package = folder.path().join("tensorrt_rtx_bindings");
    fs::create_dir(&package).expect("a folder");
    fs::write(package.join("__init__.py"), program).expect("a file");
    folder
}

#[test]
fn wheels_that_cannot_be_used_are_a_row_that_says_why() {
    let check = |wheels: &Path, reason: &str| {
        let missing = find(wheels).expect_err(reason);
        assert!(
            format!("{missing:?}").contains(reason),
            "{reason}: {missing:?}"
        );
        assert!(
            missing.help.contains("scripts/fetch-tensorrt-rtx"),
            "{missing:?}"
        );
    };
    check(Path::new("nowhere"), "no wheels in nowhere");
    check(wheels("import of_what").path(), "No module named 'of_what'");
    check(wheels("1 / 0").path(), "ZeroDivisionError");
    check(wheels("import os; os.abort()").path(), "signal 6");
    check(wheels("import os; os._exit(0)").path(), "do not load");
    let good = wheels(BINDINGS);
    assert_eq!(find(good.path()).expect("wheels").version(), "1.0");
    let missing = Builder::find(Some(good.path()), None, &CHILDREN).expect_err("no python3");
    assert_eq!(missing.reason, "python3 not found");
}

#[test]
fn what_the_libraries_do_to_their_process_is_an_error() {
    let check = |program: &str, words: &str| {
        let wheels = wheels(&format!("{BINDINGS}{program}"));
        let builder = find(wheels.path()).expect("wheels");
        let error = build(&builder, &models::two_inputs(), &[], &[Capability::Sm80]);
        let text = error
            .map(|engine| engine.layers)
            .expect_err(words)
            .to_string();
        assert!(text.contains(words), "{text}\nlacks: {words}");
    };
    let crash = "import os\ndef __getattr__(name): os.kill(os.getpid(), 11)";
    check(crash, "crashed on the model: signal 11");
    let silent = "import os\ndef __getattr__(name): os._exit(0)";
    check(silent, "crashed on the model: exit code 0");
    let greedy = "def __getattr__(name): return bytes(1 << 40)";
    check(greedy, "MemoryError");
    // The answer is not mixed up with what the libraries print.
    let talking = "def __getattr__(name):\n  print('{}', flush=True)\n  raise ValueError('no')";
    check(talking, "ValueError: no");
}
