//! The graph of `emoc` and everything that is true of it: types, ops, text form, verifier,
//! reference evaluator, cost.

#![warn(missing_docs)]

mod cost;
mod diagnostic;
mod graph;
pub mod ops;
mod parse;
mod patch;
mod print;
pub mod reference;
pub mod seeded;
mod tensor_type;
mod verify;
mod weights;

pub use cost::{Cost, CostTable};
pub use diagnostic::{Diagnostic, Kind, Result};
pub use graph::{Graph, Node, NodeId, Output, Value};
pub use parse::parse;
pub use patch::Patch;
pub use tensor_type::{DType, Dim, Shape, TensorType};
pub use verify::Verified;
pub use weights::{Digest, Weight, Weights};
