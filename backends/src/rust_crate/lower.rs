//! From the optimised graph to the layers of an emitted crate and their packed weights.

use emoc_ir::{
    Diagnostic, Node, NodeId, Result, Value, Verified,
    ops::{Act, Attention, Conv2d, I2Rmb, Mixer as MixerOp, Op, WindowAttention},
};
use emoc_kernels::{
    cpu::{LANES, Shape, Stem},
    pack::{self, Channels},
};

/// A network in the order of execution. Weights lie in `weights` in that order too, each part at
/// a multiple of sixteen, so one offset per layer or block says where all of its parts are.
pub struct Network {
    pub input: Shape,
    pub stem: Conv,
    pub local: Conv,
    pub stages: Vec<Stage>,
    pub head: Option<Head>,
    pub weights: Vec<f32>,
}

/// One of the two convolutions of stage 0.
pub struct Conv {
    pub name: String,
    pub channels: usize,
    pub kernel: usize,
    pub padding: usize,
    pub act: Act,
    pub weights: usize,
}

/// A block that changes the map, and blocks of one form that do not.
pub struct Stage {
    pub first: Block,
    pub rest: Vec<Block>,
}

pub struct Block {
    pub name: String,
    pub form: Form,
    pub weights: usize,
}

/// What blocks of one kind have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct Form {
    pub map: Shape,
    pub inputs: usize,
    /// Channels between, padding of heads included.
    pub mid: usize,
    pub outputs: usize,
    pub norm: Option<Norm>,
    pub mixer: Mixer,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
    pub local_norm: Option<LocalNorm>,
    pub local_act: Act,
    pub inner_skip: bool,
    pub residual: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    pub eps: f64,
    pub weight: bool,
    pub bias: bool,
}

/// A norm between the depthwise convolution and its activation.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalNorm {
    pub norm: Norm,
    pub heads: usize,
    /// Channels of a head, without padding.
    pub channels: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Mixer {
    Expand(Act),
    Attention {
        op: WindowAttention,
        dim_qk: usize,
        /// Channels of one head of v, padded to whole panels.
        dim_v: usize,
    },
}

/// What follows the last block of a classifier.
pub struct Head {
    pub norm: Option<Norm>,
    pub channels: usize,
    pub classes: usize,
    pub weights: usize,
}

impl Network {
    /// The map after stage 0.
    pub fn stem_map(&self) -> Shape {
        Stem::output_shape(self.input)
    }

    /// Whether norms follow the depthwise convolutions, in all blocks or in none.
    pub fn has_local_norms(&self) -> bool {
        let mut stages = self.stages.iter();
        stages.any(|stage| stage.first.form.local_norm.is_some())
    }

    /// The map after the last stage.
    pub fn last_map(&self) -> Shape {
        let last = self.stages.last();
        last.map_or(self.stem_map(), |stage| stage.first.form.output_map())
    }
}

impl Form {
    /// The expanded map where the convolution of it is not all that reads it: a norm needs all
    /// channels before anything can be added to one of them.
    pub fn kept_expansion(&self) -> Option<Shape> {
        let kept = self.local_norm.is_some() && self.inner_skip;
        kept.then_some(self.map)
    }

    /// The map after the block.
    pub fn output_map(&self) -> Shape {
        let size = |side: usize| (side + 2 * self.padding - self.kernel) / self.stride + 1;
        Shape::new(size(self.map.height), size(self.map.width))
    }
}

/// Reads the graph, which must be the whole pipeline's.
///
/// # Errors
/// A node that emitted crates have no kernel for.
pub fn lower(graph: &Verified) -> Result<Network> {
    let mut lowering = Lowering {
        graph,
        weights: Vec::new(),
    };
    let order: Vec<_> = graph
        .topological_order()
        .into_iter()
        .filter(|&id| !matches!(graph.node(id).op, Op::Input))
        .collect();
    let mut nodes = order.iter().copied().peekable();
    let input = lowering.input()?;
    let stem = lowering.stem(nodes.next())?;
    let local = lowering.stem_local(nodes.next(), stem.channels)?;
    let mut blocks = Vec::new();
    while let Some(id) = nodes.next_if(|&id| matches!(graph.node(id).op, Op::I2Rmb(_))) {
        blocks.push(lowering.block(id)?);
    }
    alike(&blocks)?;
    let stages = stages(blocks)?;
    let head = match nodes.peek() {
        None => None,
        Some(_) => Some(lowering.head(&mut nodes)?),
    };
    chained(graph, &order)?;
    results(graph, &stages, head.as_ref(), order.last())?;
    Ok(Network {
        input,
        stem,
        local,
        stages,
        head,
        weights: lowering.weights,
    })
}

