//! The shape rule of every op.

use emoc_ir::{Graph, Weight, parse};

use crate::generate::ty;

const MAX: &str = "18446744073709551615";

/// Checks the types of an op's results, or the reason why it refuses its operands.
#[track_caller]
fn check(op: &str, inputs: &[&str], weights: &[(&str, &str)], expected: Result<&[&str], &str>) {
    let mut text = String::from("graph g {\n");
    for (i, shape) in inputs.iter().enumerate() {
        text += &format!("  %x{i} = input : f32{shape}\n");
    }
    let (mnemonic, attributes) = op.split_once(' ').unwrap_or((op, ""));
    let operands: Vec<_> = (0..inputs.len()).map(|i| format!("%x{i}")).collect();
    let operands = if inputs.is_empty() {
        String::new()
    } else {
        format!("({})", operands.join(", "))
    };
    let slots: Vec<_> = weights.iter().map(|(slot, _)| *slot).collect();
    let slots = if slots.is_empty() {
        String::new()
    } else {
        format!(" [{}]", slots.join(", "))
    };
    let types: Vec<_> = expected
        .unwrap_or(&["[1]"])
        .iter()
        .map(|shape| format!("f32{shape}"))
        .collect();
    let types = types.join(", ");
    text += &format!(
        "  %y = {mnemonic}{operands}{slots} {attributes} : {types}\n  return r = %y\n}}\nweights {{\n"
    );
    for (slot, shape) in weights {
        text += &format!("  @y.{slot} : f32{shape}\n");
    }
    text += "}\n";
    match (parse(&text), expected) {
        (Ok(_), Ok(_)) => {}
        (Err(e), Err(fragment)) => {
            assert!(
                e.message.contains(fragment),
                "`{fragment}` is not in: {e}\n{text}"
            );
        }
        (Ok(_), Err(fragment)) => panic!("accepted, not refused with `{fragment}`:\n{text}"),
        (Err(e), Ok(_)) => panic!("{e}\n{text}"),
    }
}

const IMAGE: &[&str] = &["[N, 4, 9, 8]"];

#[test]
fn convolution() {
    let conv = |op: &str, x: &str, weights: &[(&str, &str)], expected: Result<&str, &str>| {
        match expected {
            Ok(shape) => check(op, &[x], weights, Ok(&[shape])),
            Err(fragment) => check(op, &[x], weights, Err(fragment)),
        }
    };
    let w3 = ("weight", "[6, 4, 3, 3]");
    conv("conv2d", "[N, 4, 9, 8]", &[w3], Ok("[N, 6, 7, 6]"));
    conv(
        "conv2d padding=1",
        "[2, 4, 9, 8]",
        &[w3, ("bias", "[6]")],
        Ok("[2, 6, 9, 8]"),
    );
    conv(
        "conv2d stride=2 padding=1 act=gelu",
        "[4N, 4, 9, 8]",
        &[w3],
        Ok("[4N, 6, 5, 4]"),
    );
    conv(
        "conv2d groups=4",
        "[N, 4, 3, 3]",
        &[("weight", "[8, 1, 3, 2]")],
        Ok("[N, 8, 1, 2]"),
    );
    conv(
        "conv2d",
        "[N, 5, 9, 8]",
        &[w3],
        Err("does not fit 5 channels"),
    );
    conv(
        "conv2d groups=2",
        "[N, 4, 9, 8]",
        &[w3],
        Err("in 2 groups does not fit"),
    );
    conv(
        "conv2d groups=4",
        "[N, 4, 3, 3]",
        &[("weight", "[6, 1, 3, 3]")],
        Err("in 4 groups"),
    );
    conv("conv2d groups=0", "[N, 4, 9, 8]", &[w3], Err("in 0 groups"));
    conv(
        "conv2d stride=0",
        "[N, 4, 9, 8]",
        &[w3],
        Err("a stride of at least 1"),
    );
    conv(
        "conv2d",
        "[N, 4, 2, 8]",
        &[w3],
        Err("a 3x3 kernel does not fit a 2x8 map"),
    );
    conv(
        "conv2d",
        "[N, 4, 9, 8]",
        &[w3, ("bias", "[5]")],
        Err("`bias` should have shape [6], not [5]"),
    );
    conv(
        "conv2d",
        "[N, 4, 9, 8]",
        &[("weight", "[6, 4, 3]")],
        Err("should be [O, I, H, W]"),
    );
    conv(
        "conv2d",
        "[N, 4, 9, 8]",
        &[("weight", "[6, 4, N, 1]")],
        Err("depends on the batch"),
    );
    conv("conv2d", "[N, 4, 9]", &[w3], Err("needs an image"));
    conv("conv2d", "[N, 4, 9, 2N]", &[w3], Err("needs an image"));
    for huge in [
        MAX,
        "9223372036854775807",
        "9223372036854775804",
        "1099511627776",
    ] {
        conv(
            &format!("conv2d padding={huge}"),
            "[N, 4, 9, 8]",
            &[w3],
            Err(""),
        );
        conv(
            &format!("conv2d groups={huge}"),
            "[N, 4, 9, 8]",
            &[w3],
            Err("does not fit"),
        );
        conv(
            &format!("conv2d stride={huge} padding=1"),
            "[N, 4, 9, 8]",
            &[w3],
            Ok("[N, 6, 1, 1]"),
        );
    }
}

