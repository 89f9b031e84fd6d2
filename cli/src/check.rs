//! `emoc check`: compares an artifact with the reference again, here and now.

use std::{fmt::Write, path::Path};

use emoc_backends::{onnx, rust_crate::Emitted};
use emoc_ir::{Diagnostic, Kind, Result};
use emoc_runtimes::{Found, Tolerance};
use serde::Serialize;

use crate::{
    agreement::{self, BlockTable, Reference, References, Row, engine_row},
    agreement_table,
    args::{CheckArgs, ModelArgs, Precision},
    artifact::{BundleFolder, CrateFolder, ModelKind, OnnxFile, Origin, say_changed},
    json,
    network::{self, Need, Network},
    pipeline, precision,
    record::NetworkRecord,
    ui::Ui,
};

/// What `--json` says.
#[derive(Serialize)]
struct CheckResult<'a> {
    network: NetworkRecord,
    weights: &'a network::Weights,
    checks: &'a [Row],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    blocks: &'a [BlockTable],
}

/// An artifact that was run, and what it was compared with.
pub struct Checked {
    pub artifact: Artifact,
    pub network: Network,
    pub rows: Vec<Row>,
    /// Empty without `--per-block`.
    pub blocks: Vec<BlockTable>,
}

/// Every kind of artifact.
#[allow(clippy::large_enum_variant, reason = "built once")]
pub enum Artifact {
    /// An ONNX file, and what it computes in.
    Onnx(OnnxFile, Precision),
    Crate(CrateFolder),
    Bundle(BundleFolder),
}

pub fn run(args: &CheckArgs, ui: &Ui) -> Result<()> {
    let is_crate = ModelKind::of(&args.artifact) == ModelKind::Crate;
    if args.per_block && is_crate {
        let message = "a crate has no outputs at the ends of its blocks";
        return Err(Diagnostic::usage(message)
            .file(&args.artifact)
            .help("leave --per-block out, or check the ONNX file of the same network"));
    }
    let checked = examine(args, ui)?;
    let result = CheckResult {
        network: NetworkRecord::of(&checked.network.model),
        weights: &checked.network.weights,
        checks: &checked.rows,
        blocks: &checked.blocks,
    };
    json::show(&result, || checked.blocks_text() + &checked.text(), ui)?;
    agreement::demand(&checked.rows, "").map_err(|error| error.file(&args.artifact))?;
    match is_crate && !checked.rows.iter().any(Row::is_good) {
        true => {
            let message = "the crate was not checked: there is no cargo to build it";
            Err(Diagnostic::new(Kind::RuntimeMissing, message).file(&args.artifact))
        }
        false => Ok(()),
    }
}

impl Artifact {
    /// Reads an artifact and runs nothing.
    ///
    /// # Errors
    /// It is none that emoc knows.
    pub fn open(path: &Path, ui: &Ui) -> Result<Self> {
        Ok(match ModelKind::of(path) {
            ModelKind::Bundle => {
                let folder = BundleFolder::open(path)?;
                say_changed(&folder.changed, ui);
                Self::Bundle(folder)
            }
            ModelKind::Crate => {
                let folder = CrateFolder::open(path)?;
                say_changed(&folder.changed, ui);
                Self::Crate(folder)
            }
            ModelKind::Onnx | ModelKind::Checkpoint => {
                let file = OnnxFile::open(path)?;
                let precision = precision::of(&file.description);
                let precision = precision.map_err(|error| error.file(path))?;
                Self::Onnx(file, precision)
            }
        })
    }

    /// What it was compiled from, where it says so.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Artifact::Onnx(file, _) => file.origin.as_ref(),
            Artifact::Crate(folder) => Some(&folder.origin),
            Artifact::Bundle(folder) => folder.models.first()?.1.origin.as_ref(),
        }
    }
}

impl Checked {
    /// What every runtime answered.
    pub fn text(&self) -> String {
        match &self.artifact {
            Artifact::Bundle(_) => agreement_table::bundle(&self.rows),
            Artifact::Onnx(_, precision) => {
                agreement_table::agreement(&self.rows, precision::tolerance(*precision))
            }
            Artifact::Crate(_) => agreement_table::agreement(&self.rows, Tolerance::FLOAT32),
        }
    }

