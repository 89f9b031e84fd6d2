//! The process of a candidate: an ONNX file in one runtime, run when it is asked for.

use std::{io, path::PathBuf};

use clap::Args;
use emoc_ir::{Diagnostic, Kind, Result, seeded};
use emoc_runtimes::{Found, InputFact, NamedTensor, TrustedModel, serve};

use crate::agreement::{self, MAX_INPUT};

#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// The ONNX file
    file: PathBuf,
    /// The runtime, as reports call it
    #[arg(long)]
    engine: String,
    /// The input's name
    #[arg(long, allow_hyphen_values = true)]
    input: String,
    /// Sizes of the input's axes
    #[arg(long, value_delimiter = ',', required = true)]
    shape: Vec<usize>,
    /// Threads to compute on
    #[arg(long)]
    threads: usize,
    /// The library of ONNX Runtime
    #[arg(long)]
    onnxruntime_lib: Option<PathBuf>,
}

/// # Errors
/// The runtime is not there, or refuses the model.
pub fn work(args: &WorkerArgs) -> Result<()> {
    let values = args
        .shape
        .iter()
        .try_fold(1, |n: usize, &size| n.checked_mul(size));
    if values.is_none_or(|values| values > MAX_INPUT) {
        return Err(Diagnostic::input("the input is too large to measure"));
    }
    let places = agreement::places(args.onnxruntime_lib.clone());
    let runtime = match emoc_runtimes::find(&args.engine, &places)? {
        Found::Ready(runtime) => runtime,
        Found::Missing(missing) => {
            let message = format!("{}: {}", missing.name, missing.reason);
            return Err(Diagnostic::new(Kind::RuntimeMissing, message));
        }
    };
    let input = InputFact {
        name: args.input.clone(),
        shape: args.shape.clone(),
    };
    // Only the runtime's own memory and time are to be seen.
    let model = TrustedModel::File(&args.file);
    let mut session = runtime.load_trusted(model, std::slice::from_ref(&input), args.threads)?;
    let values = seeded::values("input", &input.shape, 0);
    let input = NamedTensor::new(&input.name, input.shape, values)?;
    let (requests, answers) = (io::stdin().lock(), io::stdout().lock());
    serve(&mut *session, &[input], requests, answers)
}
