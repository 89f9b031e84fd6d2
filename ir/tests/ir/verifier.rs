//! Every invariant of the verifier is reported, with its node, and all faults at once.

use emoc_ir::{
    Dim, Graph, Patch, TensorType, Value, Weight,
    ops::{Act, Attention, Norm, Op, WindowAttention},
};

use crate::generate::ty;

const SILU: Op = Op::Activation(Act::Silu);

/// A graph with the input `x`, for tests to break.
fn graph() -> (Graph, Value) {
    let mut graph = Graph::new("g");
    let x = graph.add_input(
        "x",
        TensorType::f32([Dim::Batch(1), 2.into(), 4.into(), 4.into()]),
    );
    (graph, x.expect("an input"))
}

/// Breaks a graph that is well-formed but for what `harm` does, and checks the whole report.
#[track_caller]
fn check<T>(harm: impl FnOnce(&mut Graph, Value) -> T, expected: &[&str]) {
    let (mut graph, x) = graph();
    let y = graph.add("y", SILU, &[x], &[]).expect("a node");
    graph.add_output("r", y);
    let sound = graph.clone().verify();
    assert!(sound.is_ok(), "{sound:?}");
    harm(&mut graph, x);
    let report = graph.verify().expect_err("not well-formed");
    assert_eq!(report.details, expected);
}

fn add(graph: &mut Graph, name: &str, op: Op, x: Value) -> Value {
    graph.add(name, op, &[x], &[]).expect("a node").into()
}

#[test]
fn interface() {
    let report = Graph::new("g").verify().expect_err("empty");
    assert_eq!(report.details, ["it has no input", "it has no result"]);
    check(
        |graph, x| graph.add_output("r", x),
        &["two results are named `r`"],
    );
    let missing = |x: Value| Value { output: 1, ..x };
    check(
        |graph, x| graph.add_output("s", missing(x)),
        &["s: a result without a value"],
    );
}

#[test]
fn names() {
    let rule = "is not made of letters, digits and `._-`";
    check(
        |graph, _| graph.name = "my graph".into(),
        &[&format!("the graph's name `my graph` {rule}")],
    );
    check(
        |graph, x| graph.add_output("a//b", x),
        &[&format!("a result's name `a//b` {rule}")],
    );
    for name in ["", "a b", "%a", "é", "a\nb", "a~", "a/b", "@a"] {
        check(
            |graph, x| add(graph, name, SILU, x),
            &[&format!("a node's name `{name}` {rule}")],
        );
    }
    check(
        |graph, _| {
            graph.weights.insert("w w", Weight::owned(&[1], vec![0.0]));
            graph
                .add("c", Op::Constant, &[], &[("value", "w w")])
                .expect("a node");
        },
        &[&format!("a weight's key `w w` {rule}")],
    );
    let (mut graph, x) = graph();
    let error = graph
        .add("x", SILU, &[x], &[])
        .expect_err("the name is taken");
    assert_eq!(error.node.as_deref(), Some("x"));
}

#[test]
fn cycles() {
    check(
        |graph, x| {
            let a = add(graph, "a", SILU, x);
            let b = add(graph, "b", SILU, a);
            let mut patch = Patch::replacing(graph, &[]);
            patch.redirect(x, b);
            patch.finish().expect("types agree");
        },
        &["a: reads, through others, its own result"],
    );
}

#[test]
fn weights() {
    check(
        |graph, _| graph.weights.insert("w", Weight::owned(&[1], vec![0.0])),
        &["no node uses the weight `w`"],
    );
    let with_gamma = |graph: &mut Graph, x: Value| {
        graph
            .weights
            .insert("w", Weight::owned(&[1, 2, 1, 1], vec![0.0; 2]));
        graph
            .add("ls", Op::LayerScale, &[x], &[("gamma", "w")])
            .expect("a node");
    };
    check(
        |graph, x| {
            with_gamma(graph, x);
            graph.weights.remove("w");
        },
        &["ls: the graph has no weight of this name (`w`)"],
    );
    check(
        |graph, x| {
            with_gamma(graph, x);
            graph
                .weights
                .insert("w", Weight::owned(&[1, 3, 1, 1], vec![0.0; 3]));
        },
        &["ls: layer_scale weight `gamma` should have shape [1, 2, 1, 1], not [1, 3, 1, 1]"],
    );
}

#[test]
fn types() {
    check(
        |graph, _| {
            graph.weights.insert("w", Weight::owned(&[2], vec![0.0; 2]));
            graph
                .add("c", Op::Constant, &[], &[("value", "w")])
                .expect("a node");
            graph.weights.insert("w", Weight::owned(&[3], vec![0.0; 3]));
        },
        &["c: declares f32[2] but computes f32[3]"],
    );
    check(
        |graph, _| {
            graph.weights.insert("w", Weight::owned(&[2], vec![0.0; 2]));
            graph
                .add("c", Op::Constant, &[], &[("value", "w")])
                .expect("a node");
            graph
                .weights
                .insert("w", Weight::declared(ty("I64[2]"), None));
        },
        &["c: constant has a weight `value` whose type i64[2] is neither float32 nor float16"],
    );
}

#[test]
fn attributes() {
    let attention = |scale: f64| {
        Op::WindowAttention(WindowAttention {
            attention: Attention::Close,
            heads: 1,
            window: [2, 2],
            scale,
            act: Act::None,
            narrow_softmax: false,
        })
    };
    for (eps, spelt) in [
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
        (-1e-6, "-0.000001"),
    ] {
        check(
            |graph, x| add(graph, "n", Op::LayerNorm(Norm { eps }), x),
            &[&format!("n: eps={spelt} is not usable")],
        );
    }
    for factor in [f64::NAN, f64::NEG_INFINITY] {
        check(
            |graph, x| add(graph, "s", Op::Scale { factor }, x),
            &[&format!("s: factor={factor} is not usable")],
        );
        check(
            |graph, x| {
                graph
                    .weights
                    .insert("w", Weight::owned(&[2, 2, 1, 1], vec![0.0; 4]));
                let keys = [("qk.weight", "w"), ("v.weight", "w")];
                graph
                    .add("a", attention(factor), &[x], &keys)
                    .expect("a node");
            },
            &[&format!("a: scale={factor} is not usable")],
        );
    }
}

#[test]
fn batch_axis() {
    check(
        |graph, _| graph.add_input("i", ty("F32[2, N]")),
        &["i: f32[2, N] depends on the batch past its first axis"],
    );
    check(
        |graph, _| {
            let i = graph.add_input("i", ty("F32[N, 2]")).expect("an input");
            let j = graph.add_input("j", ty("F32[N, 2]")).expect("an input");
            let op = Op::MatMul { transpose_b: true };
            let gram = graph.add("gram", op, &[i, j], &[]).expect("a node");
            graph.add_output("s", gram);
        },
        &["s: f32[N, N] depends on the batch past its first axis"],
    );
}

#[test]
fn all_faults_are_in_one_report() {
    check(
        |graph, x| {
            graph.name = String::new();
            graph.weights.insert("w", Weight::owned(&[1], vec![0.0]));
            add(graph, "s", Op::Scale { factor: f64::NAN }, x);
            add(graph, "b b", Op::LayerNorm(Norm { eps: -1.0 }), x);
        },
        &[
            "the graph's name `` is not made of letters, digits and `._-`",
            "s: factor=NaN is not usable",
            "a node's name `b b` is not made of letters, digits and `._-`",
            "b b: eps=-1 is not usable",
            "no node uses the weight `w`",
        ],
    );
}
