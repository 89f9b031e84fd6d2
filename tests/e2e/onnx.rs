//! Emitted ONNX files through every runtime that is here, against the reference evaluator.

use std::path::Path;

use emoc_backends::onnx::{Options, emit};
use emoc_frontend::{
    Checkpoint, Choice, StateDict,
    emo2::{self, Geometry, Hints, Model},
};
use emoc_ir::{
    Dim, Graph, Result, Verified,
    ops::{Attention, decompose_all},
    parse,
    reference::{Precision, Tensor, evaluate, evaluate_values},
    seeded,
};
use emoc_passes::optimise;
use emoc_runtimes::{Found, NamedTensor, OnnxModel, Runtime};
use emoc_tests::{assert_agrees, fixtures, tolerance};

/// tract, and ONNX Runtime if `scripts/fetch-onnxruntime` has been run.
pub fn runtimes() -> Vec<Box<dyn Runtime>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let options = emoc_runtimes::Options {
        onnxruntime_dir: Some(root.join(".onnxruntime")),
        ..emoc_runtimes::Options::default()
    };
    let found = emoc_runtimes::all(&options).expect("nothing is demanded");
    let ready = found.into_iter().filter_map(|found| match found {
        Found::Ready(runtime) => Some(runtime),
        Found::Missing(missing) => {
            println!(
                "skipped: {}: {}; {}",
                missing.name, missing.reason, missing.help
            );
            None
        }
    });
    ready.collect()
}

/// The outputs of a file, in the graph's order.
pub fn run(runtime: &dyn Runtime, bytes: &[u8], input: &Tensor) -> Result<Vec<NamedTensor>> {
    let input = NamedTensor::new("input", input.shape.clone(), input.to_f32())?;
    let model = OnnxModel::read(bytes)?;
    let bound = model.bind(&[input.fact()])?;
    runtime.load(&bound, 2)?.run(&[input])
}

/// Emits a graph and runs it in every runtime; the outputs must be those expected, by name.
pub fn check_runtimes(
    what: &str,
    graph: &Verified,
    options: &Options,
    input: &Tensor,
    expected: &[(String, Tensor)],
) {
    let bytes = emit(graph, options).unwrap_or_else(|e| panic!("{what}: {e}"));
    for runtime in runtimes() {
        let name = runtime.name();
        let outputs =
            run(&*runtime, &bytes, input).unwrap_or_else(|e| panic!("{what}: {name}: {e}"));
        for (output, expected) in expected {
            let actual = outputs.iter().find(|actual| actual.name == *output);
            let actual = actual.unwrap_or_else(|| panic!("{what}: {name}: no output `{output}`"));
            let actual = Tensor::from_f32(&actual.shape, &actual.data);
            let what = format!("{what}: {name}: {output}");
            assert_agrees(&what, expected, &actual, tolerance(expected));
        }
    }
}

/// The reference's outputs by name.
fn reference_outputs(graph: &Verified, input: &Tensor) -> Vec<(String, Tensor)> {
    let values = evaluate(graph, std::slice::from_ref(input), Precision::F32);
    let values = values.expect("an evaluation").into_iter();
    let names = graph.outputs().iter().map(|output| output.name.clone());
    names.zip(values).collect()
}

