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

#[cfg(test)]
mod tests {
    use prost::Message;
    use tract_onnx::pb::{GraphProto, NodeProto, OperatorSetIdProto, TypeProto, ValueInfoProto};
    use tract_onnx::pb::{tensor_proto::DataType, type_proto};

    use super::*;
    use crate::OnnxModel;

    fn value(name: &str) -> ValueInfoProto {
        let tensor = type_proto::Tensor {
            elem_type: DataType::Float as i32,
            shape: None,
        };
        ValueInfoProto {
            name: name.into(),
            r#type: Some(TypeProto {
                value: Some(type_proto::Value::TensorType(tensor)),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// `a` - `b`.
    fn difference() -> Vec<u8> {
        let node = NodeProto {
            op_type: "Sub".into(),
            input: vec!["a".into(), "b".into()],
            output: vec!["difference".into()],
            ..Default::default()
        };
        let model = ModelProto {
            ir_version: 9,
            opset_import: vec![OperatorSetIdProto {
                version: 20,
                ..Default::default()
            }],
            graph: Some(GraphProto {
                node: vec![node],
                input: vec![value("a"), value("b")],
                output: vec![value("difference")],
                ..Default::default()
            }),
            ..Default::default()
        };
        model.encode_to_vec()
    }

    /// Without the gate a model is the same, wherever it is and in whatever order its inputs are
    /// named.
    #[test]
    fn trusted_models_are_the_same() {
        let bytes = difference();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.onnx");
        fs::write(&path, &bytes).expect("a file");
        let tensor = |name: &str, data: &[f32]| {
            NamedTensor::new(name, vec![2], data.to_vec()).expect("shape and data agree")
        };
        let mut inputs = [tensor("a", &[5.0, 7.0]), tensor("b", &[1.0, 2.0])];
        for _ in 0..2 {
            let facts = inputs.each_ref().map(NamedTensor::fact);
            let model = OnnxModel::read(&bytes).expect("a model");
            let bound = model.bind(&facts).expect("its inputs");
            let sessions = [
                Tract.load(&bound, 1),
                Tract.load_trusted(TrustedModel::Bytes(&bytes), &facts, 1),
                Tract.load_trusted(TrustedModel::File(&path), &facts, 1),
            ];
            for session in sessions {
                let outputs = session.expect("a session").run(&inputs);
                let expected = [tensor("difference", &[4.0, 5.0])];
                assert_eq!(outputs.expect("outputs"), expected);
            }
            inputs.reverse();
        }
        let text = TrustedModel::Bytes(b"text");
        let fault = Tract.load_trusted(text, &[], 1).err().expect("no model");
        assert!(fault.message.contains("cannot load"), "{fault}");
    }
}
