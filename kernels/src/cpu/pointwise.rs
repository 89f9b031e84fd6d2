//! Products of packed maps with matrices: 1x1 convolutions and the classifier.

use super::{Act, Engine};

/// A matrix product with bias and activation, for every pixel.
#[derive(Debug, Clone, Copy)]
pub struct Pointwise {
    /// Channels of the input map, padding between heads included.
    pub inputs: usize,
    /// Channels of the result.
    pub outputs: usize,
    /// Applied to the result.
    pub act: Act,
    /// Offset of the matrix, `[output panels][inputs][16]`.
    pub weight: usize,
    /// Offset of the biases, `[output panels][16]`.
    pub bias: usize,
}

impl Pointwise {
    /// Writes the product with the packed map `input` to the packed map `output`.
    pub fn run(&self, engine: &Engine, input: &[f32], pixels: usize, output: &mut [f32]) {
        let _ = (engine, input, pixels, output);
        unimplemented!()
    }

    /// Adds the product with `input` to `output`.
    pub fn add(&self, engine: &Engine, input: &[f32], pixels: usize, output: &mut [f32]) {
        let _ = (engine, input, pixels, output);
        unimplemented!()
    }
}
