//! Does an artifact compute what the network computes? Every runtime found runs it, and the
//! reference evaluator, which knows nothing of passes and backends, is the arbiter.
//!
//! An ONNX file is run by every runtime; a crate is built and runs itself ([`crate_row`]), and the
//! runtimes run the ONNX file of the same graph beside it, for comparison.

mod crate_row;
mod engine_row;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use emoc_ir::{
    Diagnostic, Graph, Kind, Result,
    reference::{self, Tensor},
    seeded,
};
use emoc_runtimes::{
    Comparison, Divergence, Found, Missing, NamedTensor, OnnxModel, Options, Runtime, Session,
    Tolerance, all_agree, compare_all, first_divergence, time_runs,
};
use serde::Serialize;

pub use crate_row::{References, build_crate, judge_crate};
pub use engine_row::{EngineRecord, engine_row, engines, tensorrt_rtx};

use crate::{
    args::{Precision, RuntimeArgs},
    manifest::{CheckRecord, RuntimeRecord},
    ui::Ui,
};

/// A symbolic batch is run with more than one image: one would not show a batch that is baked in.
pub const DYNAMIC_BATCH: usize = 2;

/// Numbers of an input that is checked, at most: half a gigabyte.
pub const MAX_INPUT: usize = 1 << 27;

/// Times are measured on one thread: they compare across machines and runtimes then.
const THREADS: usize = 1;

/// How long repeated runs for the time may take.
const TIMING: Duration = Duration::from_millis(300);

/// Looks for every runtime.
///
/// # Errors
/// A runtime that was demanded is not there.
pub fn runtimes(args: &RuntimeArgs) -> Result<Vec<Found>> {
    emoc_runtimes::all(&places(args.onnxruntime_lib.clone()))
}

/// Where runtimes are looked for.
pub fn places(onnxruntime_lib: Option<PathBuf>) -> Options {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
    Options {
        onnxruntime_lib,
        ort_dylib_path: path("ORT_DYLIB_PATH"),
        onnxruntime_dir: Some(PathBuf::from(".onnxruntime")),
        path: std::env::var_os("PATH"),
        home: path("HOME"),
    }
}

/// The error for a runtime that was demanded.
pub fn missing_runtime(missing: &Missing) -> Box<Diagnostic> {
    let message = format!("{} cannot be used: {}", missing.name, missing.reason);
    let error = Diagnostic::new(Kind::RuntimeMissing, message).help(missing.help.clone());
    let refused = missing.refused.iter();
    refused.fold(error, |error, why| error.detail(why.clone()))
}

/// An input and what the network makes of it.
#[derive(Clone)]
pub struct Reference {
    input: NamedTensor,
    outputs: Vec<NamedTensor>,
    /// How far an artifact may be from it.
    pub tolerance: Tolerance,
}

impl Reference {
    /// Evaluates the faithful graph on the seeded input, of as many images as `batch` says where
    /// the graph leaves that open.
    ///
    /// # Errors
    /// The graph is too large to be evaluated.
    pub fn evaluate(faithful: &Graph, batch: usize, tolerance: Tolerance, ui: &Ui) -> Result<Self> {
        ui.step("evaluating the reference");
        let input = input(faithful, batch)?;
        let values = evaluate(faithful, &input, &outputs(faithful))?;
        Ok(Self {
            input,
            outputs: values,
            tolerance,
        })
    }

    /// The same reference for an artifact that is held to another tolerance.
    pub fn held_to(&self, tolerance: Tolerance) -> Self {
        Self {
            tolerance,
            ..self.clone()
        }
    }

    /// The input and the outputs.
    pub fn values(&self) -> (Vec<f32>, Vec<Vec<f32>>) {
        let outputs = self.outputs.iter().map(|output| output.data.clone());
        (self.input.data.clone(), outputs.collect())
    }

