//! What a fused op stands for, as a graph of simpler ops.
//!
//! The reference evaluator evaluates fused ops through these rules and nothing else, and a
//! backend without a lowering of its own inlines them.

use super::{Act, Attention, Conv2d, Grouping, I2Rmb, Mixer, Norm, Op, WindowAttention, Windows};
use crate::{DType, Graph, Node, NodeId, Result, Value};

/// The fragment a fused node stands for: a graph with the node's operands as inputs and its
/// value as result, parts named `<node>.<part>`. `None` for an op that is not fused.
///
/// # Errors
/// Only for a node that violates its own shape rule.
pub fn decompose(graph: &Graph, id: NodeId) -> Result<Option<Graph>> {
    let node = graph.node(id);
    if !node.op.is_fused() {
        return Ok(None);
    }
    let mut fragment = Graph::new(&node.name);
    for key in node.weights.values() {
        fragment
            .weights
            .insert(key, graph.weights.get(key)?.clone());
    }
    let x = graph.operands(id)[0];
    let x = fragment.add_input(&format!("{}.x", node.name), graph.ty(x).clone())?;
    let result = match &node.op {
        Op::Conv2d(conv) => activated_conv(&mut fragment, node, conv, x)?,
        Op::WindowAttention(op) => expand_attention(&mut fragment, &node.name, op, x, |slot| {
            node.weight(slot).map(str::to_string)
        })?,
        Op::I2Rmb(block) => expand_block(&mut fragment, node, block, x)?,
        Op::Input
        | Op::Constant
        | Op::BatchNorm(_)
        | Op::LayerNorm(_)
        | Op::Activation(_)
        | Op::LayerScale
        | Op::Add
        | Op::Cast { .. }
        | Op::Scale { .. }
        | Op::Pad { .. }
        | Op::Crop { .. }
        | Op::Split { .. }
        | Op::WindowPartition(_)
        | Op::WindowMerge { .. }
        | Op::MatMul { .. }
        | Op::Softmax
        | Op::GlobalAvgPool
        | Op::Linear => return Ok(None),
    };
    fragment.add_output("result", result);
    Ok(Some(fragment))
}

/// The graph with every fused op for which `wanted` holds replaced by its decomposition,
/// recursively.
///
/// # Errors
/// Those of [`decompose`].
pub fn decompose_all(graph: &Graph, wanted: impl Fn(&Op) -> bool + Copy) -> Result<Graph> {
    let mut flat = Graph::new(&graph.name);
    for (key, weight) in graph.weights.iter() {
        flat.weights.insert(key, weight.clone());
    }
    let mut values = std::collections::BTreeMap::new();
    for id in graph.topological_order() {
        let node = graph.node(id);
        let operands: Vec<Value> = graph.operands(id).iter().map(|v| values[v]).collect();
        let fragment = if wanted(&node.op) {
            decompose(graph, id)?
        } else {
            None
        };
        if let Some(fragment) = fragment {
            let fragment = decompose_all(&fragment, wanted)?;
            let result = inline(&mut flat, &fragment, &operands, &node.name)?;
            values.insert(id.into(), result);
            continue;
        }
        let copy = copy_node(&mut flat, node, &operands)?;
        for output in 0..node.outputs.len() {
            values.insert(Value { node: id, output }, Value { node: copy, output });
        }
    }
    for output in graph.outputs() {
        flat.add_output(&output.name, values[&output.value]);
    }
    Ok(flat)
}

fn copy_node(into: &mut Graph, node: &Node, operands: &[Value]) -> Result<NodeId> {
    if node.op == Op::Input {
        return Ok(into.add_input(&node.name, node.outputs[0].clone())?.node);
    }
    let weights = node.weight_pairs();
    into.add(&node.name, node.op.clone(), operands, &weights)
}

/// Copies a fragment's nodes; the one that computes the result takes the fused node's name.
fn inline(into: &mut Graph, fragment: &Graph, operands: &[Value], name: &str) -> Result<Value> {
    let result = fragment.outputs()[0].value;
    let mut values = std::collections::BTreeMap::new();
    for (input, operand) in fragment.inputs().iter().zip(operands) {
        values.insert(Value::from(*input), *operand);
    }
    for id in fragment.topological_order() {
        let mut node = fragment.node(id).clone();
        if node.op == Op::Input {
            continue;
        }
        if id == result.node {
            node.name = name.to_string();
        }
        let operands: Vec<Value> = fragment.operands(id).iter().map(|v| values[v]).collect();
        let copy = copy_node(into, &node, &operands)?;
        for output in 0..node.outputs.len() {
            values.insert(Value { node: id, output }, Value { node: copy, output });
        }
    }
    Ok(values[&result])
}

