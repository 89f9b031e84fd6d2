//! Ops that move elements: padding, cropping, splitting, window partition and merge.

use super::{Tensor, dims4};
use crate::ops::{Grouping, Windows};

/// An image cut or zero-padded at the bottom and right to this size.
pub(super) fn resize(x: &Tensor, height: usize, width: usize) -> Tensor {
    let [n, c, h, w] = dims4(x);
    let mut data = vec![0.0; n * c * height * width];
    for plane in 0..n * c {
        for row in 0..h.min(height) {
            let kept = w.min(width);
            let (from, to) = ((plane * h + row) * w, (plane * height + row) * width);
            data[to..to + kept].copy_from_slice(&x.data[from..from + kept]);
        }
    }
    let shape = vec![n, c, height, width];
    Tensor { shape, data }
}

pub(super) fn split(x: &Tensor, sizes: &[usize]) -> Vec<Tensor> {
    let [n, c, h, w] = dims4(x);
    let mut first = 0;
    let mut parts = Vec::new();
    for &size in sizes {
        let mut data = Vec::with_capacity(n * size * h * w);
        for image in x.data.chunks(c * h * w) {
            data.extend_from_slice(&image[first * h * w..(first + size) * h * w]);
        }
        let shape = vec![n, size, h, w];
        parts.push(Tensor { shape, data });
        first += size;
    }
    parts
}

pub(super) fn partition(x: &Tensor, windows: &Windows) -> Tensor {
    let [n, c, h, w] = dims4(x);
    let [wh, ww] = windows.window;
    let mut data = vec![0.0; x.data.len()];
    for_each_window_element(windows, [n, c, h, w], |image, window| {
        data[window] = x.data[image];
    });
    let count = n * (h / wh) * (w / ww);
    let shape = vec![count, windows.heads, wh * ww, c / windows.heads];
    Tensor { shape, data }
}

pub(super) fn merge(x: &Tensor, windows: &Windows, height: usize, width: usize) -> Tensor {
    let [wh, ww] = windows.window;
    let n = x.shape[0] / ((height / wh) * (width / ww));
    let shape = [n, x.shape[1] * x.shape[3], height, width];
    let mut data = vec![0.0; x.data.len()];
    for_each_window_element(windows, shape, |image, window| {
        data[image] = x.data[window];
    });
    let shape = shape.to_vec();
    Tensor { shape, data }
}

/// Calls `visit(position in the image, position in the windows)` for every element.
fn for_each_window_element(
    windows: &Windows,
    [n, c, h, w]: [usize; 4],
    mut visit: impl FnMut(usize, usize),
) {
    let [wh, ww] = windows.window;
    let (down, across) = (h / wh, w / ww);
    let head_c = c / windows.heads;
    // Window and place inside it of one row or column.
    let place = |position: usize, size: usize, count: usize| match windows.grouping {
        Grouping::Close => (position / size, position % size),
        Grouping::Remote => (position % count, position / count),
    };
    for image in 0..n {
        for channel in 0..c {
            for y in 0..h {
                for x in 0..w {
                    let (window_y, token_y) = place(y, wh, down);
                    let (window_x, token_x) = place(x, ww, across);
                    let window = (image * down + window_y) * across + window_x;
                    let head = window * windows.heads + channel / head_c;
                    let token = head * wh * ww + token_y * ww + token_x;
                    visit(
                        ((image * c + channel) * h + y) * w + x,
                        token * head_c + channel % head_c,
                    );
                }
            }
        }
    }
}
