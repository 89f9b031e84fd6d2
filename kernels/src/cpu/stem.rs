//! The first convolution: from a planar picture to a packed map.

use super::{Act, Engine, Shape};

/// A dense 3x3 convolution of three planes with stride 2, padding 1 and an activation.
#[derive(Debug, Clone, Copy)]
pub struct Stem {
    /// Channels of the result.
    pub outputs: usize,
    /// Applied to the result.
    pub act: Act,
    /// Offset of the filters, `[panels][3 * 3 * 3][16]`: plane, row, column.
    pub weight: usize,
    /// Offset of the biases, `[panels][16]`.
    pub bias: usize,
}

impl Stem {
    /// The shape of the result for a picture of `shape`.
    pub const fn output_shape(shape: Shape) -> Shape {
        Shape::new(shape.height.div_ceil(2), shape.width.div_ceil(2))
    }

    /// Convolves `input`, planes `[3][height][width]`, into the packed map `output`.
    pub fn run(&self, engine: &Engine, input: &[f32], shape: Shape, output: &mut [f32]) {
        let _ = (engine, input, shape, output);
        unimplemented!()
    }
}
