//! From the last packed map to plain values.

use super::{Engine, LANES, Shape, panels};

/// The mean over all pixels of every channel of the packed map `input`: a packed map of one
/// pixel.
pub fn average_pool(engine: &Engine, input: &[f32], shape: Shape, output: &mut [f32]) {
    let _ = (engine, input, shape, output);
    unimplemented!()
}

/// The packed map `input` as planes `[channels][height][width]`.
pub fn unpack(input: &[f32], channels: usize, shape: Shape, output: &mut [f32]) {
    let pixels = shape.pixels();
    let _ = panels(channels);
    for (channel, plane) in output.chunks_exact_mut(pixels).take(channels).enumerate() {
        let panel = &input[channel / LANES * pixels * LANES..];
        for (pixel, value) in plane.iter_mut().enumerate() {
            *value = panel[pixel * LANES + channel % LANES];
        }
    }
}