#[test]
fn elementwise_and_layout() {
    let one = |op: &str, weights: &[(&str, &str)], expected: Result<&str, &str>| match expected {
        Ok(shape) => check(op, IMAGE, weights, Ok(&[shape])),
        Err(fragment) => check(op, IMAGE, weights, Err(fragment)),
    };
    let same = Ok("[N, 4, 9, 8]");
    let norm = [
        ("weight", "[4]"),
        ("bias", "[4]"),
        ("running_mean", "[4]"),
        ("running_var", "[4]"),
    ];
    one("batch_norm eps=1e-6", &norm, same);
    one(
        "batch_norm eps=1e-6",
        &norm[..3],
        Err("lacks the weight `running_var`"),
    );
    one(
        "batch_norm eps=1e-6",
        &[norm[0], norm[1], norm[2], ("running_var", "[5]")],
        Err("[4], not [5]"),
    );
    one("layer_norm eps=1e-6", &norm[..2], same);
    one("layer_norm eps=1e-6", &[], same);
    one(
        "layer_norm eps=1e-6",
        &[("bias", "[9]")],
        Err("`bias` should have shape [4]"),
    );
    one("layer_scale", &[("gamma", "[1, 4, 1, 1]")], same);
    one(
        "layer_scale",
        &[("gamma", "[4]")],
        Err("should have shape [1, 4, 1, 1]"),
    );
    one("silu", &[], same);
    one("gelu", &[], same);
    one("softmax", &[], same);
    one("scale factor=2.5", &[], same);
    one("pad bottom=1 right=0", &[], Ok("[N, 4, 10, 8]"));
    one(
        &format!("pad bottom={MAX} right=0"),
        &[],
        Err("pads too much"),
    );
    one(
        "pad bottom=1099511627776 right=0",
        &[],
        Err("too many elements"),
    );
    one("crop size=3x8", &[], Ok("[N, 4, 3, 8]"));
    one("crop size=3x9", &[], Err("cannot crop 9x8 to 3x9"));
    one("crop size=0x8", &[], Err("no elements"));
    one("split sizes=4", &[], same);
    one("split sizes=3x2", &[], Err("do not make up 4 channels"));
    one(
        &format!("split sizes={MAX}x5"),
        &[],
        Err("do not make up 4 channels"),
    );
    one("split sizes=4x0", &[], Err("no elements"));
    one("global_avg_pool", &[], Ok("[N, 4]"));
    check(
        "split sizes=1x3",
        IMAGE,
        &[],
        Ok(&["[N, 1, 9, 8]", "[N, 3, 9, 8]"]),
    );
    check("add", &["[N, 4]", "[N, 4]"], &[], Ok(&["[N, 4]"]));
    check(
        "add",
        &["[N, 4]", "[4, 4]"],
        &[],
        Err("cannot add f32[N, 4] and f32[4, 4]"),
    );
    check("add", &["[N, 4]"], &[], Err("takes 2 inputs, not 1"));
    check("constant", &[], &[("value", "[3, 1]")], Ok(&["[3, 1]"]));
    check(
        "constant",
        &[],
        &[("value", "[0]")],
        Err("`value` whose type f32[0] has no elements"),
    );
    check("global_avg_pool", &["[N, 4]"], &[], Err("needs an image"));
    check("silu", &["[]"], &[], Ok(&["[]"]));
}

