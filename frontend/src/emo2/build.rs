//! The faithful graph: one node per PyTorch module call, nothing fused, nothing folded.

use emoc_ir::{
    Dim, Graph, Result, TensorType, Value, Weight,
    ops::{Act, Conv2d, Norm, Op},
};

use super::{
    config::{Architecture, LocalNorm},
    i2rmb::{self, Block},
};

/// Added to variances. The constructor's argument, so no checkpoint has it.
const EPS: f64 = 1e-6;

/// Input size, batch and window of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Height and width of the input in pixels.
    pub input_size: [usize; 2],
    /// Batch size, fixed or symbolic.
    pub batch: Dim,
    /// Side of a window in pixels of the feature map; 0 means one window over the whole map.
    pub window: usize,
}

/// Where weights come from: called once for every key the modules have, in module order, with
/// the shape the module expects.
pub trait WeightSource {
    /// The weight with this key.
    fn weight(&mut self, key: &str, shape: &[usize]) -> Weight;

    /// A buffer that inference does not use (`num_batches_tracked`).
    fn unused(&mut self, key: &str, shape: &[usize]);
}

/// Builds the graph of a network.
///
/// # Errors
/// An input too small for a stage, or head sizes that do not divide the channels.
pub fn build(
    name: &str,
    architecture: &Architecture,
    geometry: Geometry,
    source: &mut dyn WeightSource,
) -> Result<Graph> {
    let mut modules = Modules {
        graph: Graph::new(name),
        source,
    };
    let [height, width] = geometry.input_size;
    let ty = TensorType::f32([geometry.batch, 3.into(), height.into(), width.into()]);
    let input = modules.graph.add_input("input", ty)?;
    let mut x = stem(&mut modules, architecture.stem, input)?;
    let mut stages = Vec::new();
    for stage in 0..4 {
        for block in 0..architecture.depths[stage] {
            let block = Block::of(architecture, geometry.window, stage, block);
            x = i2rmb::build(&mut modules, &block, x)?;
        }
        stages.push(x);
    }
    let mut graph = match architecture.classes {
        Some(classes) => {
            let logits = head(&mut modules, architecture.dims[3], classes, x)?;
            modules.graph.add_output("logits", logits);
            modules.graph
        }
        None => modules.graph,
    };
    if architecture.classes.is_none() {
        for (stage, value) in stages.into_iter().enumerate() {
            graph.add_output(&format!("stage{}", stage + 1), value);
        }
    }
    Ok(graph)
}

/// 3x3 stride 2 with norm and activation, 3x3 depthwise with both, a bare 1x1.
fn stem(m: &mut Modules, dim: usize, x: Value) -> Result<Value> {
    let strided = ConvSpec::new(3, dim, 3).stride(2).bias();
    let x = m.conv("stage0.0.conv", strided, x)?;
    let x = m.batch_norm("stage0.0.norm", dim, x)?;
    let x = m.activation("stage0.0.act", Act::Silu, x)?;
    let x = m.conv("stage0.1.conv", ConvSpec::new(dim, dim, 3).depthwise(), x)?;
    let x = m.batch_norm("stage0.1.norm", dim, x)?;
    let x = m.activation("stage0.1.act", Act::Silu, x)?;
    m.conv("stage0.2.conv", ConvSpec::new(dim, dim, 1), x)
}

/// LayerNorm, mean over the map, linear classifier.
fn head(m: &mut Modules, dim: usize, classes: usize, x: Value) -> Result<Value> {
    let x = m.layer_norm("norm.norm", dim, x)?;
    let x = m.graph.add("pool", Op::GlobalAvgPool, &[x], &[])?;
    m.parameter("head.weight", &[classes, dim]);
    m.parameter("head.bias", &[classes]);
    let weights = [("weight", "head.weight"), ("bias", "head.bias")];
    Ok(m.graph
        .add("head", Op::Linear, &[x.into()], &weights)?
        .into())
}

/// Adds the calls of PyTorch modules to a graph, one node each.
pub(super) struct Modules<'a> {
    pub(super) graph: Graph,
    source: &'a mut dyn WeightSource,
}

/// Constructor arguments of a convolution.
#[derive(Clone, Copy)]
pub(super) struct ConvSpec {
    input: usize,
    output: usize,
    kernel: usize,
    stride: usize,
    groups: usize,
    bias: bool,
}

