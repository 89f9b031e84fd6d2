//! Which nodes become narrow, where casts stand, and which islands a measurement keeps.

use emoc_ir::{
    Graph, Verified, Weight, parse,
    reference::{Precision, Tensor, evaluate},
    seeded,
};

use super::*;

/// A network with a part of each kind; `part` is a line of its middle.
fn network(part: &str) -> Verified {
    let text = format!(
        "graph network {{
  %input = input : f32[N, 3, 4, 4]
  %stage0.0 = conv2d(%input) [weight, bias] padding=1 act=silu : f32[N, 4, 4, 4]
  %stage1.0 = i2rmb(%stage0.0) [expand.weight, local.weight, proj.weight] act=silu stride=1 padding=1 local_act=silu : f32[N, 4, 4, 4]
  {part}
  %stage3.1 = i2rmb(%x) [qk.weight, v.weight, local.weight, proj.weight] eps=1e-6 attention=hybrid window=2x2 heads=2 act=gelu stride=1 padding=1 local_act=silu inner_skip=yes residual=yes : f32[N, 4, 4, 4]
  %pool = global_avg_pool(%stage3.1) : f32[N, 4]
  %classifier = linear(%pool) [weight, bias] : f32[N, 5]
  return logits = %classifier
}}
weights {{
  @stage0.0.weight : f32[4, 3, 3, 3]
  @stage0.0.bias : f32[4]
  @stage1.0.expand.weight : f32[8, 4, 1, 1]
  @stage1.0.local.weight : f32[8, 1, 3, 3]
  @stage1.0.proj.weight : f32[4, 8, 1, 1]
  @stage3.1.qk.weight : f32[8, 4, 1, 1]
  @stage3.1.v.weight : f32[8, 4, 1, 1]
  @stage3.1.local.weight : f32[8, 1, 3, 3]
  @stage3.1.proj.weight : f32[4, 8, 1, 1]
  @classifier.weight : f32[5, 4]
  @classifier.bias : f32[5]
}}"
    );
    let mut graph = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    seeded::fill(&mut graph, 0);
    graph.verify().unwrap_or_else(|e| panic!("{e}"))
}

const PLAIN: &str = "%x = add(%stage1.0, %stage1.0) : f32[N, 4, 4, 4]";

/// Sums that float16 cannot hold, brought back at once.
const HUGE: &str = "%stage2.0.up = scale(%stage1.0) factor=1e6 : f32[N, 4, 4, 4]
  %stage2.0.down = scale(%stage2.0.up) factor=1e-6 : f32[N, 4, 4, 4]
  %x = add(%stage2.0.down, %stage2.0.down) : f32[N, 4, 4, 4]";

fn islands(texts: &[&str]) -> Islands {
    texts.iter().map(|text| Island::parse(text)).collect()
}

fn spelt(islands: impl IntoIterator<Item = Island>) -> Vec<String> {
    islands
        .into_iter()
        .map(|island| island.to_string())
        .collect()
}

fn narrowed(graph: &Verified, texts: &[&str]) -> Narrowed {
    to_f16(graph, &islands(texts)).unwrap_or_else(|e| panic!("{texts:?}: {e}"))
}

/// Names of casts, in order.
fn casts(graph: &Graph) -> Vec<&str> {
    let nodes = graph.topological_order().into_iter();
    let nodes = nodes.map(|id| graph.node(id));
    let casts = nodes.filter(|node| matches!(node.op, Op::Cast { .. }));
    casts.map(|node| node.name.as_str()).collect()
}

#[test]
fn parts_and_softmaxes_are_candidates() {
    let graph = network(PLAIN);
    let all = spelt(candidates(&graph));
    let expected = [
        "stage0",
        "stage1.0",
        "head",
        "softmax of stage3.1",
        "stage3.1",
    ];
    assert_eq!(all, expected);
    let few = spelt(standard(&graph));
    assert_eq!(few, ["head", "stage0", "softmax of stage3.1"]);
}

#[test]
fn casts_stand_at_the_borders_once() {
    let graph = network(PLAIN);
    let check = |kept: &[&str], expected: &[&str]| {
        let narrow = narrowed(&graph, kept).graph;
        assert_eq!(casts(&narrow), expected, "{kept:?}: {}", *narrow);
    };
    check(&[], &["cast.input.f16", "cast.classifier.f32"]);
    check(&["stage0"], &["cast.stage0.0.f16", "cast.classifier.f32"]);
    // The sum reads one value twice.
    check(
        &["stage0", "stage1.0"],
        &["cast.stage1.0.f16", "cast.classifier.f32"],
    );
    check(
        &["stage0", "stage3.1"],
        &[
            "cast.stage0.0.f16",
            "cast.x.f32",
            "cast.stage3.1.f16",
            "cast.classifier.f32",
        ],
    );
    check(&["stage0", "stage1.0", "stage3.1", "head"], &[]);
}

