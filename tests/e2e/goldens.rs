//! Every golden case through the reference evaluator, the optimised graph and every runtime.

use emoc_backends::onnx::Options;
use emoc_ir::reference::{Precision, evaluate, evaluate_values};
use emoc_passes::optimise;
use emoc_tests::{
    assert_agrees,
    cases::{
        Case, LARGE, backbone_case, large_case, seeded_case, seeded_names, segmentation_case,
        tiny_case, tiny_rows,
    },
    full, max_abs_difference, reference_dir, spread, tolerance,
};

use crate::onnx::check_runtimes;

/// Checks one case through everything.
pub(crate) fn check(case: Case) {
    let model = case.model();
    let Case {
        name,
        input,
        outputs,
        blocks,
        ..
    } = case;
    let graph = model
        .graph
        .verify()
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let inputs = [input];

    let reference = evaluate(&graph, &inputs, Precision::F32).expect("an evaluation");
    for ((output, golden), actual) in outputs.iter().zip(&reference) {
        let difference = max_abs_difference(golden, actual);
        println!("{name}: {output}: reference differs from PyTorch by {difference:.1e}");
        assert_agrees(
            &format!("{name}: {output}"),
            golden,
            actual,
            tolerance(golden),
        );
    }
    let ends = graph.block_outputs();
    let wanted: Vec<_> = ends
        .iter()
        .filter_map(|(block, value)| Some((blocks.iter().find(|(b, _)| b == block)?, *value)))
        .collect();
    let values: Vec<_> = wanted.iter().map(|(_, value)| *value).collect();
    let actual = evaluate_values(&graph, &inputs, Precision::F32, &values).expect("block ends");
    for (((block, golden), _), actual) in wanted.iter().zip(&actual) {
        assert_agrees(
            &format!("{name}: {block}"),
            golden,
            actual,
            tolerance(golden),
        );
    }

    let optimised =
        optimise(graph.clone(), None, &mut |_, _, _| {}).unwrap_or_else(|e| panic!("{name}: {e}"));
    let folded = evaluate(&optimised, &inputs, Precision::F32).expect("an evaluation");
    for ((output, _), (expected, actual)) in outputs.iter().zip(reference.iter().zip(&folded)) {
        let unit = spread(&expected.data).max(1.0);
        let difference = max_abs_difference(expected, actual) / unit;
        println!("{name}: {output}: optimised differs from faithful by {difference:.1e} x spread");
        assert_agrees(
            &format!("{name}: optimised {output}"),
            expected,
            actual,
            1e-5 * unit,
        );
    }

    let names = outputs.iter().map(|(output, _)| output.clone());
    let reference: Vec<_> = names.zip(reference).collect();
    for (version, graph) in [("faithful", &graph), ("optimised", &optimised)] {
        let what = format!("{name}: {version}");
        let expected = [&outputs[..], &reference].concat();
        check_runtimes(&what, graph, &Options::default(), &inputs[0], &expected);
    }
}

#[test]
fn tiny_layouts() {
    tiny_rows().iter().map(tiny_case).for_each(check);
}

#[test]
fn backbones() {
    check(backbone_case());
    check(segmentation_case());
}

#[test]
fn seeded() {
    // The large ones take minutes and prove nothing about code that the small ones do not.
    let small = |name: &String| name.contains("_1m_") || name == "emo2_5m_224";
    let names = seeded_names()
        .into_iter()
        .filter(|name| full() || small(name));
    names.map(|name| seeded_case(&name)).for_each(check);
}

#[test]
fn large_checkpoints() {
    let Some(folder) = reference_dir("1000-class checkpoints") else {
        return;
    };
    let rows = LARGE.iter().filter(|row| full() || row.2 == 224);
    rows.map(|row| large_case(&folder, row)).for_each(check);
}
