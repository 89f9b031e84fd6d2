//! `emoc inspect`: what is in a checkpoint or an artifact.

mod artifact;
pub mod cost;
mod crate_folder;
mod tensors;

use std::{fmt::Write, path::Path};

use emoc_frontend::{
    Checkpoint, Entry,
    emo2::{Model, Problem, Unusable},
};
use emoc_ir::{CostTable, Diagnostic, Dim, Result};
use serde::Serialize;

use crate::{
    args::InspectArgs,
    artifact::{BundleFolder, ModelKind},
    json,
    network::{self, Need, Network, Weights},
    record::NetworkRecord,
    table::{bytes, grouped},
    ui::{Ui, WARNING},
};
use cost::{Published, StageRow, macs_line, published, stage_rows, stage_table};

pub fn run(args: &InspectArgs, ui: &Ui) -> Result<()> {
    args.model.refuse_range()?;
    let Some(path) = &args.file else {
        return checkpoint(args, None, ui);
    };
    if args.tensors {
        return tensors::run(&Checkpoint::open(path)?, ui);
    }
    match ModelKind::of(path) {
        ModelKind::Checkpoint => checkpoint(args, Some(path), ui),
        ModelKind::Onnx => artifact::run(args, path, ui),
        ModelKind::Crate => crate_folder::run(args, path, ui),
        // A bundle is one network, in float32 first.
        ModelKind::Bundle => {
            let folder = BundleFolder::open(path)?;
            let model = folder.plan.models.first();
            let model =
                model.ok_or_else(|| Diagnostic::input("the bundle has no model").file(path))?;
            artifact::run(args, &path.join(&model.file), ui)
        }
    }
}

/// Everything `inspect` finds out about a network.
#[derive(Serialize)]
struct Inspection<'a> {
    network: NetworkRecord,
    window_by_default: bool,
    weights: &'a Weights,
    parameters: u64,
    /// For one image, as fvcore counts them.
    macs: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    published: Vec<Published>,
    stages: Vec<StageRow>,
    /// What else the file holds.
    entries: Vec<EntryRow<'a>>,
    /// Weights that `compile` refuses; empty if all is well.
    unusable: Vec<UnusableRow<'a>>,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct UnusableRow<'a> {
    key: &'a str,
    problem: &'static str,
    first: usize,
    count: usize,
    values: usize,
}

impl<'a> UnusableRow<'a> {
    fn of(weight: &'a Unusable) -> Self {
        Self {
            key: &weight.key,
            problem: match weight.problem {
                Problem::Nonfinite => "nonfinite",
                Problem::NegativeVariance => "negative_variance",
            },
            first: weight.first,
            count: weight.count,
            values: weight.values,
        }
    }
}

#[derive(Serialize)]
struct EntryRow<'a> {
    key: &'a str,
    description: &'a str,
}

impl<'a> EntryRow<'a> {
    fn of(entry: &'a Entry) -> Self {
        Self {
            key: &entry.key,
            description: &entry.description,
        }
    }
}

fn checkpoint(args: &InspectArgs, path: Option<&Path>, ui: &Ui) -> Result<()> {
    let need = if args.graph {
        Need::Digests
    } else {
        Need::Structure
    };
    let network = network::load(&args.model, path, need, ui)?;
    if args.graph {
        return print_graph(&network.model, ui);
    }
    let cost = network.model.graph.cost(1)?;
    let inspection = inspection(&network, &cost);
    if ui.json() {
        return json::print(&inspection, ui);
    }
    let mut text = inspection_text(path, &inspection);
    text.push_str(&unusable_text(&network.unusable));
    ui.print_prose(text)
}

fn print_graph(model: &Model, ui: &Ui) -> Result<()> {
    #[derive(Serialize)]
    struct GraphText {
        graph: String,
    }
    let graph = model.graph.to_string();
    match ui.json() {
        true => json::print(&GraphText { graph }, ui),
        false => ui.print(graph),
    }
}

