//! Depthwise convolution of packed maps.
//!
//! A tile is a few neighbouring outputs of one row, one register of channels each. The input is
//! stationary: of every input row a tile keeps the row's taps in registers, loads each input
//! pixel once and adds it to all the outputs that it reaches. An output so gets its taps from
//! left to right and from top to bottom in every tile, whatever its width. Taps outside the map
//! are left out, not multiplied by zeros: near the edges a tile only has fewer inputs.

use core::{array::from_fn, ops::Range};

use super::{Act, Engine, LANES, Shape, engine::Shared, isa::Kernel, panels, simd::Simd};

/// A depthwise convolution with its activation: every channel has a filter of its own.
#[derive(Debug, Clone, Copy)]
pub struct Depthwise {
    /// Channels.
    pub channels: usize,
    /// Height and width of the filters: 3, 5 or 7.
    pub kernel: usize,
    /// Step in both directions: 1 or 2.
    pub stride: usize,
    /// Zeros on every side, fewer than `kernel`.
    pub padding: usize,
    /// Applied to the result.
    pub act: Act,
    /// Whether the input is added to the activated result: only where input and result have the
    /// same shape, with stride 1 and a padding of `kernel / 2`.
    pub skip: bool,
    /// Offset of the filters, `[panels][kernel * kernel][16]`.
    pub weight: usize,
    /// Offset of the biases, `[panels][16]`.
    pub bias: usize,
}

/// Output rows of a task: enough of them for the rows that neighbours read twice not to matter,
/// few enough to share a large map evenly.
const TASK_ROWS: usize = 16;

impl Depthwise {
    /// The shape of the result for an input of `shape`; empty where not even one filter fits.
    pub const fn output_shape(&self, shape: Shape) -> Shape {
        Shape::new(self.outputs(shape.height), self.outputs(shape.width))
    }

    /// Results along a side of `inputs` pixels.
    const fn outputs(&self, inputs: usize) -> usize {
        match (inputs + 2 * self.padding).checked_sub(self.kernel) {
            Some(steps) => steps / self.stride + 1,
            None => 0,
        }
    }

    /// Which taps of output `index` lie inside a side of `inputs` pixels, and the pixel under the
    /// first of them.
    pub(super) const fn inside(&self, index: usize, inputs: usize) -> (Range<usize>, usize) {
        let start = index * self.stride;
        let first = self.padding.saturating_sub(start);
        let end = (inputs + self.padding).saturating_sub(start);
        let end = if end < self.kernel { end } else { self.kernel };
        (first..end, (start + first).saturating_sub(self.padding))
    }

    /// Convolves the packed map `input` of `shape` into `output`.
    ///
    /// # Panics
    /// When a length is not that of its map, or the layer is not as its fields demand.
    pub fn run(&self, engine: &Engine, input: &[f32], shape: Shape, output: &mut [f32]) {
        let result = self.output_shape(shape);
        assert_eq!(input.len(), shape.packed_len(self.channels));
        assert_eq!(output.len(), result.packed_len(self.channels));
        let taps = self.kernel * self.kernel;
        let parts = result.height.div_ceil(TASK_ROWS);
        let output = Shared::new(output);
        engine.run(panels(self.channels) * parts, &mut [], |task, _| {
            let (panel, first) = (task / parts, task % parts * TASK_ROWS);
            let rows = first..result.height.min(first + TASK_ROWS);
            let start = (panel * result.height + first) * result.width * LANES;
            let len = rows.len() * result.width * LANES;
            engine.isa.dispatch(Rows {
                layer: self,
                weight: engine.weights(self.weight + panel * taps * LANES, taps * LANES),
                bias: engine.weights(self.bias + panel * LANES, LANES),
                input: &input[panel * shape.pixels() * LANES..][..shape.pixels() * LANES],
                first_row: 0,
                shape,
                // SAFETY: no other task has these rows of this panel.
                output: unsafe { output.part(start, len) },
                rows,
            });
        });
    }
}

