//! Attention inside windows, on packed maps as they lie: no partition, no merge.
//!
//! A task is a head of a window and up to 64 of its queries. Scores are
//! computed with queries as lanes, so the softmax over the keys needs no horizontal operation;
//! the values are then mixed with channels as lanes, straight into the output.

mod window;

mod chunk;
mod products;
mod single;

use self::{
    chunk::{CHUNK, Chunk},
    window::{Window, Workspace},
};
use super::{Engine, LANES, Shape, engine::Shared};

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

/// A pass with fewer tasks would make threads wait: all heads share it.
const FEW_TASKS: usize = 16;

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
        Workspace::len(self)
    }

    /// Pixels of a window.
    const fn tokens(&self) -> usize {
        self.window[0] * self.window[1]
    }

    /// `qk` is a packed map of `2 * heads * dim_qk` channels (q first, then k, each `(heads,
    /// dim_qk)`, scores need no factor) and `v` one of `heads * dim_v`, both of the shape
    /// [`padded`](Self::padded)`(shape)`. `output` becomes the packed map of `shape` with the
    /// channels of v.
    ///
    /// # Panics
    /// When a map has another length, or `scratch` is less than
    /// [`scratch_len`](Self::scratch_len) for every thread.
    pub fn run(
        &self,
        engine: &Engine,
        qk: &[f32],
        v: &[f32],
        shape: Shape,
        output: &mut [f32],
        scratch: &mut [f32],
    ) {
        let grid = self.padded(shape);
        assert!(self.dim_v.is_multiple_of(LANES), "heads of whole panels");
        assert!(u32::try_from(grid.pixels()).is_ok(), "too many pixels");
        assert_eq!(qk.len(), grid.packed_len(2 * self.heads * self.dim_qk));
        assert_eq!(v.len(), grid.packed_len(self.heads * self.dim_v));
        assert_eq!(output.len(), shape.packed_len(self.heads * self.dim_v));
        assert!(scratch.len() >= engine.threads.count() * self.scratch_len());
        let maps = Maps {
            qk,
            v,
            grid,
            output: Shared::new(output),
            shape,
        };
        let windows = grid.pixels() / self.tokens();
        let chunks = self.tokens().div_ceil(CHUNK);
        // The second attention finds a head's maps in cache if no other head comes between; but
        // every pass waits for the last of its tasks.
        let together = if windows * chunks < FEW_TASKS {
            self.heads
        } else {
            1
        };
        for first in (0..self.heads).step_by(together) {
            let heads = together.min(self.heads - first);
            for (index, &grouping) in self.groupings.iter().enumerate() {
                engine.run(heads * windows * chunks, scratch, |task, scratch| {
                    let (head, window) = (first + task / chunks / windows, task / chunks % windows);
                    let window = Window::new(self.window, grouping, grid, window);
                    let place = (head, task % chunks, index > 0);
                    self.chunk(engine, &maps, &window, place, scratch);
                });
            }
        }
    }

    /// Computes chunk `chunk` of a head of a window, if the window has as many.
    fn chunk(
        &self,
        engine: &Engine,
        maps: &Maps,
        window: &Window,
        (head, chunk, add): (usize, usize, bool),
        scratch: &mut [f32],
    ) {
        let workspace = Workspace::split(self, scratch);
        let inside = window.list(maps.shape, workspace.pixels, workspace.targets);
        let queries = part(inside, chunk);
        if queries.is_empty() {
            return;
        }
        let chunk = Chunk {
            layer: self,
            qk: maps.qk,
            v: maps.v,
            grid: maps.grid.pixels(),
            head,
            queries,
            workspace,
            output: maps.output.as_mut_ptr(),
            pixels: maps.shape.pixels(),
            add,
        };
        // SAFETY: the lists are the window's, the maps' lengths were checked, and no
        // other task has this head of these pixels: windows share none.
        unsafe { chunk.compute(engine.isa) };
    }
}

/// What a layer reads and writes.
struct Maps<'a> {
    qk: &'a [f32],
    v: &'a [f32],
    grid: Shape,
    output: Shared<'a>,
    shape: Shape,
}

/// The queries of chunk `index` of a window with `count` of them: none if fewer chunks do. The
/// vectors are spread evenly.
fn part(count: usize, index: usize) -> core::ops::Range<usize> {
    let vectors = count.div_ceil(LANES);
    let chunks = count.div_ceil(CHUNK);
    if index >= chunks {
        return 0..0;
    }
    let edge = |index| count.min(index * vectors / chunks * LANES);
    edge(index)..edge(index + 1)
}
