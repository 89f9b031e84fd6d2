//! The graph of `emoc` and everything that is true of it.

#![warn(missing_docs)]

mod diagnostic;
mod tensor_type;

pub use diagnostic::{Diagnostic, Kind, Result};
pub use tensor_type::{DType, Dim, Shape, TensorType};