/// Blocks by stage: a new one starts where the map or the channels change.
fn stages(blocks: Vec<Block>) -> Result<Vec<Stage>> {
    let mut stages: Vec<Stage> = Vec::new();
    for block in blocks {
        match stages.last_mut() {
            None if block.form.residual => {
                let message = "the rust target needs a block here that changes its map first";
                return Err(Diagnostic::input(message).node(block.name));
            }
            Some(stage) if block.form.residual => {
                if let Some(before) = stage.rest.last().filter(|b| b.form != block.form) {
                    return Err(unlike(&block.name, &before.name));
                }
                stage.rest.push(block);
            }
            _ => stages.push(Stage {
                first: block,
                rest: Vec::new(),
            }),
        }
    }
    Ok(stages)
}

/// `model.rs` has functions for blocks with local norms, or for blocks without.
fn alike(blocks: &[Block]) -> Result<()> {
    let Some(first) = blocks.first() else {
        return Ok(());
    };
    let normed = |block: &Block| block.form.local_norm.is_some();
    match blocks.iter().find(|block| normed(block) != normed(first)) {
        None => Ok(()),
        Some(other) => Err(Diagnostic::input(format!(
            "the rust target needs a norm after the depthwise convolution in every block or in \
             none, and this one differs from `{}`",
            first.name
        ))
        .node(&other.name)),
    }
}

/// Layers run one after the other, so every node must read what the one before it gives, and
/// nothing else.
fn chained(graph: &Verified, order: &[NodeId]) -> Result<()> {
    let mut before = graph.inputs().first().copied();
    for &id in order {
        let operands = graph.operands(id);
        if !operands.iter().copied().eq(before.map(Value::from)) {
            let node = graph.node(id);
            return Err(Diagnostic::input(
                "the rust target runs one node after the other, and this one reads something \
                 else than the result before it",
            )
            .node(&node.name));
        }
        before = Some(id);
    }
    Ok(())
}

/// The results must be the logits or, without a classifier, the ends of all stages in order.
fn results(
    graph: &Verified,
    stages: &[Stage],
    head: Option<&Head>,
    last: Option<&NodeId>,
) -> Result<()> {
    let outputs = graph.outputs().iter().map(|output| output.value.node);
    let fit = match head {
        Some(_) => outputs.eq(last.copied()),
        None => {
            let ends = stages.iter();
            let ends = ends.map(|stage| &stage.rest.last().unwrap_or(&stage.first).name);
            ends.eq(outputs.map(|id| &graph.node(id).name))
        }
    };
    match fit {
        true => Ok(()),
        false => Err(Diagnostic::input(
            "the rust target gives logits, or the results of all stages, and nothing else",
        )),
    }
}

fn unlike(block: &str, before: &str) -> Box<Diagnostic> {
    Diagnostic::input(format!(
        "the rust target needs equal blocks in a stage, and this one differs from `{before}`"
    ))
    .node(block)
}

fn not_lowered(node: &Node) -> Box<Diagnostic> {
    Diagnostic::input("the rust target has no kernel for this node")
        .node(&node.name)
        .help(
            "it takes EMO networks after the whole pipeline: leave out --passes and --stop-after, \
             or use --target onnx",
        )
}

struct Lowering<'a> {
    graph: &'a Verified,
    weights: Vec<f32>,
}

