//! What a runtime is, and the list of them.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use emoc_ir::{Diagnostic, Result};
use serde::Serialize;

use crate::{BoundModel, InputFact, NamedTensor, guard::brief, onnxruntime, tract};

/// Every runtime, in the order of the report. One line each.
const RUNTIMES: &[(&str, Find)] = &[
    (tract::NAME, tract::find),
    (onnxruntime::NAME, onnxruntime::find),
];

type Find = fn(&Options) -> Result<Found>;

/// Looks for every runtime. One that is not there is a row of the report, not an error.
///
/// # Errors
/// `Kind::RuntimeMissing` when a runtime that the options demand cannot be used.
pub fn all(options: &Options) -> Result<Vec<Found>> {
    RUNTIMES.iter().map(|(_, find)| find(options)).collect()
}

/// Looks for the runtime with this name alone: no library of another one is loaded.
///
/// # Errors
/// Those of [`all`], and that there is no such runtime.
pub fn find(name: &str, options: &Options) -> Result<Found> {
    match RUNTIMES.iter().find(|(found, _)| *found == name) {
        Some((_, find)) => find(options),
        None => Err(Diagnostic::usage(format!(
            "there is no runtime called `{}`",
            brief(name)
        ))),
    }
}

/// Where runtimes may be found. The caller fills it in: this crate reads no environment.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// An ONNX Runtime library, or a folder that holds one, that must be used
    /// (`--onnxruntime-lib`).
    pub onnxruntime_lib: Option<PathBuf>,
    /// The same without the obligation: the value of `ORT_DYLIB_PATH`.
    pub ort_dylib_path: Option<PathBuf>,
    /// A folder to search next: `./.onnxruntime`.
    pub onnxruntime_dir: Option<PathBuf>,
    /// The value of `PATH`: an `onnxruntime` wheel is looked for beside each `python3` on it.
    pub path: Option<OsString>,
    /// The user's home folder: wheels installed with `pip install --user`.
    pub home: Option<PathBuf>,
}

/// The outcome of looking for one runtime.
pub enum Found {
    /// It can load models.
    Ready(Box<dyn Runtime>),
    /// It is not there, or cannot be used.
    Missing(Missing),
}

impl Found {
    /// The runtime's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ready(runtime) => runtime.name(),
            Self::Missing(missing) => missing.name,
        }
    }
}

/// A runtime that cannot be used here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The runtime's name.
    pub name: &'static str,
    /// A few words for the report's row, such as `not found`.
    pub reason: String,
    /// Each library that was there and why it was refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// How to get it.
    pub help: String,
}

/// Something that runs ONNX models.
pub trait Runtime: Send + Sync {
    /// The name in reports, such as `ONNX Runtime`.
    fn name(&self) -> &'static str;

    /// The version that will run.
    fn version(&self) -> String;

    /// The library, if it is not built in.
    fn library(&self) -> Option<&Path> {
        None
    }

    /// Prepares `model` for runs with the shapes it is bound to, on at most `threads` threads
    /// (0 counts as 1).
    ///
    /// # Errors
    /// When the runtime refuses the model.
    fn load(&self, model: &BoundModel, threads: usize) -> Result<Box<dyn Session>>;

    /// The same for a model that was bound to these inputs before, in this process or the one
    /// that started it: what only protects the runtime is not done again.
    ///
    /// # Errors
    /// When the file cannot be read, or the runtime refuses the model.
    fn load_trusted(
        &self,
        model: TrustedModel,
        inputs: &[InputFact],
        threads: usize,
    ) -> Result<Box<dyn Session>>;
}

/// Where a model is that [`OnnxModel::bind`](crate::OnnxModel::bind) has accepted.
#[derive(Debug, Clone, Copy)]
pub enum TrustedModel<'a> {
    /// In memory.
    Bytes(&'a [u8]),
    /// In a file.
    File(&'a Path),
}

/// A loaded model.
pub trait Session {
    /// How many threads [`run`](Self::run) computes on. To be printed beside its time.
    fn threads(&self) -> usize;

    /// One inference: all outputs, in the model's order.
    ///
    /// # Errors
    /// When an input is missing or not of the shape the model was loaded for, when the runtime
    /// fails, and when an output is not float32.
    fn run(&mut self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>>;

    /// How long each of `runs` further inferences takes, and nothing around them.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    fn times(&mut self, inputs: &[NamedTensor], runs: usize) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        for _ in 0..runs {
            let start = Instant::now();
            self.run(inputs)?;
            times.push(start.elapsed());
        }
        Ok(times)
    }
}

/// The tensors for `facts`, in their order.
pub(crate) fn order_tensors<'t>(
    facts: &[InputFact],
    tensors: &'t [NamedTensor],
) -> Result<Vec<&'t NamedTensor>> {
    let find = |fact: &InputFact| {
        let InputFact { name, shape } = fact;
        let tensor = tensors.iter().find(|tensor| tensor.name == *name);
        let tensor =
            tensor.ok_or_else(|| Diagnostic::input(format!("input `{name}` is missing")))?;
        if let Some(fault) = tensor.inconsistency() {
            return Err(Diagnostic::internal(format!("input `{name}` {fault}")));
        }
        if tensor.shape != *shape {
            return Err(Diagnostic::input(format!(
                "input `{name}` has shape {:?}; the model was loaded for {shape:?}",
                tensor.shape
            )));
        }
        Ok(tensor)
    };
    facts.iter().map(find).collect()
}

/// The error for an output that cannot be compared.
pub(crate) fn not_float(name: &str, dtype: &str) -> Box<Diagnostic> {
    Diagnostic::input(format!(
        "output `{name}` has type {dtype}; only float32 outputs can be checked"
    ))
}
