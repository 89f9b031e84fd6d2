//! IR ops to ONNX operators. One file per family:
//!
//! | module | lowers |
//! |---|---|
//! | `layout.rs` | nothing: keeps values in the layouts their users want |
//! | `plain.rs` | the ops that correspond to PyTorch modules |
//! | `windows.rs` | window partition and merge |
//! | `attention/` | a whole window attention |
//! | `block.rs` | a whole i2RMB block |

mod attention;
mod block;
mod layout;
mod plain;
mod windows;

use std::{collections::BTreeMap, sync::Arc};

use emoc_ir::{Diagnostic, Graph, Node, NodeId, Result, Value, ops::Op};

use super::builder::Builder;
use layout::{Image, Layout, Stored};

/// The state of a lowering: the graph, the file so far, and where each value is.
pub(super) struct Lowering<'g> {
    pub(super) graph: &'g Graph,
    pub(super) builder: Builder,
    values: BTreeMap<Value, Stored>,
}

impl<'g> Lowering<'g> {
    /// Lowers all nodes, operands first.
    pub(super) fn of(graph: &'g Graph, opset: u32) -> Result<Self> {
        let mut lowering = Self {
            graph,
            builder: Builder::new(opset),
            values: BTreeMap::new(),
        };
        for id in graph.topological_order() {
            let node = graph.node(id);
            lowering.lower(id, node).map_err(|e| e.node(&node.name))?;
        }
        Ok(lowering)
    }

    /// The tensor of a value as the graph has it (images NCHW).
    pub(super) fn plain(&mut self, value: Value) -> Result<String> {
        self.get(value, Layout::Plain)
    }

    /// The tensor of a value in a layout; converts if need be.
    fn get(&mut self, value: Value, layout: Layout) -> Result<String> {
        let stored = self.values.get(&value).ok_or_else(not_lowered)?;
        stored.get(&mut self.builder, layout)
    }

    /// What holds a value.
    fn stored(&self, value: Value) -> Result<&Stored> {
        self.values.get(&value).ok_or_else(not_lowered)
    }

    /// The sizes of an image.
    fn image(&self, value: Value) -> Result<Image> {
        Image::of(self.graph.ty(value)).ok_or_else(|| not_an_image(&self.name(value)))
    }

    /// Declares that `tensor` holds `value` in this layout.
    fn bind(&mut self, value: impl Into<Value>, layout: Layout, tensor: String) {
        let value = value.into();
        let image = Image::of(self.graph.ty(value));
        let stored = Stored::new(&self.name(value), image, layout, tensor);
        self.values.insert(value, stored);
    }

    fn lower(&mut self, id: NodeId, node: &'g Node) -> Result<()> {
        let x = self.graph.operands(id);
        self.builder.dtype = self.graph.ty(id).dtype;
        match &node.op {
            Op::Input => self.input(id, node),
            Op::Constant => self.constant(id, node)?,
            Op::Conv2d(conv) => self.conv2d(id, node, conv, x[0])?,
            Op::BatchNorm(norm) => self.batch_norm(id, node, norm, x[0])?,
            Op::LayerNorm(norm) => self.layer_norm(id, node, norm, x[0])?,
            Op::Activation(act) => self.activation(id, *act, x[0])?,
            Op::LayerScale => self.layer_scale(id, node, x[0])?,
            Op::Add => self.add(id, x[0], x[1])?,
            Op::Cast { to } => self.cast(id, *to, x[0])?,
            Op::Scale { factor } => self.scale(id, *factor, x[0])?,
            Op::Pad { bottom, right } => self.pad(id, [*bottom, *right], x[0])?,
            Op::Crop { height, width } => self.crop(id, [*height, *width], x[0])?,
            Op::Split { sizes } => self.split(id, sizes, x[0])?,
            Op::WindowPartition(windows) => self.window_partition(id, windows, x[0])?,
            Op::WindowMerge { windows, .. } => self.window_merge(id, windows, x[0])?,
            Op::MatMul { transpose_b } => self.matmul(id, *transpose_b, x[0], x[1])?,
            Op::Softmax => self.softmax(id, x[0])?,
            Op::GlobalAvgPool => self.global_avg_pool(id, x[0])?,
            Op::Linear => self.linear(id, node, x[0])?,
            Op::WindowAttention(op) => self.window_attention(id, node, op, x[0])?,
            Op::I2Rmb(block) => self.block(id, node, block, x[0])?,
        }
        Ok(())
    }

    /// The name of a value: its node's, with a number for further outputs.
    pub(super) fn name(&self, value: Value) -> String {
        let name = &self.graph.node(value.node).name;
        match value.output {
            0 => name.clone(),
            output => format!("{name}.{output}"),
        }
    }

    /// The elements of the weight in a slot, if there is one.
    fn values(&self, node: &Node, slot: &str) -> Result<Option<Arc<[f32]>>> {
        let key = node.weight(slot);
        key.map(|key| self.graph.weights.values(key)).transpose()
    }

    /// The sizes of the weight in a slot.
    fn dims(&self, node: &Node, slot: &str) -> Result<Vec<usize>> {
        Ok(self.graph.weights.get(&node.weights[slot])?.dims())
    }

    /// The weight in a slot as an initializer with the name of its key, if there is one.
    fn weight(&mut self, node: &Node, slot: &str) -> Result<Option<String>> {
        let (Some(key), Some(values)) = (node.weight(slot), self.values(node, slot)?) else {
            return Ok(None);
        };
        let dims = self.dims(node, slot)?;
        Ok(Some(self.builder.floats(key, &dims, &values)))
    }

    /// The weight in a slot as a matrix `[O, C]`, if there is one: its key, sizes and elements.
    fn matrix(&self, node: &Node, slot: &str) -> Result<([usize; 2], Arc<[f32]>)> {
        let dims = self.dims(node, slot)?;
        let values = self.values(node, slot)?.unwrap_or_default();
        Ok(([dims[0], dims[1]], values))
    }

    /// The weights of a node's slots, in the slots' order.
    fn weights(&mut self, node: &Node) -> Result<Vec<String>> {
        let slots = node.op.slots().iter();
        slots
            .filter_map(|slot| self.weight(node, slot.name).transpose())
            .collect()
    }

    /// A LayerNorm's scale when its own was folded away.
    fn ones(&mut self, count: usize) -> String {
        let name = format!("const.ones_{count}");
        self.builder.floats(&name, &[count], &vec![1.0; count])
    }
}

fn not_lowered() -> Box<Diagnostic> {
    Diagnostic::internal("an operand was not lowered before its user")
}

fn not_an_image(name: &str) -> Box<Diagnostic> {
    Diagnostic::internal("a value that is not an image is lowered as one").node(name)
}
