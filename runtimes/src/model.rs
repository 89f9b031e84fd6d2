//! The gate in front of every runtime: an ONNX file is decoded once, and what a runtime would
//! answer with a panic, an endless loop or an allocation of any size is refused here.
//!
//! The file may come from anywhere (`emoc check FILE`). Runtimes are built for trusted models:
//! tract indexes a map with an output's name, and both run `Loop` for as long as the file says.

use std::collections::BTreeSet;

use emoc_ir::{Diagnostic, Result};
use tract_onnx::{
    pb::{
        GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto,
        tensor_proto::{DataLocation, DataType},
        tensor_shape_proto::dimension,
        type_proto,
    },
    tract_core::prelude::Framework,
};

use crate::{InputFact, tensor::volume};

/// Protobuf's own limit for one message.
const MAX_BYTES: usize = 1 << 31;

/// PyTorch's export of the largest variant has 6000 nodes; more than this only costs time.
const MAX_NODES: usize = 100_000;

/// A decoded ONNX model that is safe to hand to a runtime.
pub struct OnnxModel<'a> {
    bytes: &'a [u8],
    proto: ModelProto,
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
}

/// A graph input or output as the file declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueInfo {
    /// The name.
    pub name: String,
    /// The element type as ONNX spells it, such as `FLOAT`.
    pub dtype: String,
    /// One entry per dimension, none for a symbolic one; none if the file does not say.
    pub shape: Option<Vec<Option<usize>>>,
}

