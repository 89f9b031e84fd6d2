//! The weights: stored as half-precision floats, widened once.

use alloc::vec::Vec;

use crate::{Line, kernels::LANES, model::WEIGHTS};

static BYTES: &[u8; 2 * WEIGHTS] = include_bytes!("../weights.bin");

/// The weights of the network.
#[derive(Debug)]
pub(crate) struct Weights(Vec<Line>);

impl Weights {
    /// Widens them.
    pub fn load() -> Self {
        let (halves, _) = BYTES.as_chunks::<2>();
        let (lines, _) = halves.as_chunks::<LANES>();
        let widen =
            |line: &[[u8; 2]; LANES]| Line(line.map(|half| widen(u16::from_le_bytes(half))));
        Self(lines.iter().map(widen).collect())
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
