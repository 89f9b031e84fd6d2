//! A patch takes effect whole, and refuses what would break its graph.

use emoc_ir::{
    Dim, Graph, NodeId, Patch, TensorType, Value, Weight,
    ops::{Act, Op},
    parse,
};

const SILU: Op = Op::Activation(Act::Silu);
const TEXT: &str = "graph g {
  %x = input : f32[N, 2, 4, 4]
  %a = layer_scale(%x) [gamma] : f32[N, 2, 4, 4]
  %b = silu(%a) : f32[N, 2, 4, 4]
  %c = crop(%b) size=2x2 : f32[N, 2, 2, 2]
  return r = %c
}
weights {
  @a.gamma : f32[1, 2, 1, 1]
}
";

fn graph() -> (Graph, impl Fn(&Graph, &str) -> NodeId) {
    let graph = parse(TEXT).expect("a graph");
    (graph, |graph: &Graph, name: &str| {
        graph.find(name).expect("a node")
    })
}

#[test]
fn a_replacement_takes_the_name() {
    let (mut graph, id) = graph();
    let (x, a, b) = (id(&graph, "x"), id(&graph, "a"), id(&graph, "b"));
    let mut patch = Patch::replacing(&mut graph, &[a, b]);
    let new = patch.add("b", Op::Activation(Act::Gelu), &[x.into()], &[]);
    patch.redirect(b, new.expect("the name is free"));
    patch.finish().expect("nothing escapes");
    let text = TEXT.replace("  %a = layer_scale(%x) [gamma] : f32[N, 2, 4, 4]\n", "");
    let text = text.replace("silu(%a)", "gelu(%x)");
    let text = &text[..text.find("weights").expect("a section")];
    assert!(graph == parse(text).expect("a graph"), "{graph}");
    graph.verify().expect("well-formed");
}

#[test]
fn folded_weights() {
    let (mut graph, id) = graph();
    let weight = || Weight::owned(&[1, 2, 1, 1], vec![1.0, 2.0]);
    let fold = |graph: &mut Graph, key: &str| {
        let (a, x) = (id(graph, "a"), id(graph, "x"));
        let mut patch = Patch::replacing(graph, &[a]);
        let key = patch.fold_weight(key, weight());
        let new = patch.add("a", Op::LayerScale, &[x.into()], &[("gamma", &key)]);
        patch.redirect(a, new.expect("a node"));
        patch.finish().expect("a patch");
        key
    };
    assert_eq!(fold(&mut graph, "a.gamma"), "a.gamma.folded");
    assert!(
        !graph.weights.contains("a.gamma"),
        "the unused weight stays"
    );
    // Folding again replaces what only the replaced node used.
    assert_eq!(fold(&mut graph, "a.gamma.folded"), "a.gamma.folded");
    // Another node's weight is kept.
    let x = id(&graph, "x");
    let keys = [("gamma", "a.gamma.folded")];
    graph
        .add("d", Op::LayerScale, &[x.into()], &keys)
        .expect("a node");
    assert_eq!(fold(&mut graph, "a.gamma.folded"), "a.gamma.folded.folded");
    assert!(graph.weights.contains("a.gamma.folded"));
    graph.verify().expect("well-formed");
}

#[track_caller]
fn check_refused(patch: Patch, message: &str, node: &str) {
    let error = patch.finish().expect_err("refused");
    assert!(error.message.contains(message), "{error}");
    assert_eq!(error.node.as_deref(), Some(node), "{error}");
}

#[test]
fn refusals() {
    let (mut graph, id) = graph();
    let [x, b, c] = ["x", "b", "c"].map(|name| id(&graph, name));
    let mut patch = Patch::replacing(&mut graph, &[]);
    patch.redirect(b, c);
    check_refused(
        patch,
        "of type f32[N, 2, 4, 4] by one of type f32[N, 2, 2, 2]",
        "c",
    );

    let (mut graph, _) = self::graph();
    check_refused(
        Patch::replacing(&mut graph, &[b]),
        "whose value is still read",
        "b",
    );

    let (mut graph, _) = self::graph();
    check_refused(
        Patch::replacing(&mut graph, &[c]),
        "whose value is still read",
        "c",
    );

    let (mut graph, _) = self::graph();
    let unused = graph.add_input("unused", TensorType::f32([Dim::Fixed(1)]));
    let unused = unused.expect("an input").node;
    check_refused(
        Patch::replacing(&mut graph, &[unused]),
        "removes an input",
        "unused",
    );

    let (mut graph, _) = self::graph();
    let mut patch = Patch::replacing(&mut graph, &[b]);
    let new = patch
        .add("new", SILU, &[Value::from(b)], &[])
        .expect("a node");
    patch.redirect(b, new);
    check_refused(patch, "whose value is still read", "b");

    let (mut graph, _) = self::graph();
    let mut patch = Patch::replacing(&mut graph, &[]);
    let error = patch
        .add("b", SILU, &[x.into()], &[])
        .expect_err("the name is taken");
    assert_eq!(error.message, "two nodes have the same name");
}

/// A node put behind a value reads that value, everyone else the node.
#[test]
fn insertion_behind_a_value() {
    let (mut graph, id) = graph();
    let a = id(&graph, "a");
    let mut patch = Patch::replacing(&mut graph, &[]);
    let new = patch.add("new", SILU, &[a.into()], &[]).expect("a node");
    patch.redirect(a, new);
    patch.finish().expect("a patch");
    assert_eq!(graph.operands(new), [Value::from(a)]);
    assert_eq!(graph.operands(id(&graph, "b")), [Value::from(new)]);
    graph.verify().expect("well-formed");
}

#[test]
fn a_cycle_is_left_to_the_verifier() {
    let (mut graph, id) = graph();
    let [x, b] = ["x", "b"].map(|name| id(&graph, name));
    let mut patch = Patch::replacing(&mut graph, &[]);
    patch.redirect(x, b);
    patch.finish().expect("types agree");
    let report = graph.verify().expect_err("a cycle");
    assert!(report.details[0].contains("its own result"), "{report}");
}
