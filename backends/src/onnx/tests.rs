//! Emitted bytes, read back by an implementation of the format that shares no code with ours.
//!
//! `cases.emir` holds small graphs under headings `=== <what>`; the end-to-end tests run the
//! same graphs in runtimes.

use std::collections::BTreeSet;

use emoc_ir::{Verified, parse, seeded};
use onnx_protobuf::{self as other, Message as _, tensor_shape_proto::dimension, type_proto};
use prost::Message as _;

use super::{MAX_RANK, OPSETS, Options, emit, proto};

/// Every case with the seeded values of its weights.
fn cases() -> Vec<(String, Verified)> {
    let text = include_str!("cases.emir");
    let cases = text.split("\n=== ").skip(1).map(|case| {
        let (name, body) = case.split_once('\n').expect("a graph under the heading");
        let graph = filled(body).unwrap_or_else(|e| panic!("{name}: {e}"));
        (name.to_string(), graph)
    });
    cases.collect()
}

fn filled(text: &str) -> emoc_ir::Result<Verified> {
    let mut graph = parse(text)?;
    seeded::fill(&mut graph, 0);
    graph.verify()
}

fn case(wanted: &str) -> Verified {
    let cases = cases().into_iter();
    let mut named = cases.filter(|(name, _)| name == wanted);
    named.next().expect("a case of this name").1
}

fn options(opset: u32) -> Options {
    Options {
        opset,
        block_outputs: true,
        metadata: vec![
            ("z".into(), "last letter first".into()),
            ("a".into(), "é".into()),
        ],
        producer_version: "1.2.3".into(),
        ..Options::default()
    }
}

/// Calls `check` with every case emitted in every operator set.
fn for_each_file(check: impl Fn(&str, &Verified, u32, &[u8])) {
    for (name, graph) in cases() {
        for (opset, _) in OPSETS {
            let bytes = emit(&graph, &options(opset)).unwrap_or_else(|e| panic!("{name}: {e}"));
            check(&format!("{name}, opset {opset}"), &graph, opset, &bytes);
        }
    }
}

#[test]
fn another_reader_finds_every_field() {
    for_each_file(|what, _, _, bytes| {
        let ours = proto::ModelProto::decode(bytes).expect("our own bytes");
        let theirs = other::ModelProto::parse_from_bytes(bytes);
        let theirs = theirs.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(ours, converted(&theirs), "{what}");
        // Nothing else is set: encoded again it has the same size, but for the zeros of
        // attributes (tag and value), which the other implementation leaves out.
        let size = theirs.compute_size() + 2 * zeros(&ours);
        assert_eq!(size, bytes.len() as u64, "{what}: a field is lost or added");
        assert!(!has_unknown_fields(&theirs), "{what}: unknown fields");
    });
}

/// How many integer attributes are zero.
fn zeros(model: &proto::ModelProto) -> u64 {
    let nodes = model.graph.iter().flat_map(|graph| &graph.node);
    let attributes = nodes.flat_map(|node| &node.attribute);
    attributes
        .filter(|attribute| attribute.i == Some(0))
        .count() as u64
}

fn has_unknown_fields(model: &other::ModelProto) -> bool {
    let unknown =
        |fields: &protobuf::SpecialFields| fields.unknown_fields().iter().next().is_some();
    let nodes = model.graph.node.iter();
    let attributes = nodes.clone().flat_map(|node| &node.attribute);
    let tensors = model.graph.initializer.iter();
    unknown(&model.special_fields)
        || unknown(&model.graph.special_fields)
        || nodes.map(|n| &n.special_fields).any(unknown)
        || attributes.map(|a| &a.special_fields).any(unknown)
        || tensors.map(|t| &t.special_fields).any(unknown)
}

/// The same message in our structs.
fn converted(model: &other::ModelProto) -> proto::ModelProto {
    let graph = &model.graph;
    proto::ModelProto {
        ir_version: model.ir_version,
        producer_name: model.producer_name.clone(),
        producer_version: model.producer_version.clone(),
        graph: Some(proto::GraphProto {
            node: graph.node.iter().map(node).collect(),
            name: graph.name.clone(),
            initializer: graph.initializer.iter().map(tensor).collect(),
            input: graph.input.iter().map(value_info).collect(),
            output: graph.output.iter().map(value_info).collect(),
        }),
        opset_import: model.opset_import.iter().map(opset).collect(),
        metadata_props: model.metadata_props.iter().map(entry).collect(),
    }
}

fn opset(opset: &other::OperatorSetIdProto) -> proto::OperatorSetIdProto {
    proto::OperatorSetIdProto {
        domain: opset.domain.clone(),
        version: opset.version,
    }
}