impl Lowering<'_> {
    fn input(&self) -> Result<Shape> {
        let [id] = self.graph.inputs() else {
            return Err(Diagnostic::input("the rust target needs one input"));
        };
        let dims: Vec<_> = self
            .graph
            .ty(*id)
            .shape
            .0
            .iter()
            .map(|d| d.fixed())
            .collect();
        match dims[..] {
            [Some(1) | None, Some(3), Some(height), Some(width)] => Ok(Shape::new(height, width)),
            _ => Err(
                Diagnostic::usage("an emitted crate takes one picture of three channels")
                    .help("leave out --batch: call the model once for each picture"),
            ),
        }
    }

    /// Where the next weights start.
    fn here(&self) -> usize {
        self.weights.len()
    }

    fn push(&mut self, part: Vec<f32>) {
        debug_assert!(part.len().is_multiple_of(LANES));
        self.weights.extend(part);
    }

    /// Values and dimensions of the weight in a slot.
    fn slot(&self, node: &Node, slot: &str) -> Result<Option<(Vec<usize>, Vec<f32>)>> {
        let Some(key) = node.weight(slot) else {
            return Ok(None);
        };
        let weight = self.graph.weights.get(key)?;
        Ok(Some((weight.dims(), weight.values()?.to_vec())))
    }

    fn required(&self, node: &Node, slot: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        self.slot(node, slot)?.ok_or_else(|| not_lowered(node))
    }

    /// One value per channel; zeros where the graph has none.
    fn vector(&mut self, node: &Node, slot: &str, channels: Channels) -> Result<()> {
        let values = self.slot(node, slot)?;
        let values = values.map_or_else(|| vec![0.0; channels.count()], |(_, values)| values);
        self.push(pack::vector(&values, channels));
        Ok(())
    }

    /// `<name>.weight` and `<name>.bias` of a 1x1 convolution.
    fn pointwise(&mut self, node: &Node, name: &str, to: Channels, from: Channels) -> Result<()> {
        let (_, values) = self.required(node, &slot_name(name, "weight"))?;
        self.push(pack::pointwise(&values, to, from));
        self.vector(node, &slot_name(name, "bias"), to)
    }

    /// `<name>.weight` and `<name>.bias` of a depthwise convolution or the stem.
    fn filters(&mut self, node: &Node, name: &str, channels: Channels) -> Result<()> {
        let (_, values) = self.required(node, &slot_name(name, "weight"))?;
        self.push(pack::filters(&values, channels));
        self.vector(node, &slot_name(name, "bias"), channels)
    }

    fn norm(&mut self, node: &Node, name: &str, eps: f64, channels: Channels) -> Result<Norm> {
        let mut present = [false; 2];
        for (present, slot) in present.iter_mut().zip(["weight", "bias"]) {
            let slot = slot_name(name, slot);
            *present = node.weight(&slot).is_some();
            if *present {
                self.vector(node, &slot, channels)?;
            }
        }
        let [weight, bias] = present;
        Ok(Norm { eps, weight, bias })
    }

    fn conv(&mut self, id: Option<NodeId>, depthwise: bool) -> Result<(Conv, Conv2d)> {
        let id = id.ok_or_else(|| Diagnostic::input("the graph has no stem"))?;
        let node = self.graph.node(id);
        let Op::Conv2d(op) = &node.op else {
            return Err(not_lowered(node));
        };
        let (dims, _) = self.required(node, "weight")?;
        let grouped = match depthwise {
            true => op.groups == dims[0] && dims[1] == 1,
            false => op.groups == 1,
        };
        if !grouped || dims[2] != dims[3] {
            return Err(not_lowered(node));
        }
        let weights = self.here();
        self.filters(node, "", Channels::plain(dims[0]))?;
        let conv = Conv {
            name: node.name.clone(),
            channels: dims[0],
            kernel: dims[2],
            padding: op.padding,
            act: op.act,
            weights,
        };
        Ok((conv, op.clone()))
    }

    fn stem(&mut self, id: Option<NodeId>) -> Result<Conv> {
        let (conv, op) = self.conv(id, false)?;
        match (conv.kernel, op.stride, op.padding) {
            (3, 2, 1) => Ok(conv),
            _ => Err(
                Diagnostic::input("the rust target needs a 3x3 stem of stride 2").node(conv.name),
            ),
        }
    }

    fn stem_local(&mut self, id: Option<NodeId>, channels: usize) -> Result<Conv> {
        let (conv, op) = self.conv(id, true)?;
        let same = [3, 5, 7].contains(&conv.kernel) && 2 * op.padding + 1 == conv.kernel;
        match conv.channels == channels && op.stride == 1 && same {
            true => Ok(conv),
            false => Err(Diagnostic::input(
                "the rust target needs a depthwise convolution here that leaves the map's size",
            )
            .node(conv.name)),
        }
    }

    fn block(&mut self, id: NodeId) -> Result<Block> {
        let node = self.graph.node(id);
        let Op::I2Rmb(op) = &node.op else {
            return Err(not_lowered(node));
        };
        let weights = self.here();
        let dims = self.graph.ty(self.graph.operands(id)[0]).shape.resolve(1);
        let (inputs, map) = (dims[1], Shape::new(dims[2], dims[3]));
        let norm = op.norm.as_ref();
        let norm = norm
            .map(|norm| self.norm(node, "norm", norm.eps, Channels::plain(inputs)))
            .transpose()?;
        let (mixer, mid) = self.mixer(node, op, inputs)?;
        let (filters, _) = self.required(node, "local.weight")?;
        let kernel = filters[2];
        if filters[0] != mid.count() || filters[3] != kernel {
            return Err(not_lowered(node));
        }
        self.filters(node, "local", mid)?;
        let local_norm = op.local_norm.as_ref();
        let local_norm = local_norm
            .map(|norm| self.norm(node, "local_norm", norm.eps, mid))
            .transpose()?
            .map(|norm| LocalNorm {
                norm,
                heads: mid.groups,
                channels: mid.group,
            });
        let outputs = self.required(node, "proj.weight")?.0[0];
        self.pointwise(node, "proj", Channels::plain(outputs), mid)?;
        let form = Form {
            map,
            inputs,
            mid: mid.packed(),
            outputs,
            norm,
            mixer,
            kernel,
            stride: op.stride,
            padding: op.padding,
            local_norm,
            local_act: op.local_act,
            inner_skip: op.inner_skip,
            residual: op.residual,
        };
        let name = node.name.clone();
        fits(&form).then_some(()).ok_or_else(|| not_lowered(node))?;
        Ok(Block {
            name,
            form,
            weights,
        })
    }

    fn mixer(&mut self, node: &Node, op: &I2Rmb, inputs: usize) -> Result<(Mixer, Channels)> {
        let from = Channels::plain(inputs);
        match &op.mixer {
            MixerOp::Expand(act) => {
                let mid = Channels::plain(self.required(node, "expand.weight")?.0[0]);
                self.pointwise(node, "expand", mid, from)?;
                Ok((Mixer::Expand(*act), mid))
            }
            MixerOp::Attention(attention) => {
                let qk = self.required(node, "qk.weight")?.0[0];
                let v = self.required(node, "v.weight")?.0[0];
                let mid = Channels::heads(attention.heads, v / attention.heads);
                self.pointwise(node, "qk", Channels::plain(qk), from)?;
                self.pointwise(node, "v", mid, from)?;
                let mixer = Mixer::Attention {
                    op: attention.clone(),
                    dim_qk: qk / 2 / attention.heads,
                    dim_v: mid.padded,
                };
                Ok((mixer, mid))
            }
        }
    }

    /// `[LayerNorm] -> pool -> linear`.
    fn head(&mut self, nodes: &mut impl Iterator<Item = NodeId>) -> Result<Head> {
        let weights = self.here();
        let mut next = || nodes.next().map(|id| (id, self.graph.node(id)));
        let end = || Diagnostic::input("the graph ends before its classifier");
        let (mut id, mut node) = next().ok_or_else(end)?;
        let mut norm = None;
        if let Op::LayerNorm(op) = &node.op {
            norm = Some((node, op.eps));
            (id, node) = next().ok_or_else(end)?;
        }
        let channels = self.graph.ty(id).shape.resolve(1)[1];
        if node.op != Op::GlobalAvgPool {
            return Err(not_lowered(node));
        }
        let (_, linear) = next().ok_or_else(end)?;
        if linear.op != Op::Linear {
            return Err(not_lowered(linear));
        }
        if let Some((_, rest)) = next() {
            return Err(not_lowered(rest));
        }
        let norm = norm
            .map(|(node, eps)| self.norm(node, "", eps, Channels::plain(channels)))
            .transpose()?;
        let classes = self.required(linear, "weight")?.0[0];
        self.pointwise(
            linear,
            "",
            Channels::plain(classes),
            Channels::plain(channels),
        )?;
        Ok(Head {
            norm,
            channels,
            classes,
            weights,
        })
    }
}

