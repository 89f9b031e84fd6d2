//! Bad graphs refused by name, bundles of a small network, and `plan.json` against its schema.

use emoc_ir::{Diagnostic, parse, seeded};
use onnx_protobuf::{
    AttributeProto, GraphProto, Message as _, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, ValueInfoProto, attribute_proto::AttributeType, tensor_shape_proto, type_proto,
};
use serde_json::Value;

use super::{plan::JSON_SCHEMA, *};
use crate::onnx;

const F32: i32 = 1;
const UINT8: i32 = 2;
const INT8: i32 = 3;
const INT64: i32 = 7;
const F16: i32 = 10;
const DOUBLE: i32 = 11;

/// A file made by hand: what emoc itself never emits.
#[derive(Clone)]
struct File(ModelProto);

impl File {
    /// `input` of a type, and an output that `node` gives.
    fn new(input: i32) -> Self {
        let mut model = ModelProto::new();
        let mut opset = OperatorSetIdProto::new();
        opset.version = 20;
        model.opset_import.push(opset);
        let graph = model.graph.mut_or_insert_default();
        graph.input.push(value_info("input", input));
        graph.output.push(value_info("out", F32));
        Self(model)
    }

    fn graph(&mut self) -> &mut GraphProto {
        self.0.graph.mut_or_insert_default()
    }

    fn node(mut self, name: &str, operator: &str, inputs: &str, outputs: &str) -> Self {
        let words = |text: &str| text.split(' ').map(|word| word.replace('-', "")).collect();
        let node = NodeProto {
            name: name.into(),
            op_type: operator.into(),
            input: words(inputs),
            output: words(outputs),
            ..NodeProto::default()
        };
        self.graph().node.push(node);
        self
    }

    fn attribute(
        mut self,
        name: &str,
        kind: AttributeType,
        set: impl Fn(&mut AttributeProto),
    ) -> Self {
        let mut attribute = AttributeProto::new();
        attribute.name = name.into();
        attribute.type_ = kind.into();
        set(&mut attribute);
        let nodes = &mut self.graph().node;
        nodes.last_mut().expect("a node").attribute.push(attribute);
        self
    }

    fn int(self, name: &str, value: i64) -> Self {
        self.attribute(name, AttributeType::INT, |a| a.i = value)
    }

    fn word(self, name: &str, value: &str) -> Self {
        self.attribute(name, AttributeType::STRING, |a| a.s = value.into())
    }

    fn ints(self, name: &str, values: &[i64]) -> Self {
        self.attribute(name, AttributeType::INTS, |a| a.ints = values.into())
    }

    fn weight(mut self, name: &str, data_type: i32, raw_data: &[u8]) -> Self {
        let tensor = TensorProto {
            name: name.into(),
            data_type,
            dims: vec![1],
            raw_data: raw_data.into(),
            ..TensorProto::default()
        };
        self.graph().initializer.push(tensor);
        self
    }

    fn audit(&self) -> emoc_ir::Result<Audit> {
        audit(&self.0.write_to_bytes().expect("bytes"))
    }
}

fn value_info(name: &str, elem_type: i32) -> ValueInfoProto {
    let mut info = ValueInfoProto::new();
    info.name = name.into();
    let tensor = type_proto::Tensor {
        elem_type,
        ..type_proto::Tensor::default()
    };
    let ty = info.type_.mut_or_insert_default();
    ty.set_tensor_type(tensor);
    let shape = ty.mut_tensor_type().shape.mut_or_insert_default();
    for size in [1, 3, 8, 8] {
        let mut dim = tensor_shape_proto::Dimension::new();
        dim.set_dim_value(size);
        shape.dim.push(dim);
    }
    info
}

fn refusal(file: &File) -> Box<Diagnostic> {
    file.audit().map(|_| ()).expect_err("a refusal")
}

