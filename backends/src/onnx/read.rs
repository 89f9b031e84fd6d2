//! Reading emitted files back: what they say about themselves, and their weights.
//!
//! Only the messages that emoc writes are decoded; a file of another program loses the rest.

use std::collections::BTreeMap;

use emoc_ir::{Diagnostic, Result};
use prost::Message;

use super::proto::{
    DataType, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto,
};

/// What an ONNX file says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The program that wrote it.
    pub producer: String,
    /// That program's version.
    pub producer_version: String,
    /// Version of ONNX's own operator set; 0 if the file does not say.
    pub opset: i64,
    /// Nodes of the graph.
    pub nodes: usize,
    /// How many of them each operator has. Operators of other domains have those before their
    /// names: `com.microsoft.Gelu`.
    pub operators: BTreeMap<String, usize>,
    /// Elements of its floating-point initializers.
    pub parameters: u64,
    /// Metadata in the file's order.
    pub metadata: Vec<(String, String)>,
}

impl Description {
    /// The value of a metadata key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let mut rows = self.metadata.iter();
        rows.find_map(|(found, value)| (found == key).then_some(&**value))
    }
}

/// Reads what a file says about itself; weights are passed over, not copied.
///
/// # Errors
/// The bytes are no ONNX file.
pub fn describe(bytes: &[u8]) -> Result<Description> {
    let model = ModelHead::decode(bytes).map_err(|error| not_onnx(&error))?;
    let graph = model.graph.ok_or_else(no_graph)?;
    let floats = [DataType::Float, DataType::Float16].map(i32::from);
    let float = |tensor: &&TensorHead| floats.contains(&tensor.data_type);
    let elements = |tensor: &TensorHead| {
        let sizes = tensor
            .dims
            .iter()
            .map(|&size| u64::try_from(size).unwrap_or(0));
        sizes.fold(1, u64::saturating_mul)
    };
    let parameters = graph.initializer.iter().filter(float).map(elements);
    let metadata = model.metadata_props.into_iter();
    let mut operators = BTreeMap::new();
    for node in &graph.node {
        *operators.entry(node.operator()).or_default() += 1;
    }
    Ok(Description {
        producer: model.producer_name,
        producer_version: model.producer_version,
        opset: own_opset(&model.opset_import),
        nodes: graph.node.len(),
        operators,
        parameters: parameters.fold(0, u64::saturating_add),
        metadata: metadata.map(|row| (row.key, row.value)).collect(),
    })
}

/// [`ModelProto`] without what [`describe`] does not look at.
#[derive(Clone, PartialEq, Message)]
struct ModelHead {
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphHead>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetIdProto>,
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<StringStringEntryProto>,
}

#[derive(Clone, PartialEq, Message)]
struct GraphHead {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeHead>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorHead>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeHead {
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(string, tag = "7")]
    domain: String,
}

