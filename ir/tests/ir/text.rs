//! The text form: printing and parsing are inverse, and malformed text is refused with its line.

use emoc_ir::{
    Dim, Graph, TensorType, Weight,
    ops::{Act, Attention, I2Rmb, Mixer, Norm, Op, WindowAttention},
    parse,
};
use proptest::prelude::*;

use crate::generate::{ACTS, Weights, block_shape, graphs, grow, unusable};

fn assert_round_trip(graph: &Graph) {
    let text = graph.to_string();
    let parsed = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert!(parsed == *graph, "parsed as\n{parsed}\nprinted as\n{text}");
    assert_eq!(parsed.to_string(), text);
}

proptest! {
    #[test]
    fn parsing_inverts_printing(graph in graphs(Weights::Mixed)) {
        assert_round_trip(&graph);
        graph.verify().unwrap_or_else(|e| panic!("{e}"));
    }

    #[test]
    fn no_text_panics(text in "(?s).{0,300}") {
        let _ = parse(&text);
        let _ = parse(&format!("graph g {{\n{text}\n}}"));
        let _ = parse(&format!("graph g {{\n  %a = {text} : f32[1]\n}}"));
    }

    /// What is accepted, however odd, can be printed, verified and counted.
    #[test]
    fn no_mutated_text_panics(
        graph in graphs(Weights::Mixed),
        edits in proptest::collection::vec((any::<usize>(), 0..6u8, "[ -~\n]{1,3}|18446744073709551615|N|#1"), 1..6),
    ) {
        let mut text = graph.to_string();
        for (place, kind, insert) in edits {
            mutate(&mut text, place, kind, &insert);
        }
        if let Ok(graph) = parse(&text) {
            assert_round_trip(&graph);
            let _ = graph.cost(usize::MAX);
            let _ = graph.verify();
        }
    }
}

fn mutate(text: &mut String, place: usize, kind: u8, insert: &str) {
    let place = place % (text.len() + 1);
    let mut lines: Vec<_> = text.lines().map(str::to_string).collect();
    let line = place % lines.len().max(1);
    match kind {
        0 => text.insert_str(place, insert),
        1 if place < text.len() => text.replace_range(place..=place, insert),
        2 => text.truncate(place),
        3 if !lines.is_empty() => {
            lines.remove(line);
            *text = lines.join("\n");
        }
        4 if !lines.is_empty() => {
            lines.swap(line, place / 7 % text.lines().count());
            *text = lines.join("\n");
        }
        // A digit here and there makes attributes and sizes that nearly fit.
        _ => *text = text.replacen(char::is_numeric, insert, 1 + place % 3),
    }
}

/// The generator leaves no op out.
#[test]
fn generated_graphs_use_every_op() {
    let mut text = String::new();
    for seed in 0..200u16 {
        let choices: Vec<u16> = (0..160)
            .map(|i: u16| (i + 1).wrapping_mul(40_503 + 2 * seed) >> 3)
            .collect();
        text += &grow(&choices, Weights::Mixed).to_string();
    }
    for op in [
        "input",
        "constant",
        "conv2d",
        "batch_norm",
        "layer_norm",
        "silu",
        "gelu",
        "layer_scale",
        "add",
        "scale",
        "pad",
        "crop",
        "split",
        "window_partition",
        "window_merge",
        "matmul",
        "softmax",
        "global_avg_pool",
        "linear",
        "window_attention",
        "i2rmb",
    ] {
        let used = [" ", "("]
            .iter()
            .any(|after| text.contains(&format!(" = {op}{after}")));
        assert!(used, "no generated graph has {op}");
    }
    assert!(text.contains("#1"), "no second output is read");
}

