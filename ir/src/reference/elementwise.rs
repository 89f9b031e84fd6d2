//! Ops that treat elements alone, by channel, or by row: activations, sums, norms, softmax, mean.

use rayon::prelude::*;

use super::{Tensor, dims4};
use crate::ops::Act;

pub(super) fn map(x: &Tensor, f: impl Fn(f64) -> f64 + Sync) -> Tensor {
    Tensor {
        shape: x.shape.clone(),
        data: x.data.par_iter().map(|&x| f(x)).collect(),
    }
}

pub(super) fn activate(act: Act, x: f64) -> f64 {
    match act {
        Act::None => x,
        Act::Silu => x / (1.0 + (-x).exp()),
        Act::Gelu => x * 0.5 * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
    }
}

pub(super) fn add(a: &Tensor, b: &Tensor) -> Tensor {
    let pairs = a.data.par_iter().zip(&b.data);
    Tensor {
        shape: a.shape.clone(),
        data: pairs.map(|(a, b)| a + b).collect(),
    }
}

/// Applies `f(channel, x)` to every element of an image.
pub(super) fn per_channel(x: &Tensor, f: impl Fn(usize, f64) -> f64 + Sync) -> Tensor {
    let [_, c, h, w] = dims4(x);
    let mut out = x.clone();
    let planes = out.data.par_chunks_mut(h * w).enumerate();
    planes.for_each(|(plane, values)| values.iter_mut().for_each(|x| *x = f(plane % c, *x)));
    out
}

/// `(x - mean) / sqrt(variance + eps)` over the channels of every pixel.
pub(super) fn normalised(x: &Tensor, eps: f64) -> Tensor {
    let [_, c, h, w] = dims4(x);
    let pixels = h * w;
    let mut out = x.clone();
    out.data.par_chunks_mut(c * pixels).for_each(|image| {
        let mean = channel_mean(image, pixels, |_, x| x);
        let variance = channel_mean(image, pixels, |pixel, x| (x - mean[pixel]).powi(2));
        let deviation: Vec<_> = variance.iter().map(|v| (v + eps).sqrt()).collect();
        for plane in image.chunks_mut(pixels) {
            let values = plane.iter_mut().zip(&mean).zip(&deviation);
            values.for_each(|((x, mean), deviation)| *x = (*x - mean) / deviation);
        }
    });
    out
}

/// Mean of `term(pixel, x)` over the channels of every pixel, gathered plane by plane.
fn channel_mean(image: &[f64], pixels: usize, term: impl Fn(usize, f64) -> f64) -> Vec<f64> {
    let mut mean = vec![0.0; pixels];
    for plane in image.chunks(pixels) {
        let values = mean.iter_mut().zip(plane).enumerate();
        values.for_each(|(pixel, (sum, &x))| *sum += term(pixel, x));
    }
    let channels = (image.len() / pixels) as f64;
    mean.iter_mut().for_each(|sum| *sum /= channels);
    mean
}

/// Softmax over the last axis; `step` rounds the result of each of its steps.
pub(super) fn softmax(x: &Tensor, step: impl Fn(f64) -> f64 + Sync) -> Tensor {
    let mut out = x.clone();
    let row_length = x.shape[x.shape.len() - 1];
    out.data.par_chunks_mut(row_length).for_each(|row| {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        row.iter_mut().for_each(|x| *x = step(step(*x - max).exp()));
        let sum = step(row.iter().sum());
        row.iter_mut().for_each(|x| *x /= sum);
    });
    out
}

pub(super) fn global_avg_pool(x: &Tensor) -> Tensor {
    let [n, c, h, w] = dims4(x);
    let mean = |plane: &[f64]| plane.iter().sum::<f64>() / (h * w) as f64;
    Tensor {
        shape: vec![n, c],
        data: x.data.chunks(h * w).map(mean).collect(),
    }
}
