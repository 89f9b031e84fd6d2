//! Models through every runtime that is here: outputs, faults, and files nobody should trust.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests tell what they measured and what they skipped"
)]

mod hostile;
mod models;
mod outputs;
mod reference;
mod tensorrt_rtx;

use std::path::PathBuf;

use emoc_ir::Result;
use emoc_runtimes::{Found, NamedTensor, OnnxModel, Options, Runtime, all};

/// tract, and ONNX Runtime if `scripts/fetch-onnxruntime` has been run.
fn runtimes() -> Vec<Box<dyn Runtime>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let options = Options {
        onnxruntime_dir: Some(root.join(".onnxruntime")),
        ..Options::default()
    };
    let rows = all(&options).expect("nothing is demanded");
    let ready = rows.into_iter().filter_map(|row| match row {
        Found::Ready(runtime) => Some(runtime),
        Found::Missing(missing) => {
            eprintln!(
                "skipped: {} ({}); {}",
                missing.name, missing.reason, missing.help
            );
            None
        }
    });
    ready.collect()
}

fn tensor(name: &str, shape: &[usize], data: &[f32]) -> NamedTensor {
    NamedTensor::new(name, shape.to_vec(), data.to_vec()).expect("shape and data agree")
}

/// One inference from the file's bytes.
fn run(runtime: &dyn Runtime, bytes: &[u8], inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>> {
    let model = OnnxModel::read(bytes)?;
    let facts: Vec<_> = inputs.iter().map(NamedTensor::fact).collect();
    runtime.load(&model.bind(&facts)?, 1)?.run(inputs)
}

/// Every runtime, and the gate before them, refuses with a message that contains `reason`.
#[track_caller]
fn check_error(bytes: &[u8], inputs: &[NamedTensor], reason: &str) {
    for runtime in runtimes() {
        let name = runtime.name();
        match run(&*runtime, bytes, inputs) {
            Ok(outputs) => panic!("{name} ran to {outputs:?}, expected: {reason}"),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(reason), "{name}: {text}\nlacks: {reason}");
            }
        }
    }
}
