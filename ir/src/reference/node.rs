//! One node: reads its weights and picks the function that is its definition.

use super::{
    Precision, Tensor,
    elementwise::{activate, add, global_avg_pool, map, normalised, per_channel, softmax},
    evaluate,
    layout::{merge, partition, resize, split},
    products::{Kernel, conv2d, linear, matmul},
};
use crate::{
    DType, Diagnostic, Graph, Node, NodeId, Result,
    ops::{self, Op},
    tensor_type::round,
};

/// A node's results for these operands. Their rounding is left to the caller; `precision` is
/// that of the values inside a fused op.
///
/// # Errors
/// A weight that cannot be read.
pub fn evaluate_node(
    graph: &Graph,
    id: NodeId,
    operands: &[&Tensor],
    precision: Precision,
) -> Result<Vec<Tensor>> {
    if let Some(fragment) = ops::decompose(graph, id)? {
        let inputs: Vec<_> = operands.iter().map(|&tensor| tensor.clone()).collect();
        return evaluate(&fragment, &inputs, precision);
    }
    let node = graph.node(id);
    let weights = NodeWeights { graph, node };
    let one = |tensor| Ok(vec![tensor]);
    match &node.op {
        Op::Constant => one(Tensor {
            shape: weights.dims("value")?,
            data: weights.values("value")?,
        }),
        Op::Conv2d(conv) => one(conv2d(operands[0], &weights.kernel()?, conv)),
        Op::BatchNorm(norm) => one(weights.batch_norm(operands[0], norm.eps)?),
        Op::LayerNorm(norm) => one(weights.layer_norm(operands[0], norm.eps)?),
        Op::Activation(act) => one(map(operands[0], |x| activate(*act, x))),
        Op::LayerScale => {
            let gamma = weights.values("gamma")?;
            one(per_channel(operands[0], |c, x| x * gamma[c]))
        }
        Op::Add => one(add(operands[0], operands[1])),
        Op::Cast { .. } => one(operands[0].clone()),
        Op::Scale { factor } => one(map(operands[0], |x| x * factor)),
        Op::Pad { bottom, right } => {
            let (h, w) = (operands[0].shape[2], operands[0].shape[3]);
            one(resize(operands[0], h + bottom, w + right))
        }
        Op::Crop { height, width } => one(resize(operands[0], *height, *width)),
        Op::Split { sizes } => Ok(split(operands[0], sizes)),
        Op::WindowPartition(windows) => one(partition(operands[0], windows)),
        Op::WindowMerge {
            windows,
            height,
            width,
        } => one(merge(operands[0], windows, *height, *width)),
        Op::MatMul { transpose_b } => one(matmul(operands[0], operands[1], *transpose_b)),
        // A float16 softmax has no wider numbers inside, unlike sums and norms.
        Op::Softmax if precision == Precision::F32 && node.outputs[0].dtype == DType::F16 => {
            one(softmax(operands[0], |x| round(DType::F16, x)))
        }
        Op::Softmax => one(softmax(operands[0], |x| x)),
        Op::GlobalAvgPool => one(global_avg_pool(operands[0])),
        Op::Linear => one(linear(operands[0], &weights.kernel()?)),
        Op::Input | Op::WindowAttention(_) | Op::I2Rmb(_) => Err(Diagnostic::internal(
            "an input or a fused op reached the evaluator's table of plain ops",
        )),
    }
}

/// The weights of one node, as float64.
struct NodeWeights<'a> {
    graph: &'a Graph,
    node: &'a Node,
}

impl NodeWeights<'_> {
    fn optional(&self, slot: &str) -> Result<Option<Vec<f64>>> {
        let Some(key) = self.node.weight(slot) else {
            return Ok(None);
        };
        let values = self.graph.weights.values(key)?;
        Ok(Some(values.iter().map(|&x| f64::from(x)).collect()))
    }

    fn values(&self, slot: &str) -> Result<Vec<f64>> {
        let values = self.optional(slot)?;
        values.ok_or_else(|| Diagnostic::internal(format!("the weight `{slot}` is missing")))
    }

    fn dims(&self, slot: &str) -> Result<Vec<usize>> {
        let key = self.node.weight(slot).unwrap_or_default();
        Ok(self.graph.weights.get(key)?.dims())
    }

    fn kernel(&self) -> Result<Kernel> {
        Ok(Kernel {
            dims: self.dims("weight")?,
            weight: self.values("weight")?,
            bias: self.optional("bias")?,
        })
    }

    fn batch_norm(&self, x: &Tensor, eps: f64) -> Result<Tensor> {
        let (weight, bias) = (self.values("weight")?, self.values("bias")?);
        let mean = self.values("running_mean")?;
        let variance = self.values("running_var")?;
        let deviation: Vec<_> = variance.iter().map(|v| (v + eps).sqrt()).collect();
        Ok(per_channel(x, |c, x| {
            (x - mean[c]) / deviation[c] * weight[c] + bias[c]
        }))
    }

    fn layer_norm(&self, x: &Tensor, eps: f64) -> Result<Tensor> {
        let (weight, bias) = (self.optional("weight")?, self.optional("bias")?);
        let weight = |c: usize| weight.as_ref().map_or(1.0, |weight| weight[c]);
        let bias = |c: usize| bias.as_ref().map_or(0.0, |bias| bias[c]);
        Ok(per_channel(&normalised(x, eps), |c, x| {
            x * weight(c) + bias(c)
        }))
    }
}
