//! AVX2 and FMA: two registers of eight, sixteen registers.

use core::arch::x86_64::*;

use super::Simd;

/// AVX2 and FMA.
#[derive(Debug, Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    /// The proof that the CPU has the instructions.
    ///
    /// # Safety
    /// It has them.
    #[inline(always)]
    pub unsafe fn assume() -> Self {
        Self(())
    }
}

/// Lanes 0 to 7, and 8 to 15.
#[derive(Clone, Copy)]
pub struct Pair(__m256, __m256);

/// The sum of eight lanes: halves, quarters, neighbours.
///
/// # Safety
/// The CPU has AVX.
#[inline(always)]
pub(super) unsafe fn sum8(a: __m256) -> f32 {
    // SAFETY: the caller vouches for AVX.
    unsafe {
        let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
        _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
    }
}

/// Eight rows of eight become columns.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn transpose8(r: [__m256; 8]) -> [__m256; 8] {
    // SAFETY: the caller vouches for AVX2.
    unsafe {
        let mut t = r;
        for i in 0..2 {
            let [a, b, c, d] = [r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]];
            let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            t[4 * i] = _mm256_shuffle_ps::<0b01_00_01_00>(ab_low, cd_low);
            t[4 * i + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(ab_low, cd_low);
            t[4 * i + 2] = _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high);
            t[4 * i + 3] = _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high);
        }
        let mut out = t;
        for j in 0..4 {
            out[j] = _mm256_permute2f128_ps::<0x20>(t[j], t[4 + j]);
            out[4 + j] = _mm256_permute2f128_ps::<0x31>(t[j], t[4 + j]);
        }
        out
    }
}

// SAFETY, for every block below: a value of `Avx2` exists only where the CPU has AVX2 and FMA;
// pointers are the caller's responsibility by the trait's contract.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx2 {
    type V = Pair;
    type R = __m256;

    const REGISTER: usize = 8;

    const TILE_ROWS: usize = 6;
    const TILE_PANELS: usize = 1;
    const FUSED: bool = true;

    #[inline(always)]
    fn splat(self, x: f32) -> Pair {
        let x = unsafe { _mm256_set1_ps(x) };
        Pair(x, x)
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> Pair {
        unsafe { Pair(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: Pair) {
        unsafe {
            _mm256_storeu_ps(p, v.0);
            _mm256_storeu_ps(p.add(8), v.1);
        }
    }

    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    #[inline(always)]
    fn prefetch_far(self, p: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }

    #[inline(always)]
    fn add(self, a: Pair, b: Pair) -> Pair {
        unsafe { Pair(_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn sub(self, a: Pair, b: Pair) -> Pair {
        unsafe { Pair(_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn mul(self, a: Pair, b: Pair) -> Pair {
        unsafe { Pair(_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn div(self, a: Pair, b: Pair) -> Pair {
        unsafe { Pair(_mm256_div_ps(a.0, b.0), _mm256_div_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn quotient(self, a: Pair, b: Pair) -> Pair {
        // The divider works beside the multipliers, which are what the activations wait for.
        self.div(a, b)
    }

    #[inline(always)]
    fn mul_add(self, a: Pair, b: Pair, c: Pair) -> Pair {
        unsafe {
            Pair(
                _mm256_fmadd_ps(a.0, b.0, c.0),
                _mm256_fmadd_ps(a.1, b.1, c.1),
            )
        }
    }

    #[inline(always)]
    fn min(self, a: Pair, b: Pair) -> Pair {
        unsafe { Pair(_mm256_min_ps(a.0, b.0), _mm256_min_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn max(self, a: Pair, b: Pair) -> Pair {
        unsafe { Pair(_mm256_max_ps(a.0, b.0), _mm256_max_ps(a.1, b.1)) }
    }

    #[inline(always)]
    fn abs(self, a: Pair) -> Pair {
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            Pair(_mm256_andnot_ps(sign, a.0), _mm256_andnot_ps(sign, a.1))
        }
    }

    #[inline(always)]
    fn low_bits_to_exponent(self, a: Pair) -> Pair {
        unsafe {
            let low = _mm256_slli_epi32::<23>(_mm256_castps_si256(a.0));
            let high = _mm256_slli_epi32::<23>(_mm256_castps_si256(a.1));
            Pair(_mm256_castsi256_ps(low), _mm256_castsi256_ps(high))
        }
    }

    #[inline(always)]
    fn sqrt(self, a: Pair) -> Pair {
        unsafe { Pair(_mm256_sqrt_ps(a.0), _mm256_sqrt_ps(a.1)) }
    }

    #[inline(always)]
    fn sum(self, a: Pair) -> f32 {
        unsafe { sum8(_mm256_add_ps(a.0, a.1)) }
    }

    #[inline(always)]
    fn transpose(self, rows: [Pair; 16]) -> [Pair; 16] {
        let quarter = |from: usize, high: bool| -> [__m256; 8] {
            let half = |i: usize| {
                if high {
                    rows[from + i].1
                } else {
                    rows[from + i].0
                }
            };
            unsafe { transpose8(core::array::from_fn(half)) }
        };
        let (top_left, top_right) = (quarter(0, false), quarter(0, true));
        let (bottom_left, bottom_right) = (quarter(8, false), quarter(8, true));
        core::array::from_fn(|i| match i {
            0..8 => Pair(top_left[i], bottom_left[i]),
            _ => Pair(top_right[i - 8], bottom_right[i - 8]),
        })
    }

    #[inline(always)]
    fn splat_register(self, x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load_register(self, p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn store_register(self, p: *mut f32, r: __m256) {
        unsafe { _mm256_storeu_ps(p, r) }
    }

    #[inline(always)]
    fn mul_add_register(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
}
