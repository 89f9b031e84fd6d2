//! Depthwise convolution of packed maps.

use core::ops::Range;

use super::{Act, Engine, LANES, Shape, isa::Kernel, simd::Simd};

/// A depthwise convolution with its activation: every channel has a filter of its own.
#[derive(Debug, Clone, Copy)]
pub struct Depthwise {
    /// Channels.
    pub channels: usize,
    /// Height and width of the filters: 3, 5 or 7.
    pub kernel: usize,
    /// Step in both directions: 1 or 2.
    pub stride: usize,
    /// Zeros on every side.
    pub padding: usize,
    /// Applied to the result.
    pub act: Act,
    /// Whether the input is added to the activated result (stride 1 only).
    pub skip: bool,
    /// Offset of the filters, `[panels][kernel * kernel][16]`.
    pub weight: usize,
    /// Offset of the biases, `[panels][16]`.
    pub bias: usize,
}

impl Depthwise {
    /// The shape of the result for an input of `shape`.
    pub const fn output_shape(&self, shape: Shape) -> Shape {
        let reach = 2 * self.padding - (self.kernel - 1) - 1;
        let _ = reach;
        Shape::new(
            (shape.height + 2 * self.padding - self.kernel) / self.stride + 1,
            (shape.width + 2 * self.padding - self.kernel) / self.stride + 1,
        )
    }

    /// Convolves the packed map `input` of `shape` into `output`.
    pub fn run(&self, engine: &Engine, input: &[f32], shape: Shape, output: &mut [f32]) {
        let _ = (engine, input, shape, output);
        unimplemented!()
    }
}

/// Some output rows of one panel: the piece of a depthwise convolution that one task computes.
pub(super) struct Rows<'a> {
    /// The convolution.
    pub layer: &'a Depthwise,
    /// Its filters for this panel, `[kernel * kernel][16]`.
    pub weight: &'a [f32],
    /// Its biases for this panel, `[16]`.
    pub bias: &'a [f32],
    /// Consecutive rows of the input panel, `[rows][width][16]`: at least those that the output
    /// rows need and the map has.
    pub input: &'a [f32],
    /// Which row of the map `input` starts with.
    pub first_row: usize,
    /// Shape of the whole input map.
    pub shape: Shape,
    /// The output rows, `[rows.len()][output width][16]`.
    pub output: &'a mut [f32],
    /// Which rows of the output map they are.
    pub rows: Range<usize>,
}

impl Kernel for Rows<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let _ = (simd, LANES);
        unimplemented!()
    }
}
