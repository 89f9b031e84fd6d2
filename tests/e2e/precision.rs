//! Float16 files: what the rounding moves, through the reference and every runtime that is here.

use emoc_backends::onnx::{Options, emit};
use emoc_frontend::Choice;
use emoc_ir::{
    Verified,
    reference::{Precision, Tensor, evaluate},
};
use emoc_passes::{
    optimise,
    precision::{Islands, standard, to_f16},
};
use emoc_tests::{
    cases::{Case, LARGE, digits_cases, large_case, seeded_case, seeded_names},
    full, max_abs_difference, reference_dir, spread,
};

use crate::onnx::{run, runtimes};

/// How far float16 may move outputs, in units of their spread.
const TOLERANCE: f64 = 5e-3;

fn optimised(case: &Case) -> Verified {
    let graph = case.model().graph.verify();
    let graph = optimise(graph.expect("well-formed"), None, &mut |_, _, _| {});
    graph.unwrap_or_else(|e| panic!("{}: {e}", case.name))
}

/// Judges one set of outputs.
fn judge(what: &str, golden: &Tensor, actual: &Tensor) {
    let share = max_abs_difference(golden, actual) / spread(&golden.data);
    println!("{what}: float16 moves the outputs by {share:.1e} x spread");
}

fn check(case: &Case, islands: &Islands, opset: u32) {
    let narrow = to_f16(&optimised(case), islands);
    let narrow = narrow.unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let what = format!("{}, {} islands, opset {opset}", case.name, narrow.islands.len());
    let input = std::slice::from_ref(&case.input);
    let values = evaluate(&narrow.graph, input, Precision::F32).expect("an evaluation");
    for ((_, golden), actual) in case.outputs.iter().zip(&values) {
        judge(&format!("{what}: reference"), golden, actual);
    }
    let options = Options {
        opset,
        ..Options::default()
    };
    let bytes = emit(&narrow.graph, &options).unwrap_or_else(|e| panic!("{what}: {e}"));
    for runtime in runtimes() {
        let name = runtime.name();
        match run(&*runtime, &bytes, &case.input) {
            Err(e) => println!("{what}: {name}: {e}"),
            Ok(outputs) => {
                for (output, golden) in &case.outputs {
                    let actual = outputs.iter().find(|actual| actual.name == *output);
                    let actual = actual.unwrap_or_else(|| panic!("{what}: {name}: no `{output}`"));
                    let actual = Tensor::from_f32(&actual.shape, &actual.data);
                    judge(&format!("{what}: {name}: {output}"), golden, &actual);
                }
            }
        }
    }
}

#[test]
fn seeded() {
    for name in ["emo2_1m_224", "emo2_5m_224", "emo1_5m_224", "emo2_1m_96x160"] {
        let case = seeded_case(name);
        for opset in [20, 17] {
            check(&case, &standard(&optimised(&case)), opset);
            check(&case, &Islands::new(), opset);
        }
    }
}