impl<'a> OnnxModel<'a> {
    /// Decodes `bytes`.
    ///
    /// # Errors
    /// When they are no ONNX model, or one with control flow (`If`, `Loop`, `Scan`), weights in
    /// other files, weights smaller than their shape, or outputs that no node produces.
    pub fn read(bytes: &'a [u8]) -> Result<Self> {
        let not_onnx = |why: String| {
            Diagnostic::input(format!("this is not an ONNX model: {why}"))
                .help("give a complete .onnx file, such as `emoc compile --target onnx` writes")
        };
        if bytes.len() > MAX_BYTES {
            return Err(not_onnx(format!("{} bytes, over 2 GiB", bytes.len())));
        }
        let proto = tract_onnx::onnx()
            .proto_model_for_read(&mut &*bytes)
            .map_err(|error| not_onnx(error.to_string()))?;
        let graph = proto
            .graph
            .as_ref()
            .filter(|graph| !graph.node.is_empty())
            .ok_or_else(|| not_onnx("it holds no graph".into()))?;
        if graph.node.len() > MAX_NODES {
            let count = graph.node.len();
            return Err(Diagnostic::input(format!(
                "the graph has {count} nodes, over the limit of {MAX_NODES}"
            )));
        }
        let functions = proto.functions.iter().flat_map(|function| &function.node);
        for node in graph.node.iter().chain(functions) {
            check_node(node, bytes.len())?;
        }
        for tensor in &graph.initializer {
            check_tensor(tensor, bytes.len())?;
        }
        check_outputs(graph)?;

        let constants: BTreeSet<_> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
        let inputs = graph
            .input
            .iter()
            .filter(|input| !constants.contains(input.name.as_str()))
            .map(value_info)
            .collect();
        let outputs = graph.output.iter().map(value_info).collect();
        Ok(Self {
            bytes,
            proto,
            inputs,
            outputs,
        })
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// The inputs that a run must be given, in the file's order (initializers left out).
    pub fn inputs(&self) -> &[ValueInfo] {
        &self.inputs
    }

    /// The outputs in the file's order.
    pub fn outputs(&self) -> &[ValueInfo] {
        &self.outputs
    }

    /// Whether a node has this name.
    pub(crate) fn has_node(&self, name: &str) -> bool {
        let graph = self.proto.graph.iter();
        graph
            .flat_map(|graph| &graph.node)
            .any(|node| node.name == name)
    }

    pub(crate) fn proto(&self) -> &ModelProto {
        &self.proto
    }

    /// Checks that `facts` names every input once, with a shape the model accepts, and returns
    /// them in the model's order. All faults are reported together.
    pub(crate) fn order_inputs(&self, facts: &[InputFact]) -> Result<Vec<InputFact>> {
        let mut faults = Vec::new();
        let mut ordered = Vec::new();
        for input in &self.inputs {
            let mut named = facts.iter().filter(|fact| fact.name == input.name);
            match (named.next(), named.next()) {
                (None, _) => faults.push(format!("`{}` is missing", input.name)),
                (Some(_), Some(_)) => faults.push(format!("`{}` is given twice", input.name)),
                (Some(fact), None) => {
                    faults.extend(input.refuses(&fact.shape));
                    ordered.push(fact.clone());
                }
            }
        }
        let known = |fact: &&InputFact| self.inputs.iter().all(|input| input.name != fact.name);
        for fact in facts.iter().filter(known) {
            faults.push(format!("`{}` is no input of the model", fact.name));
        }
        if faults.is_empty() {
            return Ok(ordered);
        }
        let error = Diagnostic::input("the model's inputs are not those of this run");
        Err(faults.into_iter().fold(error, Diagnostic::detail))
    }
}

impl ValueInfo {
    /// Why a float32 tensor of this shape cannot be this input.
    fn refuses(&self, shape: &[usize]) -> Option<String> {
        let Self { name, dtype, .. } = self;
        if dtype != "FLOAT" {
            return Some(format!(
                "`{name}` has type {dtype}; only FLOAT can be checked"
            ));
        }
        if volume(shape).is_none_or(|n| n == 0) {
            return Some(format!("`{name}` cannot have shape {shape:?}"));
        }
        let declared = self.shape.as_ref()?;
        let fits = declared.len() == shape.len()
            && declared
                .iter()
                .zip(shape)
                .all(|(dim, given)| dim.is_none_or(|dim| dim == *given));
        let declared: Vec<_> = declared
            .iter()
            .map(|dim| dim.map_or("?".into(), |dim| dim.to_string()))
            .collect();
        (!fits).then(|| {
            let declared = declared.join(", ");
            format!("`{name}` has shape [{declared}] in the model and {shape:?} in this run")
        })
    }
}

fn check_node(node: &NodeProto, file_size: usize) -> Result<()> {
    for attribute in &node.attribute {
        if attribute.g.is_some() || !attribute.graphs.is_empty() {
            return Err(Diagnostic::input(format!(
                "`{}` carries a subgraph: control flow is not run, since it may never end",
                node.op_type
            ))
            .node(node_name(node)));
        }
        for tensor in attribute.t.iter().chain(&attribute.tensors) {
            check_tensor(tensor, file_size).map_err(|error| error.node(node_name(node)))?;
        }
    }
    Ok(())
}

/// The node's name; exporters may leave it empty, its first output then stands for it.
fn node_name(node: &NodeProto) -> &str {
    match node.output.first() {
        Some(output) if node.name.is_empty() => output,
        _ => &node.name,
    }
}

fn check_tensor(tensor: &TensorProto, file_size: usize) -> Result<()> {
    let refuse = |why: String| Err(Diagnostic::input(why).key(&tensor.name));
    if tensor.data_location == Some(DataLocation::External as i32)
        || !tensor.external_data.is_empty()
    {
        return refuse("the weights are in another file, which is not read".into())
            .map_err(|error| error.help("save the model with its weights inside (one file)"));
    }
    let values = tensor
        .dims
        .iter()
        .map(|&dim| usize::try_from(dim).ok())
        .collect::<Option<Vec<_>>>()
        .and_then(|dims| volume(&dims));
    // The narrowest ONNX types put two values into a byte.
    if values.is_none_or(|values| values > file_size.saturating_mul(2)) {
        return refuse(format!(
            "shape {:?} is larger than the whole file",
            tensor.dims
        ));
    }
    Ok(())
}

fn check_outputs(graph: &GraphProto) -> Result<()> {
    if graph.output.is_empty() {
        return Err(Diagnostic::input("the graph has no outputs"));
    }
    let produced: BTreeSet<&str> = graph
        .node
        .iter()
        .flat_map(|node| &node.output)
        .chain(graph.input.iter().map(|input| &input.name))
        .chain(graph.initializer.iter().map(|tensor| &tensor.name))
        .map(String::as_str)
        .collect();
    let mut seen = BTreeSet::new();
    for output in &graph.output {
        let name = output.name.as_str();
        if !produced.contains(name) {
            return Err(Diagnostic::input(format!(
                "no node produces output `{name}`"
            )));
        }
        if !seen.insert(name) {
            return Err(Diagnostic::input(format!(
                "output `{name}` is listed twice"
            )));
        }
    }
    Ok(())
}

fn value_info(value: &ValueInfoProto) -> ValueInfo {
    let tensor = value.r#type.as_ref().and_then(|kind| kind.value.as_ref());
    let tensor = tensor.map(|type_proto::Value::TensorType(tensor)| tensor);
    let dtype = tensor.map_or("UNDEFINED".into(), |tensor| {
        match DataType::try_from(tensor.elem_type) {
            Ok(dtype) => dtype.as_str_name().to_owned(),
            Err(_) => format!("number {}", tensor.elem_type),
        }
    });
    let shape = tensor
        .and_then(|tensor| tensor.shape.as_ref())
        .map(|shape| {
            let fixed = |dim: &Option<dimension::Value>| match dim {
                Some(dimension::Value::DimValue(size)) => usize::try_from(*size).ok(),
                _ => None,
            };
            shape.dim.iter().map(|dim| fixed(&dim.value)).collect()
        });
    ValueInfo {
        name: value.name.clone(),
        dtype,
        shape,
    }
}