/// The body once for every number, as a constant: sums that are indexed by a variable do not stay
/// in registers, and compilers neither unroll loops of this length nor do so quickly.
macro_rules! unrolled {
    ($index:ident in [$($number:literal)*] $body:block) => {
        $({ const $index: usize = $number; $body })*
    };
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
    fn run<S: Simd>(mut self, simd: S) {
        if self.output.is_empty() {
            return;
        }
        self.check();
        for row in self.rows.clone() {
            let tiles = self.tiles(row);
            // SAFETY: `check` holds.
            unsafe {
                match (self.layer.kernel, self.layer.stride) {
                    (3, 1) => tiles.filter::<S, 3, 1>(simd),
                    (3, 2) => tiles.filter::<S, 3, 2>(simd),
                    (5, 1) => tiles.filter::<S, 5, 1>(simd),
                    (5, 2) => tiles.filter::<S, 5, 2>(simd),
                    (7, 1) => tiles.filter::<S, 7, 1>(simd),
                    (7, 2) => tiles.filter::<S, 7, 2>(simd),
                    (kernel, stride) => panic!("no filter of size {kernel} with stride {stride}"),
                }
                self.layer.act.over(simd, tiles.output, tiles.outputs);
                if self.layer.skip {
                    let centre = (row - self.first_row) * tiles.inputs * LANES;
                    let input = self.input[centre..].as_ptr();
                    for column in 0..tiles.outputs {
                        let output = tiles.output.add(column * LANES);
                        let sum = simd.add(simd.load(output), simd.load(input.add(column * LANES)));
                        simd.store(output, sum);
                    }
                }
            }
        }
    }
}

impl<'a> Rows<'a> {
    /// Everything that the unsafe code below relies on.
    fn check(&self) {
        let layer = self.layer;
        let result = layer.output_shape(self.shape);
        let same = layer.stride == 1 && 2 * layer.padding + 1 == layer.kernel;
        assert!(layer.padding < layer.kernel);
        assert!(same || !layer.skip);
        assert!(self.weight.len() >= layer.kernel * layer.kernel * LANES);
        assert_eq!(self.bias.len(), LANES);
        assert!(self.rows.end <= result.height);
        assert_eq!(self.output.len(), self.rows.len() * result.width * LANES);
        let (_, first) = layer.inside(self.rows.start, self.shape.height);
        let (taps, last) = layer.inside(self.rows.end - 1, self.shape.height);
        assert!(self.first_row <= first);
        let rows = last + taps.len() - self.first_row;
        assert!(self.input.len() >= rows * self.shape.width * LANES);
    }

    /// One row of the result.
    #[inline(always)]
    fn tiles(&mut self, row: usize) -> Tiles<'a> {
        let outputs = self.layer.output_shape(self.shape).width;
        let (taps, first) = self.layer.inside(row, self.shape.height);
        let input = (first - self.first_row) * self.shape.width * LANES;
        let output = (row - self.rows.start) * outputs * LANES;
        Tiles {
            weight: self.weight[taps.start * self.layer.kernel * LANES..].as_ptr(),
            bias: self.bias,
            taps: taps.len(),
            input: self.input[input..].as_ptr(),
            inputs: self.shape.width,
            padding: self.layer.padding,
            output: self.output[output..].as_mut_ptr(),
            outputs,
        }
    }
}

/// How many outputs a tile has in rows of `width`: whichever computes the fewest twice.
#[inline(always)]
fn tile_width(width: usize) -> usize {
    match width {
        0..4 => 1,
        4..7 => 4,
        7 => 7,
        _ if width.next_multiple_of(8) < width.next_multiple_of(7) => 8,
        _ => 7,
    }
}

/// One row of the result, in tiles.
struct Tiles<'a> {
    /// The filters from the first row of taps inside the map.
    weight: *const f32,
    /// The sixteen biases.
    bias: &'a [f32],
    /// How many rows of taps are inside the map.
    taps: usize,
    /// The input row under the first of them.
    input: *const f32,
    /// Pixels of an input row.
    inputs: usize,
    /// Columns of zeros before them.
    padding: usize,
    /// The output row.
    output: *mut f32,
    /// Its pixels.
    outputs: usize,
}

