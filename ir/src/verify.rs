//! Well-formedness. The invariants of a [`Verified`] graph:
//!
//! 1. It has at least one input and one result; names of results are unique.
//! 2. Names of nodes are unique, not empty, and made of ASCII letters, digits and `._-`.
//! 3. Every operand is an existing output of an existing node, every input slot of a node is
//!    filled exactly once, and there is no cycle.
//! 4. Every node's weights exist, fill all required slots, and are finite in number; no weight
//!    is unused.
//! 5. Every node's output types are those its op infers from operands and weights.
//! 6. Attributes are usable numbers: an epsilon is finite and not negative, a factor finite.
//! 7. Every result is float32 and its batch axis, if symbolic, comes first.

use std::{collections::HashSet, ops::Deref};

use crate::{
    Diagnostic, Dim, Graph, NodeId, Result,
    ops::{AttributeValue, Op, to_text},
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
        if self.has_cycle() {
            faults.push("the nodes form a cycle".into());
        } else {
            for id in self.topological_order() {
                self.check_node(id, &mut faults);
            }
        }
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
        if self.inputs().is_empty() || self.outputs().is_empty() {
            faults.push("it lacks an input or a result".into());
        }
        let mut names = HashSet::new();
        for output in self.outputs() {
            if !names.insert(&output.name) {
                faults.push(format!("two results are named `{}`", output.name));
            }
            let value = output.value;
            let exists =
                self.contains(value.node) && value.output < self.node(value.node).outputs.len();
            if !exists {
                faults.push(format!("result `{}` has no value", output.name));
                continue;
            }
            let ty = self.ty(value);
            let later = ty.shape.0.iter().skip(1);
            if ty.dtype != crate::DType::F32
                || later.clone().any(|dim| matches!(dim, Dim::Batch(_)))
            {
                faults.push(format!("result `{}` has the type {ty}", output.name));
            }
        }
    }

    fn check_node(&self, id: NodeId, faults: &mut Vec<String>) {
        let node = self.node(id);
        let name = &node.name;
        let spelt = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || !name.chars().all(spelt) {
            faults.push(format!("`{name}` is not a usable name"));
        }
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
            Err(fault) => faults.push(format!("{name}: {}", fault.message)),
            Ok(types) if types != node.outputs => {
                let (declared, inferred) = (&node.outputs, types);
                faults.push(format!(
                    "{name}: declares {declared:?}, computes {inferred:?}"
                ));
            }
            Ok(_) => {}
        }
    }

    fn check_weights(&self, faults: &mut Vec<String>) {
        let nodes = self.ids().map(|id| self.node(id));
        let used: HashSet<_> = nodes.flat_map(|node| node.weights.values()).collect();
        for (key, _) in self.weights.iter() {
            if !used.contains(&key.to_string()) {
                faults.push(format!("no node uses the weight `{key}`"));
            }
        }
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
