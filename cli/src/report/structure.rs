//! The network as it is drawn: stages of blocks, blocks of parts, and what flows between them.

use std::collections::BTreeMap;

use emoc_ir::{
    Cost, Graph, Node, NodeId, Result,
    ops::{Act, Attention, Conv2d, Grouping, Op, WindowAttention, Windows},
};
use serde::Serialize;

/// Blocks on maps of one size, or everything behind the last of them.
#[derive(Serialize)]
pub struct Stage {
    /// `stage0` to `stage4`, or `head`.
    pub name: String,
    pub parameters: u64,
    pub macs: u64,
    /// What leaves it for one image: `[C, H, W]`.
    pub output: Vec<usize>,
    pub blocks: Vec<Block>,
}

/// A block, or a part of the stem or head.
#[derive(Serialize)]
pub struct Block {
    pub name: String,
    pub parameters: u64,
    pub macs: u64,
    /// Of all values in it, for one image.
    pub activation_bytes: u64,
    /// What enters and leaves it for one image.
    pub input: Vec<usize>,
    pub output: Vec<usize>,
    /// Height and width of the largest kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<[usize; 2]>,
    pub stride: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention: Option<AttentionRecord>,
    pub parts: Vec<Part>,
    pub keys: Vec<KeyRecord>,
}

/// One box of the drawing: the nodes of one PyTorch module.
#[derive(Serialize)]
pub struct Part {
    pub name: String,
    /// What it computes, a line for each step.
    pub does: Vec<String>,
    /// Which earlier parts of the block it reads; none is the block's input.
    pub reads: Vec<Option<usize>>,
    pub output: Vec<usize>,
    pub parameters: u64,
    pub macs: u64,
}

#[derive(Serialize)]
pub struct AttentionRecord {
    /// `hybrid`, `remote` or `close`.
    pub kind: &'static str,
    pub window: [usize; 2],
    /// Windows of each grouping on the map.
    pub windows: usize,
    pub heads: usize,
    /// The map with the zeros around it, where windows do not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padded: Option<[usize; 2]>,
}

/// A tensor of the checkpoint.
#[derive(Serialize)]
pub struct KeyRecord {
    pub key: String,
    pub shape: Vec<usize>,
}

/// Where a node stands in the drawing.
struct Place<'a> {
    stage: &'a str,
    block: &'a str,
    part: &'a str,
}

impl<'a> Place<'a> {
    /// `stage3.1.eops.0.v.conv` is in part `eops` of block `stage3.1`; what is behind the stages
    /// has no blocks.
    fn of(name: &'a str) -> Self {
        let ends: Vec<_> = name.match_indices('.').map(|(at, _)| at).collect();
        let upto = |dots: usize| ends.get(dots - 1).map_or(name, |&end| &name[..end]);
        match name.starts_with("stage") {
            true => Self {
                stage: upto(1),
                block: upto(2),
                part: upto(3),
            },
            false => Self {
                stage: "head",
                block: upto(1),
                part: upto(1),
            },
        }
    }
}

/// The drawing of a faithful graph.
///
/// # Errors
/// A graph that is not well-formed.
pub fn stages(graph: &Graph) -> Result<Vec<Stage>> {
    let costs = |part: fn(&str) -> &str| -> Result<BTreeMap<String, Cost>> {
        Ok(graph.cost_by(1, part)?.stages.into_iter().collect())
    };
    let by_part = costs(|name| Place::of(name).part)?;
    let by_block = costs(|name| Place::of(name).block)?;
    let by_stage = costs(|name| Place::of(name).stage)?;
    let mut stages: Vec<Stage> = Vec::new();
    for (block, parts) in blocks(graph) {
        let block = draw(graph, &block, &parts, &by_block, &by_part)?;
        let name = Place::of(&block.name).stage.to_owned();
        let output = block.output.clone();
        match stages.iter_mut().find(|stage| stage.name == name) {
            Some(stage) => {
                stage.output = output;
                stage.blocks.push(block);
            }
            None => {
                let cost = by_stage.get(&name).cloned().unwrap_or_default();
                stages.push(Stage {
                    name,
                    parameters: cost.parameters,
                    macs: cost.macs,
                    output,
                    blocks: vec![block],
                });
            }
        }
    }
    Ok(stages)
}

/// Nodes by part.
type Parts = Vec<(String, Vec<NodeId>)>;