/// Every combination of attributes of the fused ops, which have the most.
#[test]
fn fused_ops_with_all_attributes() {
    let mut graph = Graph::new("fused");
    let x = graph.add_input(
        "x",
        TensorType::f32([Dim::Batch(1), 4.into(), 6.into(), 6.into()]),
    );
    let x = x.expect("an input");
    let attentions = [
        Attention::Close,
        Attention::Remote,
        Attention::Hybrid,
        Attention::CloseTwice,
    ];
    let mut mixers = ACTS.map(Mixer::Expand).to_vec();
    for attention in attentions {
        for act in ACTS {
            for scale in [1.0, 0.25, 1e-300] {
                let window = if attention == Attention::CloseTwice {
                    [6, 6]
                } else {
                    [4, 3]
                };
                let heads = 2;
                mixers.push(Mixer::Attention(WindowAttention {
                    attention,
                    heads,
                    window,
                    scale,
                    act,
                    narrow_softmax: scale < 1.0,
                }));
            }
        }
    }
    let mut ops = Vec::new();
    for mixer in mixers {
        for bits in 0..32 {
            let on = |bit: u8| bits >> bit & 1 == 1;
            ops.push(Op::I2Rmb(I2Rmb {
                norm: on(0).then_some(Norm { eps: 1e-6 }),
                mixer: mixer.clone(),
                stride: if on(1) { 2 } else { 1 },
                padding: 1,
                local_norm: on(4).then_some(Norm { eps: 1e-5 }),
                local_act: if on(2) { Act::Silu } else { Act::None },
                inner_skip: !on(1) && on(2),
                residual: !on(1) && on(3),
            }));
        }
        if let Mixer::Attention(attention) = mixer {
            ops.push(Op::WindowAttention(attention));
        }
    }
    for (i, op) in ops.into_iter().enumerate() {
        let slots = op.slots().iter().map(|slot| slot.name);
        let slots: Vec<_> = slots.filter(|slot| !unusable(&op, slot)).collect();
        let keys: Vec<_> = slots
            .iter()
            .map(|slot| (*slot, format!("{slot}.{i}")))
            .collect();
        for (slot, key) in &keys {
            let dims = block_shape(slot, 4, 8, 4, 3);
            let ty = TensorType::f32(emoc_ir::Shape::fixed(&dims));
            graph.weights.insert(key, Weight::declared(ty, None));
        }
        let keys: Vec<_> = keys
            .iter()
            .map(|(slot, key)| (*slot, key.as_str()))
            .collect();
        let node = graph
            .add(&format!("node{i}"), op, &[x], &keys)
            .expect("a node");
        graph.add_output(&format!("result{i}"), node);
    }
    assert!(graph.len() > 1200, "{} nodes", graph.len());
    assert_round_trip(&graph);
}

#[test]
fn graphs_that_differ_are_not_equal() {
    let base = "graph g {\n  %a = input : f32[N, 2]\n  %b = input : f32[N, 2]\n  %c = add(%a, %b) : \
                f32[N, 2]\n  return r = %c\n}\nweights {\n  @w : f32[1] 0123456789ab\n}\n";
    let graph = parse(base).expect("a graph");
    let check = |from: &str, to: &str| {
        let changed = base.replace(from, to);
        assert_ne!(changed, base, "`{from}` is not in the text");
        let changed = parse(&changed).expect("a graph");
        assert!(
            graph != changed,
            "`{to}` instead of `{from}` makes no difference"
        );
    };
    check("graph g", "graph h");
    check("add(%a, %b)", "add(%b, %a)");
    check(
        "  %a = input : f32[N, 2]\n  %b = input : f32[N, 2]",
        "  %b = input : f32[N, 2]\n  %a = input : f32[N, 2]",
    );
    check("[N, 2]", "[N, 3]");
    check("return r", "return s");
    check("= %c\n", "= %a\n");
    check("0123456789ab", "0123456789ac");
    check(" 0123456789ab", "");
    check("@w", "@v");
    check("  @w : f32[1] 0123456789ab\n", "");
}

