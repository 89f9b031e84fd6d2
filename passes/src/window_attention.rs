//! Recognises a window attention: projections, partitions, scores, softmax, mix, merge, sum, and
//! padding and cropping around them if the windows are incomplete.

use emoc_ir::{
    Graph, NodeId, Patch, Result, Value,
    ops::{Act, Attention, Grouping, Op, WindowAttention, Windows},
};

use crate::fold::{conv, is_closed, is_pointwise, replace_backward};

/// From the results backward, so that a sum is tried before its terms.
pub(crate) fn run(graph: &mut Graph) -> Result<usize> {
    replace_backward(graph, find, replace)
}

struct Found {
    op: WindowAttention,
    input: Value,
    qk: NodeId,
    v: NodeId,
    matched: Vec<NodeId>,
}

/// One attention inside the windows of one grouping.
struct Term {
    windows: Windows,
    scale: f64,
    /// Where q and k are split.
    split: NodeId,
    v: NodeId,
    matched: Vec<NodeId>,
}

fn find(graph: &Graph, root: NodeId) -> Option<Found> {
    let (sum, crop) = match graph.node(root).op {
        Op::Crop { height, width } => (graph.operands(root)[0].node, Some([height, width])),
        _ => (root, None),
    };
    let mut terms = terms_of(graph, sum)?;
    let mut matched = vec![root, sum];
    matched.extend(terms.iter().flat_map(|term| term.matched.iter().copied()));
    let attention = attention_of(graph, sum, &terms)?;
    let Term {
        windows,
        scale,
        split,
        v,
        ..
    } = terms.swap_remove(0);

    let qk = graph.operands(split)[0].node;
    let half = graph.ty(split).shape.0[1];
    let second = Value {
        node: split,
        output: 1,
    };
    let halves = graph.ty(second).shape.0[1] == half;
    let projections = is_pointwise(graph, qk) && is_pointwise(graph, v);
    if !halves || !projections || conv(graph, qk)?.act != Act::None {
        return None;
    }
    matched.extend([split, qk, v]);
    let map = graph.operands(qk)[0];
    if graph.operands(v)[0] != map {
        return None;
    }
    let op = WindowAttention {
        attention,
        heads: windows.heads,
        window: windows.window,
        scale,
        act: conv(graph, v)?.act,
        narrow_softmax: false,
    };
    let input = unpadded(graph, &op, map, crop, &mut matched)?;
    matched.sort_unstable();
    matched.dedup();
    let found = Found {
        op,
        input,
        qk,
        v,
        matched,
    };
    is_closed(graph, &found.matched, root).then_some(found)
}

/// The attentions that a node sums, or the one that it merges.
fn terms_of(graph: &Graph, sum: NodeId) -> Option<Vec<Term>> {
    match graph.node(sum).op {
        Op::Add => {
            let operands = graph.operands(sum).into_iter();
            operands.map(|operand| term(graph, operand.node)).collect()
        }
        _ => term(graph, sum).map(|term| vec![term]),
    }
}

/// Which attention the terms make up, if they share their projections and windows.
fn attention_of(graph: &Graph, sum: NodeId, terms: &[Term]) -> Option<Attention> {
    let first = &terms[0];
    let Some(second) = terms.get(1) else {
        return Some(match first.windows.grouping {
            Grouping::Close => Attention::Close,
            Grouping::Remote => Attention::Remote,
        });
    };
    let operands = graph.operands(sum);
    if operands[0] == operands[1] {
        return (first.windows.grouping == Grouping::Close).then_some(Attention::CloseTwice);
    }
    let grouped = |windows: &Windows| (windows.window, windows.heads);
    let shared = first.split == second.split
        && first.v == second.v
        && first.scale == second.scale
        && grouped(&first.windows) == grouped(&second.windows);
    let both = first.windows.grouping != second.windows.grouping;
    (shared && both).then_some(Attention::Hybrid)
}

/// Matches one attention backward from its merge.
fn term(graph: &Graph, merge: NodeId) -> Option<Term> {
    let Op::WindowMerge { windows, .. } = graph.node(merge).op else {
        return None;
    };
    let mut matched = vec![merge];
    let mut step = |id: NodeId, wanted: &Op| {
        matched.push(id);
        (graph.node(id).op == *wanted).then(|| graph.operands(id))
    };
    let mix = graph.operands(merge)[0].node;
    let mixed = step(mix, &Op::MatMul { transpose_b: false })?;
    let softmax = step(mixed[0].node, &Op::Softmax)?;
    let mut scores = softmax[0].node;
    let mut scale = 1.0;
    if let Op::Scale { factor } = graph.node(scores).op {
        scale = factor;
        scores = step(scores, &Op::Scale { factor })?[0].node;
    }
    let product = step(scores, &Op::MatMul { transpose_b: true })?;
    let mut part = |value: Value| Some(step(value.node, &Op::WindowPartition(windows))?[0]);
    let (q, k, v) = (part(product[0])?, part(product[1])?, part(mixed[1])?);
    let is_split = matches!(&graph.node(q.node).op, Op::Split { sizes } if sizes.len() == 2);
    let in_order = q.node == k.node && (q.output, k.output) == (0, 1);
    (is_split && in_order).then_some(Term {
        windows,
        scale,
        split: q.node,
        v: v.node,
        matched,
    })
}

/// The attention's input: the projections' own, or what was padded to whole windows for them
/// and is cropped back behind them.
fn unpadded(
    graph: &Graph,
    op: &WindowAttention,
    map: Value,
    crop: Option<[usize; 2]>,
    matched: &mut Vec<NodeId>,
) -> Option<Value> {
    let size = |value: Value| [2, 3].map(|axis| graph.ty(value).shape.0[axis].resolve(1));
    let Op::Pad { bottom, right } = graph.node(map.node).op else {
        let [height, width] = size(map);
        let whole = op.padding(height, width) == [0, 0];
        return (crop.is_none() && whole).then_some(map);
    };
    let input = graph.operands(map.node)[0];
    let [height, width] = size(input);
    let completes = op.padding(height, width) == [bottom, right];
    matched.push(map.node);
    (completes && crop == Some([height, width])).then_some(input)
}

fn replace(graph: &mut Graph, root: NodeId, found: Found) -> Result<()> {
    let (qk, v) = (graph.node(found.qk).clone(), graph.node(found.v).clone());
    let name = qk
        .name
        .strip_suffix(".qk.conv")
        .unwrap_or(&graph.node(root).name)
        .to_string();
    let keys = [
        ("qk.weight", qk.weight("weight")),
        ("qk.bias", qk.weight("bias")),
        ("v.weight", v.weight("weight")),
        ("v.bias", v.weight("bias")),
    ];
    let keys: Vec<_> = keys
        .iter()
        .filter_map(|(slot, key)| Some((*slot, (*key)?)))
        .collect();
    let mut patch = Patch::replacing(graph, &found.matched);
    let fused = patch.add(&name, Op::WindowAttention(found.op), &[found.input], &keys)?;
    patch.redirect(root, fused);
    patch.finish()
}
