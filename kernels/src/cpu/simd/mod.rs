//! Sixteen float32 at a time, on every instruction set.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
mod neon;
mod portable;
#[cfg(any(
    all(target_arch = "aarch64", target_feature = "neon"),
    all(target_arch = "wasm32", target_feature = "simd128")
))]
mod quad;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
pub use neon::Neon;
pub use portable::Portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use wasm::Simd128;

/// An instruction set that kernels are written for once, generically.
///
/// A value of the type is the proof that the CPU has the instructions: only `Isa::dispatch`
/// makes one, inside a function compiled for them. Methods are inlined into that function, which
/// is why each is `#[inline(always)]`, as every kernel must be.
pub trait Simd: Copy {
    /// Sixteen float32.
    type V: Copy;
    /// One register, or two at once: a vector is `16 / REGISTER` of them. Tiles whose accumulators
    /// would not fit the registers as vectors are made of these.
    type R: Copy;

    /// Lanes of an [`R`](Self::R).
    const REGISTER: usize;

    /// Rows of the largest tile that the registers hold: its accumulators are
    /// `TILE_ROWS x TILE_PANELS` vectors.
    const TILE_ROWS: usize;
    /// Vectors side by side in that tile.
    const TILE_PANELS: usize;
    /// Whether [`mul_add`](Self::mul_add) rounds once.
    const FUSED: bool;

    /// All lanes equal to `x`.
    fn splat(self, x: f32) -> Self::V;
    /// Sixteen consecutive values, of any alignment.
    ///
    /// # Safety
    /// `p` is valid for reading sixteen values.
    unsafe fn load(self, p: *const f32) -> Self::V;
    /// Writes sixteen consecutive values, of any alignment.
    ///
    /// # Safety
    /// `p` is valid for writing sixteen values.
    unsafe fn store(self, p: *mut f32, v: Self::V);
    /// Asks for the line of the cache that `p` points into, where the instruction set can; `p`
    /// may be any pointer.
    #[inline(always)]
    fn prefetch(self, _p: *const f32) {}
    /// [`prefetch`](Self::prefetch) into the second-level cache, for what is not needed at once.
    #[inline(always)]
    fn prefetch_far(self, _p: *const f32) {}
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b` for `b` from 1 to 2^126, within 2 units in the last place, however the
    /// instruction set does it fastest.
    fn quotient(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the instruction set can ([`FUSED`](Self::FUSED)).
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The smaller. NaN where `b` is NaN; where only `a` is, NaN or `b`.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The larger. NaN where `b` is NaN; where only `a` is, NaN or `b`.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a` without its sign.
    fn abs(self, a: Self::V) -> Self::V;
    /// The bits of every lane, shifted left by 23: what was in the lowest eight becomes the
    /// exponent of a power of two. `2^23 + 127 + n` becomes `2^n` for integral `n` in -126..=127,
    /// zero for -127 and infinity for 128.
    fn low_bits_to_exponent(self, a: Self::V) -> Self::V;
    /// The square root, correctly rounded where the instruction set can.
    fn sqrt(self, a: Self::V) -> Self::V;
    /// The sum of the lanes, in a fixed order.
    fn sum(self, a: Self::V) -> f32;
    /// Rows become columns.
    fn transpose(self, rows: [Self::V; 16]) -> [Self::V; 16];

    /// A register with all lanes equal to `x`.
    fn splat_register(self, x: f32) -> Self::R;
    /// `REGISTER` consecutive values, of any alignment.
    ///
    /// # Safety
    /// `p` is valid for reading them.
    unsafe fn load_register(self, p: *const f32) -> Self::R;
    /// Writes `REGISTER` consecutive values, of any alignment.
    ///
    /// # Safety
    /// `p` is valid for writing them.
    unsafe fn store_register(self, p: *mut f32, r: Self::R);
    /// `a * b + c`, rounded as [`mul_add`](Self::mul_add) does.
    fn mul_add_register(self, a: Self::R, b: Self::R, c: Self::R) -> Self::R;
}