#[test]
fn windows() {
    let part = |attributes: &str| format!("window_partition grouping=close {attributes}");
    check(
        &part("window=3x4 heads=2"),
        IMAGE,
        &[],
        Ok(&["[6N, 2, 12, 2]"]),
    );
    check(
        &part("window=9x8 heads=4"),
        &["[2, 4, 9, 8]"],
        &[],
        Ok(&["[2, 4, 72, 1]"]),
    );
    check(
        &part("window=2x4 heads=2"),
        IMAGE,
        &[],
        Err("2x4 windows do not tile a 9x8 map"),
    );
    check(&part("window=0x4 heads=2"), IMAGE, &[], Err("do not tile"));
    check(
        &part("window=3x4 heads=3"),
        IMAGE,
        &[],
        Err("4 channels do not split into 3 heads"),
    );
    check(&part("window=3x4 heads=0"), IMAGE, &[], Err("into 0 heads"));
    check(
        &part(&format!("window={MAX}x4 heads=1")),
        IMAGE,
        &[],
        Err("do not tile"),
    );
    let half = "1048576N";
    check(
        &part("window=1x1 heads=1"),
        &[&format!("[{half}, 1, 1024, 1024]")],
        &[],
        Ok(&["[1099511627776N, 1, 1, 1]"]),
    );

    let merge = |attributes: &str| format!("window_merge grouping=remote {attributes}");
    let tokens: &[&str] = &["[6N, 2, 12, 2]"];
    check(
        &merge("window=3x4 heads=2 size=9x8"),
        tokens,
        &[],
        Ok(&["[N, 4, 9, 8]"]),
    );
    check(
        &merge("window=3x4 heads=2 size=3x8"),
        tokens,
        &[],
        Ok(&["[3N, 4, 3, 8]"]),
    );
    check(
        &merge("window=3x4 heads=2 size=12x8"),
        tokens,
        &[],
        Err("does not hold whole maps of 8 windows"),
    );
    check(
        &merge("window=3x4 heads=1 size=9x8"),
        tokens,
        &[],
        Err("needs [windows, 1, 12, channels]"),
    );
    check(
        &merge("window=3x3 heads=2 size=9x9"),
        tokens,
        &[],
        Err("needs [windows, 2, 9, channels]"),
    );
    check(
        &merge("window=3x4 heads=2 size=0x8"),
        tokens,
        &[],
        Err("do not tile"),
    );
    check(
        &merge("window=3x4 heads=2 size=9x6"),
        tokens,
        &[],
        Err("do not tile"),
    );
    check(
        &merge(&format!("window=1x1 heads=2 size={MAX}x{MAX}")),
        tokens,
        &[],
        Err("do not tile"),
    );
    check(
        &merge(&format!("window={MAX}x{MAX} heads=2 size={MAX}x{MAX}")),
        tokens,
        &[],
        Err("do not tile"),
    );
    check(
        &merge(&format!("window={MAX}x{MAX} heads=2 size=0x0")),
        tokens,
        &[],
        Err("do not tile"),
    );
}

#[test]
fn products() {
    check(
        "matmul",
        &["[N, 2, 3]", "[N, 3, 5]"],
        &[],
        Ok(&["[N, 2, 5]"]),
    );
    check(
        "matmul transpose_b=yes",
        &["[N, 2, 3]", "[N, 5, 3]"],
        &[],
        Ok(&["[N, 2, 5]"]),
    );
    check("matmul", &["[2, 3]", "[3, N]"], &[], Ok(&["[2, N]"]));
    check(
        "matmul",
        &["[N, 2, 3]", "[N, 5, 3]"],
        &[],
        Err("cannot multiply f32[N, 2, 3] by f32[N, 5, 3]"),
    );
    check(
        "matmul",
        &["[N, 2, 3]", "[2N, 3, 5]"],
        &[],
        Err("cannot multiply"),
    );
    check(
        "matmul",
        &["[N, 2, 3]", "[3, 5]"],
        &[],
        Err("cannot multiply"),
    );
    check("matmul", &["[3]", "[3]"], &[], Err("cannot multiply"));
    check(
        "matmul",
        &["[1073741824, 1]", "[1, 1073741824]"],
        &[],
        Err("too many elements"),
    );
    check(
        "linear",
        &["[N, 3]"],
        &[("weight", "[5, 3]"), ("bias", "[5]")],
        Ok(&["[N, 5]"]),
    );
    check(
        "linear",
        &["[N, 4]"],
        &[("weight", "[5, 3]")],
        Err("weight [5, 3] does not fit"),
    );
    check(
        "linear",
        &["[N, 4, 1, 1]"],
        &[("weight", "[5, 4]")],
        Err("does not fit"),
    );
    check(
        "linear",
        &["[N, 3]"],
        &[("weight", "[5, 3]"), ("bias", "[4]")],
        Err("should have shape [5]"),
    );
}

