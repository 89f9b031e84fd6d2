//! @{title}.
//!
//! @{summary}
//!
//! ```
//! use @{module}::{Input, Model, Workspace, preprocess};
//!
//! # fn main() -> Result<(), @{module}::Error> {
//! let model = Model::new();
//! let rgb = vec![128; 640 * 480 * 3]; // what a decoder returns: rows of R, G, B bytes
//! let input: Box<Input> = preprocess(640, 480, &rgb)?;
//! let output = model.infer(&input);
@{example}
//!
//! // For many pictures: no allocation after this one.
//! let mut workspace = Workspace::new(&model);
//! let output = model.infer_with(&mut workspace, &input);
//! # let _ = output;
//! # Ok(())
//! # }
//! ```
//!
//! A batch is a loop; a [`Model`] is shared between threads, a [`Workspace`] belongs to one.
//! Results do not depend on the number of threads. They differ in the last bits between
//! instruction sets.
//!
//! # Features
//!
//! - `parallel` (default): several threads share an inference.
//! - `std` (default): instruction sets are chosen at run time and pictures are preprocessed.
//!   Without it the crate is `no_std` with `alloc`, and the target features it is compiled for
//!   decide.

#![cfg_attr(not(feature = "std"), no_std)]
#![warn(missing_docs)]

extern crate alloc;

#[cfg(target_endian = "big")]
compile_error!("the weights of this crate are little-endian");

#[allow(dead_code, unused_imports, reason = "every network uses some of them")]
mod kernels;
mod model;
mod output;
#[cfg(feature = "std")]
pub mod preprocess;
mod weights;

use alloc::{boxed::Box, vec, vec::Vec};

pub use output::*;
#[cfg(feature = "std")]
pub use preprocess::Error;

use kernels::{Engine, Isa, LANES, Threads};
use weights::Weights;

/// Rows of the picture.
pub const INPUT_HEIGHT: usize = @{height};

/// Pixels of a row.
pub const INPUT_WIDTH: usize = @{width};

/// Values of the picture.
pub const INPUT_LEN: usize = 3 * INPUT_HEIGHT * INPUT_WIDTH;

/// Bytes of activations, in the static memory plan; scratch of the threads comes on top.
pub const ARENA_BYTES: usize = 4 * model::ARENA;

/// Subtracted from each channel (red, green, blue; 0 to 1) before [`STD`] divides it.
pub const MEAN: [f32; 3] = [0.485, 0.456, 0.406];

/// What divides each channel.
pub const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// A picture: planes `[3, INPUT_HEIGHT, INPUT_WIDTH]` of red, green, blue, normalised with
/// [`MEAN`] and [`STD`].
pub type Input = [f32; INPUT_LEN];

/// The network: weights, an instruction set, and the threads that work for it.
#[derive(Debug)]
pub struct Model {
    weights: Weights,
    isa: Isa,
    threads: Threads,
}

impl Model {
    /// The network on the fastest instruction set of this CPU, or on the one that the environment
    /// variable `EMOC_ISA` names (`avx512`, `avx2`, `neon`, `portable`) if the CPU has it; with as
    /// many threads as `EMOC_THREADS` says, otherwise as the system recommends.
    #[cfg(feature = "std")]
    pub fn new() -> Self {
        let variable = |name| std::env::var(name).ok();
        let threads = variable("EMOC_THREADS").and_then(|count| count.parse().ok());
        let threads = threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |count| count.get()));
        let isa = variable("EMOC_ISA").and_then(|name| Isa::named(&name));
        Self::of(isa.unwrap_or_else(Isa::best), threads)
    }

    /// The network on one thread.
    #[cfg(not(feature = "std"))]
    pub fn new() -> Self {
        Self::with_threads(1)
    }

    /// The network with this many threads, the caller's included (one without the feature
    /// `parallel`; 0 counts as 1).
    pub fn with_threads(threads: usize) -> Self {
        Self::of(Isa::best(), threads)
    }

    fn of(isa: Isa, threads: usize) -> Self {
        let threads = if cfg!(feature = "parallel") {
            threads
        } else {
            1
        };
        Self {
            weights: Weights::load(),
            isa,
            threads: Threads::new(threads),
        }
    }

    /// The instruction set in use.
    pub fn isa(&self) -> &'static str {
        self.isa.name()
    }

    /// The number of threads in use.
    pub fn threads(&self) -> usize {
        self.threads.count()
    }

    /// One inference, with a workspace made for it.
    pub fn infer(&self, input: &Input) -> Output {
        let mut workspace = Workspace::new(self);
        self.infer_with(&mut workspace, input);
        *workspace.output
    }

    /// One inference, without any allocation.
    ///
    /// # Panics
    /// When the workspace was made for a model with fewer threads.
    pub fn infer_with<'w>(&self, workspace: &'w mut Workspace, input: &Input) -> &'w Output {
        let Workspace { memory, output } = workspace;
        let memory = as_values(memory);
        let needed = model::ARENA + self.threads.count() * model::SCRATCH;
        assert!(
            memory.len() >= needed,
            "the workspace was made for fewer threads"
        );
        let (arena, scratch) = memory[..needed].split_at_mut(model::ARENA);
        let engine = Engine {
            isa: self.isa,
            threads: &self.threads,
            weights: self.weights.as_slice(),
        };
        model::infer(&engine, input, arena, scratch, output);
        output
    }
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

/// The memory of inferences, to be reused.
#[derive(Debug)]
pub struct Workspace {
    memory: Vec<Line>,
    output: Box<Output>,
}

impl Workspace {
    /// Memory for inferences of this model.
    pub fn new(model: &Model) -> Self {
        let values = model::ARENA + model.threads.count() * model::SCRATCH;
        Self {
            memory: vec![Line([0.0; LANES]); values.div_ceil(LANES)],
            output: Box::default(),
        }
    }
}

/// A line of the cache: what vectors are aligned to.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

/// The values of the lines.
fn as_values(lines: &mut [Line]) -> &mut [f32] {
    let len = lines.len() * LANES;
    // SAFETY: a line is an array of that many values and nothing else.
    unsafe { core::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), len) }
}

/// The official test transform: what the network wants of a decoded picture of any size.
/// `rgb` holds rows of red, green and blue bytes.
///
/// # Errors
/// A picture without pixels or too large, or bytes that are not `width * height * 3`.
#[cfg(feature = "std")]
pub fn preprocess(width: u32, height: u32, rgb: &[u8]) -> Result<Box<Input>, Error> {
    let picture = preprocess::Picture::new(width, height, rgb)?;
    let transform = preprocess::Transform::new(INPUT_HEIGHT as u32, INPUT_WIDTH as u32)?;
    let mut input: Box<Input> = boxed();
    transform.normalize_into(&transform.crop(&picture), &mut input[..])?;
    Ok(input)
}

/// Zeros on the heap, never on the stack.
#[cfg(feature = "std")]
fn boxed() -> Box<Input> {
    match vec![0.0; INPUT_LEN].into_boxed_slice().try_into() {
        Ok(input) => input,
        Err(_) => unreachable!("it has the length of an input"),
    }
}
