//! From what a report is asked about to an artifact that was run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use emoc_backends::onnx;
use emoc_frontend::emo2;
use emoc_ir::{Diagnostic, Result, Weight, seeded};
use emoc_runtimes::Tolerance;

use super::ReportArgs;
use crate::{
    agreement::{self, BlockTable, Reference},
    args::{CheckArgs, CheckpointArg, ModelArgs},
    artifact::{ModelKind, OnnxFile},
    check::{self, Artifact, Checked},
    manifest::{self, OnnxOptions, key},
    network::{self, Need, Network, Weights},
    pipeline::{self, Optimised},
    ui::Ui,
};

/// An artifact, what came out of running it, and how it came about.
pub struct Subject {
    pub checked: Checked,
    /// Of the passes that the artifact was compiled with.
    pub optimised: Optimised,
    /// Which passes, in one word.
    pub passes: String,
    /// The file or folder; none if the artifact was compiled for the report and not kept.
    pub path: Option<PathBuf>,
    /// The weights' file, where there is one.
    pub checkpoint: Option<PathBuf>,
    /// The flags of the network.
    pub flags: ModelArgs,
}

impl Subject {
    /// Opens what the arguments name and runs it.
    ///
    /// # Errors
    /// Everything that is wrong with it, the flags or the checkpoint.
    pub fn open(args: &ReportArgs, ui: &Ui) -> Result<Self> {
        args.model.refuse_range()?;
        let path = args.model_path.as_deref();
        let artifact = path.filter(|path| ModelKind::of(path) != ModelKind::Checkpoint);
        match (artifact, path, &args.checkpoint.checkpoint) {
            (Some(path), ..) => Self::artifact(args, path, ui),
            (None, None, checkpoint) => Self::compiled(args, checkpoint.as_deref(), ui),
            (None, checkpoint, None) => Self::compiled(args, checkpoint, ui),
            (None, Some(path), Some(_)) => {
                fs::metadata(path)
                    .map_err(|error| Diagnostic::io("read the artifact", path, &error))?;
                let message = "this is no artifact, so --checkpoint has nothing to add to it";
                let error = Diagnostic::usage(message).file(path);
                Err(error.help("give one of the two"))
            }
        }
    }

    /// The name of the network.
    pub fn name(&self) -> &str {
        &self.checked.network.model.graph.name
    }

    fn artifact(args: &ReportArgs, path: &Path, ui: &Ui) -> Result<Self> {
        let checkpoint = args.checkpoint.checkpoint.as_deref();
        if let Some(unchecked) = Self::unchecked(args, path, ui)? {
            return Ok(unchecked);
        }
        let mut checked = check::examine(&check_args(args, path, checkpoint), ui)?;
        let passes = passes(&checked.artifact);
        let optimised = pipeline::spelled(&passes, &checked.network.model.graph, &Ui::silent())?;
        if let Artifact::Crate(_) = &checked.artifact {
            checked.blocks = crate_blocks(args, &checked.network, &optimised, ui)?;
        }
        Ok(Self {
            checked,
            optimised,
            passes,
            path: Some(path.to_owned()),
            checkpoint: checkpoint.map(Path::to_owned),
            flags: args.model.clone(),
        })
    }

    /// An artifact whose checkpoint is not given: there is nothing to compare it with, and
    /// everything else can be told.
    fn unchecked(args: &ReportArgs, path: &Path, ui: &Ui) -> Result<Option<Self>> {
        let given = args.checkpoint.checkpoint.is_some() || args.model.first_given().is_some();
        if given || args.runtime.tensorrt_rtx {
            return Ok(None);
        }
        let artifact = Artifact::open(path, &Ui::silent())?;
        let Some(origin) = artifact.origin().filter(|origin| origin.seed.is_none()) else {
            return Ok(None);
        };
        let at = |error: Box<Diagnostic>| error.file(path);
        let record = &origin.network;
        let architecture = record.architecture().map_err(at)?;
        let mut model = emo2::declared(architecture, record.geometry()).map_err(at)?;
        // The passes fold what they find: numbers without meaning have the same form.
        let weights = model.graph.weights.iter();
        let weights: Vec<_> = weights.map(|(k, w)| (k.to_owned(), w.dims())).collect();
        for (key, dims) in weights {
            let weight = Weight::owned(&dims, seeded::values(&key, &dims, 0));
            model.graph.weights.insert(key, weight);
        }
        let network = Network {
            model,
            weights: Weights::Artifact {
                choice: if origin.ema { "ema" } else { "net" },
                sha256: origin.weights_sha256.clone().unwrap_or_default(),
            },
            window_by_default: false,
            entries: Vec::new(),
            unusable: Vec::new(),
        };
        ui.note("nothing is checked: that needs the weights, --checkpoint FILE");
        let passes = passes(&artifact);
        let optimised = pipeline::spelled(&passes, &network.model.graph, &Ui::silent())?;
        Ok(Some(Self {
            checked: Checked {
                artifact,
                network,
                rows: Vec::new(),
                blocks: Vec::new(),
            },
            optimised,
            passes,
            path: Some(path.to_owned()),
            checkpoint: None,
            flags: args.model.clone(),
        }))
    }

