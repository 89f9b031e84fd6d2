//! WebAssembly's simd128: four registers of four; how many there are is the engine's secret, on
//! x86-64 sixteen.

use core::arch::wasm32::*;

use super::{Simd, quad::Quad};

/// The vectors of WebAssembly, which a module that uses them cannot be loaded without.
#[derive(Debug, Clone, Copy)]
pub struct Simd128;

/// Sixteen float32.
type V = Quad<v128>;

/// `a * b + c`: in one rounding or two, whichever the engine has, but always the same.
#[cfg(target_feature = "relaxed-simd")]
#[inline(always)]
fn mul_add4(a: v128, b: v128, c: v128) -> v128 {
    f32x4_relaxed_madd(a, b, c)
}

/// `a * b + c`, in two roundings.
#[cfg(not(target_feature = "relaxed-simd"))]
#[inline(always)]
fn mul_add4(a: v128, b: v128, c: v128) -> v128 {
    f32x4_add(f32x4_mul(a, b), c)
}

/// Four rows of four become columns.
#[inline(always)]
fn transpose4([a, b, c, d]: [v128; 4]) -> [v128; 4] {
    // Columns 0 and 1, or 2 and 3, of two rows.
    let (ab_low, ab_high) = (
        i32x4_shuffle::<0, 4, 1, 5>(a, b),
        i32x4_shuffle::<2, 6, 3, 7>(a, b),
    );
    let (cd_low, cd_high) = (
        i32x4_shuffle::<0, 4, 1, 5>(c, d),
        i32x4_shuffle::<2, 6, 3, 7>(c, d),
    );
    [
        i64x2_shuffle::<0, 2>(ab_low, cd_low),
        i64x2_shuffle::<1, 3>(ab_low, cd_low),
        i64x2_shuffle::<0, 2>(ab_high, cd_high),
        i64x2_shuffle::<1, 3>(ab_high, cd_high),
    ]
}

impl Simd for Simd128 {
    type V = V;
    type R = v128;

    const REGISTER: usize = 4;

    // Of sixteen registers: eight of sums, four of weights, a broadcast input and a product.
    const TILE_ROWS: usize = 2;
    const TILE_PANELS: usize = 1;
    const FUSED: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        Quad::splat(f32x4_splat(x))
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> V {
        // SAFETY: the caller vouches for sixteen readable values.
        unsafe {
            Quad(
                v128_load(p.cast()),
                v128_load(p.add(4).cast()),
                v128_load(p.add(8).cast()),
                v128_load(p.add(12).cast()),
            )
        }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: V) {
        // SAFETY: the caller vouches for sixteen writable values.
        unsafe {
            v128_store(p.cast(), v.0);
            v128_store(p.add(4).cast(), v.1);
            v128_store(p.add(8).cast(), v.2);
            v128_store(p.add(12).cast(), v.3);
        }
    }

    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        a.zip(b, |a, b| f32x4_add(a, b))
    }

    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        a.zip(b, |a, b| f32x4_sub(a, b))
    }

    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        a.zip(b, |a, b| f32x4_mul(a, b))
    }

    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        a.zip(b, |a, b| f32x4_div(a, b))
    }

    #[inline(always)]
    fn quotient(self, a: V, b: V) -> V {
        self.div(a, b)
    }

    #[inline(always)]
    fn mul_add(self, a: V, b: V, c: V) -> V {
        a.zip3(b, c, mul_add4)
    }

    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        // One instruction on x86-64, unlike `f32x4_min`; it returns its first operand where
        // neither is smaller.
        a.zip(b, |a, b| f32x4_pmin(b, a))
    }

    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        a.zip(b, |a, b| f32x4_pmax(b, a))
    }

    #[inline(always)]
    fn abs(self, a: V) -> V {
        a.map(|a| f32x4_abs(a))
    }

    #[inline(always)]
    fn low_bits_to_exponent(self, a: V) -> V {
        a.map(|a| i32x4_shl(a, 23))
    }

    #[inline(always)]
    fn sqrt(self, a: V) -> V {
        a.map(|a| f32x4_sqrt(a))
    }

    #[inline(always)]
    fn sum(self, a: V) -> f32 {
        let a = f32x4_add(f32x4_add(a.0, a.1), f32x4_add(a.2, a.3));
        let a = f32x4_add(a, i64x2_shuffle::<1, 1>(a, a));
        f32x4_extract_lane::<0>(a) + f32x4_extract_lane::<1>(a)
    }

    #[inline(always)]
    fn transpose(self, rows: [V; 16]) -> [V; 16] {
        Quad::transpose(rows, transpose4)
    }

    #[inline(always)]
    fn splat_register(self, x: f32) -> v128 {
        f32x4_splat(x)
    }

    #[inline(always)]
    unsafe fn load_register(self, p: *const f32) -> v128 {
        // SAFETY: the caller vouches for four readable values.
        unsafe { v128_load(p.cast()) }
    }

    #[inline(always)]
    unsafe fn store_register(self, p: *mut f32, r: v128) {
        // SAFETY: the caller vouches for four writable values.
        unsafe { v128_store(p.cast(), r) }
    }

    #[inline(always)]
    fn mul_add_register(self, a: v128, b: v128, c: v128) -> v128 {
        mul_add4(a, b, c)
    }
}
