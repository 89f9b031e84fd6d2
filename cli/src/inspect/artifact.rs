//! `emoc inspect model.onnx`.

use std::{collections::BTreeMap, fmt::Write, path::Path};

use emoc_backends::onnx::Description;
use emoc_frontend::emo2;
use emoc_ir::{Diagnostic, Result};
use serde::Serialize;

use super::{
    cost::{Published, StageRow, macs_line, published, stage_rows, stage_table},
    input_line, network_line, print_graph,
};
use crate::{
    args::InspectArgs,
    artifact::OnnxFile,
    json,
    manifest::{self, key},
    record::NetworkRecord,
    table::{bytes, grouped},
    ui::{Ui, printable},
};

/// What `inspect` finds out about an artifact.
#[derive(Serialize)]
struct ArtifactInspection<'a> {
    producer: String,
    opset: i64,
    nodes: usize,
    bytes: usize,
    sha256: String,
    /// Elements of its weights, after folding.
    weight_elements: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<&'a NetworkRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    macs: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    published: Vec<Published>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stages: Vec<StageRow>,
    metadata: BTreeMap<&'a str, &'a str>,
}

pub fn run(args: &InspectArgs, path: &Path, ui: &Ui) -> Result<()> {
    ui.step("reading the artifact");
    let artifact = OnnxFile::open(path)?;
    let at = |error: Box<Diagnostic>| error.file(path);
    let network = artifact.origin.as_ref().map(|origin| &origin.network);
    let model = network.map(|record| {
        let architecture = record.architecture()?;
        emo2::declared(architecture, record.geometry())
    });
    let model = model.transpose().map_err(at)?;
    if args.graph {
        let Some(model) = model else {
            let message = "the artifact has no metadata of emoc, so its network is not known";
            return Err(at(Diagnostic::input(message)));
        };
        return print_graph(&model, ui);
    }
    let cost = model
        .as_ref()
        .map(|model| model.graph.cost(1))
        .transpose()?;
    let Description {
        producer,
        producer_version,
        opset,
        nodes,
        parameters,
        metadata,
        ..
    } = &artifact.description;
    let rows = metadata.iter();
    let inspection = ArtifactInspection {
        producer: format!("{producer} {producer_version}").trim().to_owned(),
        opset: *opset,
        nodes: *nodes,
        bytes: artifact.bytes.len(),
        sha256: manifest::sha256(&artifact.bytes),
        weight_elements: *parameters,
        network,
        parameters: cost.as_ref().map(|cost| cost.total.parameters),
        macs: cost.as_ref().map(|cost| cost.total.macs),
        published: model.as_ref().map(published).unwrap_or_default(),
        stages: cost.as_ref().map(stage_rows).unwrap_or_default(),
        metadata: rows.map(|(key, value)| (&**key, &**value)).collect(),
    };
    match ui.json() {
        true => json::print(&inspection, ui),
        false => ui.print_prose(text(path, &inspection)),
    }
}

/// Metadata that has a line of its own, or is for programs.
const SHOWN: [&str; 6] = [
    key::NETWORK,
    "variant",
    "input_size",
    "window",
    "classes",
    key::LABELS,
];

fn text(path: &Path, inspection: &ArtifactInspection) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<14} {}", printable(value));
    };
    let (nodes, opset) = (inspection.nodes, inspection.opset);
    let size = bytes(inspection.bytes as u64);
    line(
        "file",
        &format!(
            "{}: ONNX, {size}, {nodes} nodes, opset {opset}",
            path.display()
        ),
    );
    line("sha256", &inspection.sha256);
    if !inspection.producer.is_empty() {
        line("producer", &inspection.producer);
    }
    if let Some(network) = inspection.network {
        line("network", &network_line(network));
        line("input", &input_line(network, false));
    }
    if let Some(parameters) = inspection.parameters {
        line("parameters", &grouped(parameters));
    }
    line(
        "stored",
        &format!(
            "{} numbers, after folding",
            grouped(inspection.weight_elements)
        ),
    );
    if let (Some(macs), Some(network)) = (inspection.macs, inspection.network) {
        line("MACs", &macs_line(macs, network, &inspection.published));
    }
    for (key, value) in &inspection.metadata {
        if !SHOWN.contains(key) {
            line(key, value);
        }
    }
    if let Some(macs) = inspection.macs {
        let _ = write!(text, "\n{}", stage_table(macs, &inspection.stages));
    }
    text
}
