//! The weights: those of the stem as they are, the others as half-precision floats that are
//! widened once.

use alloc::vec::Vec;

use crate::{Line, kernels::LANES, model::WEIGHTS};

/// Weights of the stem, which come first.
const WIDE: usize = @{wide};

static BYTES: &[u8; 4 * WIDE + 2 * (WEIGHTS - WIDE)] = include_bytes!("../weights.bin");

/// The weights of the network.
#[derive(Debug)]
pub(crate) struct Weights(Vec<Line>);

impl Weights {
    /// Widens them.
    pub fn load() -> Self {
        let (wide, narrow) = BYTES.split_at(4 * WIDE);
        let (wide, _) = wide.as_chunks::<4>();
        let (narrow, _) = narrow.as_chunks::<2>();
        let (wide, _) = wide.as_chunks::<LANES>();
        let (narrow, _) = narrow.as_chunks::<LANES>();
        let wide = wide.iter().map(|line| Line(line.map(f32::from_le_bytes)));
        let narrow = narrow
            .iter()
            .map(|line| Line(line.map(|half| widen(u16::from_le_bytes(half)))));
        Self(wide.chain(narrow).collect())
    }

    /// All of them.
    pub fn as_slice(&self) -> &[f32] {
        // SAFETY: a line is an array of that many values and nothing else.
        unsafe { core::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * LANES) }
    }
}

/// The float32 that equals a finite half-precision float.
fn widen(half: u16) -> f32 {
    // The exponents' biases differ by 112; the product is exact, for subnormal halves too.
    let magnitude =
        f32::from_bits(u32::from(half & 0x7FFF) << 13) * f32::from_bits((127 + 112) << 23);
    f32::from_bits(magnitude.to_bits() | u32::from(half & 0x8000) << 16)
}
