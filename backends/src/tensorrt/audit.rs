//! The operator audit: whether TensorRT's ONNX parser takes a file, node by node.
//!
//! It is stricter than the parser in one point: a form or type that cannot be judged is refused.

use std::collections::BTreeMap;

use emoc_ir::{Diagnostic, Result};

use super::operators::{Condition, Support, TABLE, Version};
use crate::onnx::outline::{AttributeOutline, NodeOutline, Outline, TensorOutline, edge};

/// The oldest TensorRT that a bundle is for: the first that builds strongly typed networks of
/// operator set 20.
pub const OLDEST: Version = Version::new(10, 0);

/// The newest major version that a bundle is written for.
pub const NEWEST_MAJOR: u32 = 11;

/// What TensorRT makes of a file that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// Version of ONNX's operator set.
    pub opset: i64,
    /// The oldest TensorRT that takes the file.
    pub oldest: Version,
    /// Inputs in the file's order.
    pub inputs: Vec<Edge>,
    /// Outputs in the file's order.
    pub outputs: Vec<Edge>,
    /// Nodes in the file's order.
    pub nodes: Vec<AuditedNode>,
}

/// An input or output of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Its name.
    pub name: String,
    /// Element type as TensorRT's documentation spells it, such as `FP32`.
    pub dtype: &'static str,
    /// Sizes, or names of symbolic ones.
    pub shape: Vec<Result<i64, String>>,
}

/// A node that is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditedNode {
    /// Its name; that of its first output if it has none.
    pub name: String,
    /// ONNX's name for what it computes.
    pub operator: String,
    /// Element type of its data.
    pub dtype: &'static str,
    /// The first TensorRT that takes it.
    pub since: Version,
    /// What the operator's restrictions are, all of which are met.
    pub note: &'static str,
}

/// Judges a file.
///
/// # Errors
/// The bytes are no ONNX file, or TensorRT does not take it: the first such node, its operator
/// and the reason, and the number of others.
pub fn audit(onnx: &[u8]) -> Result<Audit> {
    let outline = Outline::read(onnx)?;
    let opset = TABLE.opset(outline.opset).ok_or_else(|| {
        let (first, last) = TABLE.opsets();
        Diagnostic::input(format!(
            "TensorRT does not take ONNX files of operator set {}",
            outline.opset
        ))
        .help(format!("it takes {first} to {last}"))
    })?;
    let mut judge = Judge::new(&outline)?;
    let mut nodes = Vec::new();
    let mut refused: Vec<Box<Diagnostic>> = Vec::new();
    for node in &outline.graph.node {
        match judge.node(node) {
            Ok(audited) => nodes.push(audited),
            Err(fault) => refused.push(fault),
        }
    }
    let found = refused.len();
    if let Some(fault) = refused.into_iter().next() {
        return Err(match found {
            1 => fault,
            _ => fault.detail(format!("{} more nodes are refused", found - 1)),
        });
    }
    let outputs = judge.outputs(&outline)?;
    let oldest = nodes.iter().map(|node| node.since).chain([opset, OLDEST]);
    Ok(Audit {
        opset: outline.opset,
        oldest: oldest.max().unwrap_or(OLDEST),
        inputs: judge.inputs,
        outputs,
        nodes,
    })
}

/// Element types by ONNX's numbers for them.
const TYPES: [(i32, &str); 19] = [
    (1, "FP32"),
    (2, "UINT8"),
    (3, "INT8"),
    (4, "UINT16"),
    (5, "INT16"),
    (6, "INT32"),
    (7, "INT64"),
    (8, "STRING"),
    (9, "BOOL"),
    (10, "FP16"),
    (11, "DOUBLE"),
    (12, "UINT32"),
    (13, "UINT64"),
    (14, "COMPLEX64"),
    (15, "COMPLEX128"),
    (16, "BF16"),
    (17, "FP8"),
    (22, "INT4"),
    (23, "FP4"),
];

/// Element types that inputs and outputs may have.
const EDGE_TYPES: [&str; 8] = [
    "FP32", "FP16", "BF16", "INT32", "INT64", "INT8", "UINT8", "BOOL",
];

