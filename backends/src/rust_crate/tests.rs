//! What does not need cargo: bytes, names, refusals.

use emoc_ir::{Verified, parse, seeded};
use emoc_kernels::cpu::LANES;

use super::*;

fn graph(text: &str) -> Verified {
    let mut graph = parse(text).unwrap_or_else(|error| panic!("{error}"));
    seeded::fill(&mut graph, 0);
    graph.verify().unwrap_or_else(|error| panic!("{error}"))
}

/// A backbone of one stage, with room for changes.
fn backbone(batch: &str, stem: &str, extra: &str) -> String {
    format!(
        "graph emov2_0m_8 {{
  %input = input : f32[{batch}, 3, 8, 8]
  %stage0.0.conv = conv2d(%input) [weight, bias] stride={stem} padding=1 act=silu : f32[{batch}, 4, 4, 4]
  %stage0.1.conv = conv2d(%stage0.0.conv) [weight, bias] padding=1 groups=4 act=silu : f32[{batch}, 4, 4, 4]
  %stage1.0 = i2rmb(%stage0.1.conv) [expand.weight, local.weight, proj.weight] act=silu stride=2 padding=2 local_act=silu : f32[{batch}, 6, 2, 2]
{extra}}}
weights {{
  @stage0.0.conv.weight : f32[4, 3, 3, 3]
  @stage0.0.conv.bias : f32[4]
  @stage0.1.conv.weight : f32[4, 1, 3, 3]
  @stage0.1.conv.bias : f32[4]
  @stage1.0.expand.weight : f32[8, 4, 1, 1]
  @stage1.0.local.weight : f32[8, 1, 5, 5]
  @stage1.0.proj.weight : f32[6, 8, 1, 1]
}}"
    )
}

const RESULT: &str = "  return stage1 = %stage1.0\n";

#[test]
fn the_same_graph_gives_the_same_bytes() {
    let graph = graph(&backbone("1", "2", RESULT));
    let options = Options {
        provenance: vec![("variant".into(), "a | b".into())],
        ..Options::default()
    };
    let first = emit(&graph, &options).expect("a crate");
    assert_eq!(first, emit(&graph, &options).expect("a crate"));
    assert_eq!(first.name, "emov2-0m-8");
    let paths: Vec<_> = first.files.iter().map(|(path, _)| path.as_str()).collect();
    assert!(paths.is_sorted(), "{paths:?}");
    for path in [
        "Cargo.toml",
        "src/kernels/mod.rs",
        "src/preprocess/mod.rs",
        "weights.bin",
    ] {
        assert!(paths.contains(&path), "{path}");
    }
}

/// The file that people read first. Regenerate as the graphs' snapshots are.
#[test]
fn the_network_of_1m_reads_well() {
    let printed = include_str!("../../../snapshots/emov2_1m_224.optimised.snap");
    let (_, text) = printed.split_at(printed.find("graph ").expect("a graph"));
    let graph = graph(&text.replace("[N, ", "[1, "));
    let emitted = emit(&graph, &Options::default()).expect("a crate");
    let mut files = emitted.files.into_iter();
    let (_, model) = files
        .find(|(path, _)| path == "src/model.rs")
        .expect("a network");
    insta::with_settings!({
        snapshot_path => "../../../snapshots",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_snapshot!("emov2_1m_224.model.rs", String::from_utf8(model).expect("text"));
    });
}

#[test]
fn halves_take_half_but_for_the_stem() {
    let graph = graph(&backbone("1", "2", RESULT));
    let emit = |weights| {
        emit(
            &graph,
            &Options {
                weights,
                ..Options::default()
            },
        )
        .expect("a crate")
    };
    let (whole, half) = (emit(WeightsDtype::F32), emit(WeightsDtype::F16));
    // One panel: 27 taps and a bias, then 9 taps and a bias.
    let stem = (28 + 10) * LANES;
    assert_eq!(whole.weight_bytes, 2 * half.weight_bytes - 4 * stem);
    let file = |emitted: &Emitted| {
        let mut files = emitted.files.iter();
        let (_, bytes) = files
            .find(|(path, _)| path == "weights.bin")
            .expect("weights");
        bytes[..4 * stem].to_vec()
    };
    assert!(file(&whole) == file(&half), "the stem is rounded");
}

#[test]
fn refusals_say_why() {
    let cases = [
        (backbone("N", "2", RESULT), "", ""),
        (backbone("2", "2", RESULT), "one picture", ""),
        (
            backbone(
                "1",
                "2",
                "  %a = silu(%stage1.0) : f32[1, 6, 2, 2]\n  return a = %a\n",
            ),
            "kernel for this node",
            "a",
        ),
        (
            backbone(
                "1",
                "2",
                "  return a = %stage0.1.conv\n  return b = %stage1.0\n",
            ),
            "all stages",
            "",
        ),
    ];
    for (text, why, node) in cases {
        let result = emit(&graph(&text), &Options::default());
        match (result, why) {
            (Ok(_), "") => {}
            (Ok(_), why) => panic!("emitted, expected `{why}`\n{text}"),
            (Err(error), why) => {
                let said = error.to_string();
                assert!(
                    !why.is_empty() && said.contains(why) && said.contains(node),
                    "{said}"
                );
            }
        }
    }
}

