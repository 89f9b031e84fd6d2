//! Drops nodes that no result depends on. Inputs stay: they are the graph's interface.

use std::collections::HashSet;

use emoc_ir::{Graph, Patch, Result, ops::Op};

pub(crate) fn run(graph: &mut Graph) -> Result<usize> {
    let mut live: HashSet<_> = HashSet::new();
    let mut pending: Vec<_> = graph
        .outputs()
        .iter()
        .map(|output| output.value.node)
        .collect();
    while let Some(id) = pending.pop() {
        if live.insert(id) {
            pending.extend(graph.operands(id).iter().map(|value| value.node));
        }
    }
    let is_dead = |id: &_| !live.contains(id) && graph.node(*id).op != Op::Input;
    let dead: Vec<_> = graph.ids().filter(is_dead).collect();
    if !dead.is_empty() {
        Patch::replacing(graph, &dead).finish()?;
    }
    Ok(dead.len())
}