fn activated_conv(graph: &mut Graph, node: &Node, conv: &Conv2d, x: Value) -> Result<Value> {
    let plain = Conv2d {
        act: Act::None,
        ..conv.clone()
    };
    let weights = node.weight_pairs();
    let name = format!("{}.conv", node.name);
    let conv_only = graph.add(&name, Op::Conv2d(plain), &[x], &weights)?;
    activation(
        graph,
        &format!("{}.act", node.name),
        conv.act,
        conv_only.into(),
    )
}

fn activation(graph: &mut Graph, name: &str, act: Act, x: Value) -> Result<Value> {
    match act {
        Act::None => Ok(x),
        Act::Silu | Act::Gelu => Ok(graph.add(name, Op::Activation(act), &[x], &[])?.into()),
    }
}

/// A convolution whose weights are found under `slot.weight` and `slot.bias`.
fn conv(
    graph: &mut Graph,
    name: &str,
    conv: Conv2d,
    x: Value,
    slot: &str,
    key: &impl Fn(&str) -> Option<String>,
) -> Result<Value> {
    let keys = ["weight", "bias"].map(|part| (part, key(&format!("{slot}.{part}"))));
    let present: Vec<_> = keys
        .iter()
        .filter_map(|(part, key)| Some((*part, key.as_deref()?)))
        .collect();
    Ok(graph.add(name, Op::Conv2d(conv), &[x], &present)?.into())
}

/// Adds the nodes of a window attention under the module path `name`, faithful to the PyTorch
/// module: pad, project to q, k and v, attend inside each grouping's windows, sum, crop.
/// `key` gives the weight key of a slot of [`Op::WindowAttention`].
///
/// # Errors
/// Operands that do not fit.
pub fn expand_attention(
    graph: &mut Graph,
    name: &str,
    op: &WindowAttention,
    x: Value,
    key: impl Fn(&str) -> Option<String>,
) -> Result<Value> {
    let size = |graph: &Graph, value: Value, axis: usize| {
        let dim = graph.ty(value).shape.0.get(axis).copied();
        dim.map_or(0, |dim| dim.resolve(1))
    };
    let (height, width) = (size(graph, x, 2), size(graph, x, 3));
    let [bottom, right] = op.padding(height, width);
    let mut map = x;
    let padded = [bottom, right] != [0, 0];
    if padded {
        let pad = Op::Pad { bottom, right };
        map = graph.add(&format!("{name}.pad"), pad, &[x], &[])?.into();
    }
    let qkv = project(graph, name, op, map, &key)?;
    let groupings: &[Grouping] = match op.attention {
        Attention::Close | Attention::CloseTwice => &[Grouping::Close],
        Attention::Remote => &[Grouping::Remote],
        Attention::Hybrid => &[Grouping::Remote, Grouping::Close],
    };
    let mut terms = Vec::new();
    for &grouping in groupings {
        terms.push(attend(graph, name, op, grouping, qkv)?);
    }
    if op.attention == Attention::CloseTwice {
        terms.push(terms[0]);
    }
    let mut sum = terms[0];
    if let Some(&second) = terms.get(1) {
        sum = graph
            .add(&format!("{name}.sum"), Op::Add, &[sum, second], &[])?
            .into();
    }
    if padded {
        let crop = Op::Crop { height, width };
        sum = graph
            .add(&format!("{name}.crop"), crop, &[sum], &[])?
            .into();
    }
    Ok(sum)
}

/// q, k and v of an image of whole windows.
fn project(
    graph: &mut Graph,
    name: &str,
    op: &WindowAttention,
    map: Value,
    key: &impl Fn(&str) -> Option<String>,
) -> Result<[Value; 3]> {
    let [qk, v] = ["qk", "v"].map(|slot| {
        let path = format!("{name}.{slot}.conv");
        conv(graph, &path, Conv2d::pointwise(), map, slot, key)
    });
    let (qk, v) = (qk?, v?);
    let v = activation(graph, &format!("{name}.v.act"), op.act, v)?;
    let half = graph.ty(qk).shape.0[1].resolve(1) / 2;
    let sizes = vec![half, half];
    let node = graph.add(&format!("{name}.qk.split"), Op::Split { sizes }, &[qk], &[])?;
    Ok([node.into(), Value { node, output: 1 }, v])
}

