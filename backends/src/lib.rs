//! Artifacts: what a verified graph becomes outside emoc.
//!
//! Backends accept only [`Verified`](emoc_ir::Verified) graphs and return bytes; naming and
//! writing files is the command line's work.

#![warn(missing_docs)]

pub mod onnx;
pub mod rust_crate;
mod template;
pub mod tensorrt;