    /// Differences at the ends of blocks, where they were asked for.
    fn blocks_text(&self) -> String {
        let mut text = String::new();
        for precision in [Precision::F32, Precision::F16] {
            let of_model = match &self.artifact {
                Artifact::Bundle(_) => Some(precision),
                Artifact::Onnx(_, found) if *found == precision => None,
                Artifact::Onnx(..) | Artifact::Crate(_) => continue,
            };
            let tables = self.blocks.iter().filter(|table| table.model == of_model);
            let tables: Vec<_> = tables.collect();
            if tables.is_empty() {
                continue;
            }
            if of_model.is_some() {
                let _ = writeln!(text, "{}", precision.name());
            }
            let table = agreement_table::blocks(&tables, precision::tolerance(precision));
            let _ = writeln!(text, "{table}");
        }
        text
    }
}

/// Runs an artifact in everything that can run it. A crate has no outputs at the ends of its
/// blocks.
///
/// # Errors
/// Everything that is wrong with the artifact, the flags or the checkpoint; a disagreement is in
/// the rows.
pub fn examine(args: &CheckArgs, ui: &Ui) -> Result<Checked> {
    args.model.refuse_range()?;
    let kind = ModelKind::of(&args.artifact);
    if args.runtime.tensorrt_rtx && kind != ModelKind::Bundle {
        return Err(
            Diagnostic::usage("--tensorrt-rtx is for TensorRT bundles").file(&args.artifact)
        );
    }
    match kind {
        ModelKind::Bundle => bundle(args, ui),
        ModelKind::Crate => crate_folder(args, ui),
        ModelKind::Onnx | ModelKind::Checkpoint => onnx_file(args, ui),
    }
}

/// Every model of a bundle in every runtime, and in TensorRT's own parser.
fn bundle(args: &CheckArgs, ui: &Ui) -> Result<Checked> {
    let runtimes = agreement::runtimes(&args.runtime)?;
    let builder = agreement::tensorrt_rtx(args.runtime.tensorrt_rtx)?;
    ui.step("reading the bundle");
    let folder = BundleFolder::open(&args.artifact)?;
    say_changed(&folder.changed, ui);
    let [(_, first), ..] = &folder.models[..] else {
        return Err(Diagnostic::input("the bundle has no model").file(&args.artifact));
    };
    let network = load(args, &args.model, first.origin.as_ref(), ui)?;
    say_weights(first.origin.as_ref(), &network, ui);
    let faithful = &network.model.graph;
    let reference = Reference::evaluate(faithful, folder.images(), Tolerance::FLOAT32, ui)?;
    let (mut rows, mut blocks) = (Vec::new(), Vec::new());
    for (precision, artifact) in &folder.models {
        let tolerance = precision::tolerance(*precision);
        let reference = reference.held_to(tolerance);
        let instrumented = || instrument(args, artifact, &network);
        let bytes = &artifact.bytes;
        let judged = agreement::judge(bytes, faithful, &reference, &runtimes, &instrumented, ui)?;
        rows.extend(judged.into_iter().map(|row| row.of(*precision)));
        rows.push(engine_row(&builder, *precision, bytes, &folder.plan, ui)?);
        if args.per_block {
            let bytes = instrumented()?;
            let mut tables = agreement::per_block(&bytes, faithful, &reference, &runtimes, ui)?;
            for table in &mut tables {
                table.model = Some(*precision);
            }
            blocks.extend(tables);
        }
    }
    Ok(Checked {
        artifact: Artifact::Bundle(folder),
        network,
        rows,
        blocks,
    })
}

fn onnx_file(args: &CheckArgs, ui: &Ui) -> Result<Checked> {
    let runtimes = agreement::runtimes(&args.runtime)?;
    ui.step("reading the artifact");
    let artifact = OnnxFile::open(&args.artifact)?;
    match artifact.origin {
        None if args.per_block => return Err(no_metadata(args)),
        None => {
            ui.warn("the artifact has no metadata of emoc: the flags must say which network it is");
        }
        Some(_) => {}
    }
    let origin = artifact.origin.as_ref();
    let network = load(args, &args.model, origin, ui)?;
    say_weights(origin, &network, ui);
    examine_onnx(args, artifact, network, &runtimes, ui)
}

