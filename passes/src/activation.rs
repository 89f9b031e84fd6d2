//! Joins an activation with the convolution before it.

use emoc_ir::{
    Graph, Patch, Result,
    ops::{Conv2d, Op},
};

use crate::fold::{conv, for_each_node, linear_conv_before};

pub(crate) fn run(graph: &mut Graph) -> Result<usize> {
    for_each_node(graph, |graph, id| {
        let Op::Activation(act) = graph.node(id).op else {
            return Ok(false);
        };
        let Some(before) = linear_conv_before(graph, graph.operands(id)[0]) else {
            return Ok(false);
        };
        let Some(plain) = conv(graph, before).cloned() else {
            return Ok(false);
        };
        let node = graph.node(before).clone();
        let operands = graph.operands(before);
        let weights = node.weight_pairs();
        let mut patch = Patch::replacing(graph, &[before, id]);
        let op = Op::Conv2d(Conv2d { act, ..plain });
        let fused = patch.add(&node.name, op, &operands, &weights)?;
        patch.redirect(id, fused);
        patch.finish()?;
        Ok(true)
    })
}
