//! End-to-end tests: from a checkpoint to numbers that PyTorch computed.

#![allow(
    clippy::print_stdout,
    reason = "tests say visibly what they measure and skip"
)]

mod costs;
mod digits;
mod engines;
mod goldens;
mod onnx;
mod precision;
mod rust_crate;
mod snapshots;
mod tensorrt;
