//! A checkpoint beside an artifact: compiled in memory as the artifact was.

use std::path::Path;

use emoc_backends::{onnx, rust_crate};
use emoc_ir::{Diagnostic, Result};

use super::{
    subject::{Artifact, Content, Subject, packed},
    weights::Store,
    words::of_network,
};
use crate::{
    args::ModelArgs,
    artifact::CrateFolder,
    network::{self, Need, Network},
    pipeline,
    record::NetworkRecord,
    ui::Ui,
};

/// The checkpoint with the weights that the artifact would have.
///
/// # Errors
/// The artifact does not say how it was made, or the checkpoint is of another network.
pub fn subject(path: &Path, args: &ModelArgs, artifact: &Artifact, ui: &Ui) -> Result<Subject> {
    let Some(origin) = artifact.origin() else {
        let message = "the artifact has no metadata of emoc: how a checkpoint would be compiled \
                       to it is not known";
        return Err(Diagnostic::usage(message)
            .file(artifact.path())
            .help("compile the checkpoint with `emoc compile`, and compare the two files"));
    };
    let args = origin.fill(args, true)?;
    let mut subject = Subject::checkpoint(path, &args, &Ui::silent())?;
    let network = network::load(&args, Some(path), Need::Everything, &Ui::silent());
    let network = network.map_err(|error| {
        let message = "the checkpoint cannot be compiled as the artifact was: it seems to be of \
                       another network";
        Diagnostic::input(message)
            .file(path)
            .detail(error.message)
            .help("compile it with `emoc compile`, and compare the two files")
    })?;
    ui.step("compiling the checkpoint as the artifact was");
    let at = |error: Box<Diagnostic>| error.file(artifact.path());
    subject.weights = match &artifact.content {
        Content::Crate(folder) => as_crate(&network, folder).map_err(at)?,
        Content::Onnx(_) | Content::Bundle(..) => {
            let file = artifact.onnx();
            let file = file.ok_or_else(|| Diagnostic::internal("a bundle without a model"))?;
            let bytes = file.emit_again(&network.model, false).map_err(at)?;
            let description = onnx::describe(&bytes)?;
            subject.facts.nodes = Some(description.nodes);
            subject.facts.operators = description.operators;
            Store::initializers(onnx::initializers(bytes)?)
        }
    };
    subject.settings = of_network(&NetworkRecord::of(&network.model));
    subject.facts.description += ", compiled in memory as the other was";
    Ok(subject)
}

fn as_crate(network: &Network, folder: &CrateFolder) -> Result<Store> {
    let (manifest, graph) = (&folder.manifest, &network.model.graph);
    let optimised = pipeline::spelled(manifest.passes(), graph, &Ui::silent())?.graph;
    let stored = manifest.options.weights_dtype;
    let options = rust_crate::Options {
        weights: stored.into(),
        ..rust_crate::Options::default()
    };
    let emitted = rust_crate::emit(&optimised, &options)?;
    packed(emitted.files, stored)
}