    /// Whether it was run.
    pub fn is_checked(&self) -> bool {
        !matches!(self.checked.network.weights, Weights::Artifact { .. })
    }

    /// Compiles a checkpoint, or seeded weights, as `emoc compile` does.
    fn compiled(args: &ReportArgs, checkpoint: Option<&Path>, ui: &Ui) -> Result<Self> {
        if args.runtime.tensorrt_rtx {
            return Err(Diagnostic::usage("--tensorrt-rtx is for TensorRT bundles"));
        }
        let runtimes = agreement::runtimes(&args.runtime)?;
        let network = network::load(&args.model, checkpoint, Need::Everything, ui)?;
        let passes = "all".to_owned();
        let optimised = pipeline::spelled(&passes, &network.model.graph, ui)?;
        let metadata = manifest::metadata(&network, &passes, None)?;
        let options = manifest::onnx_options(&OnnxOptions::default(), metadata);
        let artifact = OnnxFile::parse(onnx::emit(&optimised.graph, &options)?)?;
        let path = checkpoint.unwrap_or(Path::new(""));
        let check = check_args(args, path, checkpoint);
        let checked = check::examine_onnx(&check, artifact, network, &runtimes, ui)?;
        Ok(Self {
            checked,
            optimised,
            passes,
            path: None,
            checkpoint: checkpoint.map(Path::to_owned),
            flags: args.model.clone(),
        })
    }
}

/// What `emoc check --per-block` would be told.
fn check_args(args: &ReportArgs, artifact: &Path, checkpoint: Option<&Path>) -> CheckArgs {
    // A crate has no outputs at the ends of its blocks, and that is nobody's mistake here.
    CheckArgs {
        artifact: artifact.to_owned(),
        checkpoint: CheckpointArg {
            checkpoint: checkpoint.map(Path::to_owned),
        },
        per_block: ModelKind::of(artifact) != ModelKind::Crate,
        model: args.model.clone(),
        runtime: args.runtime.clone(),
    }
}

/// The passes that an artifact was compiled with, in one word.
fn passes(artifact: &Artifact) -> String {
    let passes = match artifact {
        Artifact::Crate(folder) => folder.manifest.passes(),
        Artifact::Onnx(file, _) => passes_of(file),
        Artifact::Bundle(folder) => folder.models.first().map_or("all", |(_, f)| passes_of(f)),
    };
    passes.to_owned()
}

fn passes_of(file: &OnnxFile) -> &str {
    file.description.get(key::PASSES).unwrap_or("all")
}

/// Differences at the ends of blocks of the ONNX file that runs beside a crate.
fn crate_blocks(
    args: &ReportArgs,
    network: &Network,
    optimised: &Optimised,
    ui: &Ui,
) -> Result<Vec<BlockTable>> {
    let faithful = &network.model.graph;
    let images = agreement::DYNAMIC_BATCH;
    let reference = Reference::evaluate(faithful, images, Tolerance::FLOAT32, ui)?;
    let options = onnx::Options {
        block_outputs: true,
        ..manifest::onnx_options(&OnnxOptions::default(), Vec::new())
    };
    let instrumented = onnx::emit(&optimised.graph, &options)?;
    let runtimes = agreement::runtimes(&args.runtime)?;
    agreement::per_block(&instrumented, faithful, &reference, &runtimes, ui)
}
