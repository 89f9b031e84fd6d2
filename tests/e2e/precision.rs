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
use emoc_tests::{
    FLOAT16_TOLERANCE, assert_float16_agrees,
    cases::{Case, LARGE, digits_cases, large_case, seeded_case, seeded_names},
    float16_moves, full, reference_dir,
};

use crate::onnx::{op_cases, run, runtimes};

/// What the reference may use up of the tolerance; tract adds up in float16 too.
const TARGET: f64 = 0.5 * FLOAT16_TOLERANCE;

/// For small graphs of seeded weights, where tract's float16 sums are up to 6e-3 off after one op
/// and 2e-2 after some blocks. A mistake is off by the spread itself.
const OP_TOLERANCE: f64 = 5e-2;

/// tract has no float16 instructions on most machines: a second for every 100M MACs.
const TRACT_MACS: u64 = 1_200_000_000;

fn optimised(case: &Case) -> Verified {
    let graph = case.model().graph.verify();
    let graph = optimise(graph.expect("well-formed"), None, &mut |_, _, _| {});
    graph.unwrap_or_else(|e| panic!("{}: {e}", case.name))
}

fn reference(graph: &Verified, case: &Case) -> Vec<Tensor> {
    let input = std::slice::from_ref(&case.input);
    evaluate(graph, input, Precision::F32).expect("an evaluation")
}

/// The standard islands where they do, otherwise those that are measured to be needed. Runtimes
/// that add up in float32 need no margin.
fn islands(case: &Case, graph: &Verified, target: f64) -> Islands {
    let standard = standard(graph);
    let narrow = to_f16(graph, &standard).expect("a graph").graph;
    let what = format!("{}, standard islands, reference", case.name);
    let outputs = case.outputs.iter().zip(reference(&narrow, case));
    let mut moved = outputs.map(|((_, golden), actual)| float16_moves(&what, golden, &actual));
    if moved.all(|share| share <= target) {
        return standard;
    }
    let inputs = std::slice::from_ref(&case.input);
    let choice = choose(graph, inputs, target, &mut |_, _| {}).expect("a choice");
    println!("{}: {} islands instead", case.name, choice.islands.len());
    choice.islands
}

fn check(case: &Case, islands: Option<&Islands>, opset: u32) {
    let graph = optimised(case);
    let macs = graph.cost(case.input.shape[0]).expect("a cost").total.macs;
    let with_tract = macs <= TRACT_MACS;
    let target = if with_tract {
        TARGET
    } else {
        0.9 * FLOAT16_TOLERANCE
    };
    let islands = islands.cloned();
    let islands = islands.unwrap_or_else(|| self::islands(case, &graph, target));
    let narrow = to_f16(&graph, &islands).expect("a graph").graph;
    let options = Options {
        opset,
        ..Options::default()
    };
    let bytes = emit(&narrow, &options).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    for runtime in runtimes() {
        let what = format!("{}, opset {opset}, {}", case.name, runtime.name());
        if runtime.name() == "tract" && !with_tract {
            println!("skipped: {what}: float16 takes it minutes");
            continue;
        }
        let outputs = run(&*runtime, &bytes, &case.input);
        let outputs = outputs.unwrap_or_else(|e| panic!("{what}: {e}"));
        for (output, golden) in &case.outputs {
            let actual = outputs.iter().find(|actual| actual.name == *output);
            let actual = actual.unwrap_or_else(|| panic!("{what}: no output `{output}`"));
            let actual = Tensor::from_f32(&actual.shape, &actual.data);
            assert_float16_agrees(&what, golden, &actual);
        }
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
