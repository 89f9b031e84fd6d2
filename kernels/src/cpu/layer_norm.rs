//! LayerNorm over the channels of every pixel.

use super::{Engine, Shape};

/// `(x - mean) / sqrt(variance + eps) * weight + bias`, mean and population variance over the
/// channels of a pixel.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm {
    /// Channels.
    pub channels: usize,
    /// Added to the variance.
    pub eps: f32,
    /// Offset of the factors, `[panels][16]`; none where they are folded into the next layer.
    pub weight: Option<usize>,
    /// Offset of the summands, `[panels][16]`; none where they are folded into the next layer.
    pub bias: Option<usize>,
}

impl LayerNorm {
    /// Normalises the packed map `input` of `shape` into `output`, a packed map of the shape
    /// `padded`: `shape`, and zeros at the right and bottom.
    pub fn run(
        &self,
        engine: &Engine,
        input: &[f32],
        shape: Shape,
        output: &mut [f32],
        padded: Shape,
    ) {
        let _ = (engine, input, shape, output, padded);
        unimplemented!()
    }
}
