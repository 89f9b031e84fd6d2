//! Computes nodes whose operands are all constants.

use emoc_ir::{
    Graph, Patch, Result, Weight,
    ops::Op,
    reference::{Precision, Tensor, evaluate_node},
};

use crate::fold::for_each_node;

pub(crate) fn run(graph: &mut Graph) -> Result<usize> {
    for_each_node(graph, |graph, id| {
        let operands = graph.operands(id);
        let constant = |id| graph.node(id).op == Op::Constant;
        let foldable = !operands.is_empty() && operands.iter().all(|value| constant(value.node));
        if !foldable || graph.node(id).outputs.len() != 1 {
            return Ok(false);
        }
        let mut tensors = Vec::new();
        for value in &operands {
            let key = graph.node(value.node).weight("value").unwrap_or_default();
            let weight = graph.weights.get(key)?;
            tensors.push(Tensor {
                shape: weight.dims(),
                data: weight.exact()?.to_vec(),
            });
        }
        let tensors: Vec<_> = tensors.iter().collect();
        let result = evaluate_node(graph, id, &tensors, Precision::F64)?.swap_remove(0);
        let name = graph.node(id).name.clone();
        let mut patch = Patch::replacing(graph, &[id]);
        let weight = Weight::folded(&result.shape, result.data);
        let key = patch.fold_weight(&format!("{name}.value"), weight);
        let constant = patch.add(&name, Op::Constant, &[], &[("value", &key)])?;
        patch.redirect(id, constant);
        patch.finish()?;
        Ok(true)
    })
}