    /// The reference's values at the ends of blocks, in the order of computation.
    pub fn blocks(&self, faithful: &Graph, ui: &Ui) -> Result<Vec<NamedTensor>> {
        ui.step("evaluating the reference block by block");
        evaluate(faithful, &self.input, &faithful.block_outputs())
    }
}

/// The seeded input of a graph.
fn input(graph: &Graph, batch: usize) -> Result<NamedTensor> {
    let [input] = graph.inputs() else {
        return Err(Diagnostic::internal("a network has one input"));
    };
    let shape = &graph.ty(*input).shape;
    if shape.numel(batch) > MAX_INPUT {
        let message = format!("a batch of {batch} images is too large to check");
        return Err(Diagnostic::input(message).help("check a smaller batch, or --no-check"));
    }
    let shape = shape.resolve(batch);
    let values = seeded::values("input", &shape, 0);
    NamedTensor::new(&graph.node(*input).name, shape, values)
}

fn outputs(graph: &Graph) -> Vec<(String, emoc_ir::Value)> {
    let outputs = graph.outputs().iter();
    outputs.map(|o| (o.name.clone(), o.value)).collect()
}

fn evaluate(
    graph: &Graph,
    input: &NamedTensor,
    wanted: &[(String, emoc_ir::Value)],
) -> Result<Vec<NamedTensor>> {
    let tensor = Tensor::from_f32(&input.shape, &input.data);
    let values: Vec<_> = wanted.iter().map(|&(_, value)| value).collect();
    let results = reference::evaluate_values(graph, &[tensor], reference::Precision::F32, &values)?;
    let named = wanted.iter().zip(results);
    named
        .map(|((name, _), tensor)| NamedTensor::new(name, tensor.shape.clone(), tensor.to_f32()))
        .collect()
}

/// What a runtime ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ran {
    /// The artifact.
    Artifact,
    /// The ONNX file of the same graph, for comparison: it does not decide.
    OnnxInstead,
}

/// What one runtime answered.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub runtime: &'static str,
    pub ran: Ran,
    /// Which model of a bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Precision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    pub verdict: Verdict,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Comparison>,
    /// How far the rounding of weights moves the outputs: against the network as it was given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rounding: Vec<Comparison>,
    /// Fastest inference, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inference_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// The instruction set that a crate chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isa: Option<String>,
    /// What TensorRT-RTX built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineRecord>,
    /// Where a disagreement begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_divergence: Option<Divergence>,
    /// Why it could not run the artifact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<Diagnostic>>,
    /// How to get it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<Missing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Agrees,
    Disagrees,
    /// An engine was built, which cannot run here.
    Builds,
    /// The runtime refuses the artifact.
    Fails,
    NotFound,
}

impl Row {
    fn new(runtime: &'static str, version: Option<String>, verdict: Verdict) -> Self {
        Self {
            runtime,
            ran: Ran::Artifact,
            model: None,
            version,
            verdict,
            outputs: Vec::new(),
            rounding: Vec::new(),
            inference_ms: None,
            threads: None,
            isa: None,
            engine: None,
            first_divergence: None,
            error: None,
            missing: None,
        }
    }

    fn missing(missing: &Missing) -> Self {
        let mut row = Self::new(missing.name, None, Verdict::NotFound);
        row.missing = Some(missing.clone());
        row
    }

    fn failed(runtime: &'static str, version: Option<String>, error: Box<Diagnostic>) -> Self {
        let mut row = Self::new(runtime, version, Verdict::Fails);
        row.error = Some(error);
        row
    }

    /// The row of one model of a bundle.
    pub fn of(self, model: Precision) -> Self {
        Self {
            model: Some(model),
            ..self
        }
    }

    /// Whether it ran the artifact and did not agree.
    pub fn is_bad(&self) -> bool {
        self.ran == Ran::Artifact && matches!(self.verdict, Verdict::Disagrees | Verdict::Fails)
    }

    /// The runtime, and the model if there are several.
    pub fn name(&self) -> String {
        match self.model {
            Some(model) => format!("{} ({})", self.runtime, model.name()),
            None => self.runtime.to_owned(),
        }
    }

