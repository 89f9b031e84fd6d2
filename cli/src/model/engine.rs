//! What runs a model: a runtime, the emitted crate, or the reference evaluator.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use emoc_backends::{
    onnx,
    rust_crate::{self, Emitted},
};
use emoc_ir::{Diagnostic, Graph, Kind, Result, seeded};
use emoc_runtimes::{
    Found, InputFact, OnnxModel, Runtime, Session, TrustedModel,
    rust_crate::{self as rust_crate_process, Cargo, CrateSession, NAME},
};

use super::{Model, RuntimeChoice, open::Source, reference::ReferenceSession};
use crate::{
    agreement,
    args::Precision,
    manifest,
    network::Network,
    output::{CHILDREN, TemporaryFolder},
    pipeline,
    ui::Ui,
};

/// Pictures that a crate, which starts as a program of its own, is given at once.
const CRATE_BATCH: usize = 16;

/// How many pictures a session takes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// So many, no fewer.
    Exactly(usize),
    /// So many or fewer.
    UpTo(usize),
}

/// Gives sessions. Each thread that computes has one of its own.
pub struct Engine<'a> {
    /// The runtime.
    pub name: &'static str,
    pub version: Option<String>,
    /// Threads of one session.
    threads: usize,
    input: InputFact,
    how: How<'a>,
    /// Held while a session is made.
    loading: Mutex<()>,
}

enum How<'a> {
    Onnx {
        bytes: Cow<'a, [u8]>,
        runtime: &'a dyn Runtime,
    },
    Crate {
        program: PathBuf,
        folder: TemporaryFolder,
        outputs: Vec<InputFact>,
        sessions: AtomicUsize,
    },
    Reference(&'a Graph),
}

impl Model {
    /// What will run it: `choice`, or the best that is found. A session computes on `threads`
    /// threads.
    ///
    /// # Errors
    /// The choice is not there, or not for this kind of model.
    pub fn engine<'a>(
        &'a self,
        choice: Option<RuntimeChoice>,
        threads: usize,
        runtimes: &'a [Found],
        ui: &Ui,
    ) -> Result<Engine<'a>> {
        let default = match self.source {
            Source::Crate(..) => RuntimeChoice::Rust,
            _ if found(runtimes, emoc_runtimes::ONNX_RUNTIME).is_ok() => RuntimeChoice::Onnxruntime,
            _ => RuntimeChoice::Tract,
        };
        if choice.is_none()
            && default == RuntimeChoice::Tract
            && self.facts.precision == Precision::F16
        {
            ui.warn(
                "ONNX Runtime is not found, and tract is very slow in float16: `emoc doctor` says \
                 how to get it",
            );
        }
        let choice = choice.unwrap_or(default);
        let none = |instead| Err(self.not_with(choice, instead));
        match (choice, &self.source) {
            (RuntimeChoice::Reference, Source::Network(network)) => Ok(Engine {
                name: "reference evaluator",
                version: None,
                threads: 1,
                input: self.input.clone(),
                how: How::Reference(&network.model.graph),
                loading: Mutex::default(),
            }),
            (RuntimeChoice::Rust, Source::Network(network)) => {
                let emitted = emit_crate(network, ui)?;
                let (_, outputs) = super::open::interface(&network.model.graph)?;
                self.crate_engine(&emitted, outputs, threads, ui)
            }
            (RuntimeChoice::Rust, Source::Crate(emitted, outputs)) => {
                self.crate_engine(emitted, outputs.clone(), threads, ui)
            }
            (RuntimeChoice::Reference | RuntimeChoice::Rust, _) => none("a checkpoint"),
            (_, Source::Crate(..)) => none("the ONNX file of the same network"),
            (_, Source::Network(network)) => {
                let bytes = Cow::Owned(emit_onnx(network, ui)?);
                self.onnx_engine(bytes, found(runtimes, choice.name())?, threads)
            }
            (_, Source::Onnx(bytes)) => {
                let bytes = Cow::Borrowed(&**bytes);
                self.onnx_engine(bytes, found(runtimes, choice.name())?, threads)
            }
        }
    }

    /// An ONNX file in a runtime.
    fn onnx_engine<'a>(
        &self,
        bytes: Cow<'a, [u8]>,
        runtime: &'a dyn Runtime,
        threads: usize,
    ) -> Result<Engine<'a>> {
        // Once for all sessions.
        OnnxModel::read(&bytes)?.bind(std::slice::from_ref(&self.input))?;
        Ok(Engine {
            name: runtime.name(),
            version: Some(runtime.version()),
            threads,
            input: self.input.clone(),
            how: How::Onnx { bytes, runtime },
            loading: Mutex::default(),
        })
    }

    /// Whether that can run it.
    pub fn takes(&self, choice: RuntimeChoice) -> bool {
        match (&self.source, choice) {
            (Source::Network(_), _) => true,
            (Source::Onnx(_), choice) => {
                matches!(choice, RuntimeChoice::Onnxruntime | RuntimeChoice::Tract)
            }
            (Source::Crate(..), choice) => choice == RuntimeChoice::Rust,
        }
    }

    fn not_with(&self, choice: RuntimeChoice, instead: &str) -> Box<Diagnostic> {
        let (name, kind) = (choice.name(), self.facts.kind.name());
        Diagnostic::usage(format!("{name} does not run {kind}"))
            .help(format!("leave the runtime's flag out, or give {instead}"))
    }

    fn crate_engine(
        &self,
        emitted: &Emitted,
        outputs: Vec<InputFact>,
        threads: usize,
        ui: &Ui,
    ) -> Result<Engine<'_>> {
        let path = std::env::var_os("PATH");
        let cargo = Cargo::find(path.as_deref(), &CHILDREN)
            .map_err(|missing| agreement::missing_runtime(&missing))?;
        ui.step("building the crate");
        let folder = TemporaryFolder::create()?;
        let program = agreement::build_crate(emitted, &cargo, &folder)?;
        Ok(Engine {
            name: NAME,
            version: None,
            threads,
            input: self.input.clone(),
            how: How::Crate {
                program,
                folder,
                outputs,
                sessions: AtomicUsize::new(0),
            },
            loading: Mutex::default(),
        })
    }
}