/// The weight slot of a part: `expand.weight`, or `weight` for a node that is one part.
fn slot_name(part: &str, slot: &str) -> String {
    match part {
        "" => slot.to_owned(),
        part => format!("{part}.{slot}"),
    }
}

/// Whether the kernels compute such a block.
fn fits(form: &Form) -> bool {
    let out = form.output_map();
    let same = out == form.map && form.inputs == form.outputs;
    let attention = match &form.mixer {
        Mixer::Expand(_) => true,
        Mixer::Attention { op, .. } => {
            let unpadded = op.padding(form.map.height, form.map.width) == [0, 0];
            op.scale == 1.0 && (form.norm.is_some() || unpadded)
        }
    };
    [3, 5, 7].contains(&form.kernel)
        && [1, 2].contains(&form.stride)
        && form.padding < form.kernel
        && (!form.residual || same)
        && attention
}

/// The groupings an attention sums, and the factor on the sum.
pub fn groupings(attention: Attention) -> (&'static [&'static str], f32) {
    match attention {
        Attention::Close => (&["Close"], 1.0),
        Attention::Remote => (&["Remote"], 1.0),
        Attention::Hybrid => (&["Close", "Remote"], 1.0),
        Attention::CloseTwice => (&["Close"], 2.0),
    }
}
