//! Nodes with the same op, operands and weights are computed once.

use std::collections::HashMap;

use emoc_ir::{Graph, Patch, Result, Value, ops::Op};

use crate::fold::for_each_node;

pub(crate) fn run(graph: &mut Graph) -> Result<usize> {
    let mut known = HashMap::new();
    for_each_node(graph, |graph, id| {
        let node = graph.node(id);
        if node.op == Op::Input {
            return Ok(false);
        }
        // The debug form of an op spells all its attributes, floats to the last bit.
        let computation = format!("{:?} {:?} {:?}", node.op, node.weights, graph.operands(id));
        let first = *known.entry(computation).or_insert(id);
        if first == id {
            return Ok(false);
        }
        let outputs = node.outputs.len();
        let mut patch = Patch::replacing(graph, &[id]);
        for output in 0..outputs {
            patch.redirect(
                Value { node: id, output },
                Value {
                    node: first,
                    output,
                },
            );
        }
        patch.finish()?;
        Ok(true)
    })
}
