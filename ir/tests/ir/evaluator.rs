//! What the reference evaluator accepts, and that nothing recurses over a graph.

use emoc_ir::{
    Dim, Graph, TensorType,
    ops::{Act, Op},
    parse,
    reference::{Precision, Tensor, evaluate},
};

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::from_f32(shape, &vec![0.0; shape.iter().product()])
}

#[test]
fn inputs_that_do_not_fit() {
    let graph = |op: &str| {
        let text = format!(
            "graph g {{\n %x = input : f32[2N, 1, 4, 4]\n %y = input : f32[N, 3]\n %r = {op}\n \
             return r = %r\n return y = %y\n}}"
        );
        parse(&text)
            .expect("a graph")
            .verify()
            .expect("well-formed")
    };
    let check = |op: &str, inputs: &[Tensor], expected: Result<&[usize], &str>| match (
        evaluate(&graph(op), inputs, Precision::F32),
        expected,
    ) {
        (Ok(results), Ok(shape)) => assert_eq!(results[0].shape, shape),
        (Err(error), Err(fragment)) => {
            assert!(error.message.contains(fragment), "{error}");
        }
        (Ok(_), Err(fragment)) => panic!("accepted, not refused with `{fragment}`"),
        (Err(error), Ok(_)) => panic!("{error}"),
    };
    let silu = "silu(%x) : f32[2N, 1, 4, 4]";
    let [x, y] = [zeros(&[6, 1, 4, 4]), zeros(&[3, 3])];
    check(silu, &[x.clone(), y.clone()], Ok(&[6, 1, 4, 4]));
    check(
        silu,
        std::slice::from_ref(&x),
        Err("2 inputs are needed, 1 given"),
    );
    check(
        silu,
        &[x.clone(), zeros(&[2, 3])],
        Err("[2, 3] and 6 elements is not f32[N, 3]"),
    );
    check(
        silu,
        &[zeros(&[5, 1, 4, 4]), zeros(&[2, 3])],
        Err("is not f32[2N, 1, 4, 4]"),
    );
    check(
        silu,
        &[zeros(&[0, 1, 4, 4]), zeros(&[0, 3])],
        Err("is not f32[2N, 1, 4, 4]"),
    );
    let short = Tensor {
        data: vec![0.0; 5],
        ..x.clone()
    };
    check(silu, &[short, y.clone()], Err("and 5 elements"));
    let huge = "pad(%x) bottom=65532 right=65532 : f32[2N, 1, 65536, 65536]";
    check(
        huge,
        &[x, y],
        Err("25769803776 elements is too large to evaluate"),
    );
}

#[test]
fn a_very_deep_graph() {
    let mut graph = Graph::new("deep");
    let ty = TensorType::f32([Dim::Fixed(1), Dim::Fixed(1)]);
    let mut value = graph.add_input("x", ty).expect("an input");
    for i in 0..100_000 {
        let op = Op::Activation(Act::Silu);
        let node = graph.add(&format!("n{i}"), op, &[value], &[]);
        value = node.expect("a node").into();
    }
    graph.add_output("r", value);
    let parsed = parse(&graph.to_string()).expect("a graph");
    assert!(parsed == graph);
    let graph = parsed.verify().expect("well-formed");
    let result = evaluate(&graph, &[zeros(&[1, 1])], Precision::F32);
    assert_eq!(result.expect("an evaluation")[0].data, [0.0]);
}
