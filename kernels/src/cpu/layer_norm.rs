//! LayerNorm over the channels of every pixel, alone or with what follows it in a block.

use core::ops::Range;

use super::{Act, Engine, LANES, Shape, engine::Shared, isa::Kernel, panels, simd::Simd};

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
        tasks(engine, shape, |pixels| Pixels {
            layer: *self,
            heads: 1,
            weight,
            bias,
            input: Some(input),
            shape,
            output,
            padded,
            pixels,
        });
    }
}

/// Runs a kernel for all pixels of a map, some at a time.
fn tasks<K: Kernel>(engine: &Engine, shape: Shape, kernel: impl Fn(Range<usize>) -> K + Sync) {
    let pixels = shape.pixels();
    engine.run(pixels.div_ceil(TASK), &mut [], |task, _| {
        let pixels = task * TASK..pixels.min((task + 1) * TASK);
        engine.isa.dispatch(kernel(pixels));
    });
}

/// What the segmentation backbone has after a depthwise convolution: a norm over all channels of
/// all heads, then an activation, then a sum.
#[derive(Debug, Clone, Copy)]
pub struct LocalNorm {
    /// The norm. Its channels are those of one head, and its parameters `[heads][panels][16]`.
    pub norm: LayerNorm,
    /// Heads, each padded to whole panels; 1 for a map that is not of an attention.
    pub heads: usize,
    /// Applied to the normalised map.
    pub act: Act,
}

impl LocalNorm {
    /// Normalises the packed `map` of `shape` in place, activates it and adds `skip` to it.
    ///
    /// # Panics
    /// When a map has not the length that heads, channels and shape give.
    pub fn run(&self, engine: &Engine, map: &mut [f32], shape: Shape, skip: Option<&[f32]>) {
        let Self { norm, heads, act } = *self;
        let len = heads * shape.packed_len(norm.channels);
        assert_eq!(map.len(), len);
        assert!(skip.is_none_or(|skip| skip.len() == len));
        let parameters = |offset: Option<usize>| {
            offset.map(|offset| engine.weights(offset, heads * panels(norm.channels) * LANES))
        };
        let (weight, bias) = (parameters(norm.weight), parameters(norm.bias));
        let output = &Shared::new(map);
        tasks(engine, shape, |pixels| Activated {
            pixels: Pixels {
                layer: norm,
                heads,
                weight,
                bias,
                input: None,
                shape,
                output,
                padded: shape,
                pixels,
            },
            act,
            skip,
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
    /// How often the layer's channels are there, each time in panels of their own.
    heads: usize,
    weight: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    /// None where the output is the input too.
    input: Option<&'a [f32]>,
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
        let tail = self.tail(simd);
        for block in self.blocks() {
            // SAFETY: the pixels of the task are in the map, whose length `LayerNorm::run` made
            // sure of, and are those of no other task.
            unsafe { self.block(simd, block, tail) };
        }
    }
}

/// [`LocalNorm`] of some pixels.
struct Activated<'a> {
    pixels: Pixels<'a>,
    act: Act,
    skip: Option<&'a [f32]>,
}

impl Kernel for Activated<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self { pixels, act, skip } = self;
        let tail = pixels.tail(simd);
        for block in pixels.blocks() {
            // SAFETY: the pixels of the task are in the map, whose length and whose skip's
            // `LocalNorm::run` made sure of, and are those of no other task.
            unsafe {
                pixels.block(simd, block.clone(), tail);
                for panel in 0..pixels.panels() {
                    let start = (panel * pixels.shape.pixels() + block.start) * LANES;
                    let values = pixels.output.as_mut_ptr().add(start);
                    act.over(simd, values, block.len());
                    if let Some(skip) = skip {
                        add(simd, values, skip.as_ptr().add(start), block.len());
                    }
                }
            }
        }
    }
}