fn inspection<'a>(network: &'a Network, cost: &CostTable) -> Inspection<'a> {
    let Network { model, weights, .. } = network;
    Inspection {
        network: NetworkRecord::of(model),
        window_by_default: network.window_by_default,
        weights,
        parameters: cost.total.parameters,
        macs: cost.total.macs,
        published: published(model),
        stages: stage_rows(cost),
        entries: network.entries.iter().map(EntryRow::of).collect(),
        unusable: network.unusable.iter().map(UnusableRow::of).collect(),
        warnings: &model.warnings,
    }
}

fn inspection_text(path: Option<&Path>, inspection: &Inspection) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<12} {value}");
    };
    let network = &inspection.network;
    match inspection.weights {
        Weights::Checkpoint { file, .. } => {
            let path = path.unwrap_or(Path::new("")).display();
            let (format, size) = (&file.format, bytes(file.bytes));
            line(
                "file",
                crate::ui::printable(&format!("{path}: {format}, {size}")),
            );
            line("sha256", file.sha256.clone());
        }
        Weights::Artifact { .. } => {}
        Weights::Seeded { seed, .. } => line("file", format!("none: seeded weights, seed {seed}")),
    }
    line("network", network_line(network));
    line("weights", weights_line(inspection.weights));
    line("digest", inspection.weights.sha256().to_owned());
    line("input", input_line(network, inspection.window_by_default));
    line("parameters", grouped(inspection.parameters));
    line(
        "MACs",
        macs_line(inspection.macs, network, &inspection.published),
    );
    let _ = write!(
        text,
        "\n{}",
        stage_table(inspection.macs, &inspection.stages)
    );
    if !inspection.entries.is_empty() {
        let _ = writeln!(text, "\nalso in the file");
        for EntryRow { key, description } in &inspection.entries {
            let entry = crate::ui::printable(&format!("{key}: {description}"));
            let _ = writeln!(text, "  {entry}");
        }
    }
    text
}

/// The weights that `compile` refuses, if there are any.
fn unusable_text(unusable: &[Unusable]) -> String {
    const SHOWN: usize = 20;
    let mut text = String::new();
    if unusable.is_empty() {
        return text;
    }
    let count = unusable.len();
    let _ = writeln!(
        text,
        "\n{WARNING}unusable numbers in {count} weights{WARNING:#}"
    );
    for weight in &unusable[..count.min(SHOWN)] {
        let _ = writeln!(text, "  {weight}");
    }
    if count > SHOWN {
        let _ = writeln!(text, "  and {} more, see --json", count - SHOWN);
    }
    text
}

fn network_line(network: &NetworkRecord) -> String {
    let name = match network.variant() {
        Some(row) => format!("{} {}", row.family.replace("emov", "EMOv"), row.name),
        None => "not a published variant".to_owned(),
    };
    let head = match network.classes {
        Some(classes) => format!("{classes} classes"),
        None => "a backbone (outputs stage1 to stage4)".to_owned(),
    };
    let (depths, dims) = (network.depths, network.dims);
    format!("{name}, {head}; depths {depths:?}, channels {dims:?}")
}

fn weights_line(weights: &Weights) -> String {
    match weights {
        Weights::Seeded { .. } => "seeded: they prove the compiler and classify nothing".to_owned(),
        Weights::Artifact { choice, .. } => format!("{choice}, of a checkpoint"),
        Weights::Checkpoint {
            choice,
            root,
            stripped_prefixes,
            tensors,
            ..
        } => {
            let place = match root.as_str() {
                "" => "the root of the file".to_owned(),
                root => format!("`{}`", crate::ui::printable(root)),
            };
            let mut line = format!("{choice}: {tensors} tensors in {place}");
            for prefix in stripped_prefixes {
                let _ = write!(line, ", prefix `{prefix}` removed");
            }
            line
        }
    }
}

fn input_line(network: &NetworkRecord, window_by_default: bool) -> String {
    let [height, width] = network.input_size;
    let batch = match network.batch() {
        Dim::Fixed(1) => String::new(),
        Dim::Fixed(n) => format!(", batch {n}"),
        Dim::Batch(_) => ", any batch".to_owned(),
    };
    let window = match network.window {
        0 => "one window over the whole map".to_owned(),
        window => format!("window {window}"),
    };
    let default = if window_by_default {
        " (the default at this size)"
    } else {
        ""
    };
    format!("{height}x{width}{batch}, {window}{default}")
}
