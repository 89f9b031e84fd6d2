//! Values in float16: which graphs may have them, and how they are rounded.

use emoc_ir::{
    Graph, Verified,
    ops::{Op, decompose_all},
    parse,
    reference::{Precision, Tensor, evaluate},
    seeded,
};

fn graph(text: &str) -> Verified {
    let mut graph = parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    seeded::fill(&mut graph, 0);
    graph.verify().unwrap_or_else(|e| panic!("{e}"))
}

fn run(graph: &Graph, data: &[f32]) -> Vec<f64> {
    let shape = graph.ty(graph.inputs()[0]).shape.resolve(1);
    let input = Tensor::from_f32(&shape, data);
    let mut results = evaluate(graph, &[input], Precision::F32).expect("an evaluation");
    results.remove(0).data
}

/// The nearest float16, ties to even; beyond the largest there is infinity.
#[test]
fn casts_round_to_nearest() {
    let narrow = graph(
        "graph g {
  %x = input : f32[1, 8]
  %y = cast(%x) to=f16 : f16[1, 8]
  return y = %y
}",
    );
    let tiny = 2f32.powi(-24);
    let x = [
        1.0,
        2049.0,
        2051.0,
        65519.0,
        65520.0,
        -1e9,
        tiny,
        tiny / 2.0,
    ];
    let inf = f64::INFINITY;
    let rounded = [
        1.0,
        2048.0,
        2052.0,
        65504.0,
        inf,
        -inf,
        f64::from(tiny),
        0.0,
    ];
    assert_eq!(run(&narrow, &x), rounded);
}

/// Results of narrow ops are rounded, and only once.
#[test]
fn results_have_the_type_of_their_node() {
    let sum = graph(
        "graph g {
  %x = input : f32[1, 2]
  %a = cast(%x) to=f16 : f16[1, 2]
  %b = add(%a, %a) : f16[1, 2]
  %c = scale(%b) factor=1000 : f16[1, 2]
  %y = cast(%c) to=f32 : f32[1, 2]
  return y = %y
}",
    );
    assert_eq!(run(&sum, &[1.000_976_6, 100.0]), [2002.0, f64::INFINITY]);
}

const ATTENTION: &str = "graph g {
  %x = input : f32[1, 4, 2, 4]
  %narrow = cast(%x) to=f16 : f16[1, 4, 2, 4]
  %a = window_attention(%narrow) [qk.weight, v.weight] attention=hybrid window=2x2 heads=2{flag} : f16[1, 8, 2, 4]
  %y = cast(%a) to=f32 : f32[1, 8, 2, 4]
  return y = %y
}
weights {
  @a.qk.weight : f16[8, 4, 1, 1]
  @a.v.weight : f16[8, 4, 1, 1]
}";

/// An attention's softmax is float32 unless it is asked to be narrow.
#[test]
fn softmax_is_wide() {
    let input = seeded::values("input", &[1, 4, 2, 4], 0);
    let check = |flag: &str, casts: usize| {
        let fused = graph(&ATTENTION.replace("{flag}", flag));
        let flat = decompose_all(&fused, |_| true).expect("plain ops");
        let is_cast = |&id: &emoc_ir::NodeId| matches!(flat.node(id).op, Op::Cast { .. });
        // Two of the graph itself; each of the two softmaxes is between two others.
        assert_eq!(flat.ids().filter(is_cast).count(), 2 + casts, "{flat}");
        let outcome = run(&fused, &input);
        assert_eq!(outcome, run(&flat, &input));
        outcome
    };
    assert_ne!(check("", 4), check(" narrow_softmax=yes", 0));
}

#[test]
fn mixed_operands_are_refused() {
    let check = |line: &str, expected: &str| {
        let text = format!(
            "graph g {{
  %x = input : f32[1, 4, 2, 2]
  %h = cast(%x) to=f16 : f16[1, 4, 2, 2]
  {line}
  return y = %y
}}
weights {{
  @w : f32[4, 4, 1, 1]
}}"
        );
        let error = parse(&text).expect_err("refused");
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(
        "%y = add(%x, %h) : f32[1, 4, 2, 2]",
        "mixes element types: an input is F32, an input F16; a cast is needed",
    );
    check(
        "%y = conv2d(%h) [weight=@w] : f16[1, 4, 2, 2]",
        "mixes element types: an input is F16, weight F32; a cast is needed",
    );
    check("%y = cast(%h) to=f32 : f16[1, 4, 2, 2]", "f16[1, 4, 2, 2]");
}
