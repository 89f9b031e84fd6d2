//! Parameters, multiply-accumulates and activation bytes, per stage and in total.

use std::collections::HashSet;

use serde::Serialize;

use crate::{Graph, Result, ops::Op};

/// Cost of a part of the graph.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Elements of the weights, running statistics not counted. A weight that several nodes use
    /// is counted once, at the first.
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
        // Counts saturate, as those of `Op::macs` do.
        self.parameters = self.parameters.saturating_add(other.parameters);
        self.macs = self.macs.saturating_add(other.macs);
        self.activation_bytes = self.activation_bytes.saturating_add(other.activation_bytes);
        self.nodes += other.nodes;
    }
}

/// Costs of a graph for one batch size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CostTable {
    /// One row per part in the order of computation: per first element of the module path
    /// (`stage0` to `stage4`, `norm`, `head`) unless asked otherwise.
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
        self.cost_by(batch, |name| name.split('.').next().unwrap_or_default())
    }

    /// The same for other parts of the graph: `part` says from a node's name to which it belongs.
    ///
    /// # Errors
    /// Those of [`Graph::cost`].
    pub fn cost_by(&self, batch: usize, part: impl Fn(&str) -> &str) -> Result<CostTable> {
        let mut table = CostTable {
            stages: Vec::new(),
            total: Cost::default(),
        };
        let mut counted = HashSet::new();
        for id in self.topological_order() {
            let node = self.node(id);
            if node.op == Op::Input {
                continue;
            }
            let operands = self.operands(id);
            let inputs: Vec<_> = operands.iter().map(|&value| self.ty(value)).collect();
            let weights = self.weight_types(node)?;
            let mut cost = Cost {
                macs: node.op.macs(&inputs, &node.outputs, &weights, batch),
                nodes: 1,
                ..Cost::default()
            };
            for ty in &node.outputs {
                let bytes = ty.shape.numel(batch).saturating_mul(ty.dtype.size());
                cost.activation_bytes = cost.activation_bytes.saturating_add(bytes as u64);
            }
            for (slot, key) in &node.weights {
                if !slot.starts_with("running_") && counted.insert(key) {
                    cost.parameters += weights.0[slot].shape.numel(1) as u64;
                }
            }
            table.total.add(&cost);
            let part = part(&node.name);
            match table.stages.iter_mut().find(|(name, _)| name == part) {
                Some((_, row)) => row.add(&cost),
                None => table.stages.push((part.to_string(), cost)),
            }
        }
        Ok(table)
    }
}
