//! Folds the factor on attention scores into the rows of q.
//!
//! `(q kᵀ) s = (q s) kᵀ`. The two attentions of a hybrid share q, so the factor moves only when
//! every product of q has the same one.

use emoc_ir::{Graph, NodeId, Patch, Result, Value, ops::Op};

use crate::fold::{
    Folder, NewConv, for_each_node, is_pointwise, kernel, linear_conv_before, replace_conv,
};

pub(crate) fn run(graph: &mut Graph) -> Result<usize> {
    for_each_node(graph, |graph, id| {
        let Op::Split { sizes } = &graph.node(id).op else {
            return Ok(false);
        };
        let q_channels = sizes[0];
        let Some(conv) = linear_conv_before(graph, graph.operands(id)[0]) else {
            return Ok(false);
        };
        let Some((factor, scales)) = scales_of(graph, id) else {
            return Ok(false);
        };
        if !is_pointwise(graph, conv) {
            return Ok(false);
        }
        scale_q(graph, conv, q_channels, factor)?;
        for scale in scales {
            let scores = graph.operands(scale)[0];
            let mut patch = Patch::replacing(graph, &[scale]);
            patch.redirect(scale, scores);
            patch.finish()?;
        }
        Ok(true)
    })
}

/// The nodes that scale the products of q, if all do and by the same factor.
fn scales_of(graph: &Graph, split: NodeId) -> Option<(f64, Vec<NodeId>)> {
    let mut factor = None;
    let mut scales = Vec::new();
    let q = Value::from(split);
    if graph.is_output(q) {
        return None;
    }
    for partition in graph.users(q) {
        let Op::WindowPartition(_) = graph.node(partition).op else {
            return None;
        };
        let product = graph.sole_user(partition)?;
        let is_left = graph.operands(product)[0].node == partition;
        if !is_left || graph.node(product).op != (Op::MatMul { transpose_b: true }) {
            return None;
        }
        let scale = graph.sole_user(product)?;
        let Op::Scale { factor: found } = graph.node(scale).op else {
            return None;
        };
        if *factor.get_or_insert(found) != found {
            return None;
        }
        scales.push(scale);
    }
    Some((factor?, scales))
}

fn scale_q(graph: &mut Graph, conv: NodeId, q_channels: usize, factor: f64) -> Result<()> {
    let mut folder = Folder::new();
    let shape = kernel(graph, conv);
    let inputs = shape[1];
    let scale = |row: usize, x: f64| if row < q_channels { x * factor } else { x };
    let weight = folder.read(graph, conv, "weight")?;
    let weight = weight
        .iter()
        .enumerate()
        .map(|(i, &w)| scale(i / inputs, w))
        .collect();
    let mut bias = None;
    if graph.node(conv).weight("bias").is_some() {
        let values = folder.read(graph, conv, "bias")?;
        bias = Some(
            values
                .iter()
                .enumerate()
                .map(|(i, &b)| scale(i, b))
                .collect(),
        );
    }
    let new = NewConv {
        shape,
        weight,
        bias,
    };
    replace_conv(graph, conv, &[], conv.into(), &folder, new)
}