/// With everything an island nothing changes; with standard islands the graph is a snapshot.
#[test]
fn narrow_graphs() {
    let graph = network(PLAIN);
    let all = to_f16(&graph, &candidates(&graph).into_iter().collect()).expect("a graph");
    assert_eq!(all.graph, graph);
    let narrow = to_f16(&graph, &standard(&graph)).expect("a graph");
    insta::with_settings!({
        snapshot_path => "../../../snapshots/passes",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, { insta::assert_snapshot!("precision__standard", narrow.graph.to_string()) });
}

#[test]
fn weights_that_do_not_fit_are_reported() {
    let mut graph = network(PLAIN).into_inner();
    let mut set = |key: &str, values: &[f32]| {
        let weight = graph.weights.get(key).expect("a weight");
        let (dims, mut all) = (weight.dims(), weight.values().expect("values").to_vec());
        all[..values.len()].copy_from_slice(values);
        graph.weights.insert(key, Weight::owned(&dims, all));
    };
    set("stage1.0.proj.weight", &[65504.0, -65520.0]);
    set("classifier.bias", &[1e-9, -1e-8, 0.0, 1e-7]);
    let graph = graph.verify().expect("a graph");
    let narrow = narrowed(&graph, &["stage0"]);
    assert_eq!(narrow.overflowing, ["stage1.0.proj.weight"]);
    assert_eq!(spelt(narrow.islands), ["stage0", "stage1.0"]);
    let flushed = Flushed {
        key: "classifier.bias".into(),
        elements: 2,
        of: 5,
    };
    assert_eq!(narrow.flushed, [flushed]);
}

/// A weight that an island shares with a narrow part is there twice.
#[test]
fn shared_weights() {
    let part = "%x = i2rmb(%stage1.0) [expand.weight=@stage1.0.expand.weight, \
                local.weight=@stage1.0.local.weight, proj.weight=@stage1.0.proj.weight] act=silu \
                stride=1 padding=1 local_act=silu : f32[N, 4, 4, 4]";
    let graph = network(&part.replace("%x", "%stage2.0").replace(
        "f32[N, 4, 4, 4]",
        "f32[N, 4, 4, 4]\n  %x = add(%stage2.0, %stage2.0) : f32[N, 4, 4, 4]",
    ));
    let narrow = narrowed(&graph, &["stage1.0"]).graph;
    let dtype = |key: &str| narrow.weights.get(key).expect("a weight").ty().dtype;
    assert_eq!(dtype("stage1.0.proj.weight"), DType::F32);
    assert_eq!(dtype("stage1.0.proj.weight.f16"), DType::F16);
}

#[test]
fn the_fewest_islands_are_kept() {
    let pictures = |graph: &Graph| -> Vec<Tensor> {
        let shape = graph.ty(graph.inputs()[0]).shape.resolve(2);
        let picture = |seed| Tensor::from_f32(&shape, &seeded::values("input", &shape, seed));
        vec![picture(0), picture(1)]
    };
    let check = |part: &str, target: f64, expected: &[&str]| {
        let graph = network(part);
        let pictures = pictures(&graph);
        let mut runs = Vec::new();
        let mut observe = |count: usize, _: &str| runs.push(count);
        let choice = choose(&graph, &pictures, target, &mut observe).expect("a choice");
        assert_eq!(spelt(choice.islands.clone()), expected, "{choice:?}");
        assert!(choice.error <= target, "{choice:?}");
        assert!(runs.iter().copied().eq(1..=runs.len()));
        // The error is that of the graph which is then made.
        let narrow = to_f16(&graph, &choice.islands).expect("a graph").graph;
        let run = |graph: &Graph, input: &Tensor| {
            let inputs = std::slice::from_ref(input);
            evaluate(graph, inputs, Precision::F32)
                .expect("an evaluation")
                .remove(0)
                .data
        };
        for picture in &pictures {
            let (wide, narrow) = (run(&graph, picture), run(&narrow, picture));
            let count = wide.len() as f64;
            let mean = wide.iter().sum::<f64>() / count;
            let variance = wide.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
            let pairs = wide.iter().zip(&narrow);
            let largest = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(largest <= target * variance.sqrt(), "{largest}");
        }
    };
    check(PLAIN, 0.1, &[]);
    check(HUGE, 0.1, &["stage2.0"]);
    // Nothing but float32 itself is that near.
    let graph = network(PLAIN);
    let all = candidates(&graph).into_iter();
    let parts = all.filter(|island| matches!(island, Island::Part(_)));
    let parts: Islands = parts.collect();
    let parts = spelt(parts);
    check(
        PLAIN,
        0.0,
        &parts.iter().map(String::as_str).collect::<Vec<_>>(),
    );
}
