//! A model together with the shapes of one run. Here it shows how large its values become,
//! before a runtime allocates them.
//!
//! A file of 200 bytes can ask for terabytes of zeros, or for so many that the size overflows.
//! Runtimes compute such constants while they load, so shapes are inferred first, node by node,
//! with tract's rules. A node that tract does not know ends the inference, not the check: other
//! runtimes may know it. What follows such a node is not bounded, nor are the sum of all values
//! and the time of a run.

use emoc_ir::{Diagnostic, Result};
use tract_onnx::{
    prelude::{OutletId, TVec, TractError, TractResult},
    tract_hir::infer::{Factoid, InferenceFact, InferenceModel, InferenceOp},
};

use crate::{InputFact, OnnxModel, guard::guard, tensor::volume, tract};

/// No value of a graph may hold more elements: 1 GiB of float32, 16 times what the largest variant has at
/// 512 x 512.
const MAX_VALUES: usize = 1 << 28;

/// What tract calls the operators that read the size of their output from a tensor. It keeps 32
/// bits of a size where ONNX has 64, and would take 2^32 + 1 for 1.
const GROWING: [&str; 6] = [
    "ConstantOfShape",
    "MultiBroadcastTo",
    "Pad",
    "Range",
    "Resize",
    "Tile",
];

/// What [`Runtime::load`](crate::Runtime::load) takes.
pub struct BoundModel<'a> {
    model: &'a OnnxModel<'a>,
    inputs: Vec<InputFact>,
    analysed: Result<InferenceModel>,
}

impl<'a> OnnxModel<'a> {
    /// Gives every input the shape it has in this run. `inputs` may be in any order.
    ///
    /// # Errors
    /// When they are not the inputs of the model, and when a value of the graph would hold
    /// more than 2^28 elements (1 GiB of float32).
    pub fn bind(&'a self, inputs: &[InputFact]) -> Result<BoundModel<'a>> {
        let inputs = self.order_inputs(inputs)?;
        let mut oversized = None;
        let analysed = guard(tract::NAME, || {
            analyse(self, &inputs, &mut oversized).map_err(|error| tract::refused("load", &error))
        });
        match oversized {
            Some(fault) => Err(fault),
            None => Ok(BoundModel {
                model: self,
                inputs,
                analysed,
            }),
        }
    }
}

impl BoundModel<'_> {
    /// The file.
    pub fn model(&self) -> &OnnxModel<'_> {
        self.model
    }

    /// The inputs in the file's order.
    pub fn inputs(&self) -> &[InputFact] {
        &self.inputs
    }

    /// The graph with the type of every value, or why tract cannot infer them.
    pub(crate) fn analysed(&self) -> Result<InferenceModel> {
        self.analysed.clone()
    }
}

fn analyse(
    model: &OnnxModel,
    inputs: &[InputFact],
    oversized: &mut Option<Box<Diagnostic>>,
) -> TractResult<InferenceModel> {
    let mut graph = tract::unbound(model.proto(), inputs)?;
    for id in graph.eval_order()? {
        if let Some(fault) = oversize(&graph, id)? {
            *oversized = Some(Diagnostic::input(&fault).node(&graph.node(id).name));
            return Err(TractError::msg(fault));
        }
        let facts = infer(&graph, id, |op, i, o, seen| op.infer(i, o, seen))?;
        for (slot, fact) in facts.into_iter().enumerate() {
            graph.set_outlet_fact(OutletId::new(id, slot), fact)?;
        }
    }
    Ok(graph)
}

/// Why this node's outputs are too large, before anything is computed.
fn oversize(graph: &InferenceModel, id: usize) -> TractResult<Option<String>> {
    if GROWING.contains(&&*graph.node(id).op.name()) {
        for fact in graph.node_input_facts(id)? {
            let value = fact.value.concretize();
            let Some(value) = value.filter(|value| value.datum_type().is_integer()) else {
                continue;
            };
            let value = value.cast_to::<i64>()?;
            let sizes = value.to_plain_array_view::<i64>()?;
            if let Some(size) = sizes.iter().find(|size| i32::try_from(**size).is_err()) {
                return Ok(Some(format!("{size} is no size that this program checks")));
            }
        }
    }
    // By the rules of the operator alone.
    for fact in infer(graph, id, |op, i, o, seen| op.infer_facts(i, o, seen))? {
        let shape = fact.shape.as_concrete_finite()?;
        if shape.is_some_and(|s| volume(&s).is_none_or(|values| values > MAX_VALUES)) {
            let shape = fact.shape;
            return Ok(Some(format!(
                "{shape:?} is no shape that this program checks (a value may hold 2^28 elements)"
            )));
        }
    }
    Ok(None)
}

type Facts<'f> = TVec<&'f InferenceFact>;
type Inferred = (
    TVec<InferenceFact>,
    TVec<InferenceFact>,
    TVec<InferenceFact>,
);

/// The types of a node's outputs by `rule`, from what is known of its inputs.
fn infer(
    graph: &InferenceModel,
    id: usize,
    rule: impl Fn(&mut dyn InferenceOp, Facts, Facts, Facts) -> TractResult<Inferred>,
) -> TractResult<TVec<InferenceFact>> {
    let node = graph.node(id);
    let mut op = node.op.clone();
    let (inputs, outputs) = graph.node_facts(id)?;
    let observed = op.observe_outlets(graph, node)?;
    let observed = observed.iter().map(|&outlet| graph.outlet_fact(outlet));
    let observed = observed.collect::<TractResult<_>>()?;
    let (_, outputs, _) = rule(&mut *op, inputs, outputs, observed)?;
    Ok(outputs)
}
