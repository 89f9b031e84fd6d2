//! Multiply-accumulates of every op, counted as fvcore counts them.
//!
//! fvcore's rules, which the published figures follow: convolutions, matrix products and linear
//! layers by their multiplications, inference-mode BatchNorm 2 and LayerNorm 5 per element,
//! activations, softmax, additions and pooling nothing.
//!
//! Counts saturate: a well-formed graph may declare tensors far larger than any machine holds.

use super::{Attention, I2Rmb, Mixer, Norm, Op, WindowAttention, shape::WeightTypes};
use crate::TensorType;

impl Op {
    /// Multiply-accumulates for a batch of `batch` pictures, for operands that the op accepts.
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
            Op::Conv2d(_) => product([elements(&outputs[0]), per_output(weights)]),
            Op::Linear | Op::MatMul { .. } => product([elements(&outputs[0]), last(inputs[0])]),
            Op::BatchNorm(_) => product([2, elements(inputs[0])]),
            Op::LayerNorm(_) => product([5, elements(inputs[0])]),
            Op::WindowAttention(op) => attention(op, inputs[0], weights, batch),
            Op::I2Rmb(block) => fused_block(block, inputs[0], &outputs[0], weights, batch),
            Op::Input
            | Op::Constant
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
            | Op::Softmax
            | Op::GlobalAvgPool => 0,
        }
    }
}

fn product<const F: usize>(factors: [u64; F]) -> u64 {
    factors.into_iter().fold(1, u64::saturating_mul)
}

fn sum<const T: usize>(terms: [u64; T]) -> u64 {
    terms.into_iter().fold(0, u64::saturating_add)
}

/// Multiplications for one output element of a convolution: its weight without the first axis.
fn per_output(weights: &WeightTypes) -> u64 {
    let [outputs, elements] = [axis(weights, "weight", 0), size(weights, "weight")];
    elements / outputs
}

fn axis(weights: &WeightTypes, slot: &str, axis: usize) -> u64 {
    weights.0[slot].shape.0[axis].resolve(1) as u64
}

/// Elements of a weight: the multiplications per pixel of a 1x1 or depthwise convolution.
fn size(weights: &WeightTypes, slot: &str) -> u64 {
    weights.0[slot].shape.numel(1) as u64
}

/// Batch size times pixels of an image.
fn pixels(x: &TensorType, batch: usize) -> u64 {
    product([0, 2, 3].map(|axis| x.shape.0[axis].resolve(batch) as u64))
}

fn attention(op: &WindowAttention, x: &TensorType, weights: &WeightTypes, batch: usize) -> u64 {
    let [n, _, h, w] = std::array::from_fn(|i| x.shape.0[i].resolve(batch));
    let [bottom, right] = op.padding(h, w);
    let pixels = product([n, h + bottom, w + right].map(|size| size as u64));
    let tokens = product(op.window.map(|size| size as u64));
    let projections = sum(["qk.weight", "v.weight"].map(|slot| size(weights, slot)));
    // q·kᵀ and probabilities·v, for every pixel against every token of its window.
    let heads = axis(weights, "qk.weight", 0) / 2 + axis(weights, "v.weight", 0);
    let times = match op.attention {
        Attention::Close | Attention::Remote | Attention::CloseTwice => 1,
        Attention::Hybrid => 2,
    };
    let attended = product([times, pixels, tokens, heads]);
    sum([product([pixels, projections]), attended])
}

fn fused_block(
    block: &I2Rmb,
    x: &TensorType,
    out: &TensorType,
    weights: &WeightTypes,
    batch: usize,
) -> u64 {
    let norm = |norm: &Option<Norm>| if norm.is_some() { 5 } else { 0 };
    let mixer = match &block.mixer {
        Mixer::Expand(_) => product([pixels(x, batch), size(weights, "expand.weight")]),
        Mixer::Attention(op) => attention(op, x, weights, batch),
    };
    let local_norm = product([norm(&block.local_norm), axis(weights, "local.weight", 0)]);
    let [local, proj] = ["local.weight", "proj.weight"].map(|slot| size(weights, slot));
    let after = sum([local, local_norm, proj]);
    sum([
        product([norm(&block.norm), x.shape.numel(batch) as u64]),
        mixer,
        product([pixels(out, batch), after]),
    ])
}
