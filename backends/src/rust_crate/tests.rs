//! What does not need cargo: bytes, names, refusals.

use emoc_ir::{Verified, parse, seeded};

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

#[test]
fn halves_take_half() {
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
    assert_eq!(whole.weight_bytes, 2 * half.weight_bytes);
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

#[test]
fn names_that_cargo_takes() {
    let graph = graph(&backbone("1", "2", RESULT));
    for (name, good) in [
        ("emo", true),
        ("my-net_2", true),
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