#[test]
fn bad_graphs_are_refused_by_node() {
    let f32 = || File::new(F32);
    let cases: Vec<(File, &str, &str)> = vec![
        (
            f32().node("bad", "QLinearConv", "input", "out"),
            "bad",
            "does not support the operator; quantised",
        ),
        (
            f32().node("bad", "DynamicQuantizeLinear", "input", "out"),
            "bad",
            "does not support the operator",
        ),
        (
            f32().node("bad", "Frobnicate", "input", "out"),
            "bad",
            "has no such operator",
        ),
        (
            f32().node("", "Frobnicate", "input", "out"),
            "out",
            "has no such operator",
        ),
        (
            f32().node("bad", "Relu", "other", "out"),
            "bad",
            "`other` is computed nowhere before",
        ),
        (
            f32()
                .node("cast", "Cast", "input", "c")
                .int("to", i64::from(UINT8))
                .node("bad", "Cast", "c", "out")
                .int("to", 1),
            "cast",
            "`c` is UINT8, which only inputs and outputs may be",
        ),
        (
            File::new(UINT8).node("bad", "Add", "input input", "out"),
            "bad",
            "`input` is UINT8; it takes FP32",
        ),
        (
            f32()
                .node("bad", "Cast", "input", "out")
                .int("to", i64::from(DOUBLE)),
            "bad",
            "it gives DOUBLE",
        ),
        (
            f32().node("bad", "Cast", "input", "out"),
            "bad",
            "it says no element type",
        ),
        (
            f32()
                .weight("half", F16, &[0; 2])
                .node("bad", "Mul", "input half", "out"),
            "bad",
            "`half` is FP16 and the first input FP32",
        ),
        (
            f32()
                .weight("w", DOUBLE, &[0; 8])
                .node("bad", "Mul", "w input", "out"),
            "bad",
            "`w` is DOUBLE",
        ),
        (
            f32()
                .node("shape", "Shape", "input", "s")
                .node("bad", "ReduceMean", "input s", "out"),
            "bad",
            "`s` is no constant",
        ),
        (
            f32().node("bad", "LayerNormalization", "input input", "out mean"),
            "bad",
            "more than its first 1 outputs",
        ),
        (
            f32()
                .node("bad", "Resize", "input", "out")
                .int("antialias", 1),
            "bad",
            "antialias is 1; it takes 0",
        ),
        (
            f32()
                .node("bad", "Resize", "input", "out")
                .word("mode", "cubic"),
            "bad",
            "mode is cubic",
        ),
        (
            f32()
                .node("bad", "MaxPool", "input", "out")
                .ints("kernel_shape", &[2, 2])
                .ints("dilations", &[1, 2]),
            "bad",
            "dilations are [1, 2]",
        ),
        (
            f32()
                .node("bad", "MaxPool", "input", "out")
                .ints("kernel_shape", &[2]),
            "bad",
            "has 1 axes",
        ),
        (
            f32()
                .weight("s", F32, &[0; 4])
                .weight("z", INT8, &[3])
                .node("bad", "QuantizeLinear", "input s z", "out"),
            "bad",
            "`z` is not zero",
        ),
        (
            f32()
                .weight("s", F32, &[0; 4])
                .node("bad", "QuantizeLinear", "input s", "q")
                .node("dq", "DequantizeLinear", "q s", "out"),
            "bad",
            "`q` is UINT8",
        ),
        (
            f32().node("bad", "If", "input", "out").attribute(
                "then_branch",
                AttributeType::GRAPH,
                |a| {
                    a.g.mut_or_insert_default();
                },
            ),
            "bad",
            "it holds a graph",
        ),
        (
            f32()
                .node("bad", "Constant", "", "out")
                .word("value_string", "x"),
            "bad",
            "given as value_string",
        ),
    ];
    for (file, node, reason) in &cases {
        let fault = refusal(file);
        let what = format!("{}: {fault}", file.0.graph.node[0].op_type);
        assert_eq!(fault.node.as_deref(), Some(*node), "{what}");
        assert!(fault.message.contains(reason), "{what}");
    }
    let mut plugin = f32().node("bad", "Relu", "input", "out");
    plugin.graph().node[0].domain = "com.example".into();
    assert!(
        refusal(&plugin)
            .message
            .contains("a plugin would be needed")
    );
    let two = f32()
        .node("bad", "Unique", "input", "u")
        .node("worse", "Unique", "u", "out");
    assert_eq!(refusal(&two).details, ["1 more nodes are refused"]);
}

