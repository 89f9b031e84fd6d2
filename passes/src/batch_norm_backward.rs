//! Folds a BatchNorm into the convolution before it.
//!
//! `(conv(x) - mean) / sqrt(var + eps) * weight + bias` scales and shifts the convolution's
//! output channels, whatever its kernel, padding or groups.

use emoc_ir::{Graph, NodeId, Result, ops::Op};

use crate::fold::{Folder, for_each_node, linear_conv_before, scale_outputs};

pub(crate) fn run(graph: &mut Graph) -> Result<usize> {
    for_each_node(graph, |graph, id| {
        let Op::BatchNorm(_) = graph.node(id).op else {
            return Ok(false);
        };
        let Some(conv) = linear_conv_before(graph, graph.operands(id)[0]) else {
            return Ok(false);
        };
        let mut folder = Folder::new();
        let (scale, shift) = scale_and_shift(graph, id, &mut folder)?;
        scale_outputs(graph, conv, id, folder, &scale, Some(&shift))?;
        Ok(true)
    })
}

/// A BatchNorm as `x * scale + shift` per channel.
pub(crate) fn scale_and_shift(
    graph: &Graph,
    id: NodeId,
    folder: &mut Folder,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let eps = match &graph.node(id).op {
        Op::BatchNorm(norm) => norm.eps,
        _ => 0.0,
    };
    let mut read = |slot: &str| folder.read(graph, id, slot);
    let (weight, bias) = (read("weight")?, read("bias")?);
    let (mean, var) = (read("running_mean")?, read("running_var")?);
    let scale: Vec<_> = weight
        .iter()
        .zip(&*var)
        .map(|(w, v)| w / (v + eps).sqrt())
        .collect();
    let shift = (0..scale.len())
        .map(|c| bias[c] - mean[c] * scale[c])
        .collect();
    Ok((scale, shift))
}
