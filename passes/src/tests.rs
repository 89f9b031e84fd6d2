//! The `.emir` cases of every pass: where it fires, what it makes, where it must not fire.
//!
//! `src/<pass>.emir` holds cases under headings `=== fires: <what>` and `=== leaves: <what>`.
//! Weights are declared by key and filled with the seeded values of that key, which have
//! realistic statistics; a gamma of zeros, say, is made by the key `zero`. Where a pass fires,
//! the values of every result before and after must agree, and the graph it makes is a snapshot.

use std::path::Path;

use emoc_ir::{
    Graph, Result, Verified, Weight, parse,
    reference::{Precision, Tensor, evaluate},
    seeded,
};

use crate::find;

/// Both graphs are evaluated in float64, so what is left is the one rounding of the folded
/// weights to float32: half a unit in the last place, 6e-8 relative, for every weight on the way.
const TOLERANCE: f64 = 2e-6;

fn check(pass: &str) {
    let file = pass.replace('-', "_");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/{file}.emir"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut cases = text.split("\n=== ").skip(1).peekable();
    assert!(cases.peek().is_some(), "{file}.emir has no cases");
    let (mut fires, mut leaves) = (0, 0);
    for case in cases {
        let (heading, body) = case.split_once('\n').unwrap_or((case, ""));
        let (verdict, what) = heading.split_once(": ").expect("a heading `fires: what`");
        let name = format!("{pass}: {what}");
        let before = filled(body).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut after = before.clone().into_inner();
        let fired =
            (find(pass).expect("a pass").run)(&mut after).unwrap_or_else(|e| panic!("{name}: {e}"));
        let after = after.verify().unwrap_or_else(|e| panic!("{name}: {e}"));
        match verdict {
            "fires" => {
                fires += 1;
                assert!(fired > 0, "{name}: the pass does not fire");
                assert_equal_values(&name, &before, &after);
                let snapshot = format!("{file}__{}", what.replace([' ', ','], "_"));
                insta::with_settings!({
                    snapshot_path => "../../snapshots/passes",
                    prepend_module_to_snapshot => false,
                    omit_expression => true,
                }, { insta::assert_snapshot!(snapshot, after.to_string()) });
            }
            "leaves" => {
                leaves += 1;
                assert_eq!(fired, 0, "{name}: the pass fires, and makes\n{}", *after);
                assert_eq!(before, after, "{name}: the pass edits without firing");
            }
            _ => panic!("{name}: `{verdict}` is neither `fires` nor `leaves`"),
        }
    }
    assert!(fires > 0 && leaves > 0, "{pass} needs cases of both kinds");
}

/// Parses a case and fills its weights.
fn filled(text: &str) -> Result<Verified> {
    let mut graph = parse(text)?;
    seeded::fill(&mut graph, 0);
    if let Ok(zero) = graph.weights.get("zero") {
        let dims = zero.dims();
        let zeros = vec![0.0; dims.iter().product()];
        graph.weights.insert("zero", Weight::owned(&dims, zeros));
    }
    graph.verify()
}

fn assert_equal_values(name: &str, before: &Graph, after: &Graph) {
    let batch = 2;
    let input = |id: &emoc_ir::NodeId| {
        let dims = before.ty(*id).shape.resolve(batch);
        Tensor::from_f32(&dims, &seeded::values("input", &dims, 1))
    };
    let inputs: Vec<_> = before.inputs().iter().map(input).collect();
    let run = |graph| evaluate(graph, &inputs, Precision::F64).expect("an evaluation");
    for ((output, expected), actual) in before.outputs().iter().zip(run(before)).zip(run(after)) {
        let largest = expected.data.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
        let pairs = expected.data.iter().zip(&actual.data);
        let difference = pairs.map(|(e, a)| (e - a).abs()).fold(0.0, f64::max);
        assert!(
            difference <= TOLERANCE * largest,
            "{name}: {} changes by {difference:.1e}, values reach {largest:.1}",
            output.name
        );
    }
}

macro_rules! cases {
    ($($test:ident: $pass:literal,)*) => {
        $(#[test] fn $test() { check($pass); })*

        #[test]
        fn every_pass_has_cases() {
            let tested = [$($pass),*];
            let listed: Vec<_> = crate::PIPELINE.iter().map(|pass| pass.name).collect();
            assert_eq!(listed, tested);
        }
    };
}

cases! {
    single_window: "single-window",
    common_subexpressions: "common-subexpressions",
    constants: "constants",
    batch_norm_backward: "batch-norm-backward",
    batch_norm_forward: "batch-norm-forward",
    layer_norm: "layer-norm",
    layer_scale: "layer-scale",
    attention_scale: "attention-scale",
    pointwise: "pointwise",
    activation: "activation",
    window_attention: "window-attention",
    i2rmb: "i2rmb",
    dead_code: "dead-code",
}
