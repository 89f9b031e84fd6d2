//! Folds a BatchNorm into the 1x1 convolutions after it.
//!
//! Their input channels take its factors and their bias its offsets. Only where every reader is
//! a 1x1 convolution without padding: a padded zero is not shifted by the BatchNorm, so across
//! padding the fold would be wrong at the borders.

use emoc_ir::{Graph, Patch, Result, ops::Op};

use crate::{
    batch_norm_backward::scale_and_shift,
    fold::{Folder, NewConv, for_each_node, is_pointwise, kernel, replace_conv},
};

pub(crate) fn run(graph: &mut Graph) -> Result<usize> {
    for_each_node(graph, |graph, id| {
        let Op::BatchNorm(_) = graph.node(id).op else {
            return Ok(false);
        };
        let users = graph.users(id);
        let all_pointwise = users.iter().all(|&user| is_pointwise(graph, user));
        if users.is_empty() || !all_pointwise || graph.is_output(id) {
            return Ok(false);
        }
        let input = graph.operands(id)[0];
        let mut folder = Folder::new();
        let (scale, shift) = scale_and_shift(graph, id, &mut folder)?;
        for user in users {
            let new = scale_inputs(graph, user, &mut folder, &scale, Some(&shift))?;
            replace_conv(graph, user, &[], user.into(), &folder, new)?;
        }
        let mut patch = Patch::replacing(graph, &[id]);
        patch.redirect(id, input);
        patch.finish()?;
        Ok(true)
    })
}

/// Weights of a 1x1 convolution that reads `x` where it used to read `x * scale + shift`.
pub(crate) fn scale_inputs(
    graph: &Graph,
    id: emoc_ir::NodeId,
    folder: &mut Folder,
    scale: &[f64],
    shift: Option<&[f64]>,
) -> Result<NewConv> {
    let shape = kernel(graph, id);
    let [outputs, inputs, ..] = shape;
    let weight = folder.read(graph, id, "weight")?;
    let has_bias = shift.is_some() || graph.node(id).weight("bias").is_some();
    let bias = folder.read_or(graph, id, "bias", 0.0, outputs)?;
    let shifted = |o: usize| {
        let row = &weight[o * inputs..(o + 1) * inputs];
        let products = |shift: &[f64]| row.iter().zip(shift).map(|(w, s)| w * s).sum::<f64>();
        bias[o] + shift.map_or(0.0, products)
    };
    Ok(NewConv {
        shape,
        bias: has_bias.then(|| (0..outputs).map(shifted).collect()),
        weight: weight
            .iter()
            .enumerate()
            .map(|(i, w)| w * scale[i % inputs])
            .collect(),
    })
}
