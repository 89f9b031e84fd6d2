//! Float16 files: what the rounding moves, through the reference and every runtime that is here.

use emoc_backends::onnx::{Options, emit};
use emoc_frontend::Choice;
use emoc_ir::{
    Verified,
    reference::{Precision, Tensor, evaluate},
    seeded,
};
use emoc_passes::{
    optimise,
    precision::{Islands, choose, standard, to_f16},
};
use emoc_runtimes::Runtime;
use emoc_tests::{
    FLOAT16_TOLERANCE, assert_float16_agrees,
    cases::{Case, LARGE, digits_cases, large_case, seeded_case, seeded_names},
    float16_moves, full, reference_dir,
};

use crate::onnx::{op_cases, run, runtimes};

/// Networks that tract runs too. It adds up in float16, and has no instructions for that: it takes
/// a second for every 100M MACs, and its errors come on top of the reference's.
const IN_TRACT: [&str; 4] = [
    "emo2_1m_224",
    "emo2_1m_96x160",
    "emo1_1m_224",
    "emo2_5m_224",
];

/// For small graphs of seeded weights, where float16 sums are up to 6e-3 off after one op and 3e-2
/// after some blocks. A mistake is off by the spread itself.
const OP_TOLERANCE: f64 = 5e-2;

fn optimised(case: &Case) -> Verified {
    let graph = case.model().graph.verify();
    let graph = optimise(graph.expect("well-formed"), None, &mut |_, _, _| {});
    graph.unwrap_or_else(|e| panic!("{}: {e}", case.name))
}

/// The outputs of a graph in a runtime, in the order of the case's.
fn outputs(
    runtime: &dyn Runtime,
    what: &str,
    case: &Case,
    graph: &Verified,
    opset: u32,
) -> Vec<Tensor> {
    let options = Options {
        opset,
        ..Options::default()
    };
    let bytes = emit(graph, &options).unwrap_or_else(|e| panic!("{what}: {e}"));
    let outputs = run(runtime, &bytes, &case.input);
    let outputs = outputs.unwrap_or_else(|e| panic!("{what}: {e}"));
    let tensor = |(name, _): &(String, Tensor)| {
        let actual = outputs.iter().find(|actual| actual.name == *name);
        let actual = actual.unwrap_or_else(|| panic!("{what}: no output `{name}`"));
        Tensor::from_f32(&actual.shape, &actual.data)
    };
    case.outputs.iter().map(tensor).collect()
}

/// With standard islands where they do; otherwise, as the command line does, with those that are
/// measured to be needed, and with more until every runtime agrees.
fn check(case: &Case, islands: Option<&Islands>, opset: u32) {
    let graph = optimised(case);
    let in_tract = islands.is_some() || IN_TRACT.contains(&&*case.name);
    let mut runtimes = runtimes();
    runtimes.retain(|runtime| runtime.name() != "tract" || in_tract);
    let mut share = 1.0;
    let mut chosen = islands.cloned().unwrap_or_else(|| standard(&graph));
    loop {
        let narrow = to_f16(&graph, &chosen).expect("a graph").graph;
        let mut all = Vec::new();
        for runtime in &runtimes {
            let what = format!(
                "{}, {} islands, opset {opset}, {}",
                case.name,
                chosen.len(),
                runtime.name()
            );
            let outputs = outputs(&**runtime, &what, case, &narrow, opset);
            all.push((what, outputs));
        }
        let agrees = |(what, outputs): &(String, Vec<Tensor>)| {
            let pairs = case.outputs.iter().zip(outputs);
            let mut moves = pairs.map(|((_, golden), actual)| float16_moves(what, golden, actual));
            moves.all(|share| share <= FLOAT16_TOLERANCE)
        };
        if all.iter().all(agrees) || islands.is_some() || share < 0.1 {
            for (what, outputs) in &all {
                for ((_, golden), actual) in case.outputs.iter().zip(outputs) {
                    assert_float16_agrees(what, golden, actual);
                }
            }
            return;
        }
        share /= 2.0;
        let inputs = std::slice::from_ref(&case.input);
        let target = share * FLOAT16_TOLERANCE;
        chosen = choose(&graph, inputs, target, &mut |_, _| {})
            .expect("a choice")
            .islands;
    }
}

#[test]
fn seeded_cases() {
    for name in seeded_names() {
        let is_small = ["emo2_1m_224", "emo2_1m_96x160"].contains(&&*name);
        if full() || is_small {
            check(&seeded_case(&name), None, 20);
        }
        if name == "emo2_1m_224" {
            check(&seeded_case(&name), None, 17);
        }
    }
}

#[test]
fn large_checkpoints() {
    let Some(folder) = reference_dir("1000-class checkpoints in float16") else {
        return;
    };
    for row in LARGE.iter().filter(|row| row.2 == 224) {
        if full() || row.1 == "1m" {
            check(&large_case(&folder, row), None, 20);
        }
    }
}

/// One set of islands for all pictures.
#[test]
fn digits() {
    let Some(folder) = reference_dir("digits in float16") else {
        return;
    };
    for choice in [Choice::Net, Choice::Ema] {
        for case in digits_cases(&folder, choice, full()) {
            check(&case, Some(&standard(&optimised(&case))), 20);
        }
    }
}

/// Every op alone, against the reference on the same narrow graph.
#[test]
fn every_op() {
    for (name, graph) in op_cases() {
        let graph = graph.verify().unwrap_or_else(|e| panic!("{name}: {e}"));
        let narrow = to_f16(&graph, &Islands::new()).expect("a graph").graph;
        let shape = graph.ty(graph.inputs()[0]).shape.resolve(2);
        let input = Tensor::from_f32(&shape, &seeded::values("input", &shape, 0));
        let values = evaluate(&narrow, std::slice::from_ref(&input), Precision::F32);
        let values = values.expect("an evaluation");
        for opset in [17, 20, 23] {
            let options = Options {
                opset,
                ..Options::default()
            };
            let bytes = emit(&narrow, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
            for runtime in runtimes() {
                let what = format!("{name}, opset {opset}, {}", runtime.name());
                let outputs = run(&*runtime, &bytes, &input);
                let outputs = outputs.unwrap_or_else(|e| panic!("{what}: {e}"));
                for (output, expected) in narrow.outputs().iter().zip(&values) {
                    let actual = outputs.iter().find(|actual| actual.name == output.name);
                    let actual = actual.unwrap_or_else(|| panic!("{what}: no output"));
                    let actual = Tensor::from_f32(&actual.shape, &actual.data);
                    let share = float16_moves(&what, expected, &actual);
                    assert!(share <= OP_TOLERANCE, "{what}: {share:.1e} x spread");
                }
            }
        }
    }
}
