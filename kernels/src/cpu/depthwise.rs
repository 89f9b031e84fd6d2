//! Depthwise convolution of packed maps.
//!
//! A tile is a few neighbouring outputs of one row, one register of channels each; rows of taps
//! are added from top to bottom, those outside the map left out.

use core::{array::from_fn, ops::Range};

use super::{
    Act, Engine, LANES, Shape,
    engine::Shared,
    isa::Kernel,
    panels,
    simd::Simd,
    slide::{self, Inputs},
};

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

/// Output pixels that are activated in one go, while they are still in the first level of cache.
const BAND: usize = 256;

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
        let width = self.layer.output_shape(self.shape).width;
        let band = (BAND / width).max(1);
        for start in self.rows.clone().step_by(band) {
            let rows = start..self.rows.end.min(start + band);
            // SAFETY: `check` holds.
            unsafe {
                match (self.layer.kernel, self.layer.stride) {
                    (3, 1) => self.filter::<S, 3, 1>(simd, rows.clone()),
                    (3, 2) => self.filter::<S, 3, 2>(simd, rows.clone()),
                    (5, 1) => self.filter::<S, 5, 1>(simd, rows.clone()),
                    (5, 2) => self.filter::<S, 5, 2>(simd, rows.clone()),
                    (7, 1) => self.filter::<S, 7, 1>(simd, rows.clone()),
                    (7, 2) => self.filter::<S, 7, 2>(simd, rows.clone()),
                    (kernel, stride) => panic!("no filter of size {kernel} with stride {stride}"),
                }
            }
            let output = (start - self.rows.start) * width * LANES;
            let output = &mut self.output[output..][..rows.len() * width * LANES];
            let vectors = rows.len() * width;
            // SAFETY: the slice has as many.
            unsafe { self.layer.act.over(simd, output.as_mut_ptr(), vectors) };
            if self.layer.skip {
                let input = (start - self.first_row) * width * LANES;
                add(simd, output, &self.input[input..][..output.len()]);
            }
        }
    }
}

/// Adds `input` to `output`, both whole vectors.
#[inline(always)]
fn add<S: Simd>(simd: S, output: &mut [f32], input: &[f32]) {
    let pixels = output
        .chunks_exact_mut(LANES)
        .zip(input.chunks_exact(LANES));
    for (output, input) in pixels {
        // SAFETY: sixteen values each.
        unsafe {
            let sum = simd.add(simd.load(output.as_ptr()), simd.load(input.as_ptr()));
            simd.store(output.as_mut_ptr(), sum);
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

    /// The sums of some rows.
    ///
    /// # Safety
    /// `check` holds, and the layer's filter is `K` x `K` with a step of `STRIDE`.
    #[inline(always)]
    unsafe fn filter<S: Simd, const K: usize, const STRIDE: usize>(
        &mut self,
        simd: S,
        rows: Range<usize>,
    ) {
        let width = tile_width(self.layer.output_shape(self.shape).width);
        for row in rows {
            let tiles = self.tiles(row);
            // SAFETY: a tile is at most as wide as the row; otherwise the caller's word.
            unsafe {
                match width {
                    8 if K < 7 => tiles.walk::<S, K, STRIDE, 8>(simd),
                    7 if K < 7 => tiles.walk::<S, K, STRIDE, 7>(simd),
                    2.. => tiles.walk::<S, K, STRIDE, 4>(simd),
                    _ => tiles.walk::<S, K, STRIDE, 1>(simd),
                }
            }
        }
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
    /// The row in tiles of `T`. The last tile ends with the row: what it has in common with the
    /// one before is computed twice, to the same values.
    ///
    /// # Safety
    /// Everything is as the fields say, for a filter `K` x `K` with a step of `STRIDE`, and there
    /// are at least `T` outputs.
    #[inline(always)]
    unsafe fn walk<S: Simd, const K: usize, const STRIDE: usize, const T: usize>(&self, simd: S) {
        for column in (0..self.outputs).step_by(T) {
            let column = column.min(self.outputs - T);
            for lane in (0..self.bias.len()).step_by(S::REGISTER) {
                // SAFETY: the caller's word.
                unsafe { self.tile::<S, K, STRIDE, T>(simd, column, lane) };
            }
        }
    }

    /// The sums of `T` outputs from `column` on, one register of channels from `lane` on.
    ///
    /// # Safety
    /// As for `walk`; there are `T` outputs from `column` on.
    #[inline(always)]
    unsafe fn tile<S: Simd, const K: usize, const STRIDE: usize, const T: usize>(
        &self,
        simd: S,
        column: usize,
        lane: usize,
    ) {
        // SAFETY: the caller's word; pointers that are not read may lie outside the map.
        unsafe {
            let mut sums = [simd.load_register(self.bias.as_ptr().add(lane)); T];
            let mut weight = self.weight.add(lane);
            let start = self.input.wrapping_add(column * STRIDE * LANES + lane);
            let mut inputs = Inputs {
                start: start.wrapping_sub(self.padding * LANES),
                first: self.padding.saturating_sub(column * STRIDE),
                end: self.inputs + self.padding - column * STRIDE,
            };
            for _ in 0..self.taps {
                let taps: [S::R; K] = from_fn(|tap| simd.load_register(weight.add(tap * LANES)));
                slide::add_row::<S, K, STRIDE, T, false>(simd, taps, inputs, &mut sums);
                weight = weight.wrapping_add(K * LANES);
                inputs.start = inputs.start.wrapping_add(self.inputs * LANES);
            }
            for (output, sum) in sums.into_iter().enumerate() {
                let output = self.output.add((column + output) * LANES + lane);
                simd.store_register(output, sum);
            }
        }
    }
}