fn dtype(number: i32) -> Option<&'static str> {
    let mut rows = TYPES.iter();
    rows.find_map(|&(found, name)| (found == number).then_some(name))
}

/// What is known of a tensor.
#[derive(Clone, Copy)]
struct Known<'a> {
    dtype: &'static str,
    constant: Option<&'a TensorOutline>,
}

struct Judge<'a> {
    tensors: BTreeMap<&'a str, Known<'a>>,
    inputs: Vec<Edge>,
    /// Names of the graph's outputs.
    outputs: Vec<&'a str>,
}

impl<'a> Judge<'a> {
    fn new(outline: &'a Outline) -> Result<Self> {
        let graph = &outline.graph;
        let mut judge = Self {
            tensors: BTreeMap::new(),
            inputs: Vec::new(),
            outputs: graph.output.iter().map(|info| &*info.name).collect(),
        };
        for tensor in &graph.initializer {
            let known = constant(tensor).map_err(|fault| fault.key(&tensor.name))?;
            judge.tensors.insert(&tensor.name, known);
        }
        for info in &graph.input {
            // Before IR version 4 weights were inputs too.
            if judge.tensors.contains_key(&*info.name) {
                continue;
            }
            let found = edge(info).and_then(|(number, shape)| Some((dtype(number)?, shape)));
            let edge = named_edge("input", &info.name, found)?;
            let known = Known {
                dtype: edge.dtype,
                constant: None,
            };
            judge.tensors.insert(&info.name, known);
            judge.inputs.push(edge);
        }
        Ok(judge)
    }

    fn outputs(&self, outline: &Outline) -> Result<Vec<Edge>> {
        let outputs = outline.graph.output.iter().map(|info| {
            let Some(known) = self.tensors.get(&*info.name) else {
                let message = format!("output `{}` is computed nowhere", info.name);
                return Err(Diagnostic::input(message));
            };
            let shape = edge(info).map_or(Vec::new(), |(_, shape)| shape);
            named_edge("output", &info.name, Some((known.dtype, shape)))
        });
        outputs.collect()
    }

    fn node(&mut self, node: &'a NodeOutline) -> Result<AuditedNode> {
        let name = match (&*node.name, node.output.first()) {
            ("", Some(output)) => output,
            _ => &node.name,
        };
        let judged = self.judge(node);
        // What comes after a refused node is judged as if it had been taken.
        let input = node
            .input
            .first()
            .and_then(|input| self.tensors.get(&**input));
        let input = input.map(|known| known.dtype);
        let result = self.result(node, input);
        for (index, output) in node.output.iter().enumerate() {
            let known = Known {
                dtype: result_of(node, index, result.unwrap_or("FP32")),
                constant: (node.op_type == "Constant").then(|| value(node)).flatten(),
            };
            self.tensors.insert(output, known);
        }
        let refuse = |reason: String| {
            Diagnostic::input(format!("TensorRT does not take {}: {reason}", node.op_type))
                .node(name)
        };
        let (since, note) = judged.map_err(refuse)?;
        let Some(dtype) = result.or(input) else {
            return Err(refuse("its element type is unknown".into()));
        };
        self.edges_alone_are_uint8(node).map_err(refuse)?;
        Ok(AuditedNode {
            name: name.to_owned(),
            operator: node.op_type.clone(),
            dtype: input
                .filter(|_| node.op_type != "Constant")
                .unwrap_or(dtype),
            since,
            note,
        })
    }

    /// The support that a node has; or why it has none.
    fn judge(&self, node: &NodeOutline) -> Result<(Version, &'static str), String> {
        if !matches!(&*node.domain, "" | "ai.onnx") {
            return Err(format!(
                "`{}` is no domain of ONNX, a plugin would be needed",
                node.domain
            ));
        }
        let row = TABLE
            .get(&node.op_type)
            .ok_or("its parser has no such operator")?;
        let Some(support) = &row.support else {
            return Err(match row.note {
                "" => "its parser does not support the operator".to_owned(),
                note => format!("its parser does not support the operator; {note}"),
            });
        };
        let branch =
            |attribute: &AttributeOutline| attribute.g.is_some() || !attribute.graphs.is_empty();
        if node.attribute.iter().any(branch) {
            return Err("it holds a graph, which is not looked into".into());
        }
        self.types(node, support)?;
        for condition in &support.form {
            self.form(node, condition)?;
        }
        Ok((support.since, row.note))
    }

