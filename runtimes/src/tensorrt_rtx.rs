//! TensorRT-RTX as a checker: its parser reads an ONNX model, and its builder makes an engine ahead
//! of time for GPUs that are not here.
//!
//! Its wheels are driven by a small Python program in a process of its own: a model that brings the
//! parser down is an error. An engine cannot run without a GPU, so this is no [`Runtime`], and it
//! serves TensorRT-RTX only: it is no plan for TensorRT.
//!
//! [`Runtime`]: crate::Runtime

mod request;

use std::{
    ffi::OsStr,
    fs,
    path::{self, Path, PathBuf},
    process::Command,
    time::Duration,
};

use emoc_ir::{Diagnostic, Result};

use crate::{
    Children, Missing, OnnxModel,
    guard::brief,
    process::{self, Ended},
    program,
};
use request::{Answer, Fault, Request};
pub use request::{Capability, ShapeRange};

/// The name in reports.
pub const NAME: &str = "TensorRT-RTX";

const PROGRAM: &str = include_str!("tensorrt_rtx/build_engine.py");

const HELP: &str = "run `scripts/fetch-tensorrt-rtx` in emoc's checkout, and emoc from there (Linux \
    on x86-64, with `python3` on the PATH)";

/// Loading 220 MB of libraries from a cold disk.
const FIND_PATIENCE: Duration = Duration::from_secs(60);

/// An engine takes seconds.
const BUILD_PATIENCE: Duration = Duration::from_secs(600);

/// What is read back at most; the program is held to it too. Engines are hardly larger than models.
const MAX_ENGINE: u64 = 2 << 30;

/// TensorRT-RTX, ready to build.
#[derive(Debug, Clone)]
pub struct Builder {
    python: PathBuf,
    wheels: Option<PathBuf>,
    version: String,
}

/// What [`Builder::build`] makes.
#[derive(Clone)]
pub struct Engine {
    /// The serialized engine, for TensorRT-RTX of the builder's version.
    pub bytes: Vec<u8>,
    /// The GPUs that it serves.
    pub capabilities: Vec<Capability>,
    /// TensorRT's layers that the parser made of the nodes.
    pub layers: usize,
    /// What the parser and the builder find doubtful: types that they replaced, for instance.
    pub warnings: Vec<String>,
    /// How long reading the model took.
    pub parse_time: Duration,
    /// How long building took.
    pub build_time: Duration,
}

impl Builder {
    /// Loads the wheels in the folder `wheels` (without one, those that are installed) in the first
    /// `python3` in the folders of `path` (the value of `PATH`).
    ///
    /// # Errors
    /// Either is not there or does not work: a row of the report.
    pub fn find(
        wheels: Option<&Path>,
        path: Option<&OsStr>,
        children: &Children,
    ) -> Result<Self, Missing> {
        let missing = |reason: String, refused: Vec<String>| Missing {
            name: NAME,
            reason,
            refused,
            help: HELP.into(),
        };
        if let Some(folder) = wheels.filter(|folder| !folder.join("tensorrt_rtx_bindings").is_dir())
        {
            let fault = format!("no wheels in {}", folder.display());
            return Err(missing("not found".into(), vec![fault]));
        }
        let Some(python) = program::find(path, "python3") else {
            return Err(missing("python3 not found".into(), Vec::new()));
        };
        let mut builder = Self {
            python,
            wheels: wheels.map(|folder| path::absolute(folder).unwrap_or(folder.to_owned())),
            version: String::new(),
        };
        let asked = process::run(&mut builder.command(), FIND_PATIENCE, children);
        let ended = asked
            .map_err(|error| missing(format!("python3 does not run: {}", error.message), vec![]))?;
        match serde_json::from_slice(&ended.stdout) {
            Ok(Answer::Version { version }) => {
                builder.version = brief(&version);
                Ok(builder)
            }
            Ok(Answer::Missing { python, reason }) => {
                let fault = format!("Python {}: {}", brief(&python), brief(&reason));
                Err(missing("the wheels do not load".into(), vec![fault]))
            }
            _ => {
                let fault = format!("the wheels do not load: {}", ended.how());
                Err(missing(fault, ended.complaint()))
            }
        }
    }

    /// The folder of the wheels; none if they are installed.
    pub fn wheels(&self) -> Option<&Path> {
        self.wheels.as_deref()
    }

