//! A fused op and what it stands for have the same values and multiply-accumulates, and values
//! depend on nothing but the graph.

use emoc_ir::{
    Graph,
    ops::decompose_all,
    reference::{Precision, Tensor, evaluate},
    seeded,
};
use proptest::prelude::*;

use crate::generate::{Weights, graphs};

const BATCH: usize = 2;

fn input(graph: &Graph) -> Tensor {
    let shape = graph.ty(graph.inputs()[0]).shape.resolve(BATCH);
    Tensor::from_f32(&shape, &seeded::values("input", &shape, 0))
}

/// Bit patterns, so that NaN equals itself.
fn bits(tensors: &[Tensor]) -> Vec<(Vec<usize>, Vec<u64>)> {
    let bits = |tensor: &Tensor| tensor.data.iter().map(|x| x.to_bits()).collect();
    let each = tensors
        .iter()
        .map(|tensor| (tensor.shape.clone(), bits(tensor)));
    each.collect()
}

proptest! {
    #[test]
    fn decompositions(graph in graphs(Weights::Owned)) {
        let flat = decompose_all(&graph, |_| true).unwrap_or_else(|e| panic!("{e}\n{graph}"));
        let fused = flat.ids().find(|&id| flat.node(id).op.is_fused());
        prop_assert!(fused.is_none(), "{flat}");
        let totals = |graph: &Graph| graph.cost(BATCH).expect("a cost").total;
        prop_assert_eq!(totals(&graph).macs, totals(&flat).macs, "{}", graph);
        prop_assert_eq!(totals(&graph).parameters, totals(&flat).parameters, "{}", graph);
        let input = [input(&graph)];
        for precision in [Precision::F32, Precision::F64] {
            let [fused, plain] = [&graph, &flat]
                .map(|graph| evaluate(graph, &input, precision).expect("an evaluation"));
            prop_assert_eq!(bits(&fused), bits(&plain), "{}", graph);
        }
    }

    /// Shapes of results are those the shape rules announce, whatever the number of threads.
    #[test]
    fn values(graph in graphs(Weights::Owned)) {
        let input = [input(&graph)];
        let [one, three] = [1, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let run = || evaluate(&graph, &input, Precision::F32).expect("an evaluation");
            pool.expect("a thread pool").install(run)
        });
        prop_assert_eq!(bits(&one), bits(&three));
        for (output, tensor) in graph.outputs().iter().zip(&one) {
            let shape = graph.ty(output.value).shape.resolve(BATCH);
            prop_assert_eq!(&shape, &tensor.shape);
            prop_assert_eq!(shape.iter().product::<usize>(), tensor.data.len());
            let rounded = tensor.to_f32();
            let kept = rounded.iter().zip(&tensor.data).all(|(r, x)| f64::from(*r) == *x || x.is_nan());
            prop_assert!(kept, "not rounded to float32");
        }
    }
}
