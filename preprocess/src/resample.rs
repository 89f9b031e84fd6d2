//! Pillow's bicubic resize, of the part that a crop shows.
//!
//! Two passes, horizontal and vertical, with 8-bit values between them. A weight is computed in
//! float64 and rounded to an integer number of 2^-22; sums are integers, so their order does not
//! matter. Each result depends on its own window of the input alone, so that a part of the
//! resized picture can be computed without the rest.

use std::ops::Range;

use super::{Geometry, Picture};

/// Fraction bits of a weight: 32, less 8 for the pixel and 2 for sums outside of 0 to 255.
const BITS: u32 = 22;

/// Half a unit of the result: makes the final shift round.
const HALF: i32 = 1 << (BITS - 1);

/// How far the bicubic filter reaches, in pixels of the coarser of input and output.
const SUPPORT: f64 = 2.0;

/// Resizes `picture` and returns the crop of `height` x `width` pixels, `[height, width, 3]`.
pub(super) fn resize_crop(
    picture: &Picture<'_>,
    geometry: &Geometry,
    height: usize,
    width: usize,
) -> Vec<u8> {
    let columns = Windows::new(
        picture.width(),
        geometry.resized_width,
        geometry.left,
        width,
    );
    let rows = Windows::new(
        picture.height(),
        geometry.resized_height,
        geometry.top,
        height,
    );
    let (xs, ys) = (columns.span(), rows.span());
    if vertical_first(picture, geometry) {
        let stride = xs.len() * 3;
        let row = |y| &picture.row(y)[xs.start * 3..xs.end * 3];
        let between = vertical(row, stride, &rows);
        let row = |y: usize| &between[y * stride..][..stride];
        horizontal(row, 0..height, &columns, xs.start)
    } else {
        let stride = width * 3;
        let between = horizontal(|y| picture.row(y), ys.clone(), &columns, 0);
        let row = |y: usize| &between[(y - ys.start) * stride..][..stride];
        vertical(row, stride, &rows)
    }
}

/// Pillow 13.0's choice: if the height shrinks, and by more than twice as many pixels as the
/// width. The order shows, since values are rounded between the passes.
fn vertical_first(picture: &Picture<'_>, geometry: &Geometry) -> bool {
    // At most 2^37 and 2^25, below zero for an axis that grows.
    let shrinks = |from: u32, to: u64| i64::from(from) - to as i64;
    let rows = shrinks(picture.height(), geometry.resized_height);
    let columns = shrinks(picture.width(), geometry.resized_width);
    rows > 0 && rows > 2 * columns
}

/// For consecutive output positions along one axis: the input positions that each is the weighted
/// sum of, and their weights.
struct Windows {
    /// First input position and weights (a range of `weights`) of each output position.
    entries: Vec<(usize, Range<usize>)>,
    /// In units of 2^-22.
    weights: Vec<i32>,
}

impl Windows {
    /// `count` positions from `first` on, of an axis resized from `input` to `output` pixels.
    fn new(input: u32, output: u64, first: u64, count: usize) -> Self {
        let scale = f64::from(input) / output as f64;
        let filter_scale = scale.max(1.0);
        let (support, step) = (SUPPORT * filter_scale, 1.0 / filter_scale);
        let mut entries = Vec::with_capacity(count);
        let mut weights = Vec::new();
        let mut exact = Vec::new();
        for position in first..first + count as u64 {
            let center = (position as f64 + 0.5) * scale;
            // Casts to an unsigned integer truncate and turn what is negative into 0.
            let start = (center - support + 0.5) as u32;
            let end = ((center + support + 0.5) as u32).min(input);
            exact.clear();
            exact.extend((start..end).map(|x| bicubic((f64::from(x) - center + 0.5) * step)));
            let sum: f64 = exact.iter().sum();
            let from = weights.len();
            weights.extend(exact.iter().map(|weight| fixed_point(weight / sum)));
            entries.push((start as usize, from..weights.len()));
        }
        Self { entries, weights }
    }

    /// Each output position's first input position, and its weights.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.entries
            .iter()
            .map(|(start, range)| (*start, &self.weights[range.clone()]))
    }

    /// All input positions in use. Windows move in one direction, so the ends tell.
    fn span(&self) -> Range<usize> {
        let start = self.entries.first().map_or(0, |(start, _)| *start);
        let end = self
            .entries
            .last()
            .map_or(start, |(start, range)| start + range.len());
        start..end
    }
}

/// The cubic convolution filter with a = -0.5, in the order of Pillow's operations.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < SUPPORT {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// To units of 2^-22, half away from zero.
fn fixed_point(weight: f64) -> i32 {
    (0.5f64.copysign(weight) + weight * f64::from(1 << BITS)) as i32
}

/// A sum of weighted pixels, with [`HALF`] included, as a pixel.
fn clip(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// The horizontal pass over the rows `ys`: `[ys.len(), width, 3]`. `row` gives each, from column
/// `first` of the picture on.
fn horizontal<'a>(
    row: impl Fn(usize) -> &'a [u8],
    ys: Range<usize>,
    columns: &Windows,
    first: usize,
) -> Vec<u8> {
    let width = columns.entries.len();
    let mut result = vec![0; ys.len() * width * 3];
    for (y, out) in ys.zip(result.chunks_exact_mut(width * 3)) {
        let row = row(y);
        for ((start, weights), pixel) in columns.iter().zip(out.chunks_exact_mut(3)) {
            let mut sums = [HALF; 3];
            let window = row[(start - first) * 3..].chunks_exact(3);
            for (source, weight) in window.zip(weights) {
                for (sum, value) in sums.iter_mut().zip(source) {
                    *sum += i32::from(*value) * weight;
                }
            }
            for (byte, sum) in pixel.iter_mut().zip(sums) {
                *byte = clip(sum);
            }
        }
    }
    result
}

/// The vertical pass over rows of `stride` bytes, which `row` gives: `[height, stride]`.
fn vertical<'a>(row: impl Fn(usize) -> &'a [u8], stride: usize, rows: &Windows) -> Vec<u8> {
    let mut result = vec![0; rows.entries.len() * stride];
    let mut sums = vec![HALF; stride];
    for ((start, weights), out) in rows.iter().zip(result.chunks_exact_mut(stride)) {
        sums.fill(HALF);
        for (y, weight) in (start..).zip(weights) {
            for (sum, value) in sums.iter_mut().zip(row(y)) {
                *sum += i32::from(*value) * weight;
            }
        }
        for (byte, sum) in out.iter_mut().zip(&sums) {
            *byte = clip(*sum);
        }
    }
    result
}