/// Adds some vectors to others.
///
/// # Safety
/// There are as many at `values`, used by nobody else, and at `skip`.
#[inline(always)]
unsafe fn add<S: Simd>(simd: S, values: *mut f32, skip: *const f32, vectors: usize) {
    for start in (0..vectors * LANES).step_by(LANES) {
        // SAFETY: the caller vouches for the vectors.
        unsafe {
            let (value, skip) = (simd.load(values.add(start)), simd.load(skip.add(start)));
            simd.store(values.add(start), simd.add(value, skip));
        }
    }
}

impl Pixels<'_> {
    /// The pixels in blocks.
    #[inline(always)]
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let Range { start, end } = self.pixels;
        let block = move |first: usize| first..end.min(first + BLOCK);
        (start..end).step_by(BLOCK).map(block)
    }

    /// Normalises the pixels of a block.
    ///
    /// # Safety
    /// All panels of input and output hold the pixels, and nobody else uses them in the output.
    #[inline(always)]
    unsafe fn block<S: Simd>(&self, simd: S, pixels: Range<usize>, tail: S::V) {
        // SAFETY: the caller's word.
        unsafe {
            let moments = self.moments(simd, pixels.clone(), tail);
            for pixel in pixels.clone() {
                self.normalise(simd, pixel, &moments, pixel - pixels.start, tail);
            }
        }
    }

    /// Panels of the map.
    #[inline(always)]
    fn panels(&self) -> usize {
        self.heads * panels(self.layer.channels)
    }

    /// Where the first panel of a pixel is read; a panel has `shape.pixels()` vectors.
    #[inline(always)]
    fn start(&self, pixel: usize) -> *const f32 {
        let input = match self.input {
            Some(input) => input.as_ptr(),
            None => self.output.as_mut_ptr(),
        };
        input.wrapping_add(pixel * LANES)
    }

    /// One in the lanes of a head's last panel that are channels, zero beyond.
    #[inline(always)]
    fn tail<S: Simd>(&self, simd: S) -> S::V {
        let mut tail = [0.0; LANES];
        let channels = self.layer.channels - (panels(self.layer.channels) - 1) * LANES;
        tail[..channels].fill(1.0);
        // SAFETY: sixteen values.
        unsafe { simd.load(tail.as_ptr()) }
    }

    /// One in the lanes of `panel` that are channels, zero beyond.
    #[inline(always)]
    fn used<S: Simd>(&self, simd: S, panel: usize, tail: S::V) -> S::V {
        let panels = panels(self.layer.channels);
        let last = match self.heads {
            1 => panel + 1 == panels,
            _ => (panel + 1).is_multiple_of(panels),
        };
        match last {
            true => tail,
            false => simd.splat(1.0),
        }
    }

    /// # Safety
    /// All of the input's panels hold the `pixels`, 1 to [`BLOCK`].
    #[inline(always)]
    unsafe fn moments<S: Simd>(&self, simd: S, pixels: Range<usize>, tail: S::V) -> Moments {
        let mut sums = [0.0; BLOCK];
        let mut squares = [0.0; BLOCK];
        let mut moments = Moments {
            minus_mean: sums,
            scale: sums,
            offset: sums,
        };
        // A group that the pixels do not fill repeats the last of them.
        let group = |first: usize| {
            let pixel = |i: usize| self.start((pixels.start + first + i).min(pixels.end - 1));
            [pixel(0), pixel(1), pixel(2), pixel(3)]
        };
        let groups = (0..pixels.len()).step_by(GROUP);
        // SAFETY: the caller vouches for the pixels; arrays are one vector.
        unsafe {
            for first in groups.clone() {
                let sums = &mut sums[first..first + GROUP];
                sums.copy_from_slice(&self.sums(simd, group(first)));
            }
            let channels = simd.splat((self.heads * self.layer.channels) as f32);
            let minus_mean = simd.div(
                simd.load(sums.as_ptr()),
                simd.sub(simd.splat(0.0), channels),
            );
            simd.store(moments.minus_mean.as_mut_ptr(), minus_mean);
            for first in groups {
                let group_means = &moments.minus_mean[first..first + GROUP];
                let (sum, square) = self.deviations(simd, group(first), group_means, tail);
                sums[first..first + GROUP].copy_from_slice(&sum);
                squares[first..first + GROUP].copy_from_slice(&square);
            }
            let lack = simd.div(simd.load(sums.as_ptr()), channels);
            let square = simd.div(simd.load(squares.as_ptr()), channels);
            let variance = simd.max(simd.splat(0.0), simd.sub(square, simd.mul(lack, lack)));
            let deviation = simd.sqrt(simd.add(variance, simd.splat(self.layer.eps)));
            let scale = simd.div(simd.splat(1.0), deviation);
            let offset = simd.sub(simd.splat(0.0), simd.mul(lack, scale));
            simd.store(moments.scale.as_mut_ptr(), scale);
            simd.store(moments.offset.as_mut_ptr(), offset);
        }
        moments
    }

    /// The sums over the channels of some pixels.
    ///
    /// # Safety
    /// All of the input's panels hold the pixels.
    #[inline(always)]
    unsafe fn sums<S: Simd>(&self, simd: S, starts: [*const f32; GROUP]) -> [f32; GROUP] {
        let stride = self.shape.pixels() * LANES;
        let mut sums = [simd.splat(0.0); GROUP];
        for panel in 0..self.panels() {
            for (sum, start) in sums.iter_mut().zip(starts) {
                // SAFETY: the caller vouches for the pixels.
                *sum = simd.add(*sum, unsafe { simd.load(start.add(panel * stride)) });
            }
        }
        let [a, b, c, d] = sums;
        [simd.sum(a), simd.sum(b), simd.sum(c), simd.sum(d)]
    }

    /// The sums of the deviations from the means and of their squares.
    ///
    /// # Safety
    /// All of the input's panels hold the pixels.
    #[inline(always)]
    unsafe fn deviations<S: Simd>(
        &self,
        simd: S,
        starts: [*const f32; GROUP],
        minus_mean: &[f32],
        tail: S::V,
    ) -> ([f32; GROUP], [f32; GROUP]) {
        let stride = self.shape.pixels() * LANES;
        let mut sums = [simd.splat(0.0); GROUP];
        let mut squares = sums;
        for panel in 0..self.panels() {
            let used = self.used(simd, panel, tail);
            for i in 0..GROUP {
                // SAFETY: the caller vouches for the pixels.
                let x = unsafe { simd.load(starts[i].add(panel * stride)) };
                let x = simd.mul_add(simd.splat(minus_mean[i]), used, x);
                sums[i] = simd.add(sums[i], x);
                squares[i] = simd.mul_add(x, x, squares[i]);
            }
        }
        let [a, b, c, d] = sums;
        let sums = [simd.sum(a), simd.sum(b), simd.sum(c), simd.sum(d)];
        let [a, b, c, d] = squares;
        (sums, [simd.sum(a), simd.sum(b), simd.sum(c), simd.sum(d)])
    }

    /// Writes one pixel, the one at `index` of the block.
    ///
    /// # Safety
    /// All of the input's panels hold the pixel, and nobody else uses it in the output.
    #[inline(always)]
    unsafe fn normalise<S: Simd>(
        &self,
        simd: S,
        pixel: usize,
        moments: &Moments,
        index: usize,
        tail: S::V,
    ) {
        let from = self.start(pixel);
        let to = self
            .output
            .as_mut_ptr()
            .wrapping_add(self.target(pixel) * LANES);
        let minus_mean = simd.splat(moments.minus_mean[index]);
        let scale = simd.splat(moments.scale[index]);
        let offset = simd.splat(moments.offset[index]);
        for panel in 0..self.panels() {
            let used = self.used(simd, panel, tail);
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
