//! tract: pure Rust, built in, so that every artifact is run at least once.

use std::sync::Arc;

use emoc_ir::{Diagnostic, Result};
use tract_onnx::prelude::*;

use crate::{
    Found, InputFact, NamedTensor, OnnxModel, Options, Runtime, Session,
    guard::{brief, guard},
    runtime::{not_float, order_tensors},
};

const NAME: &str = "tract";

/// As pinned in Cargo.toml; tract does not export its version.
const VERSION: &str = "0.23.9";

/// No value of a graph may hold more: 1 GiB of float32, 16 times what the largest variant has
/// at 512 x 512. Shapes come from the file and are allocated before anything else can object.
const MAX_VALUES: usize = 1 << 28;

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
    fn load(
        &self,
        model: &OnnxModel,
        inputs: &[InputFact],
        _threads: usize,
    ) -> Result<Box<dyn Session>> {
        let inputs = model.order_inputs(inputs)?;
        let plan = guard(NAME, || {
            plan(model, &inputs).map_err(|e| refused("load", &e))
        })?;
        let outputs = model.outputs().iter().map(|out| out.name.clone()).collect();
        Ok(Box::new(TractSession {
            plan,
            inputs,
            outputs,
        }))
    }
}

fn plan(model: &OnnxModel, inputs: &[InputFact]) -> TractResult<Arc<TypedRunnableModel>> {
    // The types that the file notes for inner values may speak of a symbolic batch, which this
    // run has replaced by a number; they follow from the inputs anyway.
    let mut graph = onnx()
        .with_ignore_value_info(true)
        .model_for_proto_model(model.proto())?;
    for (index, outlet) in graph.input_outlets()?.to_vec().into_iter().enumerate() {
        let name = &graph.node(outlet.node).name;
        let fact = inputs.iter().find(|fact| fact.name == *name);
        let shape = fact.map(|fact| &fact.shape).ok_or_else(|| {
            TractError::msg(format!(
                "tract takes `{name}` for an input, the file does not"
            ))
        })?;
        graph.set_input_fact(index, f32::fact(shape).into())?;
    }
    graph.analyse(false)?;
    for node in graph.nodes() {
        for output in &node.outputs {
            let shape = output.fact.shape.as_concrete_finite()?;
            let values = shape.and_then(|shape| crate::tensor::volume(&shape));
            if values.is_some_and(|values| values > MAX_VALUES) {
                let fault = format!("node `{}`: a value of {:?}", node.name, output.fact.shape);
                return Err(TractError::msg(fault));
            }
        }
    }
    graph.into_optimized()?.into_runnable()
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
fn refused(doing: &str, error: &TractError) -> Box<Diagnostic> {
    let fault = Diagnostic::input(format!("tract cannot {doing} the model"));
    let reasons = error.chain().map(|reason| brief(&reason.to_string()));
    reasons.fold(fault, Diagnostic::detail)
}
