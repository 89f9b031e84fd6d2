//! Files that nobody should trust: an error, never a panic, a hang or a large allocation.

use tract_onnx::pb::ModelProto;

use crate::{check_error, models, run, runtimes, tensor};

#[test]
fn files_that_are_no_models_are_refused() {
    let two_layers = models::bytes(&models::two_layers());
    let cases: &[(&str, &[u8], &str)] = &[
        ("empty", b"", "it holds no graph"),
        ("text", b"hello, world", "not an ONNX model"),
        (
            "picture",
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
            "not an ONNX model",
        ),
        ("zip", b"PK\x03\x04\x14\0\0\0\0\0", "not an ONNX model"),
        ("noise", &[0xff; 64], "not an ONNX model"),
        (
            "truncated",
            &two_layers[..two_layers.len() / 2],
            "not an ONNX model",
        ),
    ];
    for (name, bytes, reason) in cases {
        println!("{name}");
        check_error(bytes, &[tensor("input", &[1, 2], &[1.0, 2.0])], reason);
    }
}

#[test]
fn models_that_would_harm_a_runtime_are_refused() {
    let input = tensor("input", &[1, 2], &[1.0, 2.0]);
    let check = |model: ModelProto, reason: &str| {
        check_error(&models::bytes(&model), std::slice::from_ref(&input), reason);
    };
    let edited = |edit: fn(&mut ModelProto)| {
        let mut model = models::two_layers();
        edit(&mut model);
        model
    };
    check(models::control_flow(), "`If` carries a subgraph");
    check(
        models::external_weights(),
        "the weights are in another file",
    );
    check(
        edited(|model| model.graph.as_mut().unwrap().initializer[0].dims = vec![1 << 40, 1 << 40]),
        "is larger than the whole file",
    );
    check(
        edited(|model| model.graph.as_mut().unwrap().initializer[0].dims = vec![-1, 6]),
        "is larger than the whole file",
    );
    check(
        edited(|model| model.graph.as_mut().unwrap().output[1].name = "nowhere".into()),
        "no node produces output `nowhere`",
    );
    check(
        edited(|model| model.graph.as_mut().unwrap().output[1].name = "stage1".into()),
        "output `stage1` is listed twice",
    );
    check(
        edited(|model| model.graph.as_mut().unwrap().output.clear()),
        "the graph has no outputs",
    );
    check(edited(|model| model.graph = None), "it holds no graph");
    // The runtimes' own refusals: fewer values than the shape says, a cycle, an absent input.
    let cannot = "the model";
    check(
        edited(|model| {
            model.graph.as_mut().unwrap().initializer[0]
                .raw_data
                .truncate(8)
        }),
        cannot,
    );
    check(
        edited(|model| model.graph.as_mut().unwrap().node[0].input[0] = "logits".into()),
        cannot,
    );
    check(
        edited(|model| model.graph.as_mut().unwrap().node[0].input[0] = "nowhere".into()),
        cannot,
    );
}

/// Zeros of a shape that the file makes up: from 6 GiB, which a machine may well have, to sizes
/// that overflow and would wrap around to small ones.
#[test]
fn a_shape_out_of_the_file_is_not_believed() {
    let input = [tensor("input", &[1, 2], &[1.0, 2.0])];
    for side in [40_000, 1 << 20, 1 << 33, (1 << 32) + 1, i64::MAX, -1] {
        println!("{side} x {side}");
        let model = models::bytes(&models::zeros(side));
        check_error(&model, &input, "this program checks");
    }
}

/// Every truncation and a few thousand single changes of a small model: whatever the answer is,
/// the process lives to give it.
#[test]
fn damaged_models_never_bring_the_process_down() {
    let sound = models::bytes(&models::two_layers());
    let input = [tensor("input", &[1, 2], &[1.0, 2.0])];
    let runtimes = runtimes();
    let mut ran = 0;
    let mut check = |bytes: &[u8]| {
        for runtime in &runtimes {
            ran += usize::from(run(&**runtime, bytes, &input).is_ok());
        }
    };
    for length in 0..sound.len() {
        check(&sound[..length]);
    }
    for place in 0..sound.len() {
        for bit in [0, 3, 7] {
            let mut damaged = sound.clone();
            damaged[place] ^= 1 << bit;
            check(&damaged);
        }
    }
    // A change in a weight is no damage; if nothing ran, nothing was tested.
    assert!(ran > 0);
}
