//! One query of a head of a window, with keys as lanes: for what does not fill a vector of
//! queries.

use super::super::{LANES, math, simd::Simd};
use super::{
    chunk::{CHUNK, Chunk, Span},
    window::Workspace,
};

impl Chunk<'_> {
    /// Powers and factor of query `index`, put where they are put for a vector of queries. The
    /// keys are gathered; the buffer of transposed queries is overwritten.
    #[inline(always)]
    pub fn single<S: Simd>(&mut self, simd: S, index: usize, query: Span, key: Span) {
        self.copy_query(index, query, key);
        self.single_scores(simd, key.panels().len());
        let Workspace {
            scores,
            row,
            factors,
            ..
        } = &mut self.workspace;
        let vectors = row.len() / LANES;
        let row = row.as_mut_ptr();
        // SAFETY: the row is so many vectors.
        let sum = unsafe {
            let mut largest = simd.load(row);
            for vector in 1..vectors {
                largest = simd.max(largest, simd.load(row.add(vector * LANES)));
            }
            let largest = simd.splat(largest_lane(simd, largest));
            let mut sum = simd.splat(0.0);
            for vector in 0..vectors {
                let vector = row.add(vector * LANES);
                let power = math::exp(simd, simd.sub(simd.load(vector), largest));
                sum = simd.add(sum, power);
                simd.store(vector, power);
            }
            simd.sum(sum)
        };
        factors[index] = self.layer.factor / sum;
        for (token, scores) in scores.chunks_exact_mut(CHUNK).enumerate() {
            // SAFETY: there are as many scores as tokens, and the row is no shorter.
            scores[index] = unsafe { *row.add(token) };
        }
    }

    /// Copies a query to the lanes of its head's keys. What other heads have in the keys' panels
    /// meets zeros (and makes NaN where it is not finite).
    #[inline(always)]
    fn copy_query(&mut self, index: usize, query: Span, key: Span) {
        let pixel = self.workspace.pixels[self.queries.start + index] as usize;
        let copy = &mut self.workspace.queries[..key.panels().len() * LANES];
        copy.fill(0.0);
        let mut copy = &mut copy[key.lane..][..key.len];
        let mut lane = query.lane;
        for panel in query.panels() {
            let panel = &self.qk[(panel * self.grid + pixel) * LANES..][..LANES];
            let (part, rest) = copy.split_at_mut(copy.len().min(LANES - lane));
            part.copy_from_slice(&panel[lane..][..part.len()]);
            (copy, lane) = (rest, 0);
        }
    }

    /// The scores of the copied query, in the buffer for a row.
    #[inline(always)]
    fn single_scores<S: Simd>(&mut self, simd: S, panels: usize) {
        let Workspace {
            keys, queries, row, ..
        } = &mut self.workspace;
        let tokens = self.layer.tokens();
        for (block, row) in row.chunks_exact_mut(LANES).enumerate() {
            let mut sums = [simd.splat(0.0); LANES];
            // SAFETY: both buffers have the keys' panels, and the row is cut into vectors. The
            // last vector reads beyond the tokens: from the next panel, or from what the buffer
            // has beyond the last.
            unsafe {
                let mut keys = keys.as_ptr().add(block * LANES * LANES);
                for panel in 0..panels {
                    let query = simd.load(queries.as_ptr().add(panel * LANES));
                    for (lane, sum) in sums.iter_mut().enumerate() {
                        *sum = simd.mul_add(query, simd.load(keys.add(lane * LANES)), *sum);
                    }
                    keys = keys.wrapping_add(tokens * LANES);
                }
                let sums = simd.transpose(sums);
                let mut sum = sums[0];
                for &part in &sums[1..] {
                    sum = simd.add(sum, part);
                }
                simd.store(row.as_mut_ptr(), sum);
            }
        }
        row[tokens..].fill(f32::NEG_INFINITY);
    }
}

/// The largest lane.
#[inline(always)]
fn largest_lane<S: Simd>(simd: S, values: S::V) -> f32 {
    let mut lanes = [0.0; LANES];
    // SAFETY: the array is one vector.
    unsafe { simd.store(lanes.as_mut_ptr(), values) };
    for width in [8, 4, 2, 1] {
        for lane in 0..width {
            let (a, b) = (lanes[lane], lanes[lane + width]);
            lanes[lane] = if a > b { a } else { b };
        }
    }
    lanes[0]
}
