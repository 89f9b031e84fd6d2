//! `emoc inspect`: what is in a checkpoint or an artifact.

use std::{fmt::Write, path::Path};

use emoc_frontend::{Checkpoint, Entry, emo2::Model};
use emoc_ir::{Cost, CostTable, Dim, Result};
use serde::Serialize;

use crate::{
    args::InspectArgs,
    network::{self, Need, Network, Weights},
    record::NetworkRecord,
    table::{Side, Table, bytes, grouped},
    ui::Ui,
};

pub fn run(args: &InspectArgs, ui: &Ui) -> Result<()> {
    match &args.file {
        Some(path) if args.tensors => tensors(&Checkpoint::open(path)?, ui),
        path => checkpoint(args, path.as_deref(), ui),
    }
}

/// `--tensors --json`, whose shape other programs rely on.
#[derive(Serialize)]
struct TensorList<'a> {
    tensors: Vec<TensorRow<'a>>,
}

#[derive(Serialize)]
struct TensorRow<'a> {
    name: &'a str,
    dtype: &'static str,
    shape: &'a [usize],
    sha256: String,
}

/// Lists every tensor of a checkpoint of any network.
fn tensors(checkpoint: &Checkpoint, ui: &Ui) -> Result<()> {
    ui.step("reading the tensors");
    let row = |tensor: &emoc_frontend::Tensor| -> Result<_> {
        Ok((tensor.dtype().name(), tensor.sha256()?))
    };
    let mut rows = Vec::with_capacity(checkpoint.tensors().len());
    for tensor in checkpoint.tensors() {
        let (dtype, sha256) = row(tensor)?;
        rows.push(TensorRow {
            name: tensor.name(),
            dtype,
            shape: tensor.shape(),
            sha256,
        });
    }
    if ui.json() {
        return print_json(&TensorList { tensors: rows }, ui);
    }
    let mut table = Table::new(&[
        ("tensor", Side::Left),
        ("type", Side::Left),
        ("shape", Side::Left),
        ("sha256", Side::Left),
    ]);
    for row in rows {
        let shape = format!("{:?}", row.shape);
        let name = crate::ui::printable(row.name);
        table.row([
            name.into(),
            row.dtype.into(),
            shape.into(),
            row.sha256[..16].into(),
        ]);
    }
    ui.print(table)
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
    warnings: &'a [String],
}

#[derive(Serialize)]
struct StageRow {
    stage: String,
    #[serde(flatten)]
    cost: Cost,
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
        Need::Everything
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
        return print_json(&inspection, ui);
    }
    ui.print(inspection_text(path, &inspection))
}

fn print_graph(model: &Model, ui: &Ui) -> Result<()> {
    #[derive(Serialize)]
    struct GraphText {
        graph: String,
    }
    let graph = model.graph.to_string();
    match ui.json() {
        true => print_json(&GraphText { graph }, ui),
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
        warnings: &model.warnings,
    }
}

fn stage_rows(cost: &CostTable) -> Vec<StageRow> {
    let row = |(stage, cost): &(String, Cost)| StageRow {
        stage: stage.clone(),
        cost: cost.clone(),
    };
    cost.stages.iter().map(row).collect()
}

/// Multiply-accumulates that the authors publish for this variant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Published {
    pub input_size: usize,
    pub window: usize,
    pub mmacs: u32,
}

/// The published figures for the network's variant at its input size, or all if there is none at
/// that size.
fn published(model: &Model) -> Vec<Published> {
    let Some(variant) = model.architecture.variant else {
        return Vec::new();
    };
    let at_224 = variant.published_mmacs.map(|mmacs| Published {
        input_size: 224,
        window: 7,
        mmacs,
    });
    // Published for one variant only, and true of window 8 only.
    let at_512 = (variant.name == "5M").then_some(Published {
        input_size: 512,
        window: 8,
        mmacs: 5627,
    });
    let all: Vec<_> = at_224.into_iter().chain(at_512).collect();
    let same_size = |row: &&Published| [row.input_size; 2] == model.geometry.input_size;
    match all.iter().find(same_size) {
        Some(row) => vec![row.clone()],
        None => all,
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
        Weights::Seeded { seed, .. } => line("file", format!("none: seeded weights, seed {seed}")),
    }
    line("network", network_line(network));
    line("weights", weights_line(inspection.weights));
    line("digest", inspection.weights.sha256().to_owned());
    line("input", input_line(network, inspection.window_by_default));
    line("parameters", grouped(inspection.parameters));
    line("MACs", macs_line(inspection));
    let _ = write!(text, "\n{}", stage_table(inspection));
    if !inspection.entries.is_empty() {
        let _ = writeln!(text, "\nalso in the file");
        for EntryRow { key, description } in &inspection.entries {
            let entry = crate::ui::printable(&format!("{key}: {description}"));
            let _ = writeln!(text, "  {entry}");
        }
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

fn millions(macs: u64) -> String {
    format!("{:.1}M", macs as f64 / 1e6)
}

fn macs_line(inspection: &Inspection) -> String {
    let mut line = millions(inspection.macs);
    let [height, width] = inspection.network.input_size;
    for (index, row) in inspection.published.iter().enumerate() {
        let Published {
            input_size: size,
            window,
            mmacs,
        } = row;
        line += if index == 0 { "; published: " } else { ", " };
        let same = [height, width] == [*size; 2] && inspection.network.window == *window;
        line += &match same {
            true => format!("{mmacs}M"),
            false => format!("{mmacs}M at {size}x{size} with window {window}"),
        };
    }
    line
}

fn stage_table(inspection: &Inspection) -> Table {
    let mut table = Table::new(&[
        ("stage", Side::Left),
        ("parameters", Side::Right),
        ("MACs", Side::Right),
        ("share", Side::Right),
        ("activations", Side::Right),
    ]);
    let total = inspection.macs.max(1) as f64;
    let costly = |row: &&StageRow| row.cost.parameters > 0 || row.cost.macs > 0;
    for StageRow { stage, cost } in inspection.stages.iter().filter(costly) {
        let share = format!("{:.1} %", 100.0 * cost.macs as f64 / total);
        let activations = bytes(cost.activation_bytes);
        table.row([
            stage.clone().into(),
            grouped(cost.parameters).into(),
            millions(cost.macs).into(),
            share.into(),
            activations.into(),
        ]);
    }
    table
}

/// Prints a result for programs.
pub fn print_json(value: &impl Serialize, ui: &Ui) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| emoc_ir::Diagnostic::internal(format!("a result is no JSON: {error}")))?;
    ui.print(text + "\n")
}
