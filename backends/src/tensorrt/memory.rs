//! How much memory activations need.

use std::collections::BTreeMap;

use emoc_ir::{Result, Value, Verified, ops};

/// Bytes of all values that live at once, at most, for a batch of `batch` pictures: the largest
/// sum, over the nodes in order, of the values that are computed and still needed.
///
/// Fused operations are counted as what they are made of. TensorRT fuses differently and reorders,
/// so this is an estimate.
///
/// # Errors
/// Only for a graph that is not well-formed.
pub fn activation_memory(graph: &Verified, batch: usize) -> Result<u64> {
    let graph = ops::decompose_all(graph, |_| true)?;
    let order = graph.topological_order();
    let mut last_use: BTreeMap<Value, usize> = BTreeMap::new();
    for (step, &id) in order.iter().enumerate() {
        for value in graph.operands(id) {
            last_use.insert(value, step);
        }
    }
    for output in graph.outputs() {
        last_use.insert(output.value, order.len());
    }
    let bytes = |value: Value| {
        let ty = graph.ty(value);
        (ty.shape.numel(batch) as u64).saturating_mul(ty.dtype.size() as u64)
    };
    let (mut live, mut most) = (0_u64, 0_u64);
    for (step, &id) in order.iter().enumerate() {
        let outputs = (0..graph.node(id).outputs.len()).map(|output| Value { node: id, output });
        let outputs: Vec<Value> = outputs.collect();
        for &value in &outputs {
            live = live.saturating_add(bytes(value));
        }
        most = most.max(live);
        let mut done = graph.operands(id);
        // What nobody uses is gone as soon as it is there.
        done.extend(
            outputs
                .into_iter()
                .filter(|value| !last_use.contains_key(value)),
        );
        done.sort();
        done.dedup();
        for value in done {
            if last_use.get(&value).is_none_or(|&last| last == step) {
                live = live.saturating_sub(bytes(value));
            }
        }
    }
    Ok(most)
}
