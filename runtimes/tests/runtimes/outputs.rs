//! What runtimes answer on sound models, and how wrong inputs and outputs are reported.

use emoc_runtimes::{OnnxModel, Tolerance, Verdict, compare, time_runs};
use tract_onnx::pb::tensor_proto::DataType;

use crate::{check_error, models, run, runtimes, tensor};

#[test]
fn inputs_and_outputs_go_by_name() {
    let model = models::bytes(&models::two_inputs());
    let (a, b) = (
        tensor("a", &[2], &[5.0, 7.0]),
        tensor("b", &[2], &[1.0, 2.0]),
    );
    let expected = [
        tensor("difference", &[2], &[4.0, 5.0]),
        tensor("sum", &[2], &[6.0, 9.0]),
    ];
    for runtime in runtimes() {
        for inputs in [[a.clone(), b.clone()], [b.clone(), a.clone()]] {
            let outputs = run(&*runtime, &model, &inputs).unwrap();
            assert_eq!(outputs, expected, "{}", runtime.name());
        }
    }
}

#[test]
fn a_symbolic_batch_takes_its_size_from_the_run() {
    let model = models::bytes(&models::two_layers());
    for runtime in runtimes() {
        for batch in [1, 3] {
            let input = tensor("input", &[batch, 2], &[2.0, -1.0].repeat(batch));
            let outputs = run(&*runtime, &model, &[input]).unwrap();
            let stage1 = tensor("stage1", &[batch, 2], &[2.0, 0.0].repeat(batch));
            let logits = tensor("logits", &[batch, 3], &[2.5, 4.25, 6.125].repeat(batch));
            assert_eq!(outputs, [stage1, logits], "{}", runtime.name());
        }
    }
}

#[test]
fn the_model_says_what_it_takes() {
    let bytes = models::bytes(&models::two_layers());
    let model = OnnxModel::read(&bytes).unwrap();
    let [input] = model.inputs() else {
        panic!("initializers are no inputs: {:?}", model.inputs());
    };
    assert_eq!(input.name, "input");
    assert_eq!(input.dtype, "FLOAT");
    assert_eq!(input.shape, Some(vec![None, Some(2)]));
    let names: Vec<_> = model.outputs().iter().map(|out| &*out.name).collect();
    assert_eq!(names, ["stage1", "logits"]);
}

#[test]
fn wrong_inputs_are_named() {
    let model = models::bytes(&models::two_layers());
    let input = tensor("input", &[1, 2], &[1.0, 2.0]);
    let other = tensor("image", &[1, 2], &[1.0, 2.0]);
    let cases = [
        (
            vec![tensor("input", &[1, 3], &[0.0; 3])],
            "`input` has shape [?, 2] in the model and [1, 3] in this run",
        ),
        (
            vec![tensor("input", &[2], &[0.0; 2])],
            "in the model and [2] in this run",
        ),
        (
            vec![tensor("input", &[0, 2], &[])],
            "`input` cannot have shape [0, 2]",
        ),
        (vec![], "`input` is missing"),
        (vec![other.clone()], "`image` is no input of the model"),
        (
            vec![input.clone(), other],
            "`image` is no input of the model",
        ),
        (vec![input.clone(), input.clone()], "`input` is given twice"),
    ];
    for (inputs, reason) in cases {
        check_error(&model, &inputs, reason);
    }

    // Loaded for one batch, run with another.
    let parsed = OnnxModel::read(&model).unwrap();
    let bound = parsed.bind(&[input.fact()]).unwrap();
    for runtime in runtimes() {
        let mut session = runtime.load(&bound, 1).unwrap();
        let two = tensor("input", &[2, 2], &[0.0; 4]);
        let error = session.run(&[two]).unwrap_err().to_string();
        assert!(
            error.contains("was loaded for [1, 2]"),
            "{}: {error}",
            runtime.name()
        );
        session
            .run(std::slice::from_ref(&input))
            .expect("the session is still good");
    }
}

#[test]
fn nan_comes_out_as_nan_and_disagrees() {
    let model = models::bytes(&models::one(
        models::node("Log", &["input"], "logits"),
        models::float("logits", &[2]),
    ));
    let expected = tensor("logits", &[2], &[0.0, 0.0]);
    for runtime in runtimes() {
        let outputs = run(&*runtime, &model, &[tensor("input", &[2], &[1.0, -1.0])]).unwrap();
        let found = compare(&expected, &outputs[0], Tolerance::FLOAT32);
        let Verdict::Disagrees(why) = &found.verdict else {
            panic!("{}: {found:?}", runtime.name());
        };
        assert!(
            why.contains("1 values that are not finite, first at [1]"),
            "{why}"
        );
    }
}

#[test]
fn what_cannot_be_checked_is_refused() {
    let input = [tensor("input", &[2], &[1.0, 2.0])];
    let mut index = models::node("ArgMax", &["input"], "label");
    let integer = models::one(index.clone(), models::value("label", DataType::Int64, &[1]));
    check_error(&models::bytes(&integer), &input, "output `label` has type");

    index.op_type = "Frobnicate".into();
    let unknown = models::one(index, models::float("label", &[2]));
    check_error(&models::bytes(&unknown), &input, "Frobnicate");

    let half = models::model(
        &[models::value("input", DataType::Float16, &[2])],
        &[],
        &[models::node("Relu", &["input"], "logits")],
        &[models::value("logits", DataType::Float16, &[2])],
    );
    check_error(&models::bytes(&half), &input, "`input` has type FLOAT16");
}

#[test]
fn threads_are_told_and_runs_repeat_to_the_bit() {
    let bytes = models::bytes(&models::two_layers());
    let model = OnnxModel::read(&bytes).unwrap();
    let input = [tensor("input", &[1, 2], &[0.1, 0.7])];
    let bound = model.bind(&[input[0].fact()]).unwrap();
    for runtime in runtimes() {
        for (asked, most) in [(0, 1), (1, 1), (2, 2)] {
            let mut session = runtime.load(&bound, asked).unwrap();
            let used = session.threads();
            assert!(
                (1..=most).contains(&used),
                "{}: {used} threads",
                runtime.name()
            );
            let first = session.run(&input).unwrap();
            assert_eq!(first, session.run(&input).unwrap(), "{}", runtime.name());
            let timing = time_runs(&mut *session, &input, 3).unwrap();
            assert!(
                timing.min <= timing.median && timing.runs == 3,
                "{timing:?}"
            );
        }
        let version = runtime.version();
        let digits = version.starts_with(|c: char| c.is_ascii_digit());
        assert!(
            digits && version.contains('.'),
            "{}: {version}",
            runtime.name()
        );
    }
}