/// Every way to spell a key is taken; the shortest is printed, broken where a line is long.
#[test]
fn keys_are_spelt_briefly() {
    const LONG: &str =
        "another.module.whose.path.is.certainly.long.enough.to.make.its.line.a.long.one.weight";
    let check = |written: &str, printed: &str| {
        let text = format!(
            "graph g {{\n  %x = input : f32[N, 4, 8, 8]\n{written}\n  return r = \
             %node.a\n}}\nweights {{\n  @{LONG} : f32[4, 4, 1, 1]\n  @node.a.bias : f32[4]\n  \
             @node.a.inner.weight : f32[4, 4, 1, 1]\n  @node.ab : f32[4]\n}}\n"
        );
        let read = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let text = read.to_string();
        let at = text.find("  %node.a").expect("the node");
        let end = text.find("\n\n  return").expect("the end of the nodes");
        assert_eq!(&text[at..end], printed, "{written}");
        assert_round_trip(&read);
    };
    let node = |weights: &str| format!("  %node.a = conv2d(%x) [{weights}] : f32[N, 4, 8, 8]");
    check(
        &node("weight=@node.a.inner.weight, bias=@node.a.bias"),
        &node("weight=.inner.weight, bias"),
    );
    check(
        &node("weight= .inner.weight // a comment\n\n, bias=.bias"),
        &node("weight=.inner.weight, bias"),
    );
    // A key that begins with the node's name and goes on with a letter is another module's.
    let other = node("weight=.inner.weight, bias=@node.ab");
    check(&other, &other);
    let broken = format!(
        "  %node.a = conv2d(%x) [\n    weight=@{LONG}, bias=@node.ab\n  ] stride=1 padding=0 \
         groups=1 act=silu : f32[N, 4, 8, 8]"
    );
    let without_defaults = broken.replace("stride=1 padding=0 groups=1 ", "");
    check(&broken.replace('\n', ""), &without_defaults);
    check(&broken, &without_defaults);
}

