//! LayerNorm over the channels of every pixel.

use core::ops::Range;

use super::{Engine, LANES, Shape, engine::Shared, isa::Kernel, panels, simd::Simd};

/// Pixels of a task.
const TASK: usize = 4 * BLOCK;

/// Pixels whose means and variances make one vector.
const BLOCK: usize = LANES;

/// Pixels that are summed side by side, so that an addition need not wait for the last.
const GROUP: usize = 4;

/// `(x - mean) / sqrt(variance + eps) * weight + bias`, mean and population variance over the
/// channels of a pixel.
///
/// Accurate to a few units in the last place of the largest result, also where the mean is large
/// beside the deviations: these are taken from a rounded mean first, and their own mean, which is
/// what the rounding left, corrects variance and result.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm {
    /// Channels.
    pub channels: usize,
    /// Added to the variance.
    pub eps: f32,
    /// Offset of the factors, `[panels][16]`; none where they are folded into the next layer.
    pub weight: Option<usize>,
    /// Offset of the summands, `[panels][16]`; none where they are folded into the next layer.
    pub bias: Option<usize>,
}

impl LayerNorm {
    /// Normalises the packed map `input` of `shape` into `output`, a packed map of the shape
    /// `padded`: `shape`, and zeros at the right and bottom.
    ///
    /// # Panics
    /// When `input` or `output` is too short, or `padded` smaller than `shape`.
    pub fn run(
        &self,
        engine: &Engine,
        input: &[f32],
        shape: Shape,
        output: &mut [f32],
        padded: Shape,
    ) {
        assert!(
            shape.height <= padded.height && shape.width <= padded.width,
            "a padded map that is smaller"
        );
        let input = &input[..shape.packed_len(self.channels)];
        let output = &mut output[..padded.packed_len(self.channels)];
        if shape != padded {
            clear(output, shape, padded);
        }
        let parameters = |offset: Option<usize>| {
            offset.map(|offset| engine.weights(offset, panels(self.channels) * LANES))
        };
        let (weight, bias) = (parameters(self.weight), parameters(self.bias));
        let output = &Shared::new(output);
        let pixels = shape.pixels();
        engine.run(pixels.div_ceil(TASK), &mut [], |task, _| {
            engine.isa.dispatch(Pixels {
                layer: *self,
                weight,
                bias,
                input,
                shape,
                output,
                padded,
                pixels: task * TASK..pixels.min((task + 1) * TASK),
            });
        });
    }
}

/// Zeros right of and below `shape` in a packed map of the shape `padded`.
fn clear(map: &mut [f32], shape: Shape, padded: Shape) {
    for panel in map.chunks_exact_mut(padded.pixels() * LANES) {
        let (rows, below) = panel.split_at_mut(shape.height * padded.width * LANES);
        for row in rows.chunks_exact_mut(padded.width * LANES) {
            row[shape.width * LANES..].fill(0.0);
        }
        below.fill(0.0);
    }
}

/// [`LayerNorm`] of some pixels, whole and padded maps as in [`LayerNorm::run`].
struct Pixels<'a> {
    layer: LayerNorm,
    weight: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    input: &'a [f32],
    shape: Shape,
    output: &'a Shared<'a>,
    padded: Shape,
    pixels: Range<usize>,
}

/// What is known of the pixels of a block once their channels have been read.
struct Moments {
    /// Minus the rounded means.
    minus_mean: [f32; BLOCK],
    /// `1 / sqrt(variance + eps)`.
    scale: [f32; BLOCK],
    /// Minus what the rounded means lack, scaled.
    offset: [f32; BLOCK],
}

impl Kernel for Pixels<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for first in self.pixels.clone().step_by(BLOCK) {
            let end = self.pixels.end.min(first + BLOCK);
            // SAFETY: the pixels of the task are in the map, whose length `LayerNorm::run` made
            // sure of, and are those of no other task.
            unsafe {
                let moments = self.moments(simd, first..end);
                for pixel in first..end {
                    self.normalise(simd, pixel, &moments, pixel - first);
                }
            }
        }
    }
}

