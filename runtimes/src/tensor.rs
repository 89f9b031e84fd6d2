//! What goes into a session and comes out of it.

use emoc_ir::{Diagnostic, Result};

/// A float32 tensor with the name of the graph input or output it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// The name in the model.
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// Row-major, as many values as `shape` says.
    pub data: Vec<f32>,
}

impl NamedTensor {
    /// Puts a tensor together.
    ///
    /// # Errors
    /// When `shape` does not describe exactly `data.len()` values.
    pub fn new(name: impl Into<String>, shape: Vec<usize>, data: Vec<f32>) -> Result<Self> {
        let tensor = Self {
            name: name.into(),
            shape,
            data,
        };
        match tensor.inconsistency() {
            Some(fault) => Err(Diagnostic::internal(format!(
                "tensor `{}` {fault}",
                tensor.name
            ))),
            None => Ok(tensor),
        }
    }

    /// The name and shape, as [`OnnxModel::bind`](crate::OnnxModel::bind) wants them.
    pub fn fact(&self) -> InputFact {
        InputFact {
            name: self.name.clone(),
            shape: self.shape.clone(),
        }
    }

    /// What is wrong when shape and data do not belong together (the fields are public).
    pub(crate) fn inconsistency(&self) -> Option<String> {
        (volume(&self.shape) != Some(self.data.len()))
            .then(|| format!("of shape {:?} holds {} values", self.shape, self.data.len()))
    }
}

/// The concrete shape that one input has in this run. A symbolic dimension of the model (its
/// batch) takes its value from here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFact {
    /// The name in the model.
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
}

/// The number of values in `shape`; none when it overflows.
pub(crate) fn volume(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |n, &dim| n.checked_mul(dim))
}