/// A graph that is well-formed, but no chain of layers that the kernels compute, must not become a
/// crate that computes something else.
#[test]
fn what_would_be_another_network_is_refused() {
    let block = |name: &str, from: &str, more: &str, shape: &str| {
        format!(
            "  %{name} = i2rmb(%{from}) [expand.weight, local.weight, proj.weight] act=silu {more} \
             padding=2 local_act=silu : f32[{shape}]\n"
        )
    };
    let weights = |name: &str, inputs: usize, local: &str, outputs: usize| {
        format!(
            "  @{name}.expand.weight : f32[8, {inputs}, 1, 1]\n  @{name}.local.weight : \
             f32[{local}]\n  @{name}.proj.weight : f32[{outputs}, 8, 1, 1]\n"
        )
    };
    let result = |stage: usize, node: &str| format!("  return stage{stage} = %{node}\n");
    let (filters, map) = ("8, 1, 5, 5", "1, 6, 2, 2");
    // Replaces the stem's text, then adds blocks, results and weights.
    let check = |why: &str, stem: &[(&str, &str)], nodes: &str, all: &str| {
        let mut text = backbone("1", "2", nodes);
        for (from, to) in stem {
            assert!(text.contains(from), "{why}: no `{from}` in\n{text}");
            text = text.replace(from, to);
        }
        let text = text.trim_end_matches('}').to_owned() + all + "}";
        let error = emit(&graph(&text), &Options::default()).map(|_| ());
        let error = error.expect_err(why).to_string();
        assert!(error.contains(why), "expected `{why}`: {error}");
    };
    let twin = block("stage2.0", "stage0.1.conv", "stride=2", map);
    let results = result(1, "stage1.0") + &result(2, "stage2.0");
    let twins = weights("stage2.0", 4, filters, 6);
    let other = "reads something else";
    check(other, &[], &(twin + &results), &twins);

    let same =
        block("stage1.1", "stage1.0", "stride=1", map).replace(" : f32", " residual=yes : f32");
    let next = block("stage2.0", "stage1.0", "stride=2", "1, 6, 1, 1");
    let results = result(1, "stage1.1") + &result(2, "stage2.0");
    let more = weights("stage1.1", 6, filters, 6) + &weights("stage2.0", 6, filters, 6);
    check(other, &[], &(same + &next + &results), &more);

    let next = block("stage2.0", "stage1.0", "stride=2", "1, 6, 1, 1");
    let next = next.replace(" local_act", " local_eps=1e-6 local_act");
    let results = result(1, "stage1.0") + &result(2, "stage2.0");
    let weight = weights("stage2.0", 6, filters, 6);
    check(
        "in every block or in none",
        &[],
        &(next + &results),
        &weight,
    );

    let head = "  %pool = global_avg_pool(%stage1.0) : f32[1, 6]\n  %head = linear(%pool) [weight] : \
                f32[1, 3]\n";
    let linear = "  @head.weight : f32[3, 6]\n";
    for wanted in [
        "  return logits = %head\n  return stage1 = %stage1.0\n",
        "  return p = %pool\n",
    ] {
        check("and nothing else", &[], &format!("{head}{wanted}"), linear);
    }

    let kernel = "no kernel for this node";
    let narrow = [("f32[8, 1, 5, 5]", "f32[8, 1, 5, 3]"), (map, "1, 6, 2, 3")];
    check(kernel, &narrow, RESULT, "");
    let doubled = [
        ("f32[8, 1, 5, 5]", "f32[16, 1, 5, 5]"),
        ("f32[6, 8, 1, 1]", "f32[6, 16, 1, 1]"),
    ];
    check(kernel, &doubled, RESULT, "");
    let grouped = [
        ("stride=2 padding=1 act", "stride=2 padding=1 groups=3 act"),
        ("f32[4, 3, 3, 3]", "f32[6, 1, 3, 3]"),
        ("f32[4, 1, 3, 3]", "f32[6, 1, 3, 3]"),
        ("f32[4]", "f32[6]"),
        ("groups=4", "groups=6"),
        ("f32[1, 4, 4, 4]", "f32[1, 6, 4, 4]"),
        ("f32[8, 4, 1, 1]", "f32[8, 6, 1, 1]"),
    ];
    check(kernel, &grouped, RESULT, "");
    let shrinking = [
        (
            "padding=1 groups=4 act=silu : f32[1, 4, 4, 4]",
            "groups=4 act=silu : f32[1, 4, 2, 2]",
        ),
        (map, "1, 6, 1, 1"),
    ];
    check("leaves the map's size", &shrinking, RESULT, "");
    let residual = [
        (
            "stride=2 padding=2 local_act=silu",
            "stride=1 padding=2 local_act=silu residual=yes",
        ),
        (map, "1, 4, 4, 4"),
        ("f32[6, 8, 1, 1]", "f32[4, 8, 1, 1]"),
    ];
    check("changes its map first", &residual, RESULT, "");
}

#[test]
fn labels_are_for_all_classes() {
    let graph = graph(&backbone("1", "2", RESULT));
    let labels = Some(vec!["cat".to_owned()]);
    let result = emit(
        &graph,
        &Options {
            labels,
            ..Options::default()
        },
    );
    let error = result
        .map(|_| ())
        .expect_err("labels of a backbone")
        .to_string();
    assert!(
        error.contains("1 class names for a network with 0 classes"),
        "{error}"
    );
}

#[test]
fn names_that_cargo_takes() {
    let graph = graph(&backbone("1", "2", RESULT));
    for (name, good) in [
        ("emo", true),
        ("my-net_2", true),
        ("network", true),
        ("My-net", false),
        ("a--b", false),
        ("a-_b", false),
        ("a-", false),
        ("match", false),
        ("proc-macro", false),
        ("", false),
        ("2net", false),
        ("a/b", false),
        ("a.b", false),
        ("crate", false),
        ("é", false),
    ] {
        let crate_name = Some(name.to_owned());
        let result = emit(
            &graph,
            &Options {
                crate_name,
                ..Options::default()
            },
        );
        assert_eq!(result.is_ok(), good, "{name:?}");
    }
}
