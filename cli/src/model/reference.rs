//! The reference evaluator as a session.

use emoc_ir::{
    Diagnostic, Graph, Result,
    reference::{self, Precision, Tensor},
};
use emoc_runtimes::{NamedTensor, Session};

/// Evaluates a graph node by node. It is the arbiter of every check, and as slow.
pub struct ReferenceSession<'a>(pub &'a Graph);

impl Session for ReferenceSession<'_> {
    fn threads(&self) -> usize {
        1
    }

    fn run(&mut self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>> {
        let [input] = inputs else {
            return Err(Diagnostic::internal("a network has one input"));
        };
        let tensor = Tensor::from_f32(&input.shape, &input.data);
        let results = reference::evaluate(self.0, &[tensor], Precision::F32)?;
        let named = self.0.outputs().iter().zip(results);
        named
            .map(|(output, tensor)| {
                NamedTensor::new(&output.name, tensor.shape.clone(), tensor.to_f32())
            })
            .collect()
    }
}
