//! The reference evaluator: slow, obvious, and the arbiter of every pass and artifact.
//!
//! Every op is written out from its definition with float64 arithmetic in a fixed order, so
//! results do not depend on the number of threads. [`Precision::F32`] rounds every op's result
//! to its type, float32 or float16, as a runtime's tensors do; [`Precision::F64`] rounds nothing,
//! which is what tolerances are derived from. Fused ops are evaluated through their decomposition.
//!
//! Graphs are expected to be [`Verified`](crate::Verified); shapes are not checked again.

mod elementwise;
mod layout;
mod node;
mod products;

use std::collections::{BTreeMap, HashSet};

use rayon::prelude::*;

pub use node::evaluate_node;

use crate::{Diagnostic, Dim, Graph, NodeId, Result, Value, ops::Op, tensor_type::round};

/// Most elements of one value. The evaluator keeps float64: more would be 16 GiB (half a GiB
/// where addresses have 32 bits), and a graph of that size comes from a slip in the input size or
/// the batch.
const MAX_ELEMENTS: usize = 1 << if usize::BITS < 64 { 26 } else { 31 };

/// What is kept of an op's float64 result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Rounded to its type, float32 or float16.
    F32,
    /// As computed.
    F64,
}

/// A tensor of the reference evaluator, row-major. Under [`Precision::F32`] every element is a
/// float32 value.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Sizes of the axes, outermost first.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: Vec<f64>,
}

impl Tensor {
    /// A tensor of float32 values.
    pub fn from_f32(shape: &[usize], data: &[f32]) -> Self {
        Self {
            shape: shape.to_vec(),
            data: data.iter().map(|&x| f64::from(x)).collect(),
        }
    }

    /// The elements rounded to float32.
    pub fn to_f32(&self) -> Vec<f32> {
        self.data.iter().map(|&x| x as f32).collect()
    }
}

/// The graph's results for these inputs, in the graph's order.
///
/// # Errors
/// Inputs that do not fit the graph's, a value that is too large, or a weight that cannot be
/// read.
pub fn evaluate(graph: &Graph, inputs: &[Tensor], precision: Precision) -> Result<Vec<Tensor>> {
    let wanted: Vec<_> = graph.outputs().iter().map(|output| output.value).collect();
    evaluate_values(graph, inputs, precision, &wanted)
}

/// The given values of the graph for these inputs.
///
/// # Errors
/// Those of [`evaluate`].
pub fn evaluate_values(
    graph: &Graph,
    inputs: &[Tensor],
    precision: Precision,
    wanted: &[Value],
) -> Result<Vec<Tensor>> {
    let batch = check_inputs(graph, inputs)?;
    let needed = needed_nodes(graph, wanted);
    check_sizes(graph, &needed, batch)?;
    let mut uses: BTreeMap<Value, usize> = BTreeMap::new();
    let read = needed.iter().flat_map(|&id| graph.operands(id));
    for value in read.chain(wanted.iter().copied()) {
        *uses.entry(value).or_default() += 1;
    }
    let mut values: BTreeMap<Value, Tensor> = BTreeMap::new();
    let inputs = graph.inputs().iter().zip(inputs);
    values.extend(inputs.map(|(&id, tensor)| (id.into(), tensor.clone())));
    for id in needed {
        if graph.node(id).op == Op::Input {
            continue;
        }
        let operands = graph.operands(id);
        let tensors: Vec<_> = operands.iter().map(|value| &values[value]).collect();
        let results = evaluate_node(graph, id, &tensors, precision)
            .map_err(|e| e.node(&graph.node(id).name))?;
        for (output, mut tensor) in results.into_iter().enumerate() {
            if precision == Precision::F32 {
                let dtype = graph.node(id).outputs[output].dtype;
                let elements = tensor.data.par_iter_mut();
                elements.for_each(|x| *x = round(dtype, *x));
            }
            values.insert(Value { node: id, output }, tensor);
        }
        // A 50M model at 512x512 does not fit if every intermediate map is kept.
        for value in operands {
            let left = uses.entry(value).or_default();
            *left -= 1;
            if *left == 0 {
                values.remove(&value);
            }
        }
    }
    Ok(wanted.iter().map(|value| values[value].clone()).collect())
}

/// Checks the inputs' shapes and returns the batch size they agree on.
fn check_inputs(graph: &Graph, inputs: &[Tensor]) -> Result<usize> {
    let (expected, given) = (graph.inputs().len(), inputs.len());
    if expected != given {
        return Err(Diagnostic::input(format!(
            "{expected} inputs are needed, {given} given"
        )));
    }
    let pairs = || graph.inputs().iter().zip(inputs);
    let batch = pairs().find_map(|(&id, tensor)| {
        match (graph.ty(id).shape.0.first()?, tensor.shape.first()?) {
            (Dim::Batch(k), size) => size.checked_div(*k),
            (Dim::Fixed(_), _) => None,
        }
    });
    let batch = batch.unwrap_or(1);
    for (&id, tensor) in pairs() {
        let ty = graph.ty(id);
        let fits = batch > 0 && ty.shape.resolve(batch) == tensor.shape;
        if !fits || ty.shape.numel(batch) != tensor.data.len() {
            let (shape, count) = (&tensor.shape, tensor.data.len());
            let message = format!("an input of shape {shape:?} and {count} elements is not {ty}");
            return Err(Diagnostic::input(message).node(&graph.node(id).name));
        }
    }
    Ok(batch)
}

fn check_sizes(graph: &Graph, nodes: &[NodeId], batch: usize) -> Result<()> {
    for node in nodes.iter().map(|&id| graph.node(id)) {
        let sizes = node.outputs.iter().map(|ty| ty.shape.numel(batch));
        if let Some(size) = sizes.max().filter(|&size| size > MAX_ELEMENTS) {
            let message = format!("a value of {size} elements is too large to evaluate");
            let error = Diagnostic::input(message).node(&node.name);
            return Err(error.help("evaluate a smaller input or batch"));
        }
    }
    Ok(())
}

fn needed_nodes(graph: &Graph, wanted: &[Value]) -> Vec<NodeId> {
    let mut needed: Vec<NodeId> = wanted.iter().map(|value| value.node).collect();
    let mut seen: HashSet<_> = needed.iter().copied().collect();
    let mut next = 0;
    while next < needed.len() {
        for value in graph.operands(needed[next]) {
            if seen.insert(value.node) {
                needed.push(value.node);
            }
        }
        next += 1;
    }
    let mut order = graph.topological_order();
    order.retain(|id| seen.contains(id));
    order
}

fn dims4(x: &Tensor) -> [usize; 4] {
    std::array::from_fn(|i| x.shape[i])
}
