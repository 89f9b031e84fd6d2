//! Parameters, multiply-accumulates and activation bytes, per stage and in total.

use serde::Serialize;

use crate::{DType, Graph, Result, ops::Op};

/// Cost of a part of the graph.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Elements of the weights, running statistics not counted.
    pub parameters: u64,
    /// Multiply-accumulates for the given batch, counted as fvcore does.
    pub macs: u64,
    /// Bytes of all values computed.
    pub activation_bytes: u64,
    /// Nodes.
    pub nodes: u64,
}

impl Cost {
    fn add(&mut self, other: &Cost) {
        self.parameters += other.parameters;
        self.macs += other.macs;
        self.activation_bytes += other.activation_bytes;
        self.nodes += other.nodes;
    }
}

/// Costs of a graph for one batch size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CostTable {
    /// One row per first element of the module path (`stage0` to `stage4`, `norm`, `head`).
    pub stages: Vec<(String, Cost)>,
    /// Their sum.
    pub total: Cost,
}

impl Graph {
    /// The cost of every stage for a batch of `batch` pictures.
    ///
    /// # Errors
    /// Only for a graph that is not well-formed.
    pub fn cost(&self, batch: usize) -> Result<CostTable> {
        let mut table = CostTable {
            stages: Vec::new(),
            total: Cost::default(),
        };
        for id in self.topological_order() {
            let node = self.node(id);
            if node.op == Op::Input {
                continue;
            }
            let operands = self.operands(id);
            let inputs: Vec<_> = operands.iter().map(|&value| self.ty(value)).collect();
            let weights = self.weight_types(node)?;
            let learned = weights
                .0
                .iter()
                .filter(|(slot, _)| !slot.starts_with("running_"));
            let bytes = |dtype: DType, count: usize| (dtype.size() * count) as u64;
            let cost = Cost {
                parameters: learned.map(|(_, ty)| ty.shape.numel(1) as u64).sum(),
                macs: node.op.macs(&inputs, &node.outputs, &weights, batch),
                activation_bytes: node
                    .outputs
                    .iter()
                    .map(|ty| bytes(ty.dtype, ty.shape.numel(batch)))
                    .sum(),
                nodes: 1,
            };
            table.total.add(&cost);
            let stage = node.name.split('.').next().unwrap_or_default();
            match table.stages.iter_mut().find(|(name, _)| name == stage) {
                Some((_, row)) => row.add(&cost),
                None => table.stages.push((stage.to_string(), cost)),
            }
        }
        Ok(table)
    }
}