impl NodeHead {
    fn operator(&self) -> String {
        match &*self.domain {
            "" | "ai.onnx" => self.op_type.clone(),
            domain => format!("{domain}.{}", self.op_type),
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct TensorHead {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
}

/// `structure` with the weights of `weights`: both emitted from the same graph, but `structure`
/// with the ends of blocks as further outputs. So a file is looked into although its own outputs
/// are fixed, and although its weights may have been changed since.
///
/// # Errors
/// The bytes are no ONNX files, or have other nodes or weights of other shapes.
pub fn with_weights_of(structure: &[u8], weights: &[u8]) -> Result<Vec<u8>> {
    let (mut model, mut graph) = decode(structure)?;
    let (_, other) = decode(weights)?;
    let nodes: BTreeMap<&str, &NodeProto> = by_name(&graph.node, |node| &node.name);
    for node in &other.node {
        let same = nodes.get(&*node.name).is_some_and(|found| {
            found.op_type == node.op_type && found.attribute == node.attribute
        });
        if !same {
            return Err(different().node(&node.name));
        }
    }
    let mut tensors: BTreeMap<&str, &TensorProto> = by_name(&other.initializer, |t| &t.name);
    for tensor in &mut graph.initializer {
        let Some(found) = tensors.remove(&*tensor.name) else {
            continue;
        };
        if (&found.dims, found.data_type) != (&tensor.dims, tensor.data_type) {
            return Err(different().key(&tensor.name));
        }
        tensor.raw_data.clone_from(&found.raw_data);
    }
    if let Some((name, _)) = tensors.first_key_value() {
        return Err(different().key(*name));
    }
    model.graph = Some(graph);
    Ok(model.encode_to_vec())
}

fn by_name<T>(items: &[T], name: impl Fn(&T) -> &String) -> BTreeMap<&str, &T> {
    let named = items.iter().map(|item| (name(item).as_str(), item));
    named.collect()
}

fn different() -> Box<Diagnostic> {
    Diagnostic::input("the file is not what this emoc emits for this network")
        .help("compile it again with this version of emoc")
}

fn decode(bytes: &[u8]) -> Result<(ModelProto, GraphProto)> {
    let mut model = ModelProto::decode(bytes).map_err(|error| not_onnx(&error))?;
    let graph = model.graph.take().ok_or_else(no_graph)?;
    Ok((model, graph))
}

/// Version of ONNX's own operator set; 0 if the file does not say.
pub(super) fn own_opset(sets: &[OperatorSetIdProto]) -> i64 {
    let own = |set: &&OperatorSetIdProto| matches!(&*set.domain, "" | "ai.onnx");
    sets.iter().find(own).map_or(0, |set| set.version)
}

pub(super) fn not_onnx(error: &prost::DecodeError) -> Box<Diagnostic> {
    Diagnostic::input(format!("this is not an ONNX model: {error}"))
}

pub(super) fn no_graph() -> Box<Diagnostic> {
    Diagnostic::input("the ONNX model holds no graph")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{Options, emit};

    /// Every node scales its input by a weight.
    const GRAPH: &str = "graph g {
  %input = input : f32[1, 2, 3, 3]
  %stage1.0.a = layer_scale(%input) [gamma] : f32[1, 2, 3, 3]
  %stage1.1.b = layer_scale(%stage1.0.a) [gamma] : f32[1, 2, 3, 3]

  return out = %stage1.1.b
}

weights {
  @stage1.0.a.gamma : f32[1, 2, 1, 1]
  @stage1.1.b.gamma : f32[1, 2, 1, 1]
}
";

    fn emitted(gamma: f32, block_outputs: bool) -> Vec<u8> {
        let mut graph = emoc_ir::parse(GRAPH).expect("a graph");
        for key in ["stage1.0.a.gamma", "stage1.1.b.gamma"] {
            let weight = emoc_ir::Weight::owned(&[1, 2, 1, 1], vec![gamma; 2]);
            graph.weights.insert(key, weight);
        }
        let options = Options {
            block_outputs,
            metadata: vec![("window".into(), "7".into())],
            ..Options::default()
        };
        emit(&graph.verify().expect("well-formed"), &options).expect("bytes")
    }

    #[test]
    fn a_file_describes_itself() {
        let found = describe(&emitted(1.0, false)).expect("a description");
        assert_eq!(found.producer, "emoc");
        assert_eq!(found.opset, 20);
        assert_eq!(found.nodes, 2);
        assert_eq!(found.operators, [("Mul".to_owned(), 2)].into());
        assert_eq!(found.parameters, 4);
        assert_eq!(found.get("window"), Some("7"));
        assert_eq!(found.get("labels"), None);
        for bytes in [&b""[..], b"\x08\x09", b"PK\x03\x04", &[0xff; 64]] {
            assert!(describe(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn weights_move_between_files_of_one_graph() {
        let mixed = with_weights_of(&emitted(1.0, true), &emitted(2.0, false));
        assert_eq!(mixed.expect("the same graph"), emitted(2.0, true));
        let other = GRAPH.replace("f32[1, 2,", "f32[1, 3,");
        let mut graph = emoc_ir::parse(&other).expect("a graph");
        for key in ["stage1.0.a.gamma", "stage1.1.b.gamma"] {
            graph
                .weights
                .insert(key, emoc_ir::Weight::owned(&[1, 3, 1, 1], vec![1.0; 3]));
        }
        let wider = emit(&graph.verify().expect("well-formed"), &Options::default());
        let fault = with_weights_of(&emitted(1.0, true), &wider.expect("bytes"));
        let fault = fault.expect_err("another shape");
        assert!(fault.message.starts_with("the file is not what"), "{fault}");
    }
}
