//! Ops that multiply and add: convolution, matrix product, fully connected layer.
//!
//! Every sum runs over input channels and kernel positions in row-major order, whatever the
//! number of threads, which share the output planes.

use rayon::prelude::*;

use super::{Tensor, dims4};
use crate::ops::Conv2d;

/// Weight and bias of a convolution or linear layer.
pub(super) struct Kernel {
    pub(super) dims: Vec<usize>,
    pub(super) weight: Vec<f64>,
    pub(super) bias: Option<Vec<f64>>,
}

impl Kernel {
    fn bias(&self, channel: usize) -> f64 {
        self.bias.as_ref().map_or(0.0, |bias| bias[channel])
    }
}

pub(super) fn conv2d(x: &Tensor, kernel: &Kernel, conv: &Conv2d) -> Tensor {
    let [n, c, h, w] = dims4(x);
    let [oc, group_c, kh, kw] = std::array::from_fn(|i| kernel.dims[i]);
    let out_size = |size, k| (size + 2 * conv.padding - k) / conv.stride + 1;
    let (oh, ow) = (out_size(h, kh), out_size(w, kw));
    let pointwise = [kh, kw, conv.stride, conv.padding] == [1, 1, 1, 0];
    let mut data = vec![0.0; n * oc * oh * ow];
    let planes = data.par_chunks_mut(oh * ow).enumerate();
    planes.for_each(|(plane, out)| {
        let (image, o) = (plane / oc, plane % oc);
        let first = image * c + o / (oc / conv.groups) * group_c;
        let inputs = &x.data[first * h * w..(first + group_c) * h * w];
        let taps = kh * kw;
        let weights = &kernel.weight[o * group_c * taps..(o + 1) * group_c * taps];
        out.fill(kernel.bias(o));
        if pointwise {
            return accumulate_planes(out, inputs, weights);
        }
        for (input, weights) in inputs.chunks(h * w).zip(weights.chunks(taps)) {
            for (tap, &weight) in weights.iter().enumerate() {
                let position = [tap / kw, tap % kw];
                accumulate_tap(out, [oh, ow], input, [h, w], conv, position, weight);
            }
        }
    });
    Tensor {
        shape: vec![n, oc, oh, ow],
        data,
    }
}

/// Adds the sum of input planes, each times its weight, to an output plane.
fn accumulate_planes(out: &mut [f64], inputs: &[f64], weights: &[f64]) {
    let pixels = out.len();
    // Four planes at a time: the same sums in the same order as one at a time, with a quarter
    // of the traffic on `out`, and most of a network's arithmetic is here.
    let (fours, rest) = weights.as_chunks::<4>();
    for ([w0, w1, w2, w3], four) in fours.iter().zip(inputs.chunks(4 * pixels)) {
        let mut planes = four.chunks(pixels);
        let [x0, x1, x2, x3] = std::array::from_fn(|_| planes.next().unwrap_or_default());
        let inputs = x0.iter().zip(x1).zip(x2).zip(x3);
        for (out, (((x0, x1), x2), x3)) in out.iter_mut().zip(inputs) {
            *out = *out + w0 * x0 + w1 * x1 + w2 * x2 + w3 * x3;
        }
    }
    let done = inputs.len() - rest.len() * pixels;
    for (weight, plane) in rest.iter().zip(inputs[done..].chunks(pixels)) {
        add_scaled(out, plane.iter(), *weight);
    }
}

/// Adds `weight` times the input, shifted by one kernel position, to an output plane.
fn accumulate_tap(
    out: &mut [f64],
    [oh, ow]: [usize; 2],
    input: &[f64],
    [h, w]: [usize; 2],
    conv: &Conv2d,
    [ky, kx]: [usize; 2],
    weight: f64,
) {
    let stride = conv.stride;
    // Output positions whose input lies inside the map: out * stride + k - padding in 0..size.
    let inside = |k: usize, size: usize, out_size: usize| {
        let from = conv.padding.saturating_sub(k).div_ceil(stride);
        let to = (size + conv.padding).saturating_sub(k).div_ceil(stride);
        from..to.min(out_size)
    };
    let columns = inside(kx, w, ow);
    if columns.is_empty() {
        return;
    }
    for oy in inside(ky, h, oh) {
        let row = (oy * stride + ky - conv.padding) * w;
        let start = row + columns.start * stride + kx - conv.padding;
        let out = &mut out[oy * ow + columns.start..oy * ow + columns.end];
        let input = &input[start..=start + (out.len() - 1) * stride];
        match stride {
            // Contiguous, which the compiler can vectorise.
            1 => add_scaled(out, input.iter(), weight),
            _ => add_scaled(out, input.iter().step_by(stride), weight),
        }
    }
}

fn add_scaled<'a>(out: &mut [f64], input: impl Iterator<Item = &'a f64>, weight: f64) {
    out.iter_mut()
        .zip(input)
        .for_each(|(o, x)| *o += weight * x);
}

pub(super) fn linear(x: &Tensor, kernel: &Kernel) -> Tensor {
    let (n, c) = (x.shape[0], x.shape[1]);
    let classes = kernel.dims[0];
    let mut data = Vec::with_capacity(n * classes);
    for row in x.data.chunks(c) {
        for (class, weight) in kernel.weight.chunks(c).enumerate() {
            data.push(dot(row, weight) + kernel.bias(class));
        }
    }
    let shape = vec![n, classes];
    Tensor { shape, data }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(super) fn matmul(a: &Tensor, b: &Tensor, transpose_b: bool) -> Tensor {
    let rank = a.shape.len();
    let (m, k) = (a.shape[rank - 2], a.shape[rank - 1]);
    let n = b.shape[if transpose_b { rank - 2 } else { rank - 1 }];
    let mut data = vec![0.0; a.data.len() / k * n];
    let products = data.par_chunks_mut(m * n);
    let pairs = products
        .zip(a.data.par_chunks(m * k))
        .zip(b.data.par_chunks(k * n));
    pairs.for_each(|((out, a), b)| {
        for (out, a) in out.chunks_mut(n).zip(a.chunks(k)) {
            if transpose_b {
                let columns = out.iter_mut().zip(b.chunks(k));
                columns.for_each(|(out, b)| *out = dot(a, b));
            } else {
                let rows = a.iter().zip(b.chunks(n));
                rows.for_each(|(x, b)| add_scaled(out, b.iter(), *x));
            }
        }
    });
    let mut shape = a.shape.clone();
    shape[rank - 1] = n;
    Tensor { shape, data }
}