/// Attention inside the windows of one grouping, back as an image.
fn attend(
    graph: &mut Graph,
    name: &str,
    op: &WindowAttention,
    grouping: Grouping,
    qkv: [Value; 3],
) -> Result<Value> {
    let name = match grouping {
        Grouping::Close => format!("{name}.close"),
        Grouping::Remote => format!("{name}.remote"),
    };
    let part = |part: &str| format!("{name}.{part}");
    let windows = Windows {
        grouping,
        window: op.window,
        heads: op.heads,
    };
    let mut tokens = Vec::new();
    for (part_name, value) in ["q", "k", "v"].into_iter().zip(qkv) {
        let partition = Op::WindowPartition(windows);
        tokens.push(
            graph
                .add(&part(part_name), partition, &[value], &[])?
                .into(),
        );
    }
    let product = Op::MatMul { transpose_b: true };
    let mut scores = graph.add(&part("scores"), product, &tokens[..2], &[])?;
    if op.scale != 1.0 {
        let scale = Op::Scale { factor: op.scale };
        scores = graph.add(&part("scale"), scale, &[scores.into()], &[])?;
    }
    let probabilities = softmax(graph, &part("softmax"), scores.into(), op.narrow_softmax)?;
    let product = Op::MatMul { transpose_b: false };
    let mixed = graph.add(&part("mix"), product, &[probabilities, tokens[2]], &[])?;
    let [height, width] = [2, 3].map(|axis| graph.ty(qkv[2]).shape.0[axis].resolve(1));
    let merge = Op::WindowMerge {
        windows,
        height,
        width,
    };
    Ok(graph
        .add(&part("merge"), merge, &[mixed.into()], &[])?
        .into())
}

/// Softmax in the type of the scores if that is wanted, in float32 otherwise.
fn softmax(graph: &mut Graph, name: &str, scores: Value, narrow: bool) -> Result<Value> {
    let dtype = graph.ty(scores).dtype;
    if narrow || dtype == DType::F32 {
        return Ok(graph.add(name, Op::Softmax, &[scores], &[])?.into());
    }
    let widen = Op::Cast { to: DType::F32 };
    let wide = graph.add(&format!("{name}.scores"), widen, &[scores], &[])?;
    let wide = graph.add(&format!("{name}.wide"), Op::Softmax, &[wide.into()], &[])?;
    let narrow = Op::Cast { to: dtype };
    Ok(graph.add(name, narrow, &[wide.into()], &[])?.into())
}

fn expand_block(graph: &mut Graph, node: &Node, block: &I2Rmb, x: Value) -> Result<Value> {
    let name = &node.name;
    let key = |slot: &str| node.weight(slot).map(str::to_string);
    let mut map = x;
    if let Some(norm) = &block.norm {
        map = normed(graph, node, "norm", norm, x)?;
    }
    let wide = mix(graph, node, &block.mixer, map)?;
    let depthwise = Conv2d {
        stride: block.stride,
        padding: block.padding,
        groups: graph.ty(wide).shape.0[1].resolve(1),
        act: Act::None,
    };
    let mut local = conv(
        graph,
        &format!("{name}.local"),
        depthwise,
        wide,
        "local",
        &key,
    )?;
    if let Some(norm) = &block.local_norm {
        local = normed(graph, node, "local_norm", norm, local)?;
    }
    let mut local = activation(graph, &format!("{name}.local.act"), block.local_act, local)?;
    if block.inner_skip {
        local = graph
            .add(&format!("{name}.inner_skip"), Op::Add, &[wide, local], &[])?
            .into();
    }
    let proj = conv(
        graph,
        &format!("{name}.proj"),
        Conv2d::pointwise(),
        local,
        "proj",
        &key,
    )?;
    if block.residual {
        return Ok(graph
            .add(&format!("{name}.skip"), Op::Add, &[x, proj], &[])?
            .into());
    }
    Ok(proj)
}

/// A norm of the block with the weights in `<part>.weight` and `<part>.bias`.
fn normed(graph: &mut Graph, node: &Node, part: &str, norm: &Norm, x: Value) -> Result<Value> {
    let affine: Vec<_> = ["weight", "bias"]
        .into_iter()
        .filter_map(|slot| Some((slot, node.weight(&format!("{part}.{slot}"))?)))
        .collect();
    let name = format!("{}.{part}", node.name);
    let normed = graph.add(&name, Op::LayerNorm(norm.clone()), &[x], &affine)?;
    Ok(normed.into())
}

/// The expanded map: a 1x1 convolution and its activation, or window attention.
fn mix(graph: &mut Graph, node: &Node, mixer: &Mixer, map: Value) -> Result<Value> {
    let name = &node.name;
    let key = |slot: &str| node.weight(slot).map(str::to_string);
    match mixer {
        Mixer::Expand(act) => {
            let expand = Conv2d::pointwise();
            let wide = conv(
                graph,
                &format!("{name}.expand"),
                expand,
                map,
                "expand",
                &key,
            )?;
            activation(graph, &format!("{name}.expand.act"), *act, wide)
        }
        Mixer::Attention(op) => {
            let attention = Op::WindowAttention(op.clone());
            let slots = attention.slots().iter();
            let slots: Vec<_> = slots
                .filter_map(|s| Some((s.name, node.weight(s.name)?)))
                .collect();
            let attended = graph.add(&format!("{name}.attention"), attention, &[map], &slots)?;
            Ok(attended.into())
        }
    }
}