    /// The version, such as `1.7.1.116`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Builds one engine that serves all `capabilities`, with types as the model has them. `ranges`
    /// is the optimisation profile: a range for each input with a symbolic dimension. Files are
    /// written to `folder`, which the caller gives and removes.
    ///
    /// # Errors
    /// The ranges are not those of the model's inputs; the parser refuses a node, which is named
    /// then; the builder refuses the graph for one of the GPUs; it crashes, or takes over ten
    /// minutes.
    pub fn build(
        &self,
        model: &OnnxModel,
        ranges: &[ShapeRange],
        capabilities: &[Capability],
        folder: &Path,
        children: &Children,
    ) -> Result<Engine> {
        let mut capabilities = capabilities.to_vec();
        capabilities.sort_unstable();
        capabilities.dedup();
        if capabilities.is_empty() {
            return Err(Diagnostic::usage(
                "an engine needs a GPU generation to be built for",
            ));
        }
        request::check_ranges(model.inputs(), ranges)?;

        let [file, engine] = ["model.onnx", "model.engine"].map(|name| folder.join(name));
        fs::write(&file, model.bytes()).map_err(|error| Diagnostic::io("write", &file, &error))?;
        // What an earlier build wrote must not pass for this one's.
        let _ = fs::remove_file(&engine);
        let request = Request {
            model: "model.onnx",
            engine: "model.engine",
            capabilities: &capabilities,
            profile: ranges,
        };
        let request = serde_json::to_string(&request)
            .map_err(|error| Diagnostic::internal(format!("a request as JSON: {error}")))?;
        let mut command = self.command();
        command.arg(request).current_dir(folder);
        let ended = process::run(&mut command, BUILD_PATIENCE, children)?;
        let built = match serde_json::from_slice(&ended.stdout) {
            Ok(answer) => answer,
            Err(_) => return Err(crashed(&ended)),
        };
        match built {
            Answer::Built {
                layers,
                warnings,
                parse_seconds,
                build_seconds,
            } => Ok(Engine {
                bytes: read(&engine)?,
                capabilities,
                layers,
                warnings: warnings.iter().map(|warning| brief(warning)).collect(),
                parse_time: seconds(parse_seconds),
                build_time: seconds(build_seconds),
            }),
            Answer::Parser { faults } => Err(not_parsed(&faults)),
            Answer::Builder { messages } => Err(not_built(model, &messages)),
            Answer::Version { .. } | Answer::Missing { .. } => Err(crashed(&ended)),
        }
    }

    /// The program; isolated, so that neither the current folder nor Python's variables decide
    /// what it imports.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.python);
        command.args(["-I", "-c", PROGRAM]);
        command.arg(self.wheels.as_deref().unwrap_or(Path::new("")));
        command
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn read(engine: &Path) -> Result<Vec<u8>> {
    let io = |error| Diagnostic::io("read the engine", engine, &error);
    match fs::metadata(engine).map_err(io)?.len() {
        0 => Err(Diagnostic::input(format!("{NAME} wrote an empty engine"))),
        size if size > MAX_ENGINE => Err(Diagnostic::input(format!(
            "{NAME} wrote an engine of {size} bytes, over the limit of {MAX_ENGINE}"
        ))),
        _ => fs::read(engine).map_err(io),
    }
}

fn crashed(ended: &Ended) -> Box<Diagnostic> {
    let fault = Diagnostic::input(format!("{NAME} crashed on the model: {}", ended.how()));
    let complaint = ended.complaint().into_iter();
    complaint.fold(fault, Diagnostic::detail)
}

/// The first fault gives the place; all that follow are listed.
fn not_parsed(faults: &[Fault]) -> Box<Diagnostic> {
    let text = |fault: &Fault| {
        let what = match fault.operator.as_str() {
            "" => "the model".into(),
            operator => format!("`{}`", brief(operator)),
        };
        let code = brief(&fault.code);
        match fault.reason.as_str() {
            // The assertion that fails where an operator is not there at all.
            "" | "false" => format!("{what}: {code}"),
            reason => format!("{what}: {code}: {}", brief(reason)),
        }
    };
    let Some((first, rest)) = faults.split_first() else {
        return Diagnostic::input(format!("{NAME}'s parser refuses the model"));
    };
    let mut fault = Diagnostic::input(format!("{NAME}'s parser refuses {}", text(first)));
    if !first.node.is_empty() {
        fault = fault.node(brief(&first.node));
    }
    let rest = rest.iter();
    rest.map(|fault| format!("{}: {}", brief(&fault.node), text(fault)))
        .fold(fault, Diagnostic::detail)
}

/// The builder names a node in quotes somewhere in its message.
fn not_built(model: &OnnxModel, messages: &[String]) -> Box<Diagnostic> {
    let mut fault = Diagnostic::input(format!("{NAME} cannot build an engine from the model"));
    let mut quoted = messages
        .iter()
        .flat_map(|message| message.split('\'').skip(1).step_by(2));
    if let Some(node) = quoted.find(|quoted| model.has_node(quoted)) {
        fault = fault.node(node);
    }
    if messages.iter().any(|message| message.contains("(SM75)")) {
        fault = fault.help(
            "GPUs of the Turing generation (SM75) have no float32 matrix products in TensorRT-RTX: \
             build for SM80 and later, or emit the model in float16",
        );
    }
    let messages = messages.iter();
    messages
        .map(|message| brief(message))
        .fold(fault, Diagnostic::detail)
}
