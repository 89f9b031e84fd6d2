//! The pixels of a window, and where a thread keeps what it computes for them.

use super::{
    super::{LANES, Shape},
    Attention, Grouping,
    chunk::{CHUNK, Span},
};

/// Buffers of one thread.
pub(super) struct Workspace<'a> {
    /// The keys' panels, `[panels][tokens][16]`, and one vector of keys more.
    pub keys: &'a mut [f32],
    /// The queries' panels, transposed: `[channels][CHUNK]`.
    pub queries: &'a mut [f32],
    /// `[tokens][CHUNK]`.
    pub scores: &'a mut [f32],
    /// What `scores` holds of one query, and up to a whole vector.
    pub row: &'a mut [f32],
    /// The largest score of every query.
    pub largest: &'a mut [f32],
    /// For every query, what its mixed values are multiplied by.
    pub factors: &'a mut [f32],
    /// Where the window's tokens are in the padded map, those inside the map first.
    pub pixels: &'a mut [u32],
    /// Where those inside the map are in the map.
    pub targets: &'a mut [u32],
}

impl<'a> Workspace<'a> {
    /// Values that the buffers take: whole vectors, so that all are aligned if the first is.
    pub const fn len(layer: &Attention) -> usize {
        let tokens = layer.tokens();
        let queries = Self::queries_len(layer);
        let row = tokens.next_multiple_of(LANES);
        let lists = (2 * tokens).next_multiple_of(LANES);
        Self::keys_len(layer) + queries + (tokens + 2) * CHUNK + row + lists
    }

    const fn keys_len(layer: &Attention) -> usize {
        (Span::most_panels(layer.dim_qk) * layer.tokens() + LANES) * LANES
    }

    const fn queries_len(layer: &Attention) -> usize {
        Span::most_panels(layer.dim_qk) * LANES * CHUNK
    }

    /// Buffers in `scratch`, which is at least that long.
    pub fn split(layer: &Attention, scratch: &'a mut [f32]) -> Self {
        let tokens = layer.tokens();
        let mut rest = scratch;
        let mut take = |len| rest.split_off_mut(..len).expect("enough scratch");
        Self {
            keys: take(Self::keys_len(layer)),
            queries: take(Self::queries_len(layer)),
            scores: take(tokens * CHUNK),
            row: take(tokens.next_multiple_of(LANES)),
            largest: take(CHUNK),
            factors: take(CHUNK),
            pixels: integers(take(tokens)),
            targets: integers(take(tokens)),
        }
    }
}

/// The same memory for whole numbers.
fn integers(values: &mut [f32]) -> &mut [u32] {
    // SAFETY: both types have the same size and alignment, and any bits are a value of both.
    unsafe { core::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), values.len()) }
}

/// A window of a padded map.
pub(super) struct Window {
    /// Its rows: the first, the distance between two, how many.
    rows: [usize; 3],
    /// Its columns.
    columns: [usize; 3],
    /// Pixels of a row of the padded map.
    width: usize,
}

impl Window {
    /// Window `index` of the padded map.
    pub fn new([height, width]: [usize; 2], grouping: Grouping, grid: Shape, index: usize) -> Self {
        let (down, across) = (grid.height / height, grid.width / width);
        let positions = |index: usize, size: usize, count: usize| match grouping {
            Grouping::Close => [index * size, 1, size],
            Grouping::Remote => [index, count, size],
        };
        Self {
            rows: positions(index / across, height, down),
            columns: positions(index % across, width, across),
            width: grid.width,
        }
    }

    /// Lists its pixels in the padded map, those inside the map of `shape` first, and where these
    /// are in that. Returns how many they are.
    pub fn list(&self, shape: Shape, pixels: &mut [u32], targets: &mut [u32]) -> usize {
        let (mut inside, mut outside) = (0, pixels.len());
        let positions =
            |[first, step, count]: [usize; 3]| (0..count).map(move |i| first + i * step);
        for row in positions(self.rows) {
            for column in positions(self.columns) {
                let slot = if row < shape.height && column < shape.width {
                    targets[inside] = (row * shape.width + column) as u32;
                    inside += 1;
                    inside - 1
                } else {
                    outside -= 1;
                    outside
                };
                pixels[slot] = (row * self.width + column) as u32;
            }
        }
        inside
    }
}
