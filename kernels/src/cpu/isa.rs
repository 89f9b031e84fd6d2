//! Choosing an instruction set at run time.

#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
use super::simd::Neon;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use super::simd::Simd128;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::simd::{Portable, Simd};

/// An instruction set that this build has kernels for and this CPU can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    Neon,
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Simd128,
}

/// Work written for any instruction set.
pub(super) trait Kernel {
    /// Does it. Must be `#[inline(always)]`, so that it is compiled for the instructions of its
    /// caller.
    fn run<S: Simd>(self, simd: S);
}

impl Isa {
    /// The fastest that this CPU has. Without `std` the target features that the crate is
    /// compiled for decide.
    pub fn best() -> Self {
        *Self::available().first().unwrap_or(&Self(Kind::Portable))
    }

    /// Every one that this CPU has, fastest first.
    pub fn available() -> &'static [Self] {
        const ALL: &[Isa] = &[
            #[cfg(target_arch = "x86_64")]
            Isa(Kind::Avx512),
            #[cfg(target_arch = "x86_64")]
            Isa(Kind::Avx2),
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Isa(Kind::Neon),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Isa(Kind::Simd128),
            Isa(Kind::Portable),
        ];
        let first = ALL.iter().position(|isa| isa.is_detected());
        &ALL[first.unwrap_or(ALL.len() - 1)..]
    }

    /// The one with this [`name`](Self::name), if this CPU has it.
    pub fn named(name: &str) -> Option<Self> {
        Self::available()
            .iter()
            .copied()
            .find(|isa| isa.name() == name)
    }

    /// `avx512`, `avx2`, `neon`, `simd128` or `portable`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Kind::Neon => "neon",
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Simd128 => "simd128",
        }
    }

    #[cfg(all(target_arch = "x86_64", feature = "std"))]
    fn is_detected(&self) -> bool {
        use std::is_x86_feature_detected as detected;
        match self.0 {
            Kind::Portable => true,
            Kind::Avx2 => detected!("avx2") && detected!("fma"),
            Kind::Avx512 => detected!("avx512f") && detected!("avx512dq") && detected!("avx512vl"),
        }
    }

    #[cfg(all(target_arch = "x86_64", not(feature = "std")))]
    fn is_detected(&self) -> bool {
        match self.0 {
            Kind::Portable => true,
            Kind::Avx2 => cfg!(all(target_feature = "avx2", target_feature = "fma")),
            Kind::Avx512 => cfg!(all(
                target_feature = "avx512f",
                target_feature = "avx512dq",
                target_feature = "avx512vl"
            )),
        }
    }

    /// Other instruction sets are part of the target or not compiled at all.
    #[cfg(not(target_arch = "x86_64"))]
    fn is_detected(&self) -> bool {
        true
    }

    /// Runs the kernel compiled for this instruction set.
    #[inline]
    pub(super) fn dispatch(self, kernel: impl Kernel) {
        match self.0 {
            Kind::Portable => kernel.run(Portable),
            // SAFETY: an `Isa` of this kind is only made after `is_detected` said yes.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { run_avx2(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { run_avx512(kernel) },
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Kind::Neon => kernel.run(Neon),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Kind::Simd128 => kernel.run(Simd128),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2(kernel: impl Kernel) {
    // SAFETY: this function is compiled for, and only called with, AVX2 and FMA.
    kernel.run(unsafe { Avx2::assume() });
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2,fma")]
fn run_avx512(kernel: impl Kernel) {
    // SAFETY: this function is compiled for, and only called with, AVX-512 F, DQ and VL.
    kernel.run(unsafe { Avx512::assume() });
}