/// The graph as built and as optimised, each with its name.
fn versions(model: Model) -> [(&'static str, Verified); 2] {
    let faithful = model.graph.verify().expect("a well-formed graph");
    let optimised = optimise(faithful.clone(), None, &mut |_, _, _| {});
    [
        ("faithful", faithful),
        ("optimised", optimised.expect("an optimised graph")),
    ]
}

/// The tiny network; its windows are padded at 160x272 and many at 224x224.
fn tiny(input_size: [usize; 2], batch: Dim) -> Model {
    let hints = Hints {
        variant: None,
        dim_heads: Some([8, 8]),
        attention: Some(Attention::Hybrid),
    };
    let geometry = Geometry {
        input_size,
        batch,
        window: 7,
    };
    let checkpoint = Checkpoint::open(&fixtures().join("tiny.pth")).expect("a checkpoint");
    let state_dict = StateDict::choose(&checkpoint, Choice::Net).expect("a state_dict");
    emo2::from_state_dict(&state_dict, &hints, geometry, false).expect("a model")
}

fn pictures(batch: usize, [height, width]: [usize; 2]) -> Tensor {
    let shape = [batch, 3, height, width];
    Tensor::from_f32(&shape, &seeded::values("input", &shape, 0))
}

/// Small graphs under headings `=== <what>`, their weights filled with the seeded values.
pub fn op_cases() -> Vec<(String, Graph)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../backends/src/onnx");
    let text = std::fs::read_to_string(folder.join("cases.emir")).expect("the cases");
    let cases = text.split("\n=== ").skip(1).map(|case| {
        let (name, body) = case.split_once('\n').expect("a graph under the heading");
        let mut graph = parse(body).unwrap_or_else(|e| panic!("{name}: {e}"));
        seeded::fill(&mut graph, 0);
        (name.to_string(), graph)
    });
    cases.collect()
}

/// Every op with every attribute a lowering looks at, whole and decomposed.
#[test]
fn every_op() {
    for (name, graph) in op_cases() {
        let plain = decompose_all(&graph, |_| true).expect("plain ops");
        let input = graph.ty(graph.inputs()[0]).shape.clone();
        let batches = match input.0[0] {
            Dim::Fixed(n) => vec![n],
            Dim::Batch(_) => vec![1, 3],
        };
        for (version, graph) in [("whole", graph), ("decomposed", plain)] {
            let graph = graph.verify().unwrap_or_else(|e| panic!("{name}: {e}"));
            for &batch in &batches {
                let shape = input.resolve(batch);
                let input = Tensor::from_f32(&shape, &seeded::values("input", &shape, 0));
                let expected = reference_outputs(&graph, &input);
                for opset in [17, 20, 23] {
                    let options = Options {
                        opset,
                        ..Options::default()
                    };
                    let what = format!("{name}: {version}, batch {batch}, opset {opset}");
                    check_runtimes(&what, &graph, &options, &input, &expected);
                }
            }
        }
    }
}

#[test]
fn every_opset() {
    let input = pictures(1, [160, 272]);
    for (version, graph) in versions(tiny([160, 272], Dim::Fixed(1))) {
        let expected = reference_outputs(&graph, &input);
        for opset in 17..=23 {
            let options = Options {
                opset,
                ..Options::default()
            };
            let what = format!("tiny, {version}, opset {opset}");
            check_runtimes(&what, &graph, &options, &input, &expected);
        }
    }
}

#[test]
fn one_file_for_every_batch_size() {
    let check = |name: &str, model: Model, size: [usize; 2]| {
        for (version, graph) in versions(model) {
            for batch in [1, 3] {
                let input = pictures(batch, size);
                let expected = reference_outputs(&graph, &input);
                let what = format!("{name}, {version}, batch {batch}");
                check_runtimes(&what, &graph, &Options::default(), &input, &expected);
            }
        }
    };
    for size in [[64, 64], [160, 272], [224, 224]] {
        check(&format!("tiny {size:?}"), tiny(size, Dim::Batch(1)), size);
    }
    let geometry = Geometry {
        input_size: [224, 224],
        batch: Dim::Batch(1),
        window: 7,
    };
    let variant = emo2::variant("1M").expect("a variant");
    let model = emo2::seeded(variant, geometry, 0).expect("a model");
    check("1M", model, [224, 224]);
}

#[test]
fn block_ends_as_outputs() {
    let input = pictures(1, [160, 272]);
    for (version, graph) in versions(tiny([160, 272], Dim::Fixed(1))) {
        let (names, values): (Vec<_>, Vec<_>) = graph.block_outputs().into_iter().unzip();
        let inputs = std::slice::from_ref(&input);
        let ends = evaluate_values(&graph, inputs, Precision::F32, &values);
        let expected: Vec<_> = names.into_iter().zip(ends.expect("block ends")).collect();
        let options = Options {
            block_outputs: true,
            ..Options::default()
        };
        check_runtimes(version, &graph, &options, &input, &expected);
    }
}
