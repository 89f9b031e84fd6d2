//! CPU kernels of EMOv2 networks. The folder `cpu/` is copied verbatim into every crate that
//! emoc emits, as its `src/kernels/`; [`pack`] is what the compiler calls to lay weights out for
//! them. No dependencies; `no_std` with `alloc` without the feature `std`.

#![no_std]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod cpu;
pub mod pack;