fn entry(entry: &other::StringStringEntryProto) -> proto::StringStringEntryProto {
    proto::StringStringEntryProto {
        key: entry.key.clone(),
        value: entry.value.clone(),
    }
}

fn node(node: &other::NodeProto) -> proto::NodeProto {
    proto::NodeProto {
        input: node.input.clone(),
        output: node.output.clone(),
        name: node.name.clone(),
        op_type: node.op_type.clone(),
        attribute: node.attribute.iter().map(attribute).collect(),
    }
}

fn attribute(attribute: &other::AttributeProto) -> proto::AttributeProto {
    let (mut f, mut i) = (None, None);
    match attribute.as_value() {
        other::AttributeValue::Float32(value) => f = Some(value),
        other::AttributeValue::Integer64(value) => i = Some(value),
        other::AttributeValue::Integer64s(_) => {}
        _ => panic!("`{}` is of a type that is never emitted", attribute.name),
    }
    proto::AttributeProto {
        name: attribute.name.clone(),
        f,
        i,
        ints: attribute.ints.clone(),
        r#type: attribute.type_.value(),
    }
}

fn tensor(tensor: &other::TensorProto) -> proto::TensorProto {
    proto::TensorProto {
        dims: tensor.dims.clone(),
        data_type: tensor.data_type,
        name: tensor.name.clone(),
        raw_data: tensor.raw_data.clone(),
    }
}

fn value_info(info: &other::ValueInfoProto) -> proto::ValueInfoProto {
    let Some(type_proto::Value::TensorType(tensor)) = &info.type_.value else {
        panic!("`{}` is no tensor", info.name);
    };
    let dim = |dim: &other::tensor_shape_proto::Dimension| proto::DimensionProto {
        value: dim.value.as_ref().map(|value| match value {
            dimension::Value::DimValue(size) => proto::Dimension::Value(*size),
            dimension::Value::DimParam(name) => proto::Dimension::Param(name.clone()),
            _ => panic!("a dimension that is neither size nor name"),
        }),
    };
    proto::ValueInfoProto {
        name: info.name.clone(),
        r#type: Some(proto::TypeProto {
            tensor_type: Some(proto::TensorTypeProto {
                elem_type: tensor.elem_type,
                shape: Some(proto::TensorShapeProto {
                    dim: tensor.shape.dim.iter().map(dim).collect(),
                }),
            }),
        }),
    }
}

#[test]
fn files_are_well_formed() {
    for_each_file(|what, graph, opset, bytes| {
        let model = other::ModelProto::parse_from_bytes(bytes).expect("an ONNX file");
        let ir_version = OPSETS.iter().find(|row| row.0 == opset).expect("a row").1;
        assert_eq!(model.ir_version, ir_version, "{what}");
        let sets: Vec<_> = model
            .opset_import
            .iter()
            .map(|s| (&*s.domain, s.version))
            .collect();
        assert_eq!(sets, [("", i64::from(opset))], "{what}");
        let metadata: Vec<_> = model
            .metadata_props
            .iter()
            .map(|e| (&*e.key, &*e.value))
            .collect();
        assert_eq!(metadata, [("z", "last letter first"), ("a", "é")], "{what}");
        assert_eq!(
            (&*model.producer_name, &*model.producer_version),
            ("emoc", "1.2.3")
        );
        check_names(what, graph, &model.graph);
        check_ranks(what, &model.graph);
    });
}

/// Every tensor is defined once and before it is read; nodes are named after the graph's.
fn check_names(what: &str, graph: &Verified, onnx: &other::GraphProto) {
    let mut tensors = BTreeSet::new();
    let weights = onnx.initializer.iter().map(|tensor| &tensor.name);
    for name in onnx.input.iter().map(|input| &input.name).chain(weights) {
        assert!(tensors.insert(name), "{what}: `{name}` is defined twice");
    }
    let mut nodes = BTreeSet::new();
    for node in &onnx.node {
        assert!(
            nodes.insert(&node.name),
            "{what}: two nodes `{}`",
            node.name
        );
        assert_eq!(node.domain, "", "{what}: {}", node.name);
        for input in &node.input {
            assert!(
                tensors.contains(input),
                "{what}: {} reads `{input}`",
                node.name
            );
        }
        for output in &node.output {
            assert!(
                tensors.insert(output),
                "{what}: `{output}` is defined twice"
            );
        }
        let own = |id| {
            let name = &graph.node(id).name;
            let rest = node.name.strip_prefix(name.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '_']))
        };
        let copies = node.op_type == "Identity";
        assert!(
            copies || graph.ids().any(own),
            "{what}: a node `{}`",
            node.name
        );
    }
    let outputs: Vec<_> = onnx.output.iter().map(|output| &output.name).collect();
    for output in &outputs {
        assert!(
            tensors.contains(output),
            "{what}: nothing computes `{output}`"
        );
    }
    let declared: Vec<_> = graph.outputs().iter().map(|output| &output.name).collect();
    assert_eq!(outputs[..declared.len()], declared, "{what}");
    for weight in &onnx.initializer {
        let read = |node: &other::NodeProto| node.input.contains(&weight.name);
        assert!(
            onnx.node.iter().any(read),
            "{what}: unused `{}`",
            weight.name
        );
    }
}

