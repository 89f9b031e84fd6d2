//! Well-formedness. The invariants of a [`Verified`] graph:
//!
//! 1. It has at least one input and one result; names of results are unique.
//! 2. Names of nodes are unique. The names of graph, nodes and results and the keys of weights
//!    are not empty and made of ASCII letters, digits and `._-`.
//! 3. Every operand is an existing output of an existing node, every input slot of a node is
//!    filled exactly once, and there is no cycle.
//! 4. Every node's weights exist and fill all required slots; no weight is unused.
//! 5. Every node's output types are those its op infers from operands and weights; all are
//!    float32 and hold between 1 and 2^40 elements per picture (2^28 where addresses have 32 bits).
//! 6. Attributes are usable numbers: an epsilon is finite and not negative, a factor finite.
//! 7. In the types of inputs and results only the first axis depends on the batch.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::Deref,
};

use crate::{
    Diagnostic, Dim, Graph, NodeId, Result, TensorType,
    ops::{AttributeValue, Op, to_text},
    tensor_type::list,
};

/// A graph that holds every invariant above. Backends accept nothing else.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified(Graph);

impl Deref for Verified {
    type Target = Graph;

    fn deref(&self) -> &Graph {
        &self.0
    }
}

impl Verified {
    /// Gives the graph up for editing.
    pub fn into_inner(self) -> Graph {
        self.0
    }
}

impl Graph {
    /// Checks every invariant.
    ///
    /// # Errors
    /// One diagnostic that lists all violations, each with its node.
    pub fn verify(self) -> Result<Verified> {
        let mut faults = Vec::new();
        self.check_interface(&mut faults);
        for id in self.ids() {
            self.check_node(id, &mut faults);
        }
        self.check_order(&mut faults);
        self.check_weights(&mut faults);
        if faults.is_empty() {
            return Ok(Verified(self));
        }
        let message = format!("the graph `{}` is not well-formed", self.name);
        let report = Diagnostic::internal(message);
        Err(faults
            .into_iter()
            .fold(report, |report, fault| report.detail(fault)))
    }

    fn check_interface(&self, faults: &mut Vec<String>) {
        check_name("the graph's name", &self.name, faults);
        if self.inputs().is_empty() {
            faults.push("it has no input".into());
        }
        if self.outputs().is_empty() {
            faults.push("it has no result".into());
        }
        let mut names = HashSet::new();
        for output in self.outputs() {
            check_name("a result's name", &output.name, faults);
            if !names.insert(&output.name) {
                faults.push(format!("two results are named `{}`", output.name));
            }
            let value = output.value;
            if self.contains(value.node) && value.output < self.node(value.node).outputs.len() {
                check_batch_axis(&output.name, self.ty(value), faults);
            } else {
                faults.push(format!("{}: a result without a value", output.name));
            }
        }
    }

    fn check_node(&self, id: NodeId, faults: &mut Vec<String>) {
        let node = self.node(id);
        let name = &node.name;
        check_name("a node's name", name, faults);
        if self.find(name) != Some(id) {
            faults.push(format!("two nodes are named `{name}`"));
        }
        if let Some(fault) = attribute_fault(&node.op) {
            faults.push(format!("{name}: {fault}"));
        }
        if node.op == Op::Input {
            if !self.inputs().contains(&id) {
                faults.push(format!("{name}: an input that the graph does not list"));
            }
            check_batch_axis(name, self.ty(id), faults);
            return;
        }
        let operands = self.operands(id);
        let missing = |value: &&crate::Value| value.output >= self.node(value.node).outputs.len();
        if let Some(value) = operands.iter().find(missing) {
            let source = &self.node(value.node).name;
            faults.push(format!("{name}: `{source}` has no output {}", value.output));
            return;
        }
        match self.infer(node, &operands) {
            Err(fault) => {
                let key = fault.key.map(|key| format!(" (`{key}`)"));
                let key = key.unwrap_or_default();
                faults.push(format!("{name}: {}{key}", fault.message));
            }
            Ok(types) if types != node.outputs => {
                let (declared, computed) = (list(&node.outputs), list(&types));
                faults.push(format!(
                    "{name}: declares {declared} but computes {computed}"
                ));
            }
            Ok(_) => {}
        }
    }

    /// Operands come before their users in topological order, unless there is a cycle.
    fn check_order(&self, faults: &mut Vec<String>) {
        let order = self.topological_order();
        let place: HashMap<_, _> = order.iter().zip(0..).collect();
        let reads_later = |id: &&NodeId| {
            let operands = self.operands(**id);
            operands
                .iter()
                .any(|value| place[&value.node] >= place[*id])
        };
        for id in order.iter().filter(reads_later) {
            let name = &self.node(*id).name;
            faults.push(format!("{name}: reads, through others, its own result"));
        }
    }

    fn check_weights(&self, faults: &mut Vec<String>) {
        let nodes = self.ids().map(|id| self.node(id));
        let used: BTreeSet<&str> = nodes
            .flat_map(|node| node.weights.values().map(String::as_str))
            .collect();
        for (key, _) in self.weights.iter() {
            check_name("a weight's key", key, faults);
            if !used.contains(key) {
                faults.push(format!("no node uses the weight `{key}`"));
            }
        }
    }
}

/// Names are spelt so that the text form needs no quotes and any artifact can carry them.
fn check_name(what: &str, name: &str, faults: &mut Vec<String>) {
    let spelt = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || !name.chars().all(spelt) {
        faults.push(format!(
            "{what} `{name}` is not made of letters, digits and `._-`"
        ));
    }
}

fn check_batch_axis(name: &str, ty: &TensorType, faults: &mut Vec<String>) {
    let mut later = ty.shape.0.iter().skip(1);
    if later.any(|dim| matches!(dim, Dim::Batch(_))) {
        faults.push(format!(
            "{name}: {ty} depends on the batch past its first axis"
        ));
    }
}

fn attribute_fault(op: &Op) -> Option<String> {
    let (_, attributes) = to_text(op);
    attributes
        .into_iter()
        .find_map(|(name, value)| match value {
            AttributeValue::Float(x) if !x.is_finite() || (name == "eps" && x < 0.0) => {
                Some(format!("{name}={x} is not usable"))
            }
            _ => None,
        })
}
