//! ONNX Runtime: the runtime most users deploy with. It is a C++ library that is not linked but
//! looked for and loaded when emoc runs, so that building emoc needs nothing but Rust.

mod library;
mod locate;

use std::path::Path;

use emoc_ir::{Diagnostic, Kind, Result};
use ort::{
    session::{SessionInputValue, builder::GraphOptimizationLevel},
    value::{TensorRef, ValueType},
};

use crate::{
    BoundModel, Found, InputFact, Missing, NamedTensor, Options, Runtime, Session, TrustedModel,
    guard::{brief, guard},
    runtime::{not_float, order_tensors},
};
use library::Library;

/// The name of ONNX Runtime in reports.
pub const NAME: &str = "ONNX Runtime";

const HELP: &str = "run `scripts/fetch-onnxruntime` in emoc's checkout, or \
    `python3 -m pip install onnxruntime`, or pass `--onnxruntime-lib PATH` to the library";

/// Looks in the order: the demanded path, `ORT_DYLIB_PATH`, the local folder, wheels. A path that
/// somebody set is not passed over when it is wrong: a different library would answer than the
/// one they think of.
pub(crate) fn find(options: &Options) -> Result<Found> {
    if let Some(path) = &options.onnxruntime_lib {
        let refused = |why: String| {
            let fault = format!("{NAME} was demanded and cannot be used: {why}");
            Diagnostic::new(Kind::RuntimeMissing, fault)
                .file(path)
                .help(HELP)
        };
        let library =
            locate::first_usable(&locate::at(path)).map_err(|why| refused(why.join("; ")))?;
        return Ok(Found::Ready(Box::new(OnnxRuntime(library))));
    }
    let set = options.ort_dylib_path.as_ref();
    let (reason, candidates) = match set.filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => ("ORT_DYLIB_PATH cannot be used", locate::at(path)),
        None => ("no library can be used", locate::installed(options)),
    };
    Ok(match locate::first_usable(&candidates) {
        Ok(library) => Found::Ready(Box::new(OnnxRuntime(library))),
        Err(refused) => Found::Missing(Missing {
            name: NAME,
            reason: if candidates.is_empty() {
                "not found"
            } else {
                reason
            }
            .into(),
            refused,
            help: HELP.into(),
        }),
    })
}

struct OnnxRuntime(Library);

impl Runtime for OnnxRuntime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> String {
        self.0.version.clone()
    }

    fn library(&self) -> Option<&Path> {
        Some(&self.0.path)
    }

    fn load(&self, model: &BoundModel, threads: usize) -> Result<Box<dyn Session>> {
        let bytes = TrustedModel::Bytes(model.model().bytes());
        self.load_trusted(bytes, model.inputs(), threads)
    }

    fn load_trusted(
        &self,
        model: TrustedModel,
        inputs: &[InputFact],
        threads: usize,
    ) -> Result<Box<dyn Session>> {
        let threads = threads.max(1);
        let session = guard(NAME, || {
            session(&self.0, model, threads).map_err(|e| refused("load", &e))
        })?;
        for output in session.outputs() {
            if !matches!(output.dtype(), ValueType::Tensor { .. }) {
                return Err(not_float(output.name(), &output.dtype().to_string()));
            }
        }
        Ok(Box::new(OrtSession {
            session,
            inputs: inputs.to_vec(),
            threads,
        }))
    }
}

/// The settings of a user who sets none, on a given number of threads, with results that do not
/// depend on how threads interleave.
fn session(
    library: &Library,
    model: TrustedModel,
    threads: usize,
) -> ort::Result<ort::session::Session> {
    let mut builder = ort::session::Session::builder(&library.environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads)?
        .with_inter_threads(1)?
        .with_deterministic_compute(true)?
        // Faults come back as errors; the log would only repeat them.
        .with_log_level(ort::logging::LogLevel::Fatal)?;
    match model {
        TrustedModel::Bytes(bytes) => builder.commit_from_memory(bytes),
        TrustedModel::File(path) => builder.commit_from_file(path),
    }
}

struct OrtSession {
    session: ort::session::Session,
    inputs: Vec<InputFact>,
    threads: usize,
}

impl Session for OrtSession {
    fn threads(&self) -> usize {
        self.threads
    }

    fn run(&mut self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>> {
        let inputs = order_tensors(&self.inputs, inputs)?;
        guard(NAME, || {
            let failed = |error| refused("run", &error);
            let feed = inputs
                .into_iter()
                .map(|input| {
                    let value = TensorRef::from_array_view((input.shape.clone(), &*input.data))?;
                    Ok((input.name.as_str(), SessionInputValue::from(value)))
                })
                .collect::<ort::Result<Vec<_>>>()
                .map_err(failed)?;
            let outputs = self.session.run(feed).map_err(failed)?;
            let named = outputs.iter();
            named
                .map(|(name, value)| named_tensor(name, &value))
                .collect()
        })
    }
}

fn named_tensor(name: &str, value: &ort::value::DynValue) -> Result<NamedTensor> {
    let (shape, data) = value
        .try_extract_tensor::<f32>()
        .map_err(|_| not_float(name, &value.dtype().to_string()))?;
    let shape = shape.iter().map(|&dim| usize::try_from(dim).unwrap_or(0));
    NamedTensor::new(name, shape.collect(), data.to_vec())
}

fn refused(doing: &str, error: &ort::Error) -> Box<Diagnostic> {
    Diagnostic::input(format!("{NAME} cannot {doing} the model")).detail(brief(error.message()))
}
