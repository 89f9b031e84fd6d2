//! `emoc inspect emov2-5m-224/`.

use std::{fmt::Write, path::Path};

use emoc_frontend::emo2;
use emoc_ir::{Diagnostic, Result};
use serde::Serialize;

use super::{
    cost::{Published, StageRow, macs_line, published, stage_rows, stage_table},
    input_line, network_line, print_graph,
};
use crate::{
    args::InspectArgs,
    artifact::CrateFolder,
    json,
    manifest::CrateOptions,
    record::NetworkRecord,
    table::{bytes, grouped},
    ui::{Ui, printable},
};

/// What `inspect` finds out about a crate.
#[derive(Serialize)]
struct CrateInspection<'a> {
    producer: String,
    #[serde(flatten)]
    options: &'a CrateOptions,
    files: usize,
    bytes: usize,
    /// Files that are not as the manifest says.
    changed: &'a [String],
    network: &'a NetworkRecord,
    /// `net`, `ema` or `seeded`.
    weights: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    weights_sha256: &'a str,
    parameters: u64,
    macs: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    published: Vec<Published>,
    stages: Vec<StageRow>,
}

pub fn run(args: &InspectArgs, path: &Path, ui: &Ui) -> Result<()> {
    ui.step("reading the crate");
    let folder = CrateFolder::open(path)?;
    let manifest = &folder.manifest;
    let at = |error: Box<Diagnostic>| error.file(path);
    let architecture = manifest.network.architecture().map_err(at)?;
    let model = emo2::declared(architecture, manifest.network.geometry()).map_err(at)?;
    if args.graph {
        return print_graph(&model, ui);
    }
    let cost = model.graph.cost(1)?;
    let inspection = CrateInspection {
        producer: format!("emoc {}", manifest.producer_version),
        options: &manifest.options,
        files: folder.files.len(),
        bytes: folder.files.iter().map(|(_, bytes)| bytes.len()).sum(),
        changed: &folder.changed,
        network: &manifest.network,
        weights: manifest.weights.choice.as_deref().unwrap_or("seeded"),
        seed: manifest.weights.seed,
        weights_sha256: &manifest.weights.sha256,
        parameters: cost.total.parameters,
        macs: cost.total.macs,
        published: published(&model),
        stages: stage_rows(&cost),
    };
    match ui.json() {
        true => json::print(&inspection, ui),
        false => ui.print_prose(text(path, &inspection)),
    }
}

fn text(path: &Path, inspection: &CrateInspection) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<14} {}", printable(value));
    };
    let CrateOptions {
        crate_name,
        weights_dtype,
        arena_bytes,
        weight_bytes,
    } = inspection.options;
    let (files, size) = (inspection.files, bytes(inspection.bytes as u64));
    let path = path.display();
    line(
        "folder",
        &format!("{path}: Rust crate `{crate_name}`, {files} files, {size}"),
    );
    line("producer", &inspection.producer);
    line("network", &network_line(inspection.network));
    line("input", &input_line(inspection.network, false));
    line("parameters", &grouped(inspection.parameters));
    let weights = match inspection.seed {
        Some(seed) => format!("seeded, seed {seed}"),
        None => inspection.weights.to_owned(),
    };
    let (stored, weights_dtype) = (bytes(*weight_bytes as u64), weights_dtype.name());
    line(
        "weights",
        &format!("{weights}; stored as {weights_dtype}, {stored}"),
    );
    line("digest", inspection.weights_sha256);
    line("activations", &bytes(*arena_bytes as u64));
    line(
        "MACs",
        &macs_line(inspection.macs, inspection.network, &inspection.published),
    );
    for file in inspection.changed {
        line("changed", &format!("{file} is not as emoc wrote it"));
    }
    let _ = write!(
        text,
        "\n{}",
        stage_table(inspection.macs, &inspection.stages)
    );
    text
}
