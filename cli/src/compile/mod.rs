//! `emoc compile`: a checkpoint, or seeded weights, to a checked artifact.

mod onnx;
mod precise;
mod rust_crate;
mod tensorrt;

use emoc_ir::{Diagnostic, Result};
use serde::Serialize;

use crate::{
    agreement::Row,
    args::{BatchArg, CompileArgs, Precision, Target},
    labels,
    manifest::{self, PassRecord},
    network::{self, Need, Network, Weights},
    pipeline::{self, Optimised},
    record::NetworkRecord,
    ui::Ui,
};

pub fn run(args: &CompileArgs, ui: &Ui) -> Result<()> {
    refuse_other_targets_flags(args)?;
    pipeline::check(&args.pipeline)?;
    match args.target {
        Target::Onnx => onnx::run(args, ui),
        Target::Rust => rust_crate::run(args, ui),
        Target::Tensorrt | Target::TensorrtRtx => tensorrt::run(args, ui),
    }
}

/// A flag that would do nothing is a mistake.
fn refuse_other_targets_flags(args: &CompileArgs) -> Result<()> {
    let (onnx, rust, precision) = (&args.onnx, &args.rust, &args.precision);
    let bundles = [Target::Tensorrt, Target::TensorrtRtx];
    let onnx_files = [Target::Onnx, Target::Tensorrt, Target::TensorrtRtx];
    let flags: [(_, &[Target], _); 7] = [
        ("--opset", &onnx_files, onnx.opset.is_some()),
        ("--max-rank", &onnx_files, onnx.max_rank.is_some()),
        ("--precision", &onnx_files, precision.precision.is_some()),
        ("--islands", &onnx_files, precision.islands.is_some()),
        ("--crate-name", &[Target::Rust], rust.crate_name.is_some()),
        (
            "--weights-dtype",
            &[Target::Rust],
            rust.weights_dtype.is_some(),
        ),
        ("--tensorrt-rtx", &bundles, args.runtime.tensorrt_rtx),
    ];
    let misplaced =
        |(_, targets, given): &&(_, &[Target], bool)| *given && !targets.contains(&args.target);
    if let Some((flag, others, _)) = flags.iter().find(misplaced) {
        let names: Vec<_> = others.iter().map(|other| other.name()).collect();
        let (others, target) = (names.join(" or "), args.target.name());
        let message = format!("{flag} is for --target {others}, and the target is {target}");
        return Err(Diagnostic::usage(message).help("leave it out, or choose another target"));
    }
    if precision.islands.is_some() && precision.precision() == Precision::F32 {
        let message = "--islands is for --precision f16";
        return Err(Diagnostic::usage(message).help("add it, or leave --islands out"));
    }
    match (args.target, args.model.batch) {
        (Target::Rust, Some(batch)) if batch != BatchArg::Fixed(1) => {
            let message = "a crate infers one image at a time: --batch is for the other targets";
            Err(Diagnostic::usage(message).help("leave it out, and call `infer` in a loop"))
        }
        (Target::Onnx, _) => args.model.refuse_range(),
        _ => Ok(()),
    }
}

/// A network on its way to a backend.
struct Prepared {
    network: Network,
    labels: Option<Vec<String>>,
}

impl Prepared {
    fn load(args: &CompileArgs, ui: &Ui) -> Result<Self> {
        let checkpoint = args.checkpoint.checkpoint.as_deref();
        let network = network::load(&args.model, checkpoint, Need::Everything, ui)?;
        let classes = network.model.architecture.classes;
        let labels = args.labels.as_deref();
        let labels = labels.map(|path| labels::read(path, classes)).transpose()?;
        Ok(Self { network, labels })
    }

    fn optimise(&self, args: &CompileArgs, ui: &Ui) -> Result<Optimised> {
        let faithful = self.network.model.graph.clone().verify()?;
        pipeline::run(&args.pipeline, faithful, ui)
    }
}

/// What `--json` says.
#[derive(Serialize)]
struct CompileResult<'a, Facts> {
    /// None after a disagreement.
    artifact: Option<String>,
    manifest: Option<String>,
    /// What this kind of artifact is.
    #[serde(flatten)]
    facts: Facts,
    network: NetworkRecord,
    window_by_default: bool,
    weights: &'a Weights,
    passes: &'a [PassRecord],
    /// Empty with `--no-check`.
    checks: &'a [Row],
    warnings: &'a [String],
}

impl<'a, Facts> CompileResult<'a, Facts> {
    fn new(
        paths: Option<[String; 2]>,
        facts: Facts,
        network: &'a Network,
        passes: &'a [PassRecord],
        checks: &'a [Row],
    ) -> Self {
        let (artifact, manifest) = paths.map_or((None, None), |[a, m]| (Some(a), Some(m)));
        Self {
            artifact,
            manifest,
            facts,
            network: NetworkRecord::of(&network.model),
            window_by_default: network.window_by_default,
            weights: &network.weights,
            passes,
            checks,
            warnings: &network.model.warnings,
        }
    }
}

/// What a folder says about the origin of the network in it.
fn provenance(args: &CompileArgs, network: &Network) -> Result<Vec<(String, String)>> {
    let passes = pipeline::spelling(&args.pipeline);
    let mut rows = manifest::metadata(network, &passes, None)?;
    // For programs; they are in the manifest.
    rows.retain(|(key, _)| ![manifest::key::NETWORK, "preprocessing"].contains(&&**key));
    rows.push(("emoc".into(), env!("CARGO_PKG_VERSION").into()));
    Ok(rows)
}

/// What is to be known about an artifact beside its size.
fn remarks(network: &Network, rows: &[Row]) -> String {
    let seeded = match network.weights {
        Weights::Seeded { .. } => ", seeded weights",
        Weights::Checkpoint { .. } | Weights::Artifact { .. } => "",
    };
    let unchecked = match rows.iter().any(Row::is_good) {
        true => "",
        false => ", not checked",
    };
    format!("{seeded}{unchecked}")
}
