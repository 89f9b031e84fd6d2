//! NEON: four registers of four, thirty-two registers.

use core::arch::aarch64::*;

use super::{Simd, quad::Quad};

/// NEON, which is part of every aarch64 that this is compiled for.
#[derive(Debug, Clone, Copy)]
pub struct Neon;

/// Sixteen float32.
type V = Quad<float32x4_t>;

/// Four rows of four become columns.
#[inline(always)]
fn transpose4([a, b, c, d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
    // SAFETY: the target has NEON.
    unsafe {
        // Columns 0 and 2, or 1 and 3, of two rows.
        let wide = |a| vreinterpretq_f64_f32(a);
        let (ab_even, ab_odd) = (wide(vtrn1q_f32(a, b)), wide(vtrn2q_f32(a, b)));
        let (cd_even, cd_odd) = (wide(vtrn1q_f32(c, d)), wide(vtrn2q_f32(c, d)));
        [
            vreinterpretq_f32_f64(vzip1q_f64(ab_even, cd_even)),
            vreinterpretq_f32_f64(vzip1q_f64(ab_odd, cd_odd)),
            vreinterpretq_f32_f64(vzip2q_f64(ab_even, cd_even)),
            vreinterpretq_f32_f64(vzip2q_f64(ab_odd, cd_odd)),
        ]
    }
}

// SAFETY, for every block below: this is compiled only for targets that have NEON; pointers are
// the caller's responsibility by the trait's contract.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Neon {
    type V = V;
    /// Two registers: eight sums of one register are too few for cores that start four
    /// multiplications a cycle, each of which takes four.
    type R = (float32x4_t, float32x4_t);

    const REGISTER: usize = 8;

    // 24 registers of sums, four of weights, one of a broadcast input.
    const TILE_ROWS: usize = 6;
    const TILE_PANELS: usize = 1;
    const FUSED: bool = true;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        Quad::splat(unsafe { vdupq_n_f32(x) })
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> V {
        unsafe {
            Quad(
                vld1q_f32(p),
                vld1q_f32(p.add(4)),
                vld1q_f32(p.add(8)),
                vld1q_f32(p.add(12)),
            )
        }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: V) {
        unsafe {
            vst1q_f32(p, v.0);
            vst1q_f32(p.add(4), v.1);
            vst1q_f32(p.add(8), v.2);
            vst1q_f32(p.add(12), v.3);
        }
    }

    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        a.zip(b, |a, b| unsafe { vaddq_f32(a, b) })
    }

    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        a.zip(b, |a, b| unsafe { vsubq_f32(a, b) })
    }

    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        a.zip(b, |a, b| unsafe { vmulq_f32(a, b) })
    }

    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        a.zip(b, |a, b| unsafe { vdivq_f32(a, b) })
    }

    #[inline(always)]
    fn quotient(self, a: V, b: V) -> V {
        // The estimate has eight bits and would need two Newton steps; the divider works beside
        // the multipliers.
        self.div(a, b)
    }

    #[inline(always)]
    fn mul_add(self, a: V, b: V, c: V) -> V {
        a.zip3(b, c, |a, b, c| unsafe { vfmaq_f32(c, a, b) })
    }

    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        a.zip(b, |a, b| unsafe { vminq_f32(a, b) })
    }

    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        a.zip(b, |a, b| unsafe { vmaxq_f32(a, b) })
    }

    #[inline(always)]
    fn abs(self, a: V) -> V {
        a.map(|a| unsafe { vabsq_f32(a) })
    }

    #[inline(always)]
    fn low_bits_to_exponent(self, a: V) -> V {
        a.map(|a| unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<23>(vreinterpretq_u32_f32(a))) })
    }

    #[inline(always)]
    fn sqrt(self, a: V) -> V {
        a.map(|a| unsafe { vsqrtq_f32(a) })
    }

    #[inline(always)]
    fn sum(self, a: V) -> f32 {
        unsafe { vaddvq_f32(vaddq_f32(vaddq_f32(a.0, a.1), vaddq_f32(a.2, a.3))) }
    }

    #[inline(always)]
    fn transpose(self, rows: [V; 16]) -> [V; 16] {
        Quad::transpose(rows, transpose4)
    }

    #[inline(always)]
    fn splat_register(self, x: f32) -> Self::R {
        let x = unsafe { vdupq_n_f32(x) };
        (x, x)
    }

    #[inline(always)]
    unsafe fn load_register(self, p: *const f32) -> Self::R {
        unsafe { (vld1q_f32(p), vld1q_f32(p.add(4))) }
    }

    #[inline(always)]
    unsafe fn store_register(self, p: *mut f32, r: Self::R) {
        unsafe {
            vst1q_f32(p, r.0);
            vst1q_f32(p.add(4), r.1);
        }
    }

    #[inline(always)]
    fn mul_add_register(self, a: Self::R, b: Self::R, c: Self::R) -> Self::R {
        unsafe { (vfmaq_f32(c.0, a.0, b.0), vfmaq_f32(c.1, a.1, b.1)) }
    }
}
