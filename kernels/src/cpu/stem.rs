//! The first convolution: from a planar picture to a packed map.
//!
//! A tile is a few neighbouring outputs of one row, one register of channels each. Every value of
//! the picture is multiplied, for all lanes at once, by the channels' weights of its tap: planes
//! first, then rows, then columns.

use core::{array::from_fn, ops::Range};

use super::{
    Act, Engine, LANES, Shape,
    engine::Shared,
    isa::Kernel,
    panels,
    simd::Simd,
    slide::{self, Inputs},
};

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

/// Taps of a filter.
const TAPS: usize = 3 * 3 * 3;

/// Output rows of a task.
const TASK_ROWS: usize = 8;

impl Stem {
    /// The shape of the result for a picture of `shape`.
    pub const fn output_shape(shape: Shape) -> Shape {
        Shape::new(shape.height.div_ceil(2), shape.width.div_ceil(2))
    }

    /// Convolves `input`, planes `[3][height][width]`, into the packed map `output`.
    ///
    /// # Panics
    /// When a length is not that of its map.
    pub fn run(&self, engine: &Engine, input: &[f32], shape: Shape, output: &mut [f32]) {
        let result = Self::output_shape(shape);
        assert_eq!(input.len(), 3 * shape.pixels());
        assert_eq!(output.len(), result.packed_len(self.outputs));
        let parts = result.height.div_ceil(TASK_ROWS);
        let output = Shared::new(output);
        engine.run(panels(self.outputs) * parts, &mut [], |task, _| {
            // The panels of a part one after the other: they read the same rows.
            let (panel, first) = (task % panels(self.outputs), task / panels(self.outputs));
            let first = first * TASK_ROWS;
            let rows = first..result.height.min(first + TASK_ROWS);
            let start = (panel * result.height + first) * result.width * LANES;
            let len = rows.len() * result.width * LANES;
            engine.isa.dispatch(Rows {
                act: self.act,
                channels: LANES.min(self.outputs - panel * LANES),
                weight: engine.weights(self.weight + panel * TAPS * LANES, TAPS * LANES),
                bias: engine.weights(self.bias + panel * LANES, LANES),
                input,
                shape,
                // SAFETY: no other task has these rows of this panel.
                output: unsafe { output.part(start, len) },
                rows,
            });
        });
    }
}

/// Some output rows of one panel.
struct Rows<'a> {
    act: Act,
    /// Channels that the panel has, up to sixteen.
    channels: usize,
    /// `[27][16]`.
    weight: &'a [f32],
    /// `[16]`.
    bias: &'a [f32],
    /// The whole picture.
    input: &'a [f32],
    /// Its shape.
    shape: Shape,
    /// The output rows, `[rows.len()][output width][16]`.
    output: &'a mut [f32],
    /// Which rows of the result they are.
    rows: Range<usize>,
}

impl Kernel for Rows<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let width = Stem::output_shape(self.shape).width;
        if self.output.is_empty() {
            return;
        }
        assert!(self.rows.end <= Stem::output_shape(self.shape).height);
        for row in self.rows.clone() {
            let start = (row - self.rows.start) * width * LANES;
            let output = self.output[start..][..width * LANES].as_mut_ptr();
            // SAFETY: a row of `width` outputs, by its length; `run` of the layer checked the
            // picture's length and took weights of the lengths stated.
            unsafe {
                match width {
                    8.. => self.row::<S, 8>(simd, row, width, output),
                    4..8 => self.row::<S, 4>(simd, row, width, output),
                    _ => self.row::<S, 1>(simd, row, width, output),
                }
                self.act.over(simd, output, width);
            }
        }
    }
}

impl Rows<'_> {
    /// The sums of one row in tiles of `T`. The last tile ends with the row: what it has in
    /// common with the one before is computed twice, to the same values.
    ///
    /// # Safety
    /// `output` is valid for `width` outputs, at least `T`, and everything is as the fields say.
    #[inline(always)]
    unsafe fn row<S: Simd, const T: usize>(
        &self,
        simd: S,
        row: usize,
        width: usize,
        output: *mut f32,
    ) {
        for column in (0..width).step_by(T) {
            let column = column.min(width - T);
            for lane in (0..LANES).step_by(S::REGISTER) {
                // SAFETY: the caller's word.
                unsafe {
                    let sums = match lane < self.channels {
                        true => self.tile::<S, T>(simd, row, column, lane),
                        false => [simd.splat_register(0.0); T],
                    };
                    for (index, sum) in sums.into_iter().enumerate() {
                        simd.store_register(output.add((column + index) * LANES + lane), sum);
                    }
                }
            }
        }
    }

    /// The sums of `T` outputs from `column` on, one register of channels from `lane` on.
    ///
    /// # Safety
    /// As for `row`.
    #[inline(always)]
    unsafe fn tile<S: Simd, const T: usize>(
        &self,
        simd: S,
        row: usize,
        column: usize,
        lane: usize,
    ) -> [S::R; T] {
        let Shape { height, width } = self.shape;
        let rows = usize::from(row == 0)..3.min(height + 1 - 2 * row);
        // SAFETY: the caller's word; only values inside the picture are read.
        unsafe {
            let mut sums = [simd.load_register(self.bias.as_ptr().add(lane)); T];
            for plane in 0..3 {
                for tap_row in rows.clone() {
                    let weight = &self.weight[(plane * 9 + tap_row * 3) * LANES + lane..];
                    let taps: [S::R; 3] =
                        from_fn(|tap| simd.load_register(weight.as_ptr().add(tap * LANES)));
                    let line = (plane * height + 2 * row + tap_row - 1) * width;
                    let start = self.input.as_ptr().wrapping_add(line + 2 * column);
                    let inputs = Inputs {
                        start: start.wrapping_sub(1),
                        first: usize::from(column == 0),
                        end: width + 1 - 2 * column,
                    };
                    slide::add_row::<S, 3, 2, T, true>(simd, taps, inputs, &mut sums);
                }
            }
            sums
        }
    }
}
