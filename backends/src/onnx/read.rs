//! Reading emitted files back: what they say about themselves, and their weights.
//!
//! Only the messages that emoc writes are decoded; a file of another program loses the rest.

use std::collections::BTreeMap;

use emoc_ir::{Diagnostic, Result};
use prost::Message;

use super::proto::{DataType, GraphProto, ModelProto, NodeProto, TensorProto};

/// What an ONNX file says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The program that wrote it.
    pub producer: String,
    /// That program's version.
    pub producer_version: String,
    /// The graph's name.
    pub name: String,
    /// Version of ONNX's own operator set; 0 if the file does not say.
    pub opset: i64,
    /// Nodes of the graph.
    pub nodes: usize,
    /// Elements of its float32 initializers.
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

/// Reads what a file says about itself.
///
/// # Errors
/// The bytes are no ONNX file.
pub fn describe(bytes: &[u8]) -> Result<Description> {
    let (model, graph) = decode(bytes)?;
    let float = |tensor: &&TensorProto| tensor.data_type == i32::from(DataType::Float);
    let parameters = graph.initializer.iter().filter(float);
    let elements = |tensor: &TensorProto| {
        let sizes = tensor.dims.iter().map(|&size| u64::try_from(size).unwrap_or(0));
        sizes.fold(1, u64::saturating_mul)
    };
    let own = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    let mut opsets = model.opset_import.iter();
    Ok(Description {
        producer: model.producer_name,
        producer_version: model.producer_version,
        name: graph.name,
        opset: opsets
            .find(|set| own(&set.domain))
            .map_or(0, |set| set.version),
        nodes: graph.node.len(),
        parameters: parameters.map(elements).fold(0, u64::saturating_add),
        metadata: model
            .metadata_props
            .into_iter()
            .map(|row| (row.key, row.value))
            .collect(),
    })
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
    let mut model = ModelProto::decode(bytes)
        .map_err(|error| Diagnostic::input(format!("this is not an ONNX model: {error}")))?;
    let graph = model.graph.take();
    let graph = graph.ok_or_else(|| Diagnostic::input("the ONNX model holds no graph"))?;
    Ok((model, graph))
}
