//! The inner loop of the convolutions that slide over rows: depthwise and stem.
//!
//! The input is stationary: a row's taps stay in registers, each input of the row is loaded once
//! and added to all the outputs that it reaches. An output so gets its taps from left to right in
//! every tile, whatever its width. Inputs outside the map are left out, not taken as zeros.

use super::{LANES, simd::Simd};

/// The body once for every number, as a constant: sums that are indexed by a variable do not stay
/// in registers, and compilers neither unroll loops of this length nor do so quickly.
macro_rules! unrolled {
    ($index:ident in [$($number:literal)*] $body:block) => {
        $({ const $index: usize = $number; $body })*
    };
}

/// Where a row's inputs come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inputs {
    /// The first input of the tile's first output, be it inside the map or not.
    pub start: *const f32,
    /// The first input inside the map.
    pub first: usize,
    /// The one after the last inside the map.
    pub end: usize,
}

/// Adds a row of taps to the sums of `T` neighbouring outputs, at most eight. With `SPLAT` an
/// input is one value for all lanes, otherwise a register of a pixel of a packed map. Only the
/// first `K - 1` and the last `K - 1` inputs of a tile can be outside the map.
///
/// # Safety
/// Inputs inside the map are valid for reading.
// One of the unrolled numbers is 0, which is trivially less than any other.
#[allow(clippy::absurd_extreme_comparisons)]
#[inline(always)]
pub(super) unsafe fn add_row<
    S: Simd,
    const K: usize,
    const STRIDE: usize,
    const T: usize,
    const SPLAT: bool,
>(
    simd: S,
    taps: [S::R; K],
    inputs: Inputs,
    sums: &mut [S::R; T],
) {
    const { assert!(T <= 8 && K <= 7 && STRIDE <= 2) };
    unrolled!(INDEX in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20] {
        if const { INDEX < (T - 1) * STRIDE + K } {
            let before = const { INDEX < K - 1 } && INDEX < inputs.first;
            let behind = const { INDEX > (T - 1) * STRIDE } && INDEX >= inputs.end;
            if !before && !behind {
                // SAFETY: the caller's word.
                let value = unsafe {
                    match SPLAT {
                        true => simd.splat_register(*inputs.start.wrapping_add(INDEX)),
                        false => simd.load_register(inputs.start.wrapping_add(INDEX * LANES)),
                    }
                };
                unrolled!(OUTPUT in [0 1 2 3 4 5 6 7] {
                    if const { OUTPUT < T && reaches(INDEX, OUTPUT, K, STRIDE) } {
                        let tap = taps[const { INDEX.saturating_sub(OUTPUT * STRIDE) }];
                        sums[OUTPUT] = simd.mul_add_register(value, tap, sums[OUTPUT]);
                    }
                });
            }
        }
    });
}

/// Whether an input is under one of the `taps` of an output.
const fn reaches(input: usize, output: usize, taps: usize, stride: usize) -> bool {
    output * stride <= input && input < output * stride + taps
}
