//! Merges two 1x1 convolutions in a row, where that saves multiplications.
//!
//! `W2 (W1 x + b1) + b2 = (W2 W1) x + (W2 b1 + b2)`, with no activation, padding or other reader
//! between them.

use emoc_ir::{Graph, Result};

use crate::fold::{
    Folder, NewConv, for_each_node, is_pointwise, kernel, linear_conv_before, replace_conv,
};

pub(crate) fn run(graph: &mut Graph) -> Result<usize> {
    for_each_node(graph, |graph, second| {
        if !is_pointwise(graph, second) {
            return Ok(false);
        }
        let first = linear_conv_before(graph, graph.operands(second)[0]);
        let Some(first) = first.filter(|&first| is_pointwise(graph, first)) else {
            return Ok(false);
        };
        let [middle, inputs, ..] = kernel(graph, first);
        let [outputs, ..] = kernel(graph, second);
        if outputs * inputs > middle * (outputs + inputs) {
            return Ok(false);
        }
        let mut folder = Folder::new();
        let weight1 = folder.read(graph, first, "weight")?;
        let weight2 = folder.read(graph, second, "weight")?;
        let bias1 = folder.read_or(graph, first, "bias", 0.0, middle)?;
        let bias2 = folder.read_or(graph, second, "bias", 0.0, outputs)?;
        let mut weight = vec![0.0; outputs * inputs];
        let mut bias = bias2.to_vec();
        for (o, row) in weight.chunks_mut(inputs).enumerate() {
            for m in 0..middle {
                let factor = weight2[o * middle + m];
                bias[o] += factor * bias1[m];
                let products = weight1[m * inputs..].iter().map(|w| factor * w);
                row.iter_mut()
                    .zip(products)
                    .for_each(|(sum, product)| *sum += product);
            }
        }
        let has_bias = [first, second]
            .iter()
            .any(|&id| graph.node(id).weight("bias").is_some());
        let new = NewConv {
            shape: [outputs, inputs, 1, 1],
            weight,
            bias: has_bias.then_some(bias),
        };
        replace_conv(graph, second, &[first], second.into(), &folder, new)?;
        Ok(true)
    })
}
