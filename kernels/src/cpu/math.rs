//! Activation functions on vectors, over all of float32. The stated errors hold on every
//! instruction set; NaN gives NaN.

use super::{Isa, LANES, isa::Kernel, simd::Simd};

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
    /// Applies the function in place to all of `values`.
    pub fn map(self, isa: Isa, values: &mut [f32]) {
        isa.dispatch(Map(self, values));
    }

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
        // SAFETY: as the caller vouches.
        unsafe {
            match self {
                Act::None => {}
                // Each has a loop of its own.
                Act::Silu => Act::Silu.each(simd, start, vectors),
                Act::Gelu => Act::Gelu.each(simd, start, vectors),
            }
        }
    }

    /// [`over`](Self::over), for a function known to the compiler.
    ///
    /// # Safety
    /// `start` is valid for reading and writing `vectors` vectors.
    #[inline(always)]
    unsafe fn each<S: Simd>(self, simd: S, start: *mut f32, vectors: usize) {
        // SAFETY: the caller vouches for the vectors.
        unsafe {
            let mut vector = 0;
            // Two at a time: the chain of one leaves room for the other.
            while vector + 2 <= vectors {
                let (a, b) = (start.add(vector * LANES), start.add((vector + 1) * LANES));
                let (x, y) = (
                    self.apply(simd, simd.load(a)),
                    self.apply(simd, simd.load(b)),
                );
                simd.store(a, x);
                simd.store(b, y);
                vector += 2;
            }
            if vector < vectors {
                let a = start.add(vector * LANES);
                simd.store(a, self.apply(simd, simd.load(a)));
            }
        }
    }
}

/// [`Act::map`] on one instruction set.
struct Map<'a>(Act, &'a mut [f32]);

impl Kernel for Map<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self(act, values) = self;
        let (vectors, rest) = values.as_chunks_mut::<LANES>();
        let mut last = [0.0; LANES];
        last[..rest.len()].copy_from_slice(rest);
        // SAFETY: as many vectors as there are chunks, and one.
        unsafe {
            act.over(simd, vectors.as_mut_ptr().cast(), vectors.len());
            act.over(simd, last.as_mut_ptr(), 1);
        }
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// The exponentials of sixteen values, as the softmax of an attention has them.
pub fn exponentials(isa: Isa, values: [f32; LANES]) -> [f32; LANES] {
    let mut values = values;
    isa.dispatch(Exponentials(&mut values));
    values
}

/// [`exponentials`] on one instruction set.
struct Exponentials<'a>(&'a mut [f32; LANES]);

impl Kernel for Exponentials<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let values = self.0.as_mut_ptr();
        // SAFETY: the array is one vector.
        unsafe { simd.store(values, exp(simd, simd.load(values))) };
    }
}

/// 1.5 * 2^23 + 127: added to a number of magnitude below 2^21, leaves its nearest integer `n` as
/// `n + 127` in the lowest bits, where the exponent of `2^n` can be taken from.
const MAGIC: f32 = 12_583_039.0;

/// `e^r` for `|r|` up to `ln(2) / 2`, a minimax polynomial: relative error 9.2e-8.
const EXP: [f32; 6] = [
    1.0,
    0.999_999_7,
    0.499_991_5,
    0.166_676_48,
    0.041_897_867,
    0.008_289_733,
];

/// `c[0] + c[1] x + c[2] x^2 ...`
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(simd: S, x: S::V, c: [f32; N]) -> S::V {
    let mut sum = simd.splat(c[N - 1]);
    for &c in c[..N - 1].iter().rev() {
        sum = simd.mul_add(sum, x, simd.splat(c));
    }
    sum
}

/// The coefficients of `e^-r`.
const EXP_MINUS: [f32; 6] = [EXP[0], -EXP[1], EXP[2], -EXP[3], EXP[4], -EXP[5]];

/// `e^x`, or `e^-x` where `MINUS`, as two factors: from 0.7 to 1.42, and a power of two (zero
/// instead of 2^-127, infinity instead of 2^128). The exponent must be within -88 and 89.
#[inline(always)]
fn exp_factors<S: Simd, const MINUS: bool>(simd: S, x: S::V) -> (S::V, S::V) {
    let sign = if MINUS { -1.0 } else { 1.0 };
    let log2_e = simd.splat(sign * core::f32::consts::LOG2_E);
    let shifted = simd.mul_add(x, log2_e, simd.splat(MAGIC));
    let n = simd.sub(shifted, simd.splat(MAGIC));
    let remainder = if S::FUSED {
        // The constant is closer to ln(2) than 2e-9, so 127 times that is small enough.
        simd.mul_add(n, simd.splat(-sign * core::f32::consts::LN_2), x)
    } else {
        // The upper part has so few bits that its product is exact.
        let remainder = simd.mul_add(n, simd.splat(-sign * 0.693_359_4), x);
        simd.mul_add(n, simd.splat(sign * 2.121_944_4e-4), remainder)
    };
    let coefficients = if MINUS { EXP_MINUS } else { EXP };
    (
        polynomial(simd, remainder, coefficients),
        simd.low_bits_to_exponent(shifted),
    )
}

/// `e^x`, with an error of at most 6 units in the last place, and 3 between -20 and 20; zero below
/// -87.69 (where it would be subnormal) and infinity above 88.37 (up to 88.72 it would not be).
#[inline(always)]
pub(super) fn exp<S: Simd>(simd: S, x: S::V) -> S::V {
    // In this order of operands, NaN stays.
    let x = simd.min(simd.splat(89.0), simd.max(simd.splat(-88.0), x));
    let (factor, power) = exp_factors::<S, false>(simd, x);
    simd.mul(factor, power)
}

/// `x / (1 + e^-x)`, with an error of at most 7 units in the last place, and 3 above zero;
/// -1.4e-36 below -87, where it would be even closer to zero.
#[inline(always)]
pub(super) fn silu<S: Simd>(simd: S, x: S::V) -> S::V {
    let x = simd.max(simd.splat(-87.0), x);
    let (factor, power) = exp_factors::<S, true>(simd, simd.min(simd.splat(88.0), x));
    simd.quotient(x, simd.mul_add(factor, power, simd.splat(1.0)))
}

/// `(2 / erfc(x / sqrt(2)))^(1/8)` for `x` from 0 to 5.5, a polynomial that makes the largest
/// error of [`gelu`] relative to `x` minimal: 4.8e-8 without that of the arithmetic. It goes on
/// growing beyond.
const GELU: [f32; 9] = [
    1.090_507_7,
    0.108_761_854,
    0.048_819_23,
    0.009_438_65,
    9.691_382_3e-4,
    1.992_425_4e-4,
    7.343_352_6e-5,
    -1.110_433_6e-5,
    2.578_108_5e-6,
];

/// `x * (1 + erf(x / sqrt(2))) / 2`, with an error of at most 1.8e-7 (times `|x|` above 1) and of
/// at most 4.6e-7 `|x|`; `x` itself above 16, and within 1e-30 of zero below -16.
#[inline(always)]
pub(super) fn gelu<S: Simd>(simd: S, x: S::V) -> S::V {
    // What lacks to max(x, 0), even in x and falling as e^(-x^2 / 2): x erfc(x / sqrt(2)) / 2.
    let a = simd.min(simd.splat(16.0), simd.abs(x));
    let mut root = polynomial(simd, a, GELU);
    for _ in 0..3 {
        root = simd.mul(root, root);
    }
    simd.sub(simd.max(simd.splat(0.0), x), simd.quotient(a, root))
}
