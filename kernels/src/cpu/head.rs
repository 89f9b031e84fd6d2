//! From the last packed map to plain values.

use core::ops::Range;

use super::{Engine, LANES, Shape, engine::Shared, isa::Kernel, panels, simd::Simd};

/// Panels that one task averages.
const TASK: usize = 4;

/// Sums of one panel that grow side by side, so that an addition need not wait for the last.
const SUMS: usize = 8;

/// The mean over all pixels of every channel of the packed map `input`: a packed map of one
/// pixel, of as many panels as `output` holds.
///
/// # Panics
/// When `input` is too short for them.
pub fn average_pool(engine: &Engine, input: &[f32], shape: Shape, output: &mut [f32]) {
    let panel_len = shape.pixels() * LANES;
    let panels = output.len() / LANES;
    let output = Shared::new(output);
    engine.run(panels.div_ceil(TASK), &mut [], |task, _| {
        let panels = task * TASK..panels.min((task + 1) * TASK);
        let part = |range: Range<usize>, len| range.start * len..range.end * len;
        let means = part(panels.clone(), LANES);
        engine.isa.dispatch(Means {
            input: &input[part(panels, panel_len)],
            // SAFETY: no two tasks have a panel in common.
            output: unsafe { output.part(means.start, means.len()) },
            panel_len,
        });
    });
}

/// [`average_pool`] of some panels.
struct Means<'a> {
    input: &'a [f32],
    output: &'a mut [f32],
    panel_len: usize,
}

impl Kernel for Means<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let pixels = simd.splat((self.panel_len / LANES) as f32);
        let panels = self.input.chunks_exact(self.panel_len);
        for (panel, mean) in panels.zip(self.output.chunks_exact_mut(LANES)) {
            let mut sums = [simd.splat(0.0); SUMS];
            for pixels in panel.chunks(SUMS * LANES) {
                for (sum, pixel) in sums.iter_mut().zip(pixels.chunks_exact(LANES)) {
                    // SAFETY: a chunk is one vector.
                    *sum = simd.add(*sum, unsafe { simd.load(pixel.as_ptr()) });
                }
            }
            let [a, b, c, d, e, f, g, h] = sums;
            let left = simd.add(simd.add(a, b), simd.add(c, d));
            let right = simd.add(simd.add(e, f), simd.add(g, h));
            // SAFETY: a chunk is one vector.
            unsafe { simd.store(mean.as_mut_ptr(), simd.div(simd.add(left, right), pixels)) };
        }
    }
}

/// The packed map `input` as planes `[channels][height][width]`.
///
/// # Panics
/// When `input` or `output` is too short.
pub fn unpack(input: &[f32], channels: usize, shape: Shape, output: &mut [f32]) {
    let pixels = shape.pixels();
    let (input, _) = input.as_chunks::<LANES>();
    for panel in 0..panels(channels) {
        let planes = &mut output[panel * LANES * pixels..];
        let lanes = LANES.min(channels - panel * LANES);
        // Sixteen pixels at a time, which stay in cache while their lanes are taken apart.
        for first in (0..pixels).step_by(LANES) {
            let block = first..pixels.min(first + LANES);
            let values = &input[panel * pixels..][block.clone()];
            for lane in 0..lanes {
                let row = &mut planes[lane * pixels..][block.clone()];
                for (to, from) in row.iter_mut().zip(values) {
                    *to = from[lane];
                }
            }
        }
    }
}
