//! Multiply-accumulates of every op, counted as fvcore counts them.
//!
//! fvcore's rules, which the published figures follow: convolutions, matrix products and linear
//! layers by their multiplications, inference-mode BatchNorm 2 and LayerNorm 5 per element,
//! activations, softmax, additions and pooling nothing.

use super::{Attention, I2Rmb, Mixer, Op, WindowAttention, shape::WeightTypes};
use crate::TensorType;

impl Op {
    /// Multiply-accumulates for a batch of `batch` pictures.
    pub fn macs(
        &self,
        inputs: &[&TensorType],
        outputs: &[TensorType],
        weights: &WeightTypes,
        batch: usize,
    ) -> u64 {
        let elements = |ty: &TensorType| ty.shape.numel(batch) as u64;
        let last = |ty: &TensorType| ty.shape.0.last().map_or(0, |dim| dim.resolve(batch)) as u64;
        match self {
            Op::Conv2d(_) => elements(&outputs[0]) * per_output(weights, "weight"),
            Op::Linear => elements(&outputs[0]) * last(inputs[0]),
            Op::MatMul { .. } => elements(&outputs[0]) * last(inputs[0]),
            Op::BatchNorm(_) => 2 * elements(inputs[0]),
            Op::LayerNorm(_) => 5 * elements(inputs[0]),
            Op::WindowAttention(op) => attention(op, inputs[0], weights, batch),
            Op::I2Rmb(block) => fused_block(block, inputs[0], &outputs[0], weights, batch),
            Op::Input
            | Op::Constant
            | Op::Activation(_)
            | Op::LayerScale
            | Op::Add
            | Op::Scale { .. }
            | Op::Pad { .. }
            | Op::Crop { .. }
            | Op::Split { .. }
            | Op::WindowPartition(_)
            | Op::WindowMerge { .. }
            | Op::Softmax
            | Op::GlobalAvgPool => 0,
        }
    }
}

/// Multiplications for one output element of a convolution: its weight without the first axis.
fn per_output(weights: &WeightTypes, slot: &str) -> u64 {
    let ty = weights.0[slot];
    ty.shape.0[1..]
        .iter()
        .map(|d| d.resolve(1) as u64)
        .product()
}

/// Elements of a weight, the multiplications of a 1x1 convolution per pixel.
fn size(weights: &WeightTypes, slot: &str) -> u64 {
    weights.0[slot].shape.numel(1) as u64
}

/// Batch size times pixels of an image.
fn pixels(x: &TensorType, batch: usize) -> u64 {
    let size = |axis: usize| x.shape.0[axis].resolve(batch) as u64;
    size(0) * size(2) * size(3)
}

fn attention(op: &WindowAttention, x: &TensorType, weights: &WeightTypes, batch: usize) -> u64 {
    let [n, _, h, w] = std::array::from_fn(|i| x.shape.0[i].resolve(batch));
    let [bottom, right] = op.padding(h, w);
    let pixels = (n * (h + bottom) * (w + right)) as u64;
    let tokens = (op.window[0] * op.window[1]) as u64;
    let channels = |slot: &str| weights.0[slot].shape.0[0].resolve(1) as u64;
    // q·kᵀ and probabilities·v, for every pixel against every token of its window.
    let once = pixels * tokens * (channels("qk.weight") / 2 + channels("v.weight"));
    let times = match op.attention {
        Attention::Close | Attention::Remote | Attention::CloseTwice => 1,
        Attention::Hybrid => 2,
    };
    pixels * (size(weights, "qk.weight") + size(weights, "v.weight")) + times * once
}

fn fused_block(
    block: &I2Rmb,
    x: &TensorType,
    out: &TensorType,
    weights: &WeightTypes,
    batch: usize,
) -> u64 {
    let norm = if block.norm.is_some() { 5 } else { 0 };
    let mixer = match &block.mixer {
        Mixer::Expand(_) => pixels(x, batch) * size(weights, "expand.weight"),
        Mixer::Attention(op) => attention(op, x, weights, batch),
    };
    norm * x.shape.numel(batch) as u64
        + mixer
        + pixels(out, batch) * (size(weights, "local.weight") + size(weights, "proj.weight"))
}
