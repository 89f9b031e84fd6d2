//! Activation functions on vectors.

use super::simd::Simd;

/// What is applied to a layer's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The identity.
    None,
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * (1 + erf(x / sqrt(2))) / 2`, the exact form.
    Gelu,
}

impl Act {
    /// Applies the function to sixteen values.
    #[inline(always)]
    pub(super) fn apply<S: Simd>(self, simd: S, x: S::V) -> S::V {
        match self {
            Act::None => x,
            Act::Silu => silu(simd, x),
            Act::Gelu => gelu(simd, x),
        }
    }

    /// Applies the function in place to consecutive vectors of sixteen values.
    ///
    /// # Safety
    /// `start` is valid for reading and writing `vectors` vectors.
    #[inline(always)]
    pub(super) unsafe fn over<S: Simd>(self, simd: S, start: *mut f32, vectors: usize) {
        if self == Act::None {
            return;
        }
        for vector in 0..vectors {
            // SAFETY: the caller vouches for the vectors.
            unsafe {
                let at = start.add(vector * 16);
                simd.store(at, self.apply(simd, simd.load(at)));
            }
        }
    }
}

/// `e^x`.
#[inline(always)]
pub(super) fn exp<S: Simd>(simd: S, x: S::V) -> S::V {
    // Beyond these the result leaves the normal numbers.
    let x = simd.min(simd.splat(88.37), simd.max(simd.splat(-87.33), x));
    let n = simd.round(simd.mul(x, simd.splat(core::f32::consts::LOG2_E)));
    let r = simd.mul_add(n, simd.splat(-0.693_359_4), x);
    let r = simd.mul_add(n, simd.splat(2.121_944_4e-4), r);
    let mut p = simd.splat(1.0 / 720.0);
    for c in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = simd.mul_add(p, r, simd.splat(c));
    }
    simd.scale_by_power(p, n)
}

/// `x / (1 + e^-x)`.
#[inline(always)]
pub(super) fn silu<S: Simd>(simd: S, x: S::V) -> S::V {
    let e = exp(simd, simd.sub(simd.splat(0.0), x));
    simd.div(x, simd.add(simd.splat(1.0), e))
}

/// `x * (1 + erf(x / sqrt(2))) / 2`.
#[inline(always)]
pub(super) fn gelu<S: Simd>(simd: S, x: S::V) -> S::V {
    // Abramowitz and Stegun 7.1.26 until the better approximation stands.
    let y = simd.mul(x, simd.splat(core::f32::consts::FRAC_1_SQRT_2));
    let a = simd.max(y, simd.sub(simd.splat(0.0), y));
    let t = simd.div(
        simd.splat(1.0),
        simd.mul_add(simd.splat(0.327_591_1), a, simd.splat(1.0)),
    );
    let mut p = simd.splat(1.061_405_4);
    for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = simd.mul_add(p, t, simd.splat(c));
    }
    let e = exp(simd, simd.sub(simd.splat(0.0), simd.mul(a, a)));
    let tail = simd.mul(simd.mul(p, t), e);
    // x / 2 * (1 + sign(x) * (1 - tail)) = max(x, 0) - |x| * tail / 2
    let half = simd.mul(
        simd.mul(a, simd.splat(core::f32::consts::FRAC_1_SQRT_2)),
        tail,
    );
    simd.sub(simd.max(x, simd.splat(0.0)), half)
}