/// Runs an ONNX file of this network.
///
/// # Errors
/// Those of [`examine`].
pub fn examine_onnx(
    args: &CheckArgs,
    artifact: OnnxFile,
    network: Network,
    runtimes: &[Found],
    ui: &Ui,
) -> Result<Checked> {
    let faithful = &network.model.graph;
    let precision = precision::of(&artifact.description).map_err(|e| e.file(&args.artifact))?;
    let tolerance = precision::tolerance(precision);
    let reference = Reference::evaluate(faithful, agreement::DYNAMIC_BATCH, tolerance, ui)?;
    let instrumented = || instrument(args, &artifact, &network);
    let bytes = &artifact.bytes;
    let rows = agreement::judge(bytes, faithful, &reference, runtimes, &instrumented, ui)?;
    let blocks = match args.per_block {
        true => agreement::per_block(&instrumented()?, faithful, &reference, runtimes, ui)?,
        false => Vec::new(),
    };
    Ok(Checked {
        artifact: Artifact::Onnx(artifact, precision),
        network,
        rows,
        blocks,
    })
}

fn crate_folder(args: &CheckArgs, ui: &Ui) -> Result<Checked> {
    let runtimes = agreement::runtimes(&args.runtime)?;
    ui.step("reading the crate");
    let mut folder = CrateFolder::open(&args.artifact)?;
    say_changed(&folder.changed, ui);
    let network = load(args, &args.model, Some(&folder.origin), ui)?;
    say_weights(Some(&folder.origin), &network, ui);
    let faithful = &network.model.graph;
    let optimised = pipeline::spelled(folder.manifest.passes(), faithful, &Ui::silent())?.graph;
    let options = &folder.manifest.options;
    let references = References::evaluate(faithful, &optimised, options.weights_dtype, ui)?;
    let emitted = Emitted {
        name: options.crate_name.clone(),
        files: std::mem::take(&mut folder.files),
        arena_bytes: options.arena_bytes,
        weight_bytes: options.weight_bytes,
    };
    let rows = agreement::judge_crate(&emitted, &references, &optimised, &runtimes, ui)?;
    folder.files = emitted.files;
    Ok(Checked {
        artifact: Artifact::Crate(folder),
        network,
        rows,
        blocks: Vec::new(),
    })
}

/// The network to compare with: what no flag says is taken from the artifact.
fn load(args: &CheckArgs, model: &ModelArgs, origin: Option<&Origin>, ui: &Ui) -> Result<Network> {
    let checkpoint = args.checkpoint.checkpoint.as_deref();
    let filled = match origin {
        Some(origin) => origin.fill(model, checkpoint.is_some()),
        None => Ok(model.clone()),
    };
    let filled = filled.map_err(|error| error.file(&args.artifact))?;
    network::load(&filled, checkpoint, Need::Everything, ui)
}

/// What is said where the weights are other ones.
pub const OTHER_WEIGHTS: &str = "these are not the weights that the artifact was compiled from";

/// Other weights than the artifact's may be meant: the comparison then says how far they are.
fn say_weights(origin: Option<&Origin>, network: &Network, ui: &Ui) {
    if origin.is_some_and(|origin| origin.has_other_weights(network)) {
        ui.warn(OTHER_WEIGHTS);
    }
}

fn no_metadata(args: &CheckArgs) -> Box<Diagnostic> {
    let message = "the artifact has no metadata of emoc, so its blocks cannot be found";
    Diagnostic::input(message).file(&args.artifact)
}

/// The artifact with the ends of blocks as outputs: emitted again as it was compiled, whatever
/// the flags say now, and given the artifact's own weights.
fn instrument(args: &CheckArgs, artifact: &OnnxFile, network: &Network) -> Result<Vec<u8>> {
    let Some(origin) = &artifact.origin else {
        return Err(no_metadata(args));
    };
    let compiled;
    let model = match origin.network.geometry() == network.model.geometry {
        true => &network.model,
        false => {
            let model = ModelArgs {
                input_size: None,
                window: None,
                batch: None,
                ..args.model.clone()
            };
            compiled = load(args, &model, Some(origin), &Ui::silent())?;
            &compiled.model
        }
    };
    let at = |error: Box<Diagnostic>| error.file(&args.artifact);
    let structure = artifact.emit_again(model, true).map_err(at)?;
    onnx::with_weights_of(&structure, &artifact.bytes).map_err(at)
}
