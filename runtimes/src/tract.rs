//! tract: pure Rust, built in, so that every artifact is run at least once.

use std::{fs, io::Read, sync::Arc};

use emoc_ir::{Diagnostic, Result};
use tract_onnx::{pb::ModelProto, prelude::*, tract_hir::infer::InferenceModel};

use crate::{
    BoundModel, Found, InputFact, NamedTensor, Options, Runtime, Session, TrustedModel,
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
        let outputs = model.model().outputs().iter();
        let outputs = outputs.map(|output| output.name.clone()).collect();
        session(graph, model.inputs().to_vec(), outputs)
    }

    fn load_trusted(
        &self,
        model: TrustedModel,
        inputs: &[InputFact],
        _threads: usize,
    ) -> Result<Box<dyn Session>> {
        let (graph, inputs, outputs) = match model {
            TrustedModel::Bytes(bytes) => parse(bytes, inputs),
            TrustedModel::File(path) => {
                let file = fs::File::open(path);
                let file = file.map_err(|error| Diagnostic::io("read the model", path, &error))?;
                parse(file, inputs)
            }
        }?;
        session(graph, inputs, outputs)
    }
}

/// A graph with its inputs and outputs, in the file's order.
type Parsed = (InferenceModel, Vec<InputFact>, Vec<String>);

/// The decoded file is gone when this returns: it has the weights a second time.
fn parse(mut file: impl Read, inputs: &[InputFact]) -> Result<Parsed> {
    guard(NAME, || {
        let mut parse = || {
            let proto = onnx().proto_model_for_read(&mut file)?;
            let outputs = proto.graph.iter().flat_map(|graph| &graph.output);
            let outputs = outputs.map(|output| output.name.clone()).collect();
            let graph = unbound(&proto, inputs)?;
            let names = graph.input_outlets()?.iter();
            let names = names.map(|outlet| &graph.node(outlet.node).name);
            let ordered = names
                .filter_map(|name| inputs.iter().find(|fact| fact.name == *name))
                .cloned()
                .collect();
            Ok((graph, ordered, outputs))
        };
        parse().map_err(|error| refused("load", &error))
    })
}

/// A decoded file as a graph in which nothing has a type yet but its inputs.
pub(crate) fn unbound(proto: &ModelProto, inputs: &[InputFact]) -> TractResult<InferenceModel> {
    // The types that the file notes for inner values may speak of a symbolic batch, which this
    // run has replaced by a number; they follow from the inputs anyway. Nodes that no output
    // needs are dropped: tract would infer them too, but out of order.
    let mut graph = onnx()
        .with_ignore_value_info(true)
        .model_for_proto_model(proto)?
        .into_compact()?;
    for (index, outlet) in graph.input_outlets()?.to_vec().into_iter().enumerate() {
        let name = &graph.node(outlet.node).name;
        // An input that is not listed has a value of its own.
        if let Some(fact) = inputs.iter().find(|fact| fact.name == *name) {
            graph.set_input_fact(index, f32::fact(&fact.shape).into())?;
        }
    }
    Ok(graph)
}

fn session(
    graph: InferenceModel,
    inputs: Vec<InputFact>,
    outputs: Vec<String>,
) -> Result<Box<dyn Session>> {
    let plan = guard(NAME, || {
        let plan = graph
            .into_optimized()
            .and_then(|graph| graph.into_runnable());
        plan.map_err(|error| refused("load", &error))
    })?;
    Ok(Box::new(TractSession {
        plan,
        inputs,
        outputs,
    }))
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