#[test]
fn bad_files_are_refused() {
    let relu = |input| File::new(input).node("relu", "Relu", "input", "out");
    let check = |file: &File, reason: &str| {
        let fault = refusal(file);
        assert!(fault.message.contains(reason), "{fault}");
    };
    check(&relu(DOUBLE), "takes no input that is DOUBLE");
    check(&File::new(F32), "output `out` is computed nowhere");
    check(&relu(99), "no tensor of a known element type");
    let mut old = relu(F32);
    old.0.opset_import[0].version = 8;
    check(&old, "operator set 8");
    let mut elsewhere = relu(F32).weight("w", F32, &[]);
    elsewhere.graph().initializer[0].data_location =
        onnx_protobuf::tensor_proto::DataLocation::EXTERNAL.into();
    check(&elsewhere, "in another file");
    for bytes in [&b""[..], b"PK\x03\x04", &[0xff; 64]] {
        assert!(audit(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn good_forms_are_taken() {
    let f32 = || File::new(F32);
    let good = [
        f32().node("a", "Gelu", "input", "out"),
        f32()
            .weight("axes", INT64, &[2; 8])
            .node("a", "ReduceMean", "input axes", "out"),
        f32().node("a", "LayerNormalization", "input input - ", "out"),
        File::new(UINT8)
            .node("a", "Cast", "input", "out")
            .int("to", 1),
        f32()
            .weight("s", F32, &[0; 4])
            .weight("z", INT8, &[0])
            .node("a", "QuantizeLinear", "input s z", "q")
            .node("b", "DequantizeLinear", "q s z", "out"),
    ];
    for file in good {
        let found = file.audit().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(found.oldest, OLDEST);
    }
    let mut new = f32().node("a", "Gelu", "input", "out");
    new.0.opset_import[0].version = 23;
    assert_eq!(new.audit().expect("taken").oldest, Version::new(10, 15));
}

/// A network with pictures as input, and one logit for each of five classes.
const GRAPH: &str = "graph net {
  %input = input : f32[BATCH, 3, 8, 8]
  %conv = conv2d(%input) [weight, bias] stride=2 padding=1 act=silu : f32[BATCH, 5, 4, 4]
  %pool = global_avg_pool(%conv) : f32[BATCH, 5]

  return logits = %pool
}

weights {
  @conv.weight : f32[5, 3, 3, 3]
  @conv.bias : f32[5]
}
";

fn bundle(batch: &str) -> Bundle {
    let mut graph = parse(&GRAPH.replace("BATCH", batch)).unwrap_or_else(|e| panic!("{e}"));
    seeded::fill(&mut graph, 0);
    let graph = graph.verify().expect("a graph");
    let memory = activation_memory(&graph, 1).expect("a graph");
    Bundle {
        name: "net".into(),
        title: "A \"net\"".into(),
        producer_version: "1.2.3".into(),
        models: vec![Model {
            precision: Precision::F32,
            onnx: onnx::emit(&graph, &onnx::Options::default()).expect("a file"),
            islands: Vec::new(),
            activation_memory: vec![(1, memory)],
        }],
        batch: match batch {
            "N" => Batch {
                min: 1,
                opt: 4,
                max: 8,
            },
            _ => Batch {
                min: 1,
                opt: 1,
                max: 1,
            },
        },
        preprocessing: plan::Preprocessing {
            color: "RGB".into(),
            resize: None,
            scale: "1/255".into(),
            mean: [0.5; 3],
            std: [0.25; 3],
            layout: "NCHW".into(),
        },
        labels: Some(["a", "b", "c", "d", "é"].map(String::from).into()),
        macs: 1,
        golden: Golden {
            input: vec![0.5; 3 * 8 * 8],
            outputs: vec![vec![1.0, 2.0, 3.0, 4.0, 5.0]],
        },
        engines: vec![Engine {
            precision: Precision::F32,
            capability: "SM86".into(),
            tensorrt_rtx: "1.7".into(),
            bytes: vec![1, 2, 3],
        }],
        provenance: vec![("weights".into(), "a|b\n<c>".into())],
    }
}

fn emitted(bundle: &Bundle) -> Vec<(String, Vec<u8>)> {
    emit(bundle).unwrap_or_else(|e| panic!("{e}"))
}

fn text<'a>(files: &'a [(String, Vec<u8>)], path: &str) -> &'a str {
    let found = files.iter().find(|(name, _)| name == path);
    std::str::from_utf8(&found.unwrap_or_else(|| panic!("no {path}")).1).expect("text")
}

#[test]
fn a_bundle_has_these_files_and_the_same_bytes_again() {
    let files = emitted(&bundle("N"));
    let names: Vec<&str> = files.iter().map(|(name, _)| &**name).collect();
    let expected = "README.md build.py build.sh engines/f32.sm86.engine golden/golden.py golden/input.f32 golden/input.npy \
                    golden/output.f32 golden/output.npy model.f32.onnx plan.json \
                    triton/net/1/model.onnx triton/net/config.pbtxt \
                    triton/net/configs/tensorrt.pbtxt triton/net/labels.txt verify.sh";
    assert_eq!(names.join(" "), expected);
    assert!(files == emitted(&bundle("N")), "the bytes differ");
    assert_eq!(text(&files, "triton/net/labels.txt"), "a\nb\nc\nd\né\n");
    let plan = Plan::parse(text(&files, PLAN).as_bytes()).unwrap_or_else(|e| panic!("{e}"));
    // The spread of 1 to 5 is the root of 2.
    assert_eq!(plan.models[0].tolerance.absolute["logits"], 1.41e-4);
    assert_eq!(plan.files.len(), files.len() - 1);
    let header =
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1, 5), }";
    let npy = &files
        .iter()
        .find(|(name, _)| name == "golden/output.npy")
        .expect("a file")
        .1;
    assert!(
        npy.starts_with(header) && npy.len() == 128 + 4 * 5,
        "{:?}",
        npy.escape_ascii().to_string()
    );
    assert!(text(&files, "README.md").contains("| weights | a\\|b &lt;c> |"));
}

