//! Products of packed maps with matrices: 1x1 convolutions and the classifier.
//!
//! A tile of the result, some pixels by one or two panels, stays in registers while the depth is
//! walked once: of every channel one pixel value is broadcast to all lanes, and a panel's sixteen
//! weights are one vector. Both operands are read in the order in which they lie in memory.

use core::{array::from_fn, ops::Range};

use super::{Act, Engine, LANES, engine::Shared, isa::Kernel, panels, simd::Simd};

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

/// Pixels of a task at most: their input stays in cache while the panels of the result are walked.
const CHUNK: usize = 112;

/// Tasks of every thread, at least, that may be shared out unevenly.
const UNEVEN: usize = 8;

/// Pixels of a task are a multiple of this: the rows of the largest tile of all instruction sets.
const TILE: usize = 14;

/// Output panels of a task: two share every broadcast where there are registers enough.
const GROUP: usize = 2;

/// Weights, in values, that stay in cache while the pixels are walked. More are walked once,
/// and the pixels again for each of their panels.
const RESIDENT: usize = 48 * 1024;

/// Inputs, times panels, whose weights stay in the first-level cache while the pixels are walked:
/// 24 KiB.
const DEPTH: usize = 384;

impl Pointwise {
    /// Writes the product with the packed map `input` of `pixels` to the packed map `output`.
    pub fn run(&self, engine: &Engine, input: &[f32], pixels: usize, output: &mut [f32]) {
        self.over(engine, input, pixels, output, false);
    }

    /// Adds the product with `input` to `output`.
    pub fn add(&self, engine: &Engine, input: &[f32], pixels: usize, output: &mut [f32]) {
        self.over(engine, input, pixels, output, true);
    }

    /// Whether the weights do not stay in cache, so that they are walked once.
    pub(super) const fn streams(&self) -> bool {
        self.inputs * panels(self.outputs) * LANES > RESIDENT
    }

    fn over(&self, engine: &Engine, input: &[f32], pixels: usize, output: &mut [f32], add: bool) {
        assert_eq!(input.len(), panels(self.inputs) * pixels * LANES);
        assert_eq!(output.len(), panels(self.outputs) * pixels * LANES);
        let groups = panels(self.outputs).div_ceil(GROUP);
        let chunk = chunk(groups, pixels, engine.threads.count());
        let chunks = pixels.div_ceil(chunk);
        let pixels_first = self.streams();
        let output = Shared::new(output);
        engine.run(groups * chunks, &mut [], |task, _| {
            let (group, index) = match pixels_first {
                true => (task / chunks, task % chunks),
                false => (task % groups, task / groups),
            };
            let (panel, pixel) = (group * GROUP, index * chunk);
            let tiles = Tiles {
                layer: self,
                engine,
                panels: panel..panels(self.outputs).min(panel + GROUP),
                pixels: chunk.min(pixels - pixel),
                input: &input[pixel * LANES..],
                input_stride: pixels * LANES,
                // SAFETY: inside the map, whose length was checked.
                output: unsafe { output.as_mut_ptr().add((panel * pixels + pixel) * LANES) },
                output_stride: pixels * LANES,
                add,
                ahead: pixels_first,
                // The pixels of other tasks find them in the second-level cache.
                fetch: pixels_first && index == 0,
            };
            // SAFETY: no other task has these panels of these pixels.
            unsafe { tiles.compute() };
        });
    }
}

/// The product for some pixels and some panels of the result.
pub(super) struct Tiles<'a> {
    pub layer: &'a Pointwise,
    pub engine: &'a Engine<'a>,
    /// Panels of the result.
    pub panels: Range<usize>,
    /// How many pixels.
    pub pixels: usize,
    /// The input's first panel from the first of the pixels on.
    pub input: &'a [f32],
    /// From a panel of the input to the next, in values.
    pub input_stride: usize,
    /// The first of the pixels in the first of the panels of the result.
    pub output: *mut f32,
    /// From a panel of the result to the next, in values.
    pub output_stride: usize,
    /// Whether the sums start from what `output` holds.
    pub add: bool,
    /// Whether a tile asks for its pixels of the next panel of the input beforehand. Worth it
    /// where the input may lie in another core's cache.
    pub ahead: bool,
    /// Whether each walk over the pixels asks for the weights of the next.
    pub fetch: bool,
}

