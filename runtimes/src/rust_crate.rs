//! An emitted Rust crate as a runtime: cargo builds it, offline, and it runs in a process of its
//! own.
//!
//! The crate carries an example for this (`emoc_check`, not part of what users get), which reads
//! images from a file and writes the outputs to another. All files are in a folder that the
//! caller gives and removes.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use emoc_ir::{Diagnostic, Result};
use serde::Deserialize;

use crate::{
    Children, InputFact, Missing, NamedTensor, Program, Session,
    process::{self, Ended},
    program,
    tensor::volume,
};

/// The name in reports.
pub const NAME: &str = "Rust crate";

/// The example's name, and its file in the crate.
const EXAMPLE: &str = "emoc_check";

/// A build takes seconds, or minutes where the machine is busy or has little memory.
const BUILD_PATIENCE: Duration = Duration::from_secs(600);

/// The largest variant at 512 takes seconds in portable code.
const RUN_PATIENCE: Duration = Duration::from_secs(120);

/// Crates are measured as the other runtimes are.
const THREADS: usize = 1;

/// cargo, ready to build.
#[derive(Debug, Clone)]
pub struct Cargo(Program);

impl Cargo {
    /// Looks for cargo in the folders of `path` (the value of `PATH`) and asks for its version.
    ///
    /// # Errors
    /// There is none, or it does not run: a row of the report.
    pub fn find(path: Option<&OsStr>, children: &Children) -> Result<Self, Missing> {
        let missing = |why: &str, refused| Missing {
            name: NAME,
            reason: format!("cargo {why}"),
            refused,
            help: "to build and check it, install Rust (https://rustup.rs) and have `cargo` on \
                   the PATH"
                .into(),
        };
        let file = program::find(path, "cargo").ok_or_else(|| missing("not found", Vec::new()))?;
        let program = Program::ask(file, "cargo", children);
        program
            .map(Self)
            .map_err(|(why, refused)| missing(&why, refused))
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.0
    }

    /// The version, such as `1.95.0`.
    pub fn version(&self) -> &str {
        self.0.version()
    }

    /// Builds a crate that is in `folder` together with its example, in release and offline.
    /// What the build makes goes to `target`.
    ///
    /// # Errors
    /// It does not build, or not within ten minutes.
    pub fn build(&self, folder: &Path, target: &Path, children: &Children) -> Result<PathBuf> {
        let mut command = Command::new(self.0.path());
        command
            .current_dir(folder)
            .args(["build", "--release", "--offline", "--quiet"])
            .args(["--message-format", "json-render-diagnostics"])
            .args(["--example", EXAMPLE, "--target-dir"])
            .arg(target);
        let ended = process::run(&mut command, BUILD_PATIENCE, children)
            .map_err(|error| error.help("--no-check writes the crate without building it"))?;
        match executable(&ended.stdout) {
            Some(program) if ended.status.success() => Ok(program),
            _ => Err(refused("the crate does not build", &ended)),
        }
    }
}

/// The command for a [`Worker`] of a crate: `program`, which [`Cargo::build`] made, runs the
/// picture in the file `input`.
///
/// [`Worker`]: crate::Worker
pub fn worker(program: &Path, input: &Path, threads: usize) -> Command {
    let mut command = Command::new(program);
    command
        .arg(input)
        .arg("--serve")
        .env("EMOC_THREADS", threads.to_string());
    command
}

/// The path of the example in what cargo says, one JSON object in a line.
fn executable(messages: &[u8]) -> Option<PathBuf> {
    #[derive(Deserialize)]
    struct Artifact {
        target: Target,
        executable: Option<PathBuf>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
    }
    let lines = messages.split(|&byte| byte == b'\n');
    let artifacts = lines.filter_map(|line| serde_json::from_slice::<Artifact>(line).ok());
    let mut examples = artifacts.filter(|artifact| artifact.target.name == EXAMPLE);
    examples.find_map(|artifact| artifact.executable)
}

fn refused(what: &str, ended: &Ended) -> Box<Diagnostic> {
    let fault = Diagnostic::input(format!("{what}: {}", ended.how()));
    ended
        .complaint()
        .into_iter()
        .fold(fault, Diagnostic::detail)
}

/// A crate that is built.
pub struct CrateSession<'a> {
    program: PathBuf,
    folder: PathBuf,
    input: InputFact,
    outputs: Vec<InputFact>,
    children: &'a Children,
    threads: usize,
    isa: Option<String>,
    report: Option<Report>,
}

/// What the example says about its run.
#[derive(Debug, Clone, Deserialize)]
pub struct Report {
    /// The instruction set that it chose, such as `avx512`.
    pub isa: String,
    /// The threads that it computed on.
    pub threads: usize,
    /// Activations that live in its static memory plan, in bytes.
    pub arena_bytes: usize,
    /// Times of the runs that were asked for, in milliseconds.
    times_ms: Vec<f64>,
}