impl Engine<'_> {
    /// How many pictures one of its sessions takes at once.
    pub fn take(&self) -> Take {
        match (&self.how, self.input.shape.first()) {
            (How::Crate { .. }, _) => Take::UpTo(CRATE_BATCH),
            (_, batch) => Take::Exactly(batch.copied().unwrap_or(1)),
        }
    }

    /// A session.
    ///
    /// # Errors
    /// The runtime refuses the model.
    pub fn session(&self) -> Result<Box<dyn Session + '_>> {
        match &self.how {
            How::Onnx { bytes, runtime } => {
                // A runtime needs several times a model's memory while it loads it: one by one.
                let _alone = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
                let model = TrustedModel::Bytes(bytes);
                let inputs = std::slice::from_ref(&self.input);
                Ok(runtime.load_trusted(model, inputs, self.threads)?)
            }
            How::Crate {
                program,
                folder,
                outputs,
                sessions,
            } => {
                let number = sessions.fetch_add(1, Ordering::Relaxed);
                let files = folder.path().join(format!("session{number}"));
                std::fs::create_dir(&files)
                    .map_err(|error| Diagnostic::io("make a folder", &files, &error))?;
                let (program, outputs) = (program.clone(), outputs.clone());
                let input = self.input.clone();
                let mut session = CrateSession::new(program, &files, input, outputs, &CHILDREN);
                session.on(self.threads, None);
                Ok(Box::new(session))
            }
            How::Reference(graph) => Ok(Box::new(ReferenceSession(graph))),
        }
    }

    /// Whether each inference starts a program of its own.
    pub fn is_program(&self) -> bool {
        matches!(self.how, How::Crate { .. })
    }

    /// A process that keeps the model and runs it on a seeded input, on `threads` threads. Its
    /// files are `name` and more in `folder`.
    ///
    /// # Errors
    /// The file system refuses, or the evaluator, which is no runtime, is asked for.
    pub fn worker(&self, folder: &TemporaryFolder, name: &str, threads: usize) -> Result<Command> {
        let file = folder.path().join(name);
        match &self.how {
            How::Onnx { bytes, runtime } => {
                if !file.exists() {
                    folder.write(name, bytes)?;
                }
                let emoc = std::env::current_exe()
                    .map_err(|error| Diagnostic::io("find", Path::new("emoc"), &error))?;
                let shape: Vec<_> = self.input.shape.iter().map(usize::to_string).collect();
                let mut command = Command::new(emoc);
                command.arg("bench-worker").arg(&file);
                command.args(["--engine", self.name, "--shape", &shape.join(",")]);
                command.arg(format!("--input={}", self.input.name));
                command.args(["--threads", &threads.to_string()]);
                if let Some(library) = runtime.library() {
                    command.arg("--onnxruntime-lib").arg(library);
                }
                Ok(command)
            }
            How::Crate { program, .. } => {
                if !file.exists() {
                    let values = seeded::values("input", &self.input.shape, 0);
                    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                    folder.write(name, &bytes)?;
                }
                Ok(rust_crate_process::worker(program, &file, threads))
            }
            How::Reference(_) => Err(Diagnostic::usage(
                "the reference evaluator is there to be right, and is not measured",
            )),
        }
    }

    /// Images of one inference.
    pub fn images(&self) -> usize {
        self.input.shape.first().copied().unwrap_or(1)
    }

    /// The runtime with its version.
    pub fn title(&self) -> String {
        match &self.version {
            Some(version) => format!("{} {version}", self.name),
            None => self.name.to_owned(),
        }
    }
}

fn found<'a>(runtimes: &'a [Found], name: &str) -> Result<&'a dyn Runtime> {
    let mut named = runtimes.iter().filter(|found| found.name() == name);
    match named.next() {
        Some(Found::Ready(runtime)) => Ok(&**runtime),
        Some(Found::Missing(missing)) => Err(agreement::missing_runtime(missing)),
        None => Err(Diagnostic::new(
            Kind::Internal,
            format!("{name} is not listed"),
        )),
    }
}

fn emit_onnx(network: &Network, ui: &Ui) -> Result<Vec<u8>> {
    let graph = pipeline::spelled("all", &network.model.graph, ui)?.graph;
    ui.step("emitting");
    let options = manifest::onnx_options(&manifest::OnnxOptions::default(), Vec::new());
    onnx::emit(&graph, &options)
}

fn emit_crate(network: &Network, ui: &Ui) -> Result<Emitted> {
    let graph = pipeline::spelled("all", &network.model.graph, ui)?.graph;
    ui.step("emitting");
    rust_crate::emit(&graph, &rust_crate::Options::default())
}
