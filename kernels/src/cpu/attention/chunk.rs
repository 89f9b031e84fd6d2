//! Some queries of a head of a window.

use core::{array::from_fn, ops::Range};

use super::super::{Isa, LANES, isa::Kernel, math, panels, simd::Simd};
use super::{
    Attention,
    products::{Mix, Product, Scores},
    window::Workspace,
};

/// The most queries that are computed together: four vectors.
pub(super) const CHUNK: usize = 4 * LANES;

/// Queries that do not fill a vector are computed one by one if they are at most so many: one
/// takes about half the time of a vector.
const FEW: usize = 2;

/// Channels of a packed map that need not start with a panel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    /// The panel of the first.
    pub panel: usize,
    /// The lane of the first.
    pub lane: usize,
    /// How many there are.
    pub len: usize,
}

impl Span {
    /// `len` channels from `first` on.
    pub fn new(first: usize, len: usize) -> Self {
        Self {
            panel: first / LANES,
            lane: first % LANES,
            len,
        }
    }

    /// The panels that it touches.
    pub fn panels(self) -> Range<usize> {
        self.panel..self.panel + panels(self.lane + self.len)
    }

    /// The most panels that `len` channels can touch.
    pub const fn most_panels(len: usize) -> usize {
        panels(LANES - 1 + len)
    }
}

/// Attention for some queries of a head of a window.
pub(super) struct Chunk<'a> {
    pub layer: &'a Attention,
    /// The packed map of queries and keys.
    pub qk: &'a [f32],
    /// The packed map of values.
    pub v: &'a [f32],
    /// Pixels of both.
    pub grid: usize,
    pub head: usize,
    /// Which of the window's tokens ask.
    pub queries: Range<usize>,
    /// Its lists of pixels are filled.
    pub workspace: Workspace<'a>,
    /// The first panel of the output.
    pub output: *mut f32,
    /// Pixels of the output.
    pub pixels: usize,
    /// Whether the result is added to what the output holds.
    pub add: bool,
}

impl Chunk<'_> {
    /// Computes them.
    ///
    /// # Safety
    /// The lists hold pixels of the maps. The output is valid for this head of these queries,
    /// and used by nobody else meanwhile.
    pub unsafe fn compute(self, isa: Isa) {
        isa.dispatch(self);
    }

    /// Copies the panels of the keys, so that a key's distance to the next is a constant.
    #[inline(always)]
    fn gather_keys<S: Simd>(&mut self, simd: S, keys: Span) {
        let Workspace {
            pixels,
            keys: buffer,
            ..
        } = &mut self.workspace;
        let size = pixels.len() * LANES;
        for (panel, buffer) in keys.panels().zip(buffer.chunks_exact_mut(size)) {
            let panel = &self.qk[panel * self.grid * LANES..][..self.grid * LANES];
            for (token, &pixel) in buffer.chunks_exact_mut(LANES).zip(&**pixels) {
                // SAFETY: the lists hold pixels of the map, and chunks have that size.
                unsafe {
                    let key = simd.load(panel.as_ptr().add(pixel as usize * LANES));
                    simd.store(token.as_mut_ptr(), key);
                }
            }
        }
    }

    /// Transposes the panels of the queries. A vector that the queries do not fill is filled
    /// with the last of them.
    #[inline(always)]
    fn transpose_queries<S: Simd>(&mut self, simd: S, queries: Span, vectors: usize) {
        let Workspace {
            pixels,
            queries: buffer,
            ..
        } = &mut self.workspace;
        let last = self.queries.end - 1;
        for (panel, buffer) in queries.panels().zip(buffer.chunks_exact_mut(LANES * CHUNK)) {
            let panel = &self.qk[panel * self.grid * LANES..][..self.grid * LANES];
            for vector in 0..vectors {
                let first = self.queries.start + vector * LANES;
                // SAFETY: the lists hold pixels of the map, and the buffer has `LANES` rows of
                // `CHUNK` values.
                unsafe {
                    let rows: [_; LANES] = from_fn(|row| {
                        let pixel = pixels[last.min(first + row)] as usize;
                        simd.load(panel.as_ptr().add(pixel * LANES))
                    });
                    let columns = simd.transpose(rows);
                    let start = buffer.as_mut_ptr().add(vector * LANES);
                    for (channel, &column) in columns.iter().enumerate() {
                        simd.store(start.add(channel * CHUNK), column);
                    }
                }
            }
        }
    }

    /// Replaces the scores of each query by their powers, relative to the largest so that none
    /// overflows, and sets its factor.
    #[inline(always)]
    fn softmax<S: Simd>(&mut self, simd: S, vectors: usize) {
        let Workspace {
            scores,
            largest,
            factors,
            ..
        } = &mut self.workspace;
        for vector in 0..vectors {
            // SAFETY: rows have `CHUNK` values, as have the factors, and at most that many
            // queries were cut into vectors.
            unsafe {
                let start = scores.as_mut_ptr().add(vector * LANES);
                let rows = (0..scores.len() / CHUNK).map(|row| start.add(row * CHUNK));
                let largest = simd.load(largest.as_ptr().add(vector * LANES));
                let mut sum = simd.splat(0.0);
                for row in rows {
                    let power = math::exp(simd, simd.sub(simd.load(row), largest));
                    sum = simd.add(sum, power);
                    simd.store(row, power);
                }
                let factor = simd.div(simd.splat(self.layer.factor), sum);
                simd.store(factors.as_mut_ptr().add(vector * LANES), factor);
            }
        }
    }

    /// Mixes the values by the powers of the scores, into the output.
    #[inline(always)]
    fn mix<S: Simd>(&self, simd: S) {
        let Workspace {
            scores,
            factors,
            pixels,
            targets,
            ..
        } = &self.workspace;
        let panels = self.layer.dim_v / LANES;
        let panel = self.head * panels;
        let mix = Mix {
            powers: scores.as_ptr(),
            factors: factors.as_ptr(),
            values: self.v[panel * self.grid * LANES..].as_ptr(),
            values_stride: self.grid * LANES,
            pixels,
            output: self.output.wrapping_add(panel * self.pixels * LANES),
            output_stride: self.pixels * LANES,
            targets: targets[self.queries.clone()].as_ptr(),
            add: self.add,
        };
        mix.compute(simd, self.queries.len(), panels);
    }
}

impl Kernel for Chunk<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let Attention { heads, dim_qk, .. } = *self.layer;
        let queries = Span::new(self.head * dim_qk, dim_qk);
        let keys = Span::new((heads + self.head) * dim_qk, dim_qk);
        let count = self.queries.len();
        let vectors = match count % LANES {
            ..=FEW => count / LANES,
            _ => count.div_ceil(LANES),
        };
        self.gather_keys(simd, keys);
        self.transpose_queries(simd, queries, vectors);
        let tokens = self.layer.tokens();
        self.workspace.largest.fill(f32::NEG_INFINITY);
        let scores = Scores {
            keys: self.workspace.keys.as_ptr(),
            tokens,
            lane: keys.lane,
            depth: dim_qk,
            queries: self.workspace.queries[queries.lane * CHUNK..].as_ptr(),
            scores: self.workspace.scores.as_mut_ptr(),
            largest: self.workspace.largest.as_mut_ptr(),
        };
        scores.compute(simd, tokens, vectors);
        self.softmax(simd, vectors);
        for index in vectors * LANES..count {
            self.single(simd, index, queries, keys);
        }
        self.mix(simd);
    }
}
