//! tract: pure Rust, built in, so that every artifact is run at least once.

use std::sync::Arc;

use emoc_ir::{Diagnostic, Result};
use tract_onnx::prelude::*;

use crate::{
    BoundModel, Found, InputFact, NamedTensor, Options, Runtime, Session,
    guard::{brief, guard},
    runtime::{not_float, order_tensors},
};

/// The name of tract in reports.
pub const NAME: &str = "tract";

/// As pinned in Cargo.toml; tract does not export its version.
const VERSION: &str = "0.23.9";

pub(crate) fn find(_: &Options) -> Result<Found> {
    Ok(Found::Ready(Box::new(Tract)))
}

struct Tract;

impl Runtime for Tract {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        VERSION.into()
    }

    /// tract is built without its thread pool here: it computes on one thread.
    fn load(&self, model: &BoundModel, _threads: usize) -> Result<Box<dyn Session>> {
        let graph = model.analysed()?;
        let plan = guard(NAME, || {
            let plan = graph
                .into_optimized()
                .and_then(|graph| graph.into_runnable());
            plan.map_err(|error| refused("load", &error))
        })?;
        let outputs = model
            .model()
            .outputs()
            .iter()
            .map(|out| out.name.clone())
            .collect();
        Ok(Box::new(TractSession {
            plan,
            inputs: model.inputs().to_vec(),
            outputs,
        }))
    }
}

struct TractSession {
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<InputFact>,
    outputs: Vec<String>,
}

impl Session for TractSession {
    fn threads(&self) -> usize {
        1
    }

    fn run(&mut self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>> {
        let inputs = order_tensors(&self.inputs, inputs)?;
        guard(NAME, || {
            let failed = |error| refused("run", &error);
            let inputs = inputs
                .into_iter()
                .map(|input| Ok(Tensor::from_shape(&input.shape, &input.data)?.into_tvalue()))
                .collect::<TractResult<TVec<_>>>()
                .map_err(failed)?;
            let outputs = self.plan.run(inputs).map_err(failed)?;
            let named = self.outputs.iter().zip(&*outputs);
            named
                .map(|(name, value)| named_tensor(name, value))
                .collect()
        })
    }
}

fn named_tensor(name: &str, value: &Tensor) -> Result<NamedTensor> {
    let values = value
        .to_plain_array_view::<f32>()
        .map_err(|_| not_float(name, &format!("{:?}", value.datum_type())))?;
    // `iter` is row-major whatever the strides are.
    NamedTensor::new(
        name,
        value.shape().to_vec(),
        values.iter().copied().collect(),
    )
}

/// tract nests its reasons, outermost first: the node is in there.
pub(crate) fn refused(doing: &str, error: &TractError) -> Box<Diagnostic> {
    let fault = Diagnostic::input(format!("tract cannot {doing} the model"));
    let reasons = error.chain().map(|reason| brief(&reason.to_string()));
    reasons.fold(fault, Diagnostic::detail)
}