/// Operators that change the number of axes say how many there are afterwards.
fn check_ranks(what: &str, onnx: &other::GraphProto) {
    for tensor in &onnx.initializer {
        assert!(tensor.dims.len() <= MAX_RANK, "{what}: {}", tensor.name);
        let bytes = if tensor.data_type == 7 { 8 } else { 4 };
        let elements = tensor.dims.iter().product::<i64>() as usize;
        assert_eq!(
            tensor.raw_data.len(),
            bytes * elements,
            "{what}: {}",
            tensor.name
        );
    }
    for node in &onnx.node {
        let rank = match &*node.op_type {
            "Reshape" => {
                let mut tensors = onnx.initializer.iter();
                let shape = tensors.find(|tensor| tensor.name == node.input[1]);
                shape.expect("a constant shape").dims[0] as usize
            }
            "Transpose" => node.attribute[0].ints.len(),
            _ => continue,
        };
        assert!(rank <= MAX_RANK, "{what}: {} has {rank} axes", node.name);
    }
}

#[test]
fn equal_graphs_give_equal_bytes() {
    for (name, graph) in cases() {
        let first = emit(&graph, &options(20)).expect("a file");
        let mut again = parse(&graph.to_string()).expect("printed text");
        for (key, weight) in graph.weights.iter() {
            again.weights.insert(key, weight.clone());
        }
        let again = again.verify().expect("the same graph");
        let second = emit(&again, &options(20)).expect("a file");
        assert!(first == second, "{name}: the bytes differ");
    }
}

#[test]
fn a_symbolic_batch_is_a_named_dimension() {
    let bytes = emit(&case("the blocks of a stage, many pictures"), &options(20)).expect("a file");
    let model = other::ModelProto::parse_from_bytes(&bytes).expect("an ONNX file");
    for info in model.graph.input.iter().chain(&model.graph.output) {
        let batch = &value_info(info)
            .r#type
            .unwrap()
            .tensor_type
            .unwrap()
            .shape
            .unwrap()
            .dim[0];
        let name = proto::Dimension::Param("N".into());
        assert_eq!(batch.value, Some(name), "{}", info.name);
    }
}

#[test]
fn options_that_cannot_be_met_are_refused() {
    let check = |options: Options, expected: &str| {
        let error = emit(&case("pad, split and crop"), &options).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
    };
    for opset in [0, 16, 24] {
        check(options(opset), "choose one from 17 to 23");
    }
    let max_rank = Some(3);
    let low = Options {
        max_rank,
        ..options(20)
    };
    check(low, "images have 4");
    let max_rank = Some(MAX_RANK);
    let fits = Options {
        max_rank,
        ..options(20)
    };
    assert!(emit(&case("pad, split and crop"), &fits).is_ok());
}

#[test]
fn weights_without_elements_are_refused() {
    let text = "graph g {
        %input = input : f32[1, 2, 3, 3]
        %conv = conv2d(%input) [weight] : f32[1, 2, 3, 3]
        return out = %conv
    }
    weights {
        @conv.weight : f32[2, 2, 1, 1]
    }";
    let graph = parse(text)
        .and_then(emoc_ir::Graph::verify)
        .expect("a graph");
    let error = emit(&graph, &options(20)).expect_err("no elements");
    assert_eq!(error.key.as_deref(), Some("conv.weight"), "{error}");
    assert_eq!(error.node.as_deref(), Some("conv"), "{error}");
}

#[test]
fn a_name_for_both_an_input_and_an_output_is_refused() {
    let text = "graph g {
        %input = input : f32[1, 2, 3, 3]
        %act = silu(%input) : f32[1, 2, 3, 3]
        return input = %act
    }";
    let graph = parse(text)
        .and_then(emoc_ir::Graph::verify)
        .expect("a graph");
    let error = emit(&graph, &options(20)).expect_err("an ambiguous name");
    assert!(
        error.to_string().contains("both an input and an output"),
        "{error}"
    );
}
