//! The kernels of an EMOv2 network on a CPU.
//!
//! # Packed maps
//!
//! A map of `C` channels and `P` pixels is stored as `[ceil(C / 16)][P][16]` float32: *panels* of
//! sixteen channels, each panel holding its pixels in row-major order. One pixel of a panel is one
//! vector of every instruction set, a row of pixels is contiguous, and lanes beyond `C` are zero.
//! Weights are packed the same way (`emoc-kernels`' `pack`), once, by the compiler: one packing serves all
//! instruction sets.
//!
//! # Exactness
//!
//! Every output element is computed by one sequence of operations that depends neither on the
//! tile it falls into nor on the thread that computes it, so results are bit-identical for every
//! number of threads.

pub mod simd;

mod isa;
mod threads;

mod engine;
mod map;
mod math;

mod attention;
mod depthwise;
mod expand;
mod head;
mod layer_norm;
mod pointwise;
mod slide;
mod stem;

pub use attention::{Attention, Grouping};
pub use depthwise::Depthwise;
pub use engine::Engine;
pub use expand::Expansion;
pub use head::{average_pool, unpack};
pub use isa::Isa;
pub use layer_norm::{LayerNorm, LocalNorm};
pub use map::{LANES, Shape, panels};
pub use math::{Act, exponentials};
pub use pointwise::Pointwise;
pub use stem::Stem;
pub use threads::Threads;