impl ConvSpec {
    pub(super) fn new(input: usize, output: usize, kernel: usize) -> Self {
        Self {
            input,
            output,
            kernel,
            stride: 1,
            groups: 1,
            bias: false,
        }
    }

    pub(super) fn stride(mut self, stride: usize) -> Self {
        self.stride = stride;
        self
    }

    pub(super) fn depthwise(mut self) -> Self {
        self.groups = self.input;
        self
    }

    pub(super) fn bias(mut self) -> Self {
        self.bias = true;
        self
    }

    /// PyTorch's "same" padding of the official code: ceil((kernel - stride) / 2) on every side.
    fn padding(self) -> usize {
        self.kernel.saturating_sub(self.stride).div_ceil(2)
    }

    fn op(self) -> Op {
        Op::Conv2d(Conv2d {
            stride: self.stride,
            padding: self.padding(),
            groups: self.groups,
            act: Act::None,
        })
    }
}

impl Modules<'_> {
    /// Takes a parameter from the source into the graph.
    pub(super) fn parameter(&mut self, key: &str, shape: &[usize]) {
        let weight = self.source.weight(key, shape);
        self.graph.weights.insert(key, weight);
    }

    /// Parameters `path.slot` of a module as the `(slot, key)` pairs of its node.
    fn parameters<const N: usize>(
        &mut self,
        path: &str,
        slots: [(&'static str, &[usize]); N],
    ) -> [(&'static str, String); N] {
        slots.map(|(slot, shape)| {
            let key = format!("{path}.{slot}");
            self.parameter(&key, shape);
            (slot, key)
        })
    }

    fn node(&mut self, path: &str, op: Op, x: Value, keys: &[(&str, String)]) -> Result<Value> {
        let weights: Vec<_> = keys
            .iter()
            .map(|(slot, key)| (*slot, key.as_str()))
            .collect();
        Ok(self.graph.add(path, op, &[x], &weights)?.into())
    }

    pub(super) fn conv(&mut self, path: &str, spec: ConvSpec, x: Value) -> Result<Value> {
        let ConvSpec {
            input,
            output,
            kernel,
            groups,
            ..
        } = spec;
        let shape = [output, input / groups, kernel, kernel];
        let mut keys = self.parameters(path, [("weight", &shape)]).to_vec();
        if spec.bias {
            keys.extend(self.parameters(path, [("bias", &[output])]));
        }
        self.node(path, spec.op(), x, &keys)
    }

    pub(super) fn batch_norm(&mut self, path: &str, dim: usize, x: Value) -> Result<Value> {
        let slots = ["weight", "bias", "running_mean", "running_var"];
        let shape = [dim];
        let keys = self.parameters(path, slots.map(|slot| (slot, &shape[..])));
        self.source
            .unused(&format!("{path}.num_batches_tracked"), &[]);
        self.node(path, Op::BatchNorm(Norm { eps: EPS }), x, &keys)
    }

    pub(super) fn layer_norm(&mut self, path: &str, dim: usize, x: Value) -> Result<Value> {
        let shape = [dim];
        let keys = self.parameters(path, ["weight", "bias"].map(|slot| (slot, &shape[..])));
        self.node(path, Op::LayerNorm(Norm { eps: EPS }), x, &keys)
    }

    pub(super) fn layer_scale(&mut self, path: &str, dim: usize, x: Value) -> Result<Value> {
        let keys = self.parameters(path, [("gamma", &[1, dim, 1, 1])]);
        self.node(path, Op::LayerScale, x, &keys)
    }

    pub(super) fn activation(&mut self, path: &str, act: Act, x: Value) -> Result<Value> {
        self.node(path, Op::Activation(act), x, &[])
    }

    pub(super) fn add(&mut self, path: &str, a: Value, b: Value) -> Result<Value> {
        Ok(self.graph.add(path, Op::Add, &[a, b], &[])?.into())
    }

    /// The norm after a depthwise convolution and the activation that goes with it.
    pub(super) fn local_norm(
        &mut self,
        path: &str,
        norm: LocalNorm,
        dim: usize,
        x: Value,
    ) -> Result<Value> {
        let (x, act) = match norm {
            LocalNorm::BatchNorm => (self.batch_norm(&format!("{path}.norm"), dim, x)?, Act::Silu),
            LocalNorm::LayerNorm => (
                self.layer_norm(&format!("{path}.norm.norm"), dim, x)?,
                Act::Gelu,
            ),
        };
        self.activation(&format!("{path}.act"), act, x)
    }
}