/// The nodes in the order of computation, by block and part.
fn blocks(graph: &Graph) -> Vec<(String, Parts)> {
    let mut blocks: Vec<(String, Parts)> = Vec::new();
    for id in graph.topological_order() {
        let node = graph.node(id);
        if node.op == Op::Input {
            continue;
        }
        let place = Place::of(&node.name);
        let index = blocks.iter().position(|(name, _)| name == place.block);
        let index = index.unwrap_or_else(|| {
            blocks.push((place.block.to_owned(), Vec::new()));
            blocks.len() - 1
        });
        let parts = &mut blocks[index].1;
        match parts.iter_mut().find(|(name, _)| name == place.part) {
            Some((_, nodes)) => nodes.push(id),
            None => parts.push((place.part.to_owned(), vec![id])),
        }
    }
    blocks
}

fn draw(
    graph: &Graph,
    name: &str,
    nodes: &Parts,
    by_block: &BTreeMap<String, Cost>,
    by_part: &BTreeMap<String, Cost>,
) -> Result<Block> {
    let part_of = |id: NodeId| nodes.iter().position(|(_, nodes)| nodes.contains(&id));
    let mut input = Vec::new();
    let mut parts = Vec::new();
    for (index, (path, ids)) in nodes.iter().enumerate() {
        let mut reads = Vec::new();
        for value in ids.iter().flat_map(|&id| graph.operands(id)) {
            let from = part_of(value.node);
            if from.is_none() && input.is_empty() {
                input = shape(&graph.ty(value).shape);
            }
            if from != Some(index) && !reads.contains(&from) {
                reads.push(from);
            }
        }
        reads.sort_unstable();
        let cost = by_part.get(path).cloned().unwrap_or_default();
        let output = ids.last().map(|&id| shape(&graph.ty(id).shape));
        parts.push(Part {
            name: path.rsplit('.').next().unwrap_or(path).to_owned(),
            does: steps(graph, ids)?,
            reads,
            output: output.unwrap_or_default(),
            parameters: cost.parameters,
            macs: cost.macs,
        });
    }
    let all: Vec<_> = nodes.iter().flat_map(|(_, ids)| ids).copied().collect();
    let cost = by_block.get(name).cloned().unwrap_or_default();
    let (kernel, stride) = depthwise(graph, &all);
    Ok(Block {
        name: name.to_owned(),
        parameters: cost.parameters,
        macs: cost.macs,
        activation_bytes: cost.activation_bytes,
        input,
        output: parts.last().map_or(Vec::new(), |part| part.output.clone()),
        kernel,
        stride,
        attention: attention(graph, &all),
        parts,
        keys: keys(graph, &all)?,
    })
}

/// A shape for one image, without the axis of images.
fn shape(shape: &emoc_ir::Shape) -> Vec<usize> {
    let sizes = shape.resolve(1);
    sizes.get(1..).map(<[_]>::to_vec).unwrap_or_default()
}

/// The largest kernel and the step of a block.
fn depthwise(graph: &Graph, nodes: &[NodeId]) -> (Option<[usize; 2]>, usize) {
    let mut stride = 1;
    let mut kernel = None;
    for &id in nodes {
        let node = graph.node(id);
        if let (Op::Conv2d(conv), Some(size)) = (&node.op, kernel_of(graph, node)) {
            stride = stride.max(conv.stride);
            kernel = kernel.max(Some(size));
        }
    }
    (kernel, stride)
}

fn kernel_of(graph: &Graph, node: &Node) -> Option<[usize; 2]> {
    let weight = graph.weights.get(node.weight("weight")?).ok()?;
    let dims = weight.dims();
    Some([*dims.get(2)?, *dims.get(3)?])
}

fn attention(graph: &Graph, nodes: &[NodeId]) -> Option<AttentionRecord> {
    let merges = nodes.iter().filter_map(|&id| match &graph.node(id).op {
        Op::WindowMerge {
            windows,
            height,
            width,
        } => Some((*windows, [*height, *width])),
        _ => None,
    });
    let merges: Vec<_> = merges.collect();
    let (windows, size) = *merges.first()?;
    let has = |grouping| merges.iter().any(|(w, _)| w.grouping == grouping);
    let map = nodes.last().map(|&id| shape(&graph.ty(id).shape));
    let map = map.filter(|map| map.len() == 3).map(|map| [map[1], map[2]]);
    let [height, width] = [0, 1].map(|axis| size[axis] / windows.window[axis].max(1));
    Some(AttentionRecord {
        kind: match (has(Grouping::Remote), has(Grouping::Close)) {
            (true, true) => "hybrid",
            (true, false) => "remote",
            (false, _) => "close",
        },
        window: windows.window,
        windows: height * width,
        heads: windows.heads,
        padded: (map != Some(size)).then_some(size),
    })
}

