//! From models to processes that run them.

use emoc_ir::{Diagnostic, Kind, Result};
use emoc_runtimes::{Found, Worker};
use serde::Serialize;

use crate::{
    model::{Engine, Model, RuntimeChoice},
    output::{CHILDREN, TemporaryFolder},
    ui::Ui,
};

/// Starts of each process: the first reads files that nobody has read yet, the others find them
/// in memory. The fastest counts.
const STARTS: usize = 2;

/// A model in a runtime on a number of threads.
pub struct Candidate {
    pub facts: Facts,
    pub worker: Worker<'static>,
    pub cold_start_ms: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// The letter of the model.
    pub model: String,
    pub runtime: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The instruction set that a crate chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isa: Option<String>,
    pub threads: usize,
    /// Images of one inference.
    pub images: usize,
}

/// What could not be measured, and why.
#[derive(Debug, Serialize)]
pub struct Failed {
    pub model: String,
    pub runtime: &'static str,
    /// None where it is about all numbers of threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    pub error: Box<Diagnostic>,
}

pub struct Candidates {
    pub running: Vec<Candidate>,
    pub failed: Vec<Failed>,
    /// Files of the processes.
    _folder: TemporaryFolder,
}

/// The letter of a model, and what comes after the last letter.
pub fn name(index: usize) -> String {
    match u8::try_from(index) {
        Ok(index @ 0..26) => char::from(b'A' + index).to_string(),
        _ => format!("M{}", index + 1),
    }
}

/// Runtimes in the order of preparation, with their names in reports.
const CHOICES: [(RuntimeChoice, &str); 3] = [
    (RuntimeChoice::Tract, emoc_runtimes::TRACT),
    (RuntimeChoice::Onnxruntime, emoc_runtimes::ONNX_RUNTIME),
    (RuntimeChoice::Rust, emoc_runtimes::rust_crate::NAME),
];

impl Candidates {
    /// Starts a process for every model in every runtime that takes it, on one thread and on all.
    /// What fails is listed.
    ///
    /// # Errors
    /// A runtime that was asked for by name is not there, or the file system refuses.
    pub fn prepare(
        models: &[Model],
        wanted: &[RuntimeChoice],
        runtimes: &[Found],
        cores: usize,
        ui: &Ui,
    ) -> Result<Self> {
        let mut candidates = Self {
            running: Vec::new(),
            failed: Vec::new(),
            _folder: TemporaryFolder::create()?,
        };
        for (index, model) in models.iter().enumerate() {
            for (choice, runtime) in CHOICES {
                let is_wanted = wanted.is_empty() || wanted.contains(&choice);
                if !is_wanted || !model.takes(choice) {
                    continue;
                }
                match model.engine(Some(choice), 1, runtimes, ui) {
                    Ok(engine) => candidates.start(index, choice, &engine, cores, ui),
                    Err(error) if error.kind == Kind::RuntimeMissing && !wanted.is_empty() => {
                        return Err(error);
                    }
                    Err(error) if error.kind == Kind::FileSystem => return Err(error),
                    Err(error) => candidates.fail(index, runtime, None, error),
                }
            }
        }
        Ok(candidates)
    }

    /// The processes of one engine.
    fn start(
        &mut self,
        index: usize,
        choice: RuntimeChoice,
        engine: &Engine,
        cores: usize,
        ui: &Ui,
    ) {
        for threads in [1, cores] {
            ui.step(format!(
                "starting {} ({threads} of {cores} cores)",
                engine.title()
            ));
            match self.candidate(index, choice, engine, threads) {
                // One that computes on fewer threads than it may is there already.
                Ok(candidate) if threads > 1 && candidate.facts.threads == 1 => {}
                Ok(candidate) => self.running.push(candidate),
                // What fails on one thread is not tried on more.
                Err(error) => {
                    let threads = (threads > 1).then_some(threads);
                    return self.fail(index, engine.name, threads, error);
                }
            }
            if cores == 1 || choice == RuntimeChoice::Tract {
                return;
            }
        }
    }

    fn candidate(
        &self,
        index: usize,
        choice: RuntimeChoice,
        engine: &Engine,
        threads: usize,
    ) -> Result<Candidate> {
        let model = name(index);
        let file = match choice {
            RuntimeChoice::Rust => format!("{model}.f32"),
            _ => format!("{model}.onnx"),
        };
        let start = || {
            let command = engine.worker(&self._folder, &file, threads)?;
            Worker::start(command, &CHILDREN)
        };
        let mut worker = start()?;
        let mut fastest = worker.cold_start();
        for _ in 1..STARTS {
            drop(worker);
            worker = start()?;
            fastest = fastest.min(worker.cold_start());
        }
        let ready = worker.ready().clone();
        Ok(Candidate {
            facts: Facts {
                model,
                runtime: engine.name,
                version: engine.version.clone(),
                isa: ready.isa,
                threads: ready.threads,
                images: engine.images(),
            },
            worker,
            cold_start_ms: 1e3 * fastest.as_secs_f64(),
        })
    }

    fn fail(
        &mut self,
        index: usize,
        runtime: &'static str,
        threads: Option<usize>,
        error: Box<Diagnostic>,
    ) {
        self.failed.push(Failed {
            model: name(index),
            runtime,
            threads,
            error,
        });
    }
}
