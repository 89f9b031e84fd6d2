//! Plain Rust over arrays of sixteen, for any target; compilers turn it into whatever vectors
//! the target has.

use super::Simd;

/// No instruction set in particular.
#[derive(Debug, Clone, Copy)]
pub struct Portable;

/// Sixteen float32.
type V = [f32; 16];

/// The width of most targets' registers.
type R = [f32; 4];

#[inline(always)]
fn map(a: V, f: impl Fn(f32) -> f32) -> V {
    let mut out = a;
    for x in &mut out {
        *x = f(*x);
    }
    out
}

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    let mut out = a;
    for (x, y) in out.iter_mut().zip(b) {
        *x = f(*x, y);
    }
    out
}

/// The square root of one number, which `core` has no function for: Newton's iteration in
/// float64 from a guess that halves the exponent, exact to the last bit of float32.
#[inline(always)]
fn square_root(x: f32) -> f32 {
    if !(x > 0.0 && x < f32::INFINITY) {
        return if x < 0.0 { f32::NAN } else { x };
    }
    let x = f64::from(x);
    let mut root = f64::from_bits((x.to_bits() >> 1) + (0x3FF << 51));
    for _ in 0..4 {
        root = 0.5 * (root + x / root);
    }
    root as f32
}

impl Simd for Portable {
    type V = V;
    type R = R;

    const REGISTER: usize = 4;

    // Eight registers of sums where a register holds four lanes, as on any x86-64.
    const TILE_ROWS: usize = 2;
    const TILE_PANELS: usize = 1;
    const FUSED: bool = false;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        [x; 16]
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> V {
        // SAFETY: the caller vouches for sixteen readable values.
        unsafe { p.cast::<V>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: V) {
        // SAFETY: the caller vouches for sixteen writable values.
        unsafe { p.cast::<V>().write_unaligned(v) }
    }

    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        zip(a, b, |x, y| x + y)
    }

    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        zip(a, b, |x, y| x - y)
    }

    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        zip(a, b, |x, y| x * y)
    }

    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        zip(a, b, |x, y| x / y)
    }

    #[inline(always)]
    fn quotient(self, a: V, b: V) -> V {
        self.div(a, b)
    }

    #[inline(always)]
    fn mul_add(self, a: V, b: V, c: V) -> V {
        // Not `f32::mul_add`: without the instruction that is a slow library call.
        zip(zip(a, b, |x, y| x * y), c, |x, y| x + y)
    }

    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        zip(a, b, |x, y| if x < y { x } else { y })
    }

    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        zip(a, b, |x, y| if x > y { x } else { y })
    }

    #[inline(always)]
    fn abs(self, a: V) -> V {
        map(a, f32::abs)
    }

    #[inline(always)]
    fn low_bits_to_exponent(self, a: V) -> V {
        map(a, |x| f32::from_bits(x.to_bits() << 23))
    }

    #[inline(always)]
    fn sqrt(self, a: V) -> V {
        map(a, square_root)
    }

    #[inline(always)]
    fn sum(self, a: V) -> f32 {
        let mut width = 8;
        let mut a = a;
        while width > 0 {
            for lane in 0..width {
                a[lane] += a[lane + width];
            }
            width /= 2;
        }
        a[0]
    }

    #[inline(always)]
    fn transpose(self, rows: [V; 16]) -> [V; 16] {
        core::array::from_fn(|column| core::array::from_fn(|row| rows[row][column]))
    }

    #[inline(always)]
    fn splat_register(self, x: f32) -> R {
        [x; 4]
    }

    #[inline(always)]
    unsafe fn load_register(self, p: *const f32) -> R {
        // SAFETY: the caller vouches for four readable values.
        unsafe { p.cast::<R>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_register(self, p: *mut f32, r: R) {
        // SAFETY: the caller vouches for four writable values.
        unsafe { p.cast::<R>().write_unaligned(r) }
    }

    #[inline(always)]
    fn mul_add_register(self, a: R, b: R, c: R) -> R {
        let mut out = c;
        for (lane, sum) in out.iter_mut().enumerate() {
            *sum += a[lane] * b[lane];
        }
        out
    }
}
