//! Close windows instead of remote ones where a single window covers the map.
//!
//! A dilated grid and a contiguous tile with as many rows and columns as the map are both the
//! map itself, so the two groupings of a hybrid attention become one computation.

use emoc_ir::{
    Graph, Patch, Result, TensorType,
    ops::{Grouping, Op, Windows},
};

use crate::fold::for_each_node;

pub(crate) fn run(graph: &mut Graph) -> Result<usize> {
    for_each_node(graph, |graph, id| {
        let operands = graph.operands(id);
        let close = |windows: &Windows| Windows {
            grouping: Grouping::Close,
            ..*windows
        };
        let op = match &graph.node(id).op {
            Op::WindowPartition(windows)
                if windows.grouping == Grouping::Remote
                    && windows.window == map_size(graph.ty(operands[0])) =>
            {
                Op::WindowPartition(close(windows))
            }
            Op::WindowMerge {
                windows,
                height,
                width,
            } if windows.grouping == Grouping::Remote && windows.window == [*height, *width] => {
                Op::WindowMerge {
                    windows: close(windows),
                    height: *height,
                    width: *width,
                }
            }
            _ => return Ok(false),
        };
        let name = graph.node(id).name.clone();
        let mut patch = Patch::replacing(graph, &[id]);
        let replacement = patch.add(&name, op, &operands, &[])?;
        patch.redirect(id, replacement);
        patch.finish()?;
        Ok(true)
    })
}

/// Height and width of an image.
fn map_size(ty: &TensorType) -> [usize; 2] {
    [2, 3].map(|axis| {
        ty.shape
            .0
            .get(axis)
            .and_then(|dim| dim.fixed())
            .unwrap_or(0)
    })
}