    /// Whether it ran the artifact and agreed.
    pub fn is_good(&self) -> bool {
        self.ran == Ran::Artifact && self.verdict == Verdict::Agrees
    }
}

/// Runs the artifact in every runtime. `instrumented` gives the same artifact with the ends of
/// blocks as outputs, and is asked for only after a disagreement.
pub fn judge(
    artifact: &[u8],
    faithful: &Graph,
    reference: &Reference,
    runtimes: &[Found],
    instrumented: &dyn Fn() -> Result<Vec<u8>>,
    ui: &Ui,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for found in runtimes {
        let mut row = judge_one(artifact, reference, found, ui);
        if let (Verdict::Disagrees, Found::Ready(runtime)) = (row.verdict, found) {
            let bytes = instrumented()?;
            let expected = reference.blocks(faithful, ui)?;
            row.first_divergence = blocks_of(&bytes, reference, &**runtime, ui)
                .ok()
                .and_then(|actual| divergence(&expected, &actual, reference.tolerance));
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Runs the ONNX file of the artifact's graph in every runtime, beside the artifact itself.
fn compare_onnx(onnx: &[u8], reference: &Reference, runtimes: &[Found], ui: &Ui) -> Vec<Row> {
    let row = |found| Row {
        ran: Ran::OnnxInstead,
        ..judge_one(onnx, reference, found, ui)
    };
    runtimes.iter().map(row).collect()
}

fn judge_one(artifact: &[u8], reference: &Reference, found: &Found, ui: &Ui) -> Row {
    let runtime = match found {
        Found::Ready(runtime) => runtime,
        Found::Missing(missing) => return Row::missing(missing),
    };
    let (name, version) = (runtime.name(), Some(runtime.version()));
    let ran = load(artifact, reference, &**runtime, ui).and_then(|mut session| {
        ui.step(format!("running in {name}"));
        measure(&mut *session, &reference.input)
    });
    match ran {
        Ok(ran) => ran.row(name, version, reference),
        Err(error) => Row::failed(name, version, error),
    }
}

/// What came out of a session, and its fastest inference.
struct Measured {
    outputs: Vec<NamedTensor>,
    time: Duration,
    threads: usize,
}

impl Measured {
    fn row(&self, runtime: &'static str, version: Option<String>, reference: &Reference) -> Row {
        let comparisons = compare_all(&reference.outputs, &self.outputs, reference.tolerance);
        let verdict = match all_agree(&comparisons) {
            true => Verdict::Agrees,
            false => Verdict::Disagrees,
        };
        let mut row = Row::new(runtime, version, verdict);
        row.outputs = comparisons;
        row.inference_ms = Some(self.time.as_secs_f64() * 1e3);
        row.threads = Some(self.threads);
        row
    }
}

/// Runs a session, and runs it again for the time.
fn measure(session: &mut dyn Session, input: &NamedTensor) -> Result<Measured> {
    let input = std::slice::from_ref(input);
    let start = Instant::now();
    let outputs = session.run(input)?;
    let first = start.elapsed();
    let repeats = (TIMING.as_secs_f64() / first.as_secs_f64()).min(10.0) as usize;
    let time = match repeats {
        0 => first,
        repeats => time_runs(session, input, repeats)?.min.min(first),
    };
    Ok(Measured {
        outputs,
        time,
        threads: session.threads(),
    })
}

fn load(
    artifact: &[u8],
    reference: &Reference,
    runtime: &dyn Runtime,
    ui: &Ui,
) -> Result<Box<dyn Session>> {
    ui.step(format!("loading into {}", runtime.name()));
    let model = OnnxModel::read(artifact)?;
    let bound = model.bind(&[reference.input.fact()])?;
    runtime.load(&bound, THREADS)
}

/// All outputs of an instrumented artifact.
fn blocks_of(
    instrumented: &[u8],
    reference: &Reference,
    runtime: &dyn Runtime,
    ui: &Ui,
) -> Result<Vec<NamedTensor>> {
    let mut session = load(instrumented, reference, runtime, ui)?;
    session.run(std::slice::from_ref(&reference.input))
}

/// A block whose last node was folded into the next block has no end of its own in the artifact.
fn shared(expected: &[NamedTensor], actual: &[NamedTensor]) -> Vec<NamedTensor> {
    let is_there = |block: &&NamedTensor| actual.iter().any(|found| found.name == block.name);
    expected.iter().filter(is_there).cloned().collect()
}

fn divergence(
    expected: &[NamedTensor],
    actual: &[NamedTensor],
    tolerance: Tolerance,
) -> Option<Divergence> {
    first_divergence(&shared(expected, actual), actual, tolerance)
}

/// Differences at the end of every block, per runtime.
pub fn per_block(
    instrumented: &[u8],
    faithful: &Graph,
    reference: &Reference,
    runtimes: &[Found],
    ui: &Ui,
) -> Result<Vec<BlockTable>> {
    let expected = reference.blocks(faithful, ui)?;
    let mut tables = Vec::new();
    for found in runtimes {
        if let Found::Ready(runtime) = found {
            let actual = blocks_of(instrumented, reference, &**runtime, ui)?;
            tables.push(BlockTable {
                model: None,
                runtime: runtime.name(),
                blocks: compare_all(&shared(&expected, &actual), &actual, reference.tolerance),
            });
        }
    }
    Ok(tables)
}

/// Comparisons at the ends of blocks, in the order of computation.
#[derive(Debug, Serialize)]
pub struct BlockTable {
    /// Which model of a bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Precision>,
    pub runtime: &'static str,
    pub blocks: Vec<Comparison>,
}

/// The reference of an artifact in float32.
pub const FAITHFUL: &str = "the reference evaluator on the faithful graph, float32";
/// The reference of an artifact whose weights were rounded.
pub const ROUNDED: &str = "the reference evaluator on the optimised graph with its weights rounded to float16 as the crate stores them, float32";

/// What the manifest says about the check.
pub fn record(rows: &[Row], reference: &'static str, tolerance: Tolerance) -> CheckRecord {
    let agreed = rows.iter().filter(|row| row.is_good());
    CheckRecord {
        reference,
        input: "seeded, seed 0",
        tolerance: tolerance.to_string(),
        agreed: agreed
            .map(|row| RuntimeRecord {
                runtime: row.runtime,
                version: row.version.clone().unwrap_or_default(),
            })
            .collect(),
    }
}

/// The error of a run in which a runtime did not agree.
///
/// # Errors
/// That one, if there is a reason.
pub fn demand(rows: &[Row], consequence: &str) -> Result<()> {
    let bad: Vec<_> = rows.iter().filter(|row| row.is_bad()).collect();
    if bad.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = bad.iter().map(|row| row.name()).collect();
    let message = format!(
        "the artifact does not agree with the reference in {}{consequence}",
        names.join(" and ")
    );
    let mut error = Diagnostic::new(Kind::Disagreement, message);
    for row in bad {
        for line in reasons(row) {
            error = error.detail(format!("{}: {line}", row.name()));
        }
    }
    Err(error)
}

/// What is wrong with a row.
pub fn reasons(row: &Row) -> Vec<String> {
    let mut lines = Vec::new();
    for comparison in &row.outputs {
        if let emoc_runtimes::Verdict::Disagrees(why) = &comparison.verdict {
            lines.push(format!("output `{}` {why}", comparison.output));
        }
    }
    if let Some(divergence) = &row.first_divergence {
        let block = &divergence.block;
        let before = match &divergence.last_agreeing {
            Some(last) => format!("`{last}` still agrees"),
            None => "no block before it".to_owned(),
        };
        lines.push(format!(
            "the first divergence is at the end of block `{block}` ({before})"
        ));
    }
    if let Some(error) = &row.error {
        lines.push(error.message.clone());
        lines.extend(error.details.iter().cloned());
    }
    lines
}
