//! PyTorch's own export of 5M at 224, with the seeded weights and input, against the logits that
//! PyTorch computed.

use std::{fs, path::PathBuf};

use emoc_runtimes::{NamedTensor, OnnxModel, Tolerance, all_agree, compare_all, time_runs};

use crate::{runtimes, tensor};

/// Element `i` of the seeded input: 2s, s in [-1, 1) from the `(i + 1)`-th splitmix64 output
/// after the state FNV-1a-64("input").
fn seeded_input(count: usize) -> Vec<f32> {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let mut state = b"input".iter().fold(0xcbf2_9ce4_8422_2325, fnv);
    let mut next = || {
        state = u64::wrapping_add(state, 0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let u = ((z ^ (z >> 31)) >> 40) as f32 * 2_f32.powi(-24);
        2.0 * (2.0 * u - 1.0)
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn exported_5m_agrees_with_pytorch_in_every_runtime() {
    let Some(folder) = std::env::var_os("EMOC_REFERENCE_DIR").map(PathBuf::from) else {
        eprintln!("skipped: EMOC_REFERENCE_DIR is not set");
        return;
    };
    let read = |name: &str| fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let bytes = read("baseline/emo2_5m_224_torch_dynamo_onnxslim.onnx");
    let model = OnnxModel::read(&bytes).unwrap();
    let ([input], [output]) = (model.inputs(), model.outputs()) else {
        panic!(
            "one input, one output: {:?} {:?}",
            model.inputs(),
            model.outputs()
        );
    };
    let input = [tensor(
        &input.name,
        &[1, 3, 224, 224],
        &seeded_input(3 * 224 * 224),
    )];
    let logits = read("seeded/emo2_5m_224.logits.f32");
    let logits = logits
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let expected = NamedTensor::new(&output.name, vec![1, 1000], logits.collect()).unwrap();

    let bound = model.bind(&[input[0].fact()]).unwrap();
    for runtime in runtimes() {
        let mut session = runtime.load(&bound, 1).unwrap();
        let outputs = session.run(&input).unwrap();
        let found = compare_all(
            std::slice::from_ref(&expected),
            &outputs,
            Tolerance::FLOAT32,
        );
        let timing = time_runs(&mut *session, &input, 3).unwrap();
        println!(
            "{} {}: {found:?} {timing:?}",
            runtime.name(),
            runtime.version()
        );
        assert!(all_agree(&found), "{}: {found:?}", runtime.name());
        let top5 = found[0].top5.expect("logits have a ranking");
        assert_eq!((top5.agree, top5.of), (5, 5));
    }
}