/// Weights that the tiles of one walk over the pixels ask for, each some of them, all along its
/// depth: they come while the core is busy, not all at once.
#[derive(Clone, Copy)]
struct Coming {
    /// The first that the tile asks for, of its first panel.
    start: *const f32,
    /// Inputs, of each panel, that it asks for while it walks over sixteen.
    inputs: usize,
}

impl Tiles<'_> {
    /// Computes them.
    ///
    /// # Safety
    /// `output` is valid for the panels and pixels, and used by nobody else meanwhile.
    pub unsafe fn compute(self) {
        let Pointwise {
            inputs, outputs, ..
        } = *self.layer;
        assert!(self.panels.end <= panels(outputs));
        let last = (panels(inputs) - 1) * self.input_stride;
        assert!(self.input.len() >= last + self.pixels * LANES);
        self.engine.isa.dispatch(self);
    }

    /// Weights and biases of one panel of the result.
    #[inline(always)]
    fn weights(&self, panel: usize) -> (*const f32, *const f32) {
        let Pointwise {
            inputs,
            weight,
            bias,
            ..
        } = *self.layer;
        let size = inputs * LANES;
        let weights = self.engine.weights(weight + panel * size, size);
        let biases = self.engine.weights(bias + panel * LANES, LANES);
        (weights.as_ptr(), biases.as_ptr())
    }

    /// `C` panels from `panel` on, for all pixels.
    #[inline(always)]
    fn columns<S: Simd, const C: usize>(&self, simd: S, panel: usize) {
        let parts = self.layer.inputs.div_ceil(DEPTH / C);
        let part = self.layer.inputs.div_ceil(parts).next_multiple_of(LANES);
        for start in (0..self.layer.inputs).step_by(part) {
            let depth = start..self.layer.inputs.min(start + part);
            // After a panel's last inputs come the first ones of the panels behind.
            let next = match depth.end < self.layer.inputs {
                true => depth.end,
                false => C * self.layer.inputs,
            };
            let mut coming = Coming {
                start: self.weights(panel).0.wrapping_add(next * LANES),
                inputs: match self.fetch {
                    true => LANES.div_ceil(self.pixels.div_ceil(S::TILE_ROWS)),
                    false => 0,
                },
            };
            let mut pixel = 0;
            while pixel < self.pixels {
                pixel += self.rows::<S, C>(simd, panel, pixel, &depth, coming);
                coming.start = coming.start.wrapping_add(coming.inputs * depth.len());
            }
        }
    }

    /// The next tile, whose number of rows is returned.
    #[inline(always)]
    fn rows<S: Simd, const C: usize>(
        &self,
        simd: S,
        panel: usize,
        pixel: usize,
        depth: &Range<usize>,
        coming: Coming,
    ) -> usize {
        let rows = rows(S::TILE_ROWS, self.pixels - pixel);
        match rows {
            14 if S::TILE_ROWS >= 14 => self.tile::<S, 14, C>(simd, panel, pixel, depth, coming),
            7 if S::TILE_ROWS >= 7 => self.tile::<S, 7, C>(simd, panel, pixel, depth, coming),
            6 if S::TILE_ROWS < 14 => self.tile::<S, 6, C>(simd, panel, pixel, depth, coming),
            5 if S::TILE_ROWS < 14 => self.tile::<S, 5, C>(simd, panel, pixel, depth, coming),
            4 => self.tile::<S, 4, C>(simd, panel, pixel, depth, coming),
            3 if S::TILE_ROWS < 14 => self.tile::<S, 3, C>(simd, panel, pixel, depth, coming),
            2 => self.tile::<S, 2, C>(simd, panel, pixel, depth, coming),
            _ => self.tile::<S, 1, C>(simd, panel, pixel, depth, coming),
        }
        rows
    }

    /// `R` pixels by `C` panels, over some of the inputs. The sums start from the biases, or from
    /// what the inputs before have left in the result.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const C: usize>(
        &self,
        simd: S,
        panel: usize,
        pixel: usize,
        depth: &Range<usize>,
        mut coming: Coming,
    ) {
        let operands: [_; C] = from_fn(|column| self.weights(panel + column));
        let start = (panel - self.panels.start) * self.output_stride + pixel * LANES;
        // SAFETY: `compute` and its caller vouch for the bounds of input and output, and slices
        // of these lengths were taken of the weights.
        unsafe {
            let output = self.output.add(start);
            let result = |row, column| output.add(column * self.output_stride + row * LANES);
            let mut sums = [operands.map(|(_, biases)| simd.load(biases)); R];
            // Every loop over the sums is simple enough to be unrolled: else they live in memory.
            if depth.start > 0 {
                for (row, sums) in sums.iter_mut().enumerate() {
                    for (column, sum) in sums.iter_mut().enumerate() {
                        *sum = simd.load(result(row, column));
                    }
                }
            } else if self.add {
                for (row, sums) in sums.iter_mut().enumerate() {
                    for (column, sum) in sums.iter_mut().enumerate() {
                        *sum = simd.add(simd.load(result(row, column)), *sum);
                    }
                }
            }
            let mut weights = operands.map(|(weights, _)| weights.add(depth.start * LANES));
            let panel = self
                .input
                .as_ptr()
                .add(depth.start / LANES * self.input_stride);
            let mut input = panel.add(pixel * LANES);
            let mut left = depth.len();
            while left > 0 {
                let depth = left.min(LANES);
                for index in 0..coming.inputs {
                    for column in 0..C {
                        let index = index + column * self.layer.inputs;
                        simd.prefetch_far(coming.start.wrapping_add(index * LANES));
                    }
                }
                coming.start = coming.start.wrapping_add(coming.inputs * LANES);
                let next = input.wrapping_add(self.input_stride);
                if self.ahead && left > depth {
                    for row in 0..R {
                        simd.prefetch(next.wrapping_add(row * LANES));
                    }
                }
                for channel in 0..depth {
                    let weights = weights.map(|start| simd.load(start.add(channel * LANES)));
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let value = simd.splat(*input.add(row * LANES + channel));
                        for (sum, weight) in sums.iter_mut().zip(weights) {
                            *sum = simd.mul_add(value, weight, *sum);
                        }
                    }
                }
                weights = weights.map(|start| start.wrapping_add(LANES * LANES));
                input = next;
                left -= depth;
            }
            for (row, sums) in sums.iter().enumerate() {
                for (column, sum) in sums.iter().enumerate() {
                    simd.store(result(row, column), *sum);
                }
            }
            if depth.end == self.layer.inputs {
                for column in 0..C {
                    self.layer.act.over(simd, result(0, column), R);
                }
            }
        }
    }
}