    fn types(&self, node: &NodeOutline, support: &Support) -> Result<(), String> {
        let mut first = None;
        for (index, input) in node.input.iter().enumerate() {
            if input.is_empty() {
                continue;
            }
            let known = self.tensors.get(&**input);
            let known =
                known.ok_or_else(|| format!("its input `{input}` is computed nowhere before"))?;
            if index > 0 && !support.all {
                continue;
            }
            if !support.types.contains(&known.dtype) {
                let types = support.types.join(", ");
                return Err(format!("`{input}` is {}; it takes {types}", known.dtype));
            }
            let expected = *first.get_or_insert(known.dtype);
            if known.dtype != expected {
                return Err(format!(
                    "`{input}` is {} and the first input {expected}: types are not converted \
                     silently",
                    known.dtype
                ));
            }
        }
        let produced = self
            .result(node, first)
            .filter(|_| matches!(&*node.op_type, "Cast" | "Constant"));
        match produced {
            Some(to) if !support.types.contains(&to) => Err(format!(
                "it gives {to}; it may give {}",
                support.types.join(", ")
            )),
            None if node.op_type == "Cast" => Err("it says no element type".into()),
            _ => Ok(()),
        }
    }

    fn form(&self, node: &NodeOutline, condition: &Condition) -> Result<(), String> {
        let input = |index: usize| node.input.get(index).filter(|name| !name.is_empty());
        let constant = |index: usize| match input(index) {
            None => Ok(None),
            Some(name) => match self.tensors.get(&**name).and_then(|known| known.constant) {
                Some(tensor) => Ok(Some(tensor)),
                None => Err(format!("its input `{name}` is no constant")),
            },
        };
        let used = |names: &[String]| {
            names
                .iter()
                .rposition(|name| !name.is_empty())
                .map_or(0, |last| last + 1)
        };
        let failed = |reason: String| Err(reason);
        match condition {
            Condition::Constant(index) => constant(*index).map(drop),
            Condition::Zero(index) => match constant(*index)? {
                Some(tensor) if !tensor.is_zero() => {
                    failed(format!("`{}` is not zero", node.input[*index]))
                }
                _ => Ok(()),
            },
            Condition::Inputs(most) if used(&node.input) > *most => {
                failed(format!("it has more than {most} inputs"))
            }
            Condition::Outputs(most) if used(&node.output) > *most => {
                failed(format!("it gives more than its first {most} outputs"))
            }
            Condition::Attribute(name, values) => match node.attribute(name).map(spelt) {
                Some(value) if !values.contains(&&*value) => failed(format!(
                    "{name} is {}; it takes {}",
                    value.escape_debug(),
                    values.join(", ")
                )),
                _ => Ok(()),
            },
            Condition::Only(name) => {
                match node.attribute.iter().find(|found| found.name != *name) {
                    Some(other) => failed(format!("it is given as {}", other.name.escape_debug())),
                    None => Ok(()),
                }
            }
            Condition::Ones(name) => match node.attribute(name) {
                Some(found) if found.ints.iter().any(|&n| n != 1) => {
                    failed(format!("{name} are {:?}; all must be 1", found.ints))
                }
                _ => Ok(()),
            },
            Condition::Spatial(low, high) => match self.spatial(node) {
                Some(axes) if !(*low..=*high).contains(&axes) => failed(format!(
                    "its kernel has {axes} axes; it takes {low} to {high}"
                )),
                _ => Ok(()),
            },
            Condition::Inputs(_) | Condition::Outputs(_) => Ok(()),
        }
    }

