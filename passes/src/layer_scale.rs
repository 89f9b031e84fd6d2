//! Folds LayerScale's gamma into the output channels of the convolution before it.

use emoc_ir::{Graph, Result, ops::Op};

use crate::fold::{Folder, for_each_node, linear_conv_before, scale_outputs};

pub(crate) fn run(graph: &mut Graph) -> Result<usize> {
    for_each_node(graph, |graph, id| {
        let Op::LayerScale = graph.node(id).op else {
            return Ok(false);
        };
        let Some(conv) = linear_conv_before(graph, graph.operands(id)[0]) else {
            return Ok(false);
        };
        let mut folder = Folder::new();
        let gamma = folder.read(graph, id, "gamma")?;
        scale_outputs(graph, conv, id, folder, &gamma, None)?;
        Ok(true)
    })
}
