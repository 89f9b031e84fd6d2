//! Attention inside windows.

use super::{Engine, Shape};

/// Which pixels share a window, `n` windows in each direction of `h x w` pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// Contiguous tiles: rows split as `(n h)`.
    Close,
    /// A dilated grid, pixels `n` apart: rows split as `(h n)`.
    Remote,
}

/// Attention in the windows of a map, without its projections: softmax(q k') v.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    /// Heads.
    pub heads: usize,
    /// Channels of one head of q and of k.
    pub dim_qk: usize,
    /// Channels of one head of v, a multiple of 16 (heads are padded by the compiler).
    pub dim_v: usize,
    /// Height and width of a window in pixels.
    pub window: [usize; 2],
    /// The attentions that are summed: one grouping, or both.
    pub groupings: &'static [Grouping],
    /// Factor on the sum: 2 where one window stands for two equal ones.
    pub factor: f32,
}

impl Attention {
    /// The shape of the map that the windows divide: `shape` grown to whole windows.
    pub const fn padded(&self, shape: Shape) -> Shape {
        Shape::new(
            shape.height.next_multiple_of(self.window[0]),
            shape.width.next_multiple_of(self.window[1]),
        )
    }

    /// Values of scratch that one thread needs.
    pub const fn scratch_len(&self) -> usize {
        0
    }

    /// `qk` is a packed map of `2 * heads * dim_qk` channels (q first, then k, each `(heads,
    /// dim_qk)`, scores need no factor) and `v` one of `heads * dim_v`, both of the shape
    /// [`padded`](Self::padded)`(shape)`. `output` becomes the packed map of `shape` with the
    /// channels of v.
    pub fn run(
        &self,
        engine: &Engine,
        qk: &[f32],
        v: &[f32],
        shape: Shape,
        output: &mut [f32],
        scratch: &mut [f32],
    ) {
        let _ = (engine, qk, v, shape, output, scratch);
        unimplemented!()
    }
}
