//! `emoc check`: compares an artifact with the reference again, here and now.

use emoc_backends::onnx;
use emoc_ir::{Diagnostic, Result};
use serde::Serialize;

use crate::{
    agreement::{self, BlockTable, Reference, Row},
    args::{CheckArgs, ModelArgs},
    artifact::Artifact,
    json,
    manifest::{self, Options, key},
    network::{self, Need, Network},
    pipeline,
    record::NetworkRecord,
    report,
    ui::Ui,
};

/// What `--json` says.
#[derive(Serialize)]
struct CheckResult<'a> {
    network: NetworkRecord,
    weights: &'a network::Weights,
    checks: &'a [Row],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    blocks: Vec<BlockTable>,
}

pub fn run(args: &CheckArgs, ui: &Ui) -> Result<()> {
    let runtimes = agreement::runtimes(&args.runtime)?;
    ui.step("reading the artifact");
    let artifact = Artifact::open(&args.artifact)?;
    if artifact.network.is_none() {
        ui.warn("the artifact has no metadata of emoc: the flags must say which network it is");
    }
    let network = load(args, &args.model, &artifact, ui)?;
    say_weights(&artifact, &network, ui);

    let faithful = &network.model.graph;
    let reference = Reference::evaluate(faithful, ui)?;
    let instrumented = || instrument(args, &artifact, &network);
    let bytes = &artifact.bytes;
    let rows = agreement::judge(bytes, faithful, &reference, &runtimes, &instrumented, ui)?;
    let blocks = match args.per_block {
        true => agreement::per_block(&instrumented()?, faithful, &reference, &runtimes, ui)?,
        false => Vec::new(),
    };
    let text = match blocks.is_empty() {
        true => report::agreement(&rows),
        false => format!("{}\n{}", report::blocks(&blocks), report::agreement(&rows)),
    };
    let result = CheckResult {
        network: NetworkRecord::of(&network.model),
        weights: &network.weights,
        checks: &rows,
        blocks,
    };
    match (ui.json(), ui.quiet()) {
        (true, _) => json::print(&result, ui)?,
        (false, true) => {}
        (false, false) => ui.print_prose(text)?,
    }
    agreement::demand(&rows, "").map_err(|error| error.file(&args.artifact))
}

/// The network to compare with: what no flag says is taken from the artifact.
fn load(args: &CheckArgs, model: &ModelArgs, artifact: &Artifact, ui: &Ui) -> Result<Network> {
    let checkpoint = args.checkpoint.checkpoint.as_deref();
    let filled = artifact.fill(model, checkpoint.is_some());
    let filled = filled.map_err(|error| error.file(&args.artifact))?;
    network::load(&filled, checkpoint, Need::Everything, ui)
}

/// Other weights than the artifact's may be meant: the comparison then says how far they are.
fn say_weights(artifact: &Artifact, network: &Network, ui: &Ui) {
    let expected = artifact.description.get(key::WEIGHTS_SHA256);
    if expected.is_some_and(|expected| expected != network.weights.sha256()) {
        ui.warn("these are not the weights that the artifact was compiled from");
    }
}

/// The artifact with the ends of blocks as outputs: emitted again as it was compiled, whatever
/// the flags say now, and given the artifact's own weights.
fn instrument(args: &CheckArgs, artifact: &Artifact, network: &Network) -> Result<Vec<u8>> {
    let Some(record) = &artifact.network else {
        let message = "the artifact has no metadata of emoc, so its blocks cannot be found";
        return Err(Diagnostic::input(message).file(&args.artifact));
    };
    let compiled;
    let model = match record.geometry() == network.model.geometry {
        true => &network.model,
        false => {
            let model = ModelArgs {
                input_size: None,
                window: None,
                batch: None,
                ..args.model.clone()
            };
            compiled = load(args, &model, artifact, &Ui::silent())?;
            &compiled.model
        }
    };
    let passes = artifact.description.get(key::PASSES).unwrap_or("all");
    let passes = pipeline::from_spelling(passes);
    let graph = model.graph.clone().verify()?;
    let optimised = pipeline::run(&passes, graph, &Ui::silent())?;
    let options = Options {
        opset: u32::try_from(artifact.description.opset).unwrap_or(0),
        max_rank: None,
    };
    let options = onnx::Options {
        block_outputs: true,
        ..manifest::onnx_options(options, Vec::new())
    };
    let structure = onnx::emit(&optimised.graph, &options)?;
    onnx::with_weights_of(&structure, &artifact.bytes).map_err(|e| e.file(&args.artifact))
}