impl Tiles<'_> {
    /// The sums of the whole row.
    ///
    /// # Safety
    /// Everything is as the fields say.
    #[inline(always)]
    unsafe fn filter<S: Simd, const K: usize, const STRIDE: usize>(&self, simd: S) {
        // SAFETY: the caller's word.
        unsafe {
            match tile_width(self.outputs) {
                8 if K < 7 => self.walk::<S, K, STRIDE, 8>(simd),
                7 if K < 7 => self.walk::<S, K, STRIDE, 7>(simd),
                2.. => self.walk::<S, K, STRIDE, 4>(simd),
                _ => self.walk::<S, K, STRIDE, 1>(simd),
            }
        }
    }

    /// The row in tiles of `T`. The last tile ends with the row: what it has in common with the
    /// one before is computed twice, to the same values.
    ///
    /// # Safety
    /// As for `filter`.
    #[inline(always)]
    unsafe fn walk<S: Simd, const K: usize, const STRIDE: usize, const T: usize>(&self, simd: S) {
        for column in (0..self.outputs).step_by(T) {
            let column = column.min(self.outputs - T);
            // The tile's inputs are numbered from the first tap of its first output; those inside
            // the map are `first..end`.
            let first = self.padding.saturating_sub(column * STRIDE);
            let end = self.inputs + self.padding - column * STRIDE;
            for lane in (0..self.bias.len()).step_by(S::REGISTER) {
                // SAFETY: the caller's word.
                unsafe { self.tile::<S, K, STRIDE, T>(simd, column, lane, first, end) };
            }
        }
    }

    /// The sums of `T` outputs from `column` on, one register of channels from `lane` on.
    ///
    /// # Safety
    /// As for `filter`.
    // One of the unrolled numbers is 0, which is trivially less than any other.
    #[allow(clippy::absurd_extreme_comparisons)]
    #[inline(always)]
    unsafe fn tile<S: Simd, const K: usize, const STRIDE: usize, const T: usize>(
        &self,
        simd: S,
        column: usize,
        lane: usize,
        first: usize,
        end: usize,
    ) {
        // SAFETY: the caller's word; pointers that are not read may lie outside the map.
        unsafe {
            let mut sums = [simd.load_register(self.bias.as_ptr().add(lane)); T];
            let mut weight = self.weight.add(lane);
            let mut input = self.input.wrapping_add((column * STRIDE) * LANES + lane);
            input = input.wrapping_sub(self.padding * LANES);
            for _ in 0..self.taps {
                let taps: [S::R; K] = from_fn(|tap| simd.load_register(weight.add(tap * LANES)));
                unrolled!(INDEX in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20] {
                    if const { INDEX < (T - 1) * STRIDE + K } {
                        // Only the first K - 1 and the last K - 1 can be outside.
                        let before = const { INDEX < K - 1 } && INDEX < first;
                        let behind = const { INDEX > (T - 1) * STRIDE } && INDEX >= end;
                        if !before && !behind {
                            let value = simd.load_register(input.wrapping_add(INDEX * LANES));
                            unrolled!(OUTPUT in [0 1 2 3 4 5 6 7] {
                                if const {
                                    OUTPUT < T
                                        && OUTPUT * STRIDE <= INDEX
                                        && INDEX < OUTPUT * STRIDE + K
                                } {
                                    sums[OUTPUT] = simd.mul_add_register(
                                        value,
                                        taps[const { INDEX.saturating_sub(OUTPUT * STRIDE) }],
                                        sums[OUTPUT],
                                    );
                                }
                            });
                        }
                    }
                });
                weight = weight.wrapping_add(K * LANES);
                input = input.wrapping_add(self.inputs * LANES);
            }
            for (output, sum) in sums.into_iter().enumerate() {
                let output = self.output.add((column + output) * LANES + lane);
                simd.store_register(output, sum);
            }
        }
    }
}
