//! ONNX models small enough to read, written with the protobuf messages.

use prost::Message;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType,
    tensor_proto::DataType, tensor_shape_proto, type_proto,
};

/// A dimension: a number, or 0 for the symbolic batch `N`.
pub fn value(name: &str, dtype: DataType, dims: &[i64]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let dim = |&dim: &i64| Dimension {
        value: Some(match dim {
            0 => Value::DimParam("N".into()),
            size => Value::DimValue(size),
        }),
        ..Dimension::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: dtype as i32,
        shape: Some(TensorShapeProto {
            dim: dims.iter().map(dim).collect(),
        }),
    };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

pub fn float(name: &str, dims: &[i64]) -> ValueInfoProto {
    value(name, DataType::Float, dims)
}

pub fn weights(name: &str, dims: &[i64], data: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: DataType::Float as i32,
        raw_data: data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ..TensorProto::default()
    }
}

pub fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        name: format!("node.{output}"),
        op_type: op.into(),
        input: inputs.iter().map(|&name| name.into()).collect(),
        output: vec![output.into()],
        ..NodeProto::default()
    }
}

pub fn model(
    inputs: &[ValueInfoProto],
    initializer: &[TensorProto],
    nodes: &[NodeProto],
    outputs: &[ValueInfoProto],
) -> ModelProto {
    ModelProto {
        ir_version: 9,
        opset_import: vec![OperatorSetIdProto {
            version: 20,
            ..OperatorSetIdProto::default()
        }],
        graph: Some(GraphProto {
            name: "test".into(),
            input: inputs.to_vec(),
            initializer: initializer.to_vec(),
            node: nodes.to_vec(),
            output: outputs.to_vec(),
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    }
}

pub fn bytes(model: &ModelProto) -> Vec<u8> {
    model.encode_to_vec()
}

/// `input` [N, 2] -> `stage1` = relu(input) -> `logits` [N, 3] = stage1 w + b.
pub fn two_layers() -> ModelProto {
    let w = weights("w", &[2, 3], &[1.0, 2.0, 3.0, 10.0, 20.0, 30.0]);
    let b = weights("b", &[3], &[0.5, 0.25, 0.125]);
    let nodes = [
        node("Relu", &["input"], "stage1"),
        node("Gemm", &["stage1", "w", "b"], "logits"),
    ];
    let outputs = [float("stage1", &[0, 2]), float("logits", &[0, 3])];
    let mut model = model(&[float("input", &[0, 2])], &[w, b], &nodes, &outputs);
    // What exporters write down about inner values speaks of the symbolic batch.
    let graph = model.graph.as_mut().unwrap();
    graph.value_info = vec![float("stage1", &[0, 2])];
    model
}

/// `a` [2], `b` [2] -> `difference` = a - b, `sum` = a + b.
pub fn two_inputs() -> ModelProto {
    let nodes = [
        node("Sub", &["a", "b"], "difference"),
        node("Add", &["a", "b"], "sum"),
    ];
    let outputs = [float("difference", &[2]), float("sum", &[2])];
    model(&[float("a", &[2]), float("b", &[2])], &[], &nodes, &outputs)
}

/// One operator on `input` [2].
pub fn one(node: NodeProto, output: ValueInfoProto) -> ModelProto {
    model(&[float("input", &[2])], &[], &[node], &[output])
}

/// `input` is compared with zero and the branch taken: control flow.
pub fn control_flow() -> ModelProto {
    let mut branch = node("If", &["condition"], "logits");
    branch.attribute = vec![AttributeProto {
        name: "then_branch".into(),
        r#type: AttributeType::Graph as i32,
        g: two_inputs().graph,
        ..AttributeProto::default()
    }];
    one(branch, float("logits", &[2]))
}

/// Weights that claim to be in `/etc/passwd`.
pub fn external_weights() -> ModelProto {
    let mut model = two_layers();
    let entry = |key: &str, value: &str| StringStringEntryProto {
        key: key.into(),
        value: value.into(),
    };
    let w = &mut model.graph.as_mut().unwrap().initializer[0];
    w.raw_data.clear();
    w.data_location = Some(1);
    w.external_data = vec![entry("location", "../../../../etc/passwd")];
    model
}

/// Zeros of a shape that the file makes up: `side` x `side`.
pub fn zeros(side: i64) -> ModelProto {
    let mut shape = weights("shape", &[2], &[]);
    shape.data_type = DataType::Int64 as i32;
    shape.raw_data = [side, side]
        .into_iter()
        .flat_map(i64::to_le_bytes)
        .collect();
    let nodes = [
        node("ConstantOfShape", &["shape"], "zeros"),
        node("ReduceSum", &["zeros"], "total"),
        node("Add", &["input", "total"], "logits"),
    ];
    model(
        &[float("input", &[1, 2])],
        &[shape],
        &nodes,
        &[float("logits", &[1, 2])],
    )
}
