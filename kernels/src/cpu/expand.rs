//! An expansion and the depthwise convolution of it in one go.

use super::{Depthwise, Engine, Pointwise, Shape};

/// A 1x1 expansion whose result is filtered while its rows are still in cache: the expanded map
/// itself is never written out whole.
#[derive(Debug, Clone, Copy)]
pub struct Expansion {
    /// The expansion.
    pub expand: Pointwise,
    /// What filters its result.
    pub local: Depthwise,
}

impl Expansion {
    /// Values of scratch that one thread needs for maps of `shape`.
    pub const fn scratch_len(&self, shape: Shape) -> usize {
        let _ = shape;
        0
    }

    /// From the packed map `input` of `shape` to the packed map `output` with the channels of
    /// the expansion and the shape of the depthwise convolution's result.
    pub fn run(
        &self,
        engine: &Engine,
        input: &[f32],
        shape: Shape,
        output: &mut [f32],
        scratch: &mut [f32],
    ) {
        let _ = (engine, input, shape, output, scratch);
        unimplemented!()
    }
}
