//! The crate against the values that emoc's reference evaluator gave for this network.

use @{module} as network;

use network::{INPUT_LEN, Input, Model, Workspace};

/// Every how manieth output value is in `golden.bin`.
const STRIDE: usize = @{stride};

/// The pseudo-random picture that emoc checks with: FNV-1a of "input", then splitmix64.
fn picture() -> Box<Input> {
    let mut state = b"input"
        .iter()
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
        });
    let value = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        let unit = ((z ^ z >> 31) >> 40) as f32 / (1 << 24) as f32;
        2.0 * (2.0 * unit - 1.0)
    };
    let values: Vec<f32> = std::iter::repeat_with(value).take(INPUT_LEN).collect();
    values
        .into_boxed_slice()
        .try_into()
        .expect("an input's length")
}

fn expected() -> Vec<f32> {
    let bytes = include_bytes!("golden.bin").chunks_exact(4);
    bytes
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

#[test]
fn outputs_are_the_reference_s() {
    let expected = expected();
    let mean = expected.iter().sum::<f32>() / expected.len() as f32;
    let variance = expected.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / expected.len() as f32;
    let tolerance = 1e-4 * variance.sqrt().max(1.0);
    let output = Model::with_threads(1).infer(&picture());
    let actual: Vec<f32> = output.values().step_by(STRIDE).collect();
    assert_eq!(actual.len(), expected.len());
    for (index, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
        let difference = (actual - expected).abs();
        assert!(
            difference <= tolerance,
            "value {index} is {actual}, expected {expected}"
        );
    }
}

#[test]
fn threads_and_workspaces_do_not_change_a_bit() {
    let picture = picture();
    let one = Model::with_threads(1).infer(&picture);
    for threads in [2, 3, 5] {
        let model = Model::with_threads(threads);
        let mut workspace = Workspace::new(&model);
        for _ in 0..2 {
            let output = model.infer_with(&mut workspace, &picture);
            let equal = one
                .values()
                .zip(output.values())
                .all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(equal, "{threads} threads");
        }
    }
}

#[test]
fn a_model_is_shared_and_a_workspace_moves() {
    fn shared<T: Send + Sync>() {}
    fn moves<T: Send>() {}
    shared::<Model>();
    moves::<Workspace>();
}