    /// Axes of a kernel: of the attribute, or of a constant weight.
    fn spatial(&self, node: &NodeOutline) -> Option<usize> {
        if let Some(kernel) = node.attribute("kernel_shape") {
            return Some(kernel.ints.len());
        }
        let weight = self.tensors.get(&**node.input.get(1)?)?.constant?;
        weight.dims.len().checked_sub(2)
    }

    /// Element type of a node's first output.
    fn result(&self, node: &NodeOutline, input: Option<&'static str>) -> Option<&'static str> {
        let of = |index: usize| {
            let name = node.input.get(index)?;
            self.tensors.get(&**name).map(|known| known.dtype)
        };
        match &*node.op_type {
            "Cast" => dtype(i32::try_from(node.attribute("to")?.i).ok()?),
            "CastLike" | "Where" => of(1),
            "Constant" => dtype(value(node)?.data_type),
            "ConstantOfShape" => match value(node) {
                Some(tensor) => dtype(tensor.data_type),
                None => Some("FP32"),
            },
            "DequantizeLinear" => of(1),
            "QuantizeLinear" => Some(of(2).unwrap_or("UINT8")),
            "Shape" | "Size" | "ArgMax" | "ArgMin" | "NonZero" | "NonMaxSuppression" => {
                Some("INT64")
            }
            "And" | "Or" | "Xor" | "Not" | "Equal" | "Greater" | "GreaterOrEqual" | "Less"
            | "LessOrEqual" | "IsInf" | "IsNaN" => Some("BOOL"),
            "OneHot" => of(2),
            _ => input,
        }
    }

    /// A tensor of 8 bits without sign is an input or an output of the network.
    fn edges_alone_are_uint8(&self, node: &NodeOutline) -> Result<(), String> {
        let uint8 = |name: &&String| {
            self.tensors
                .get(&***name)
                .is_some_and(|known| known.dtype == "UINT8")
        };
        let is_input = |name: &str| self.inputs.iter().any(|edge| edge.name == name);
        let inside =
            |name: &String| format!("`{name}` is UINT8, which only inputs and outputs may be");
        if let Some(name) = node.input.iter().filter(uint8).find(|name| !is_input(name)) {
            return Err(inside(name));
        }
        let mut outputs = node.output.iter().filter(uint8);
        match outputs.find(|name| !self.outputs.contains(&&***name)) {
            Some(name) => Err(inside(name)),
            None => Ok(()),
        }
    }
}

/// Element type of one of a node's outputs, given that of the first.
fn result_of(node: &NodeOutline, index: usize, first: &'static str) -> &'static str {
    match (&*node.op_type, index) {
        ("TopK" | "MaxPool", 1) => "INT64",
        ("Dropout", 1) => "BOOL",
        _ => first,
    }
}

fn constant(tensor: &TensorOutline) -> Result<Known<'_>> {
    if tensor.data_location != 0 {
        return Err(Diagnostic::input(
            "the weight is in another file than the graph",
        ));
    }
    let dtype = dtype(tensor.data_type);
    let dtype = dtype.ok_or_else(|| Diagnostic::input("the weight has an unknown element type"))?;
    Ok(Known {
        dtype,
        constant: Some(tensor),
    })
}

fn named_edge(
    what: &str,
    name: &str,
    found: Option<(&'static str, Vec<Result<i64, String>>)>,
) -> Result<Edge> {
    let (dtype, shape) = found.ok_or_else(|| {
        Diagnostic::input(format!(
            "{what} `{name}` is no tensor of a known element type"
        ))
    })?;
    if !EDGE_TYPES.contains(&dtype) {
        let message = format!("TensorRT takes no {what} that is {dtype}, as `{name}` is");
        return Err(Diagnostic::input(message));
    }
    Ok(Edge {
        name: name.to_owned(),
        dtype,
        shape,
    })
}

/// The value of a `Constant` or `ConstantOfShape`.
fn value(node: &NodeOutline) -> Option<&TensorOutline> {
    node.attribute("value")?.t.as_ref()
}

/// The value of an attribute that is a word or a number.
fn spelt(attribute: &AttributeOutline) -> String {
    match attribute.r#type {
        3 => String::from_utf8_lossy(&attribute.s).into_owned(),
        _ => attribute.i.to_string(),
    }
}
