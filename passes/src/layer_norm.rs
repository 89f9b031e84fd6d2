//! Folds LayerNorm's gamma and beta into the 1x1 convolutions that read it.
//!
//! Without padding both go: `W (gamma x + beta) + b = (W gamma) x + (W beta + b)`. Where zeros
//! are padded between the norm and the convolutions (incomplete windows), gamma still goes, for
//! a padded zero has no factor, but beta must stay with the pixels of the map: it becomes
//! `beta / gamma` in the norm. A channel whose gamma is 0 has no such quotient, and then nothing
//! is folded.

use emoc_ir::{Graph, NodeId, Patch, Result, ops::Op};

use crate::{
    batch_norm_forward::scale_inputs,
    fold::{Folder, for_each_node, is_pointwise, replace_conv},
};

pub(crate) fn run(graph: &mut Graph) -> Result<usize> {
    for_each_node(graph, |graph, id| {
        let Op::LayerNorm(_) = graph.node(id).op else {
            return Ok(false);
        };
        let Some(readers) = Readers::of(graph, id) else {
            return Ok(false);
        };
        fold(graph, id, &readers)
    })
}

/// The convolutions that read a norm, directly or all through one padding.
struct Readers {
    convs: Vec<NodeId>,
    padded: bool,
}

impl Readers {
    fn of(graph: &Graph, id: NodeId) -> Option<Self> {
        let direct = graph.users(id);
        let pad = match direct[..] {
            [only] if matches!(graph.node(only).op, Op::Pad { .. }) => Some(only),
            _ => None,
        };
        let convs = pad.map_or(direct, |pad| graph.users(pad));
        let exposed = graph.is_output(id) || pad.is_some_and(|pad| graph.is_output(pad));
        let foldable = !convs.is_empty() && convs.iter().all(|&conv| is_pointwise(graph, conv));
        (foldable && !exposed).then_some(Self {
            convs,
            padded: pad.is_some(),
        })
    }
}

fn fold(graph: &mut Graph, id: NodeId, readers: &Readers) -> Result<bool> {
    let node = graph.node(id).clone();
    let channels = graph.ty(id).shape.0[1].resolve(1);
    let (has_gamma, has_beta) = (
        node.weight("weight").is_some(),
        node.weight("bias").is_some(),
    );
    if !has_gamma && (readers.padded || !has_beta) {
        return Ok(false);
    }
    let mut folder = Folder::new();
    let gamma = folder.read_or(graph, id, "weight", 1.0, channels)?;
    let beta = folder.read_or(graph, id, "bias", 0.0, channels)?;
    let quotient: Vec<f64> = beta.iter().zip(&*gamma).map(|(b, g)| b / g).collect();
    if readers.padded && has_beta && !quotient.iter().all(|&q| (q as f32).is_finite()) {
        return Ok(false);
    }
    let shift = (has_beta && !readers.padded).then_some(&*beta);
    for &conv in &readers.convs {
        let new = scale_inputs(graph, conv, &mut folder, &gamma, shift)?;
        replace_conv(graph, conv, &[], conv.into(), &folder, new)?;
    }
    let input = graph.operands(id);
    let mut patch = Patch::replacing(graph, &[id]);
    let mut keys = Vec::new();
    if let (Some(key), true) = (node.weight("bias"), readers.padded) {
        keys.push((
            "bias",
            folder.write(&mut patch, key, &[channels], quotient)?,
        ));
    }
    let keys: Vec<_> = keys
        .iter()
        .map(|(slot, key)| (*slot, key.as_str()))
        .collect();
    let bare = patch.add(&node.name, node.op.clone(), &input, &keys)?;
    patch.redirect(id, bare);
    patch.finish()?;
    Ok(true)
}
