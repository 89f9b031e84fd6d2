//! Runs what emoc emits, and compares what comes out with the reference: ONNX models in the
//! runtimes people deploy with, Rust crates in a process of their own.
//!
//! 1. [`OnnxModel::read`] decodes the bytes of a file, and [`OnnxModel::bind`] gives its inputs the
//!    shapes of this run; both refuse what no runtime should be fed.
//! 2. [`all`] lists the runtimes: each is [`Found::Ready`], or [`Found::Missing`] with the reason
//!    and how to get it.
//! 3. [`Runtime::load`] gives a [`Session`], and [`Session::run`] the outputs. A crate becomes a
//!    session by being built: [`rust_crate::Cargo::build`].
//! 4. [`compare_all`] judges them; [`first_divergence`] names the block where they part.
//!
//! [`tensorrt_rtx::Builder`] is no runtime, for want of a GPU: it says whether TensorRT-RTX takes a
//! model, and builds its engine.
//!
//! To add a runtime: write its file, and add its line to the list in `runtime.rs`.

#![warn(missing_docs)]

mod bound;
mod model;
mod tensor;

mod onnxruntime;
mod runtime;
mod tract;

mod process;
mod program;
pub mod rust_crate;
pub mod tensorrt_rtx;

mod compare;
mod timing;
mod worker;

mod guard;

pub use bound::BoundModel;
pub use compare::{
    Comparison, Divergence, Tolerance, TopK, Verdict, all_agree, compare, compare_all,
    first_divergence,
};
pub use model::{OnnxModel, ValueInfo};
pub use onnxruntime::NAME as ONNX_RUNTIME;
pub use process::Children;
pub use program::Program;
pub use runtime::{Found, Missing, Options, Runtime, Session, TrustedModel, all, find};
pub use tensor::{InputFact, NamedTensor};
pub use timing::{Timing, time_runs};
pub use tract::NAME as TRACT;
pub use worker::{Ready, Worker, serve};