#[test]
fn what_does_not_fit_is_refused() {
    let check = |change: fn(&mut Bundle), batch: &str, reason: &str| {
        let mut bundle = bundle(batch);
        change(&mut bundle);
        let fault = emit(&bundle).map(|_| ()).expect_err(reason);
        assert!(fault.to_string().contains(reason), "{reason}: {fault}");
    };
    check(
        |b| b.batch.max = 8,
        "1",
        "the model takes 1 pictures at once",
    );
    check(
        |b| b.batch.min = 5,
        "N",
        "5 to 8 pictures, best 4, is no range",
    );
    check(|b| b.batch.min = 0, "N", "is no range");
    check(
        |b| b.name = "../net".into(),
        "1",
        "cannot be named `../net`",
    );
    check(
        |b| b.labels = Some(vec!["a".into()]),
        "1",
        "1 class names do not fit",
    );
    check(
        |b| b.labels.as_mut().expect("labels")[0] = "a\nb".into(),
        "1",
        "more than one line",
    );
    check(
        |b| b.golden.outputs[0] = vec![1.0; 5],
        "1",
        "all the same, or no numbers",
    );
    check(
        |b| b.golden.outputs[0][1] = f32::NAN,
        "1",
        "all the same, or no numbers",
    );
    check(
        |b| b.golden.input.truncate(3),
        "1",
        "golden input is no batch",
    );
    check(
        |b| b.golden.outputs[0].truncate(4),
        "1",
        "`logits` has 4 values",
    );
    check(
        |b| b.models[0].precision = Precision::F16,
        "1",
        "a float32 model first",
    );
    check(
        |b| b.models.push(b.models[0].clone()),
        "1",
        "each precision once",
    );
    check(|b| b.models[0].onnx.clear(), "1", "holds no graph");
}

#[test]
fn plans_are_as_their_schema_says() {
    let schema: Value = serde_json::from_str(JSON_SCHEMA).expect("JSON");
    for batch in ["1", "N"] {
        let files = emitted(&bundle(batch));
        let mut plan: Value = serde_json::from_str(text(&files, PLAN)).expect("JSON");
        assert_eq!(schema::fault(&schema, &plan), None, "{batch}");
        plan["models"][0]["audit"][0]["since"] = "ten".into();
        let fault = schema::fault(&schema, &plan).expect("a fault");
        assert!(fault.starts_with(".models[0].audit[0].since: "), "{fault}");
        plan["models"][0]["audit"][0]["since"] = "10.0".into();
        plan["new"] = 1.into();
        assert_eq!(
            schema::fault(&schema, &plan).as_deref(),
            Some(": no property `new`")
        );
    }
}

#[test]
fn activations_are_counted_while_they_live() {
    let graph = parse(&GRAPH.replace("BATCH", "N"))
        .and_then(emoc_ir::Graph::verify)
        .expect("a graph");
    // The picture and the convolution's map live at once.
    let bytes = 4 * (3 * 8 * 8 + 5 * 4 * 4);
    assert_eq!(activation_memory(&graph, 1).expect("a number"), bytes);
    assert_eq!(activation_memory(&graph, 3).expect("a number"), 3 * bytes);
}