#[test]
fn fused() {
    let projections = [("qk.weight", "[8, 4, 1, 1]"), ("v.weight", "[6, 4, 1, 1]")];
    let attention = |attributes: &str, expected: Result<&[&str], &str>| {
        check(
            &format!("window_attention attention={attributes}"),
            IMAGE,
            &projections,
            expected,
        );
    };
    attention("hybrid window=3x4 heads=2", Ok(&["[N, 6, 9, 8]"]));
    attention(
        "remote window=7x7 heads=1 scale=0.5 act=gelu",
        Ok(&["[N, 6, 9, 8]"]),
    );
    attention("close_twice window=9x8 heads=2", Ok(&["[N, 6, 9, 8]"]));
    attention("close_twice window=10x8 heads=2", Ok(&["[N, 6, 9, 8]"]));
    attention(
        "close_twice window=3x4 heads=2",
        Err("one window over the whole map"),
    );
    attention("close window=0x4 heads=2", Err("cannot use 0x4 windows"));
    attention(&format!("close window=4x{MAX} heads=2"), Err("cannot use"));
    attention(
        "close window=1099511627776x1099511627776 heads=2",
        Err("too many elements"),
    );
    attention(
        "close window=262144x262144 heads=1",
        Err("too many elements"),
    );
    attention("close window=16384x16384 heads=1", Err("scores whose type"));
    attention("close window=3x4 heads=3", Err("do not split into 3 heads"));
    attention("close window=3x4 heads=0", Err("do not split into 0 heads"));
    attention(
        "close window=3x4 heads=9223372036854775808",
        Err("do not split"),
    );
    attention(
        &format!("close window=3x4 heads={MAX}"),
        Err("do not split"),
    );
    let wide = [("qk.weight", "[8, 4, 3, 3]"), projections[1]];
    check(
        "window_attention attention=close window=3x4 heads=1",
        IMAGE,
        &wide,
        Err("`qk.weight` should be 1x1"),
    );

    let block = [
        ("expand.weight", "[8, 4, 1, 1]"),
        ("local.weight", "[8, 1, 3, 3]"),
        ("proj.weight", "[4, 8, 1, 1]"),
    ];
    let expand = |attributes: &str, expected: Result<&[&str], &str>| {
        check(&format!("i2rmb {attributes}"), IMAGE, &block, expected);
    };
    expand("stride=1 padding=1", Ok(&["[N, 4, 9, 8]"]));
    expand(
        "stride=2 padding=1 act=silu local_act=silu",
        Ok(&["[N, 4, 5, 4]"]),
    );
    expand(
        "eps=1e-6 stride=1 padding=1 inner_skip=yes residual=yes",
        Ok(&["[N, 4, 9, 8]"]),
    );
    expand(
        "stride=2 padding=1 inner_skip=yes",
        Err("a skip connects maps of different shape"),
    );
    expand(
        "stride=2 padding=1 residual=yes",
        Err("a skip connects maps of different shape"),
    );
    expand("stride=0 padding=1", Err("a stride of at least 1"));
    expand(&format!("stride=1 padding={MAX}"), Err("does not fit"));
    expand(
        "attention=close window=3x4 heads=1 stride=1 padding=1",
        Err("takes no weight `expand.weight`"),
    );
    let affine = [("norm.weight", "[4]"), block[0], block[1], block[2]];
    check(
        "i2rmb stride=1 padding=1",
        IMAGE,
        &affine,
        Err("has `norm.weight` but no norm"),
    );
    check(
        "i2rmb eps=0.1 stride=1 padding=1",
        IMAGE,
        &affine,
        Ok(&["[N, 4, 9, 8]"]),
    );
    let affine = [block[0], block[1], ("local_norm.bias", "[8]"), block[2]];
    check(
        "i2rmb stride=1 padding=1",
        IMAGE,
        &affine,
        Err("has `local_norm.bias` but no norm"),
    );
    check(
        "i2rmb stride=1 padding=1 local_eps=0.1",
        IMAGE,
        &affine,
        Ok(&["[N, 4, 9, 8]"]),
    );
    let narrow = [block[0], block[1], ("local_norm.bias", "[4]"), block[2]];
    check(
        "i2rmb stride=1 padding=1 local_eps=0.1",
        IMAGE,
        &narrow,
        Err("`local_norm.bias` should have shape [8]"),
    );
    let misfit = [block[0], ("local.weight", "[6, 1, 3, 3]"), block[2]];
    check(
        "i2rmb stride=1 padding=1",
        IMAGE,
        &misfit,
        Err("does not fit 8 channels"),
    );
}

/// Types that text could not even declare reach the rules through weights and patches.
#[test]
fn operands_of_impossible_types() {
    let check = |text: &str, fragment: &str| {
        let mut graph = Graph::new("g");
        let error = graph.add_input("x", ty(text)).expect_err("refused");
        assert!(error.message.contains(fragment), "{error}");
        graph.weights.insert("w", Weight::declared(ty(text), None));
        let op = emoc_ir::ops::Op::Constant;
        let error = graph
            .add("c", op, &[], &[("value", "w")])
            .expect_err("refused");
        assert!(error.message.contains(fragment), "{error}");
    };
    check(&format!("F32[{MAX}]"), "too many elements");
    check(
        &format!("F32[{MAX}N, {MAX}, {MAX}, 2]"),
        "too many elements",
    );
    check("F32[1048576, 1048577]", "too many elements");
    check("F32[4, 0, 4]", "no elements");
    check("F32[0N, 4]", "no elements");
    check("BF16[4]", "neither float32 nor float16");
    check("I64[4]", "neither float32 nor float16");
}