impl Pixels<'_> {
    /// Where the first panel of a pixel is read; a panel has `shape.pixels()` vectors.
    #[inline(always)]
    fn start(&self, pixel: usize) -> *const f32 {
        self.input.as_ptr().wrapping_add(pixel * LANES)
    }

    /// One in the lanes of `panel` that are channels, zero beyond.
    #[inline(always)]
    fn used<S: Simd>(&self, simd: S, panel: usize) -> S::V {
        let channels = self.layer.channels - panel * LANES;
        if channels >= LANES {
            return simd.splat(1.0);
        }
        let mut used = [0.0; LANES];
        used[..channels].fill(1.0);
        // SAFETY: sixteen values.
        unsafe { simd.load(used.as_ptr()) }
    }

    /// # Safety
    /// All of the input's panels hold the `pixels`, at most [`BLOCK`].
    #[inline(always)]
    unsafe fn moments<S: Simd>(&self, simd: S, pixels: Range<usize>) -> Moments {
        let stride = self.shape.pixels() * LANES;
        let panels = panels(self.layer.channels);
        let channels = simd.splat(self.layer.channels as f32);
        let mut sums = [0.0; BLOCK];
        let mut squares = [0.0; BLOCK];
        let mut minus_mean = [0.0; BLOCK];
        let mut scale = [0.0; BLOCK];
        let mut offset = [0.0; BLOCK];
        // A group that the pixels do not fill repeats the last of them.
        let group = |first: usize| {
            let pixel = |i: usize| self.start((pixels.start + first + i).min(pixels.end - 1));
            [pixel(0), pixel(1), pixel(2), pixel(3)]
        };
        // SAFETY: the caller vouches for the pixels; arrays are one vector.
        unsafe {
            for first in (0..pixels.len()).step_by(GROUP) {
                let starts = group(first);
                let mut sum = [simd.splat(0.0); GROUP];
                for panel in 0..panels {
                    for (sum, start) in sum.iter_mut().zip(starts) {
                        *sum = simd.add(*sum, simd.load(start.add(panel * stride)));
                    }
                }
                for (total, sum) in sums[first..].iter_mut().zip(sum) {
                    *total = simd.sum(sum);
                }
            }
            let mean = simd.div(simd.load(sums.as_ptr()), channels);
            simd.store(minus_mean.as_mut_ptr(), simd.sub(simd.splat(0.0), mean));
            for first in (0..pixels.len()).step_by(GROUP) {
                let starts = group(first);
                let mut sum = [simd.splat(0.0); GROUP];
                let mut square = sum;
                for panel in 0..panels {
                    let used = self.used(simd, panel);
                    for i in 0..GROUP {
                        let x = simd.load(starts[i].add(panel * stride));
                        let x = simd.mul_add(simd.splat(minus_mean[first + i]), used, x);
                        sum[i] = simd.add(sum[i], x);
                        square[i] = simd.mul_add(x, x, square[i]);
                    }
                }
                for i in 0..GROUP {
                    sums[first + i] = simd.sum(sum[i]);
                    squares[first + i] = simd.sum(square[i]);
                }
            }
            let lack = simd.div(simd.load(sums.as_ptr()), channels);
            let variance = simd.sub(
                simd.div(simd.load(squares.as_ptr()), channels),
                simd.mul(lack, lack),
            );
            let variance = simd.max(simd.splat(0.0), variance);
            let deviation = simd.sqrt(simd.add(variance, simd.splat(self.layer.eps)));
            let inverse = simd.div(simd.splat(1.0), deviation);
            simd.store(scale.as_mut_ptr(), inverse);
            simd.store(
                offset.as_mut_ptr(),
                simd.sub(simd.splat(0.0), simd.mul(lack, inverse)),
            );
        }
        Moments {
            minus_mean,
            scale,
            offset,
        }
    }

    /// Writes one pixel, the one at `index` of the block.
    ///
    /// # Safety
    /// All of the input's panels hold the pixel, and nobody else uses it in the output.
    #[inline(always)]
    unsafe fn normalise<S: Simd>(&self, simd: S, pixel: usize, moments: &Moments, index: usize) {
        let from = self.start(pixel);
        let to = self
            .output
            .as_mut_ptr()
            .wrapping_add(self.target(pixel) * LANES);
        let minus_mean = simd.splat(moments.minus_mean[index]);
        let scale = simd.splat(moments.scale[index]);
        let offset = simd.splat(moments.offset[index]);
        for panel in 0..panels(self.layer.channels) {
            let used = self.used(simd, panel);
            // SAFETY: the caller vouches for the pixel, `LayerNorm::run` for the parameters.
            unsafe {
                let x = simd.load(from.add(panel * self.shape.pixels() * LANES));
                let x = simd.mul_add(minus_mean, used, x);
                let mut y = simd.mul_add(offset, used, simd.mul(x, scale));
                if let Some(weight) = self.weight {
                    y = simd.mul(y, simd.load(weight.as_ptr().add(panel * LANES)));
                }
                if let Some(bias) = self.bias {
                    y = simd.add(y, simd.load(bias.as_ptr().add(panel * LANES)));
                }
                simd.store(to.add(panel * self.padded.pixels() * LANES), y);
            }
        }
    }

    /// Where in the padded map a pixel is written.
    #[inline(always)]
    fn target(&self, pixel: usize) -> usize {
        match self.shape.width == self.padded.width {
            true => pixel,
            false => pixel / self.shape.width * self.padded.width + pixel % self.shape.width,
        }
    }
}
