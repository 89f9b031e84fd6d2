//! The two matrix products of an attention, in tiles that stay in registers.

use core::array::from_fn;

use super::super::{LANES, simd::Simd};
use super::chunk::CHUNK;

/// A matrix product that is computed tile by tile.
pub(super) trait Product {
    /// Computes `R` rows from `row` by `C` vectors from `column`.
    fn tile<S: Simd, const R: usize, const C: usize>(&self, simd: S, row: usize, column: usize);

    /// Computes `rows` rows of `columns` vectors, in tiles of at most six rows: by four vectors
    /// where registers hold their 24 sums, else by one.
    #[inline(always)]
    fn compute<S: Simd>(&self, simd: S, rows: usize, columns: usize) {
        let wide = S::TILE_ROWS * S::TILE_PANELS >= 24;
        let most = if wide { 4 } else { 1 };
        let mut column = 0;
        while column < columns {
            let count = even(most, columns - column);
            match count {
                4 if wide => self.columns::<S, 4>(simd, rows, column),
                3 if wide => self.columns::<S, 3>(simd, rows, column),
                2 if wide => self.columns::<S, 2>(simd, rows, column),
                _ => self.columns::<S, 1>(simd, rows, column),
            }
            column += count;
        }
    }

    /// Computes all rows of `C` vectors.
    #[inline(always)]
    fn columns<S: Simd, const C: usize>(&self, simd: S, rows: usize, column: usize) {
        let most = S::TILE_ROWS.min(6);
        let mut row = 0;
        while row < rows {
            let count = even(most, rows - row);
            match count {
                6 if most == 6 => self.tile::<S, 6, C>(simd, row, column),
                5 if most == 6 => self.tile::<S, 5, C>(simd, row, column),
                4 => self.tile::<S, 4, C>(simd, row, column),
                3 => self.tile::<S, 3, C>(simd, row, column),
                2 => self.tile::<S, 2, C>(simd, row, column),
                _ => self.tile::<S, 1, C>(simd, row, column),
            }
            row += count;
        }
    }
}

/// The size of the next part when `left` is cut into as few parts of at most `most` as possible,
/// which are then of nearly equal size: a tiny one would keep the multipliers waiting.
#[inline(always)]
fn even(most: usize, left: usize) -> usize {
    left.div_ceil(left.div_ceil(most))
}

/// The scores, `[tokens][CHUNK]`: keys by queries.
pub(super) struct Scores {
    /// `[panels][tokens][16]`.
    pub keys: *const f32,
    pub tokens: usize,
    /// The lane of the head's first channel in the first panel.
    pub lane: usize,
    /// Channels of the head.
    pub depth: usize,
    /// `[depth][CHUNK]`.
    pub queries: *const f32,
    pub scores: *mut f32,
    /// The largest score of every query so far.
    pub largest: *mut f32,
}

impl Product for Scores {
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const C: usize>(&self, simd: S, row: usize, column: usize) {
        let mut sums = [[simd.splat(0.0); C]; R];
        // SAFETY: rows and columns are inside the matrices, which are valid.
        unsafe {
            let mut queries = self.queries.add(column * LANES);
            let mut keys = self.keys.add(row * LANES);
            let (mut lane, mut left) = (self.lane, self.depth);
            while left > 0 {
                let end = LANES.min(lane + left);
                left -= end - lane;
                while lane < end {
                    let values: [_; C] = from_fn(|c| simd.load(queries.add(c * LANES)));
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let key = simd.splat(*keys.add(row * LANES + lane));
                        for (sum, value) in sums.iter_mut().zip(values) {
                            *sum = simd.mul_add(key, value, *sum);
                        }
                    }
                    queries = queries.wrapping_add(CHUNK);
                    lane += 1;
                }
                lane = 0;
                keys = keys.wrapping_add(self.tokens * LANES);
            }
            let scores = self.scores.add(row * CHUNK + column * LANES);
            let largest = self.largest.add(column * LANES);
            for column in 0..C {
                let largest = largest.add(column * LANES);
                let mut most = simd.load(largest);
                for (row, sums) in sums.iter().enumerate() {
                    most = simd.max(most, sums[column]);
                    simd.store(scores.add(row * CHUNK + column * LANES), sums[column]);
                }
                simd.store(largest, most);
            }
        }
    }
}

/// The result: queries by channels, the product of the powers of the scores with the values.
pub(super) struct Mix<'a> {
    /// `[tokens][CHUNK]`.
    pub powers: *const f32,
    /// What each query's sums are multiplied by.
    pub factors: *const f32,
    /// The head's first panel of v.
    pub values: *const f32,
    /// From a panel of v to the next.
    pub values_stride: usize,
    /// Where the tokens are in a panel of v.
    pub pixels: &'a [u32],
    /// The head's first panel of the output.
    pub output: *mut f32,
    /// From a panel of the output to the next.
    pub output_stride: usize,
    /// Where the queries are in a panel of the output.
    pub targets: *const u32,
    /// Whether the result is added to what the output holds.
    pub add: bool,
}

impl Product for Mix<'_> {
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const C: usize>(&self, simd: S, row: usize, column: usize) {
        let mut sums = [[simd.splat(0.0); C]; R];
        // SAFETY: rows and columns are inside the matrices, which are valid; so are the pixels
        // that the lists hold.
        unsafe {
            let mut powers = self.powers.add(row);
            let panels: [_; C] = from_fn(|c| self.values.add((column + c) * self.values_stride));
            for &pixel in self.pixels {
                let pixel = pixel as usize * LANES;
                let values = panels.map(|panel| simd.load(panel.add(pixel)));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let power = simd.splat(*powers.add(row));
                    for (sum, value) in sums.iter_mut().zip(values) {
                        *sum = simd.mul_add(power, value, *sum);
                    }
                }
                powers = powers.wrapping_add(CHUNK);
            }
            let output = self.output.add(column * self.output_stride);
            for (index, sums) in sums.iter().enumerate() {
                let factor = simd.splat(*self.factors.add(row + index));
                let target = output.add(*self.targets.add(row + index) as usize * LANES);
                for (column, sum) in sums.iter().enumerate() {
                    let target = target.add(column * self.output_stride);
                    let result = match self.add {
                        true => simd.mul_add(*sum, factor, simd.load(target)),
                        false => simd.mul(*sum, factor),
                    };
                    simd.store(target, result);
                }
            }
        }
    }
}