impl Kernel for Tiles<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut panel = self.panels.start;
        while panel < self.panels.end {
            if S::TILE_PANELS == 2 && panel + 2 <= self.panels.end {
                self.columns::<S, 2>(simd, panel);
                panel += 2;
            } else {
                self.columns::<S, 1>(simd, panel);
                panel += 1;
            }
        }
    }
}

/// Pixels of a task. Few tasks that no two threads could share evenly are cut into more.
fn chunk(groups: usize, pixels: usize, threads: usize) -> usize {
    let chunks = pixels.div_ceil(CHUNK).max(1);
    let tasks = groups * chunks;
    let even = tasks.is_multiple_of(threads) || tasks >= UNEVEN * threads;
    let chunks = if even { chunks } else { chunks * threads };
    pixels.div_ceil(chunks).next_multiple_of(TILE).max(TILE)
}

/// Rows of the next tile when `left` pixels are left: the largest that fits, and near the end
/// two of equal size rather than a full and a tiny one.
#[inline(always)]
fn rows(most: usize, left: usize) -> usize {
    match most {
        14 => [14, 7, 4, 2]
            .into_iter()
            .find(|&rows| rows <= left)
            .unwrap_or(1),
        _ if left <= most => left,
        _ if left < 2 * most => left.div_ceil(2),
        _ => most,
    }
}