/// The tensors of the checkpoint that these nodes use, each once.
fn keys(graph: &Graph, nodes: &[NodeId]) -> Result<Vec<KeyRecord>> {
    let mut keys: Vec<KeyRecord> = Vec::new();
    for &id in nodes {
        for key in graph.node(id).weights.values() {
            if !keys.iter().any(|known| known.key == *key) {
                keys.push(KeyRecord {
                    key: key.clone(),
                    shape: graph.weights.get(key)?.dims(),
                });
            }
        }
    }
    Ok(keys)
}

/// What the nodes of a part compute, in words.
fn steps(graph: &Graph, nodes: &[NodeId]) -> Result<Vec<String>> {
    let mut steps: Vec<String> = Vec::new();
    for &id in nodes {
        let node = graph.node(id);
        let Some(step) = step(graph, node)? else {
            continue;
        };
        match (&node.op, steps.last_mut()) {
            // Behind the sum of a convolution it is no step of its own.
            (Op::Activation(_), Some(last)) => *last = format!("{last}, {step}"),
            _ => steps.push(step),
        }
    }
    Ok(steps)
}

/// What a node computes; none for the inside of an attention, which its last node speaks for.
fn step(graph: &Graph, node: &Node) -> Result<Option<String>> {
    let dims = match node.weight("weight") {
        Some(key) => graph.weights.get(key)?.dims(),
        None => Vec::new(),
    };
    let text = match &node.op {
        Op::Conv2d(conv) => convolution(&node.name, conv, &dims),
        Op::BatchNorm(_) => "BatchNorm".into(),
        Op::LayerNorm(_) => "LayerNorm over channels".into(),
        Op::Activation(act) => activation(*act).into(),
        Op::LayerScale => "a factor for each channel".into(),
        Op::Add => "sum".into(),
        Op::Cast { to } => format!("as {to}"),
        Op::Pad { bottom, right } => format!("{bottom} rows and {right} columns of zeros"),
        Op::Crop { height, width } => format!("cut to {height}×{width}"),
        Op::WindowMerge { windows, .. } => windowed(windows),
        Op::GlobalAvgPool => "mean over the map".into(),
        Op::Linear => match dims[..] {
            [to, from] => format!("fully connected, {from} → {to}"),
            _ => "fully connected".into(),
        },
        Op::WindowAttention(op) => fused(op),
        Op::I2Rmb(_) => "the whole block".into(),
        Op::Input
        | Op::Constant
        | Op::Scale { .. }
        | Op::Split { .. }
        | Op::WindowPartition(_)
        | Op::MatMul { .. }
        | Op::Softmax => return Ok(None),
    };
    Ok(Some(text))
}

fn convolution(name: &str, conv: &Conv2d, dims: &[usize]) -> String {
    let &[output, per_group, height, width] = dims else {
        return "convolution".into();
    };
    let of = match name.rsplit('.').nth(1) {
        Some("qk") => "q and k: ",
        Some("v") => "v: ",
        _ => "",
    };
    let mut text = match conv.groups > 1 && per_group == 1 {
        true => format!("{of}{height}×{width} depthwise, {output} channels"),
        false => {
            let input = per_group * conv.groups;
            format!("{of}{height}×{width} convolution, {input} → {output}")
        }
    };
    if conv.stride > 1 {
        text += &format!(", stride {}", conv.stride);
    }
    if conv.act != Act::None {
        text += &format!(", {}", activation(conv.act));
    }
    text
}

fn activation(act: Act) -> &'static str {
    match act {
        Act::None => "identity",
        Act::Silu => "SiLU",
        Act::Gelu => "GELU",
    }
}

fn windowed(windows: &Windows) -> String {
    let grouping = match windows.grouping {
        Grouping::Close => "close",
        Grouping::Remote => "remote",
    };
    let ([height, width], heads) = (windows.window, windows.heads);
    format!("{grouping} attention, windows of {height}×{width}, {heads} heads")
}

fn fused(op: &WindowAttention) -> String {
    let kind = match op.attention {
        Attention::Close => "close",
        Attention::Remote => "remote",
        Attention::Hybrid => "hybrid",
        Attention::CloseTwice => "twice the close",
    };
    let ([height, width], heads) = (op.window, op.heads);
    format!("{kind} attention, windows of {height}×{width}, {heads} heads")
}