impl<'a> CrateSession<'a> {
    /// Runs `program`, which [`Cargo::build`] made, with files in `folder`. `input` and `outputs`
    /// are the crate's, for one image: `[1, 3, H, W]`, `[1, classes]`.
    pub fn new(
        program: PathBuf,
        folder: &Path,
        input: InputFact,
        outputs: Vec<InputFact>,
        children: &'a Children,
    ) -> Self {
        Self {
            program,
            folder: folder.to_owned(),
            input,
            outputs,
            children,
            threads: THREADS,
            isa: None,
            report: None,
        }
    }

    /// Computes on this many threads (without this on one), with this instruction set or the best
    /// that there is.
    pub fn on(&mut self, threads: usize, isa: Option<&str>) -> &mut Self {
        self.threads = threads;
        self.isa = isa.map(str::to_owned);
        self
    }

    /// What the example said in the last run.
    pub fn report(&self) -> Option<&Report> {
        self.report.as_ref()
    }

    /// One image after the other through the crate, the first of them `runs` times more for the
    /// time. Gives the bytes of all outputs.
    fn execute(&mut self, images: &[f32], runs: usize) -> Result<Vec<u8>> {
        let [input, output] = ["input.f32", "output.f32"].map(|name| self.folder.join(name));
        let bytes: Vec<u8> = images
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        fs::write(&input, bytes).map_err(|error| Diagnostic::io("write", &input, &error))?;
        // What an earlier run wrote must not pass for this one's.
        let _ = fs::remove_file(&output);
        let mut command = Command::new(&self.program);
        command
            .args([&input, &output])
            .args(["--runs", &runs.to_string()])
            .env("EMOC_THREADS", self.threads.to_string());
        if let Some(isa) = &self.isa {
            command.env("EMOC_ISA", isa);
        }
        let ended = process::run(&mut command, RUN_PATIENCE, self.children)?;
        if !ended.status.success() {
            return Err(refused("the crate fails", &ended));
        }
        let report = serde_json::from_slice(&ended.stdout).map_err(|error| {
            Diagnostic::input(format!("the crate's report cannot be read: {error}"))
        })?;
        self.report = Some(report);
        let expected = self.values_per_image() * 4 * (images.len() / self.image_len());
        let io = |error| Diagnostic::io("read the crate's outputs", &output, &error);
        let found = fs::metadata(&output).map_err(io)?.len();
        if found != expected as u64 {
            return Err(Diagnostic::input(format!(
                "the crate gave {found} bytes of outputs instead of {expected}"
            )));
        }
        fs::read(&output).map_err(io)
    }

    fn image_len(&self) -> usize {
        volume(&self.input.shape).unwrap_or(0).max(1)
    }

    fn values_per_image(&self) -> usize {
        let sizes = self.outputs.iter();
        sizes.map(|output| volume(&output.shape).unwrap_or(0)).sum()
    }

    /// The images of a tensor of any batch size.
    fn images<'t>(&self, inputs: &'t [NamedTensor]) -> Result<&'t NamedTensor> {
        let InputFact { name, shape } = &self.input;
        let tensor = inputs.iter().find(|tensor| tensor.name == *name);
        let tensor =
            tensor.ok_or_else(|| Diagnostic::input(format!("input `{name}` is missing")))?;
        if let Some(fault) = tensor.inconsistency() {
            return Err(Diagnostic::internal(format!("input `{name}` {fault}")));
        }
        let found = &tensor.shape;
        if found.len() != shape.len() || found.get(1..) != shape.get(1..) || tensor.data.is_empty()
        {
            return Err(Diagnostic::input(format!(
                "input `{name}` has shape {found:?}; the crate takes images of {:?}",
                shape.get(1..).unwrap_or_default()
            )));
        }
        Ok(tensor)
    }
}

impl Session for CrateSession<'_> {
    fn threads(&self) -> usize {
        let report = self.report.as_ref();
        report.map_or(self.threads, |report| report.threads)
    }

    /// All images of the batch, one after the other in one process.
    fn run(&mut self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>> {
        let images = self.images(inputs)?;
        let batch = images.data.len() / self.image_len();
        let bytes = self.execute(&images.data, 0)?;
        let mut data = vec![Vec::new(); self.outputs.len()];
        let mut values = bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        for _ in 0..batch {
            for (fact, data) in self.outputs.iter().zip(&mut data) {
                let count = volume(&fact.shape).unwrap_or(0);
                data.extend(values.by_ref().take(count));
            }
        }
        let named = self.outputs.iter().zip(data);
        named
            .map(|(fact, data)| {
                let mut shape = fact.shape.clone();
                shape.iter_mut().take(1).for_each(|dim| *dim = batch);
                NamedTensor::new(&fact.name, shape, data)
            })
            .collect()
    }

    /// As the crate measures them: without the start of its process.
    fn times(&mut self, inputs: &[NamedTensor], runs: usize) -> Result<Vec<Duration>> {
        let images = self.images(inputs)?;
        let image = images.data.get(..self.image_len()).unwrap_or_default();
        self.execute(image, runs)?;
        let times = self.report.iter().flat_map(|report| &report.times_ms);
        let times = times.map(|ms| {
            Duration::try_from_secs_f64(ms / 1e3)
                .map_err(|_| Diagnostic::input(format!("the crate took {ms} ms, it says")))
        });
        times.collect()
    }
}