#[test]
fn malformed_text_is_refused_with_its_line() {
    let check = |text: &str, place: Option<usize>, expected: &str| {
        let error = parse(text)
            .err()
            .unwrap_or_else(|| panic!("accepted: {text}"));
        let place = place.map(|line| format!("line {line}"));
        assert!(
            error.message.contains(expected),
            "`{expected}` is not in: {error}\n{text}"
        );
        assert_eq!(error.place, place, "{error}\n{text}");
    };
    check("", None, "holds no graph");
    check("// nothing\n", None, "holds no graph");
    check("graph g {\n", None, "ends inside its graph");
    check("grap g {\n}", Some(1), "expected `graph`");
    check("graphs {\n}", Some(1), "expected `graph`");
    check("graph {\n}", Some(1), "expected a name");
    check("graph g\n}", Some(1), "expected `{`");
    check("graph g {\n} }", Some(2), "the end of the line");
    check("graph g {\n}\ngraph h {\n}", Some(3), "the end of the text");
    check("graph g {\n}\nweights {", None, "ends inside its weights");
    check(
        "graph g {\n}\nweights {\n}\n}",
        Some(5),
        "the end of the text",
    );
    check(
        "graph g {\n}\nweights {\n w : f32[1]\n}",
        Some(4),
        "expected `@`",
    );
    check(
        "graph g {\n}\nweights {\n @w : f31[1]\n}",
        Some(4),
        "unknown element type",
    );
    check(
        "graph g {\n}\nweights {\n @w : f32[1] 01234\n}",
        Some(4),
        "12 hexadecimal",
    );
    check(
        "graph g {\n}\nweights {\n @w : f32[1] 0123456789abc\n}",
        Some(4),
        "12 hexadecimal",
    );
    check(
        "graph g {\n}\nweights {\n @w : f32[1]\n @w : f32[1]\n}",
        Some(5),
        "declared twice",
    );

    let inside = |lines: &str, line: usize, expected: &str| {
        let text = format!(
            "graph g {{\n  %x = input : f32[N, 4, 8, 8]\n{lines}\n}}\nweights {{\n  @c.weight : \
             f32[4, 4, 1, 1]\n}}\n"
        );
        check(&text, Some(2 + line), expected);
    };
    inside("  x = input : f32[1]", 1, "expected `%`");
    inside("  %é = input : f32[1]", 1, "expected a name");
    inside("  %x = input : f32[1]", 1, "two nodes have the same name");
    inside("  %y = input(%x) : f32[1]", 1, "no operands");
    inside("  %y = input : f32[1], f32[1]", 1, "one type");
    inside(
        "  %y = input size=3 : f32[1]",
        1,
        "unknown attribute `size`",
    );
    inside("  %y = input : i64[1]", 1, "neither float32 nor float16");
    inside(
        "  %y = cast(%x) to=f15 : f32[N, 4, 8, 8]",
        1,
        "unknown element type `f15`",
    );
    inside(
        "  %y = cast(%x) to=i8 : i8[N, 4, 8, 8]",
        1,
        "neither float32 nor float16",
    );
    inside("  %y = input : f32[0]", 1, "no elements");
    inside(
        "  %y = input : f32[4294967296, 4294967296]",
        1,
        "too many elements",
    );
    inside(
        "  %y = input : f32[99999999999999999999]",
        1,
        "not a dimension",
    );
    inside("  %y = input : f32[4M]", 1, "not a dimension");
    inside("  %y = input : f32[1", 1, "expected `,`");
    inside("  %y silu(%x) : f32[1]", 1, "expected `=`");
    inside("  %y = relu(%x) : f32[1]", 1, "unknown op `relu`");
    inside("  %y = silu(%x, ) : f32[1]", 1, "expected `%`");
    inside(
        "  %y = silu(%z) : f32[1]",
        1,
        "no value `%z` is defined above",
    );
    inside("  %y = silu(%x#1) : f32[1]", 1, "no value `%x#1`");
    inside("  %y = silu(%y) : f32[1]", 1, "no value `%y`");
    inside(
        "  %y = silu(%x#99999999999999999999) : f32[1]",
        1,
        "a smaller number",
    );
    inside("  %y = silu(%x)", 1, "expected a name");
    inside(
        "  %y = silu(%x) : f32[N, 4, 8, 9]",
        1,
        "declares f32[N, 4, 8, 9] but computes",
    );
    inside(
        "  %y = silu(%x) : f32[N, 4, 8, 8] x",
        1,
        "the end of the line",
    );
    inside("  %y = silu : f32[N, 4, 8, 8]", 1, "takes 1 inputs, not 0");
    inside(
        "  %y = silu(%x) [weight] : f32[1]",
        1,
        "silu takes no weight `weight`",
    );
    inside(
        "  %c = conv2d(%x) [weight, weight] : f32[1]",
        1,
        "is given twice the weight",
    );
    inside("  %c = conv2d(%x) : f32[1]", 1, "lacks the weight `weight`");
    inside(
        "  %y = conv2d(%x) [weight] : f32[1]",
        1,
        "no weight of this name",
    );
    inside(
        "  %y = conv2d(%x) [weight=c.weight] : f32[1]",
        1,
        "expected `.` or `@` and a key",
    );
    inside(
        "  %y = conv2d(%x) [weight=.weight] : f32[1]",
        1,
        "no weight of this name",
    );
    // A statement of several lines is named by its first.
    inside(
        "\n  %c = conv2d(%x) [\n    weight=@c.weight\n  ] stride=0 : f32[1]",
        2,
        "stride",
    );
    inside("\n  %c = conv2d(%x) [\n    weight", 2, "expected `,`");
    inside(
        "  %c = conv2d(%x) [weight] stride=1 stride=1 : f32[1]",
        1,
        "given twice",
    );
    inside(
        "  %c = conv2d(%x) [weight] stride=1.5 : f32[1]",
        1,
        "should be an integer",
    );
    inside(
        "  %c = conv2d(%x) [weight] stride=-1 : f32[1]",
        1,
        "should be an integer",
    );
    inside(
        "  %c = conv2d(%x) [weight] act=relu : f32[1]",
        1,
        "none of none, silu, gelu",
    );
    inside(
        "  %c = conv2d(%x) [weight] dilation=2 : f32[1]",
        1,
        "unknown attribute `dilation`",
    );
    inside(
        "  %y = scale(%x) : f32[N, 4, 8, 8]",
        1,
        "lacks the attribute `factor`",
    );
    inside(
        "  %y = scale(%x) factor=NaN : f32[1]",
        1,
        "should be a number",
    );
    inside(
        "  %y = scale(%x) factor=1e999 : f32[1]",
        1,
        "should be a number",
    );
    inside("  %y = scale(%x) factor= : f32[1]", 1, "expected a value");
    inside(
        "  %y = crop(%x) size=4 : f32[1]",
        1,
        "should be two integers",
    );
    inside(
        "  %y = crop(%x) size=4x4x4 : f32[1]",
        1,
        "should be two integers",
    );
    inside(
        "  %y = split(%x) sizes=2xx2 : f32[1]",
        1,
        "integers joined by `x`",
    );
    inside(
        "  %y = matmul(%x, %x) transpose_b=no : f32[1]",
        1,
        "can only be `yes`",
    );
    inside(
        "  %y = identity(%x) : f32[N, 4, 8, 8]",
        1,
        "names no function",
    );
    inside("\n\n  return = %x", 3, "expected a name");
    inside("  return r %x", 1, "expected `=`");
    inside("  return r = %y", 1, "no value `%y`");
    inside("  returned = %x", 1, "expected `return`");
}
