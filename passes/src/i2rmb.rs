//! Recognises a whole i2RMB block: LayerNorm (if it is still there), expansion or window
//! attention, depthwise convolution with its own norm (if it has one) and its skip, projection and
//! residual.

use emoc_ir::{
    Graph, NodeId, Patch, Result, Value,
    ops::{Act, I2Rmb, Mixer, Norm, Op},
};

use crate::fold::{conv, is_closed, is_pointwise, kernel, replace_backward};

/// From the results backward, so that a residual sum is tried before its projection.
pub(crate) fn run(graph: &mut Graph) -> Result<usize> {
    replace_backward(graph, find, replace)
}

struct Found {
    op: I2Rmb,
    input: Value,
    norm: Option<NodeId>,
    mixer: NodeId,
    local: NodeId,
    local_norm: Option<NodeId>,
    proj: NodeId,
    matched: Vec<NodeId>,
}

fn find(graph: &Graph, root: NodeId) -> Option<Found> {
    match graph.node(root).op {
        Op::Add => {
            // Either operand can be the projection; the other must be the block's input.
            let operands = graph.operands(root);
            [(0, 1), (1, 0)].into_iter().find_map(|(proj, skip)| {
                let mut found = branch(graph, operands[proj].node)?;
                found.op.residual = true;
                found.matched.push(root);
                let same = found.input == operands[skip];
                (same && is_closed(graph, &found.matched, root)).then_some(found)
            })
        }
        Op::Conv2d(_) => {
            let found = branch(graph, root)?;
            is_closed(graph, &found.matched, root).then_some(found)
        }
        _ => None,
    }
}

/// Matches a block without its residual, backward from the projection.
fn branch(graph: &Graph, proj: NodeId) -> Option<Found> {
    if !is_pointwise(graph, proj) || conv(graph, proj)?.act != Act::None {
        return None;
    }
    let (local, mixer, inner_skip) = filtered(graph, graph.operands(proj)[0].node)?;
    let mut matched = [vec![proj], local.matched, Vec::from_iter(inner_skip)].concat();
    let kind = match &graph.node(mixer).op {
        Op::WindowAttention(attention) => Mixer::Attention(attention.clone()),
        Op::Conv2d(expand) if is_pointwise(graph, mixer) => Mixer::Expand(expand.act),
        _ => return None,
    };
    matched.push(mixer);
    let mut input = graph.operands(mixer)[0];
    let mut norm = None;
    let mut norm_op = None;
    if let Op::LayerNorm(attributes) = &graph.node(input.node).op {
        norm_op = Some(attributes.clone());
        norm = Some(input.node);
        matched.push(input.node);
        input = graph.operands(input.node)[0];
    }
    let attributes = conv(graph, local.conv)?;
    let op = I2Rmb {
        norm: norm_op,
        mixer: kind,
        stride: attributes.stride,
        padding: attributes.padding,
        local_norm: local.norm.as_ref().map(|(_, norm)| norm.clone()),
        local_act: local.act,
        inner_skip: inner_skip.is_some(),
        residual: false,
    };
    Some(Found {
        op,
        input,
        norm,
        mixer,
        local: local.conv,
        local_norm: local.norm.map(|(id, _)| id),
        proj,
        matched,
    })
}

/// A depthwise convolution with what is applied to its result.
struct Local {
    conv: NodeId,
    norm: Option<(NodeId, Norm)>,
    act: Act,
    matched: Vec<NodeId>,
}

impl Local {
    /// That ends in this node: a depthwise convolution, or the activation of a norm of one.
    fn ending(graph: &Graph, id: NodeId) -> Option<Self> {
        let mut matched = vec![id];
        let before = |id: NodeId| graph.operands(id)[0].node;
        let (mut id, mut outer, mut norm) = (id, None, None);
        if let Op::Activation(act) = graph.node(id).op {
            (id, outer) = (before(id), Some(act));
            matched.push(id);
        }
        if let Op::LayerNorm(attributes) = &graph.node(id).op {
            norm = Some((id, attributes.clone()));
            id = before(id);
            matched.push(id);
        }
        let [channels, per_group, ..] = kernel(graph, id);
        let conv = conv(graph, id)?;
        // An activation that could not be joined with the convolution is not of the block's form.
        let act = match (&norm, outer) {
            (Some(_), outer) if conv.act == Act::None => outer.unwrap_or_default(),
            (None, None) => conv.act,
            _ => return None,
        };
        let depthwise = conv.groups == channels && per_group == 1;
        depthwise.then_some(Self {
            conv: id,
            norm,
            act,
            matched,
        })
    }
}

/// What the projection reads: the filtered map, the node that this was filtered from, and the sum
/// of both if there is an inner skip.
fn filtered(graph: &Graph, id: NodeId) -> Option<(Local, NodeId, Option<NodeId>)> {
    if graph.node(id).op != Op::Add {
        let local = Local::ending(graph, id)?;
        let wide = graph.operands(local.conv)[0].node;
        return Some((local, wide, None));
    }
    let operands = graph.operands(id);
    [(0, 1), (1, 0)].into_iter().find_map(|(local, wide)| {
        let (local, wide) = (Local::ending(graph, operands[local].node)?, operands[wide]);
        let skips = graph.operands(local.conv)[0] == wide;
        skips.then_some((local, wide.node, Some(id)))
    })
}

fn replace(graph: &mut Graph, root: NodeId, found: Found) -> Result<()> {
    let proj_name = &graph.node(found.proj).name;
    let name = proj_name
        .strip_suffix(".proj.conv")
        .unwrap_or(&graph.node(root).name)
        .to_string();
    let mut keys: Vec<(&str, String)> = Vec::new();
    for slot in found_slots(&found.op) {
        let (part, own) = slot.rsplit_once('.').unwrap_or(("", slot));
        let source = match part {
            "norm" => found.norm.map(|norm| (norm, own)),
            "expand" => Some((found.mixer, own)),
            "local" => Some((found.local, own)),
            "local_norm" => found.local_norm.map(|norm| (norm, own)),
            "proj" => Some((found.proj, own)),
            // The attention's own slots have the same names.
            _ => Some((found.mixer, slot)),
        };
        let key = source.and_then(|(node, own)| graph.node(node).weight(own));
        keys.extend(key.map(|key| (slot, key.to_string())));
    }
    let keys: Vec<_> = keys
        .iter()
        .map(|(slot, key)| (*slot, key.as_str()))
        .collect();
    let mut patch = Patch::replacing(graph, &found.matched);
    let fused = patch.add(&name, Op::I2Rmb(found.op), &[found.input], &keys)?;
    patch.redirect(root, fused);
    patch.finish()
}

fn found_slots(op: &I2Rmb) -> impl Iterator<Item = &'static str> {
    let slots = Op::I2Rmb(op.clone()).slots();
    slots.iter().map(|slot| slot.name)
}
