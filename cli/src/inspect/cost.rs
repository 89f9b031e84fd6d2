//! Costs of a network by stage, beside the published ones.

use emoc_frontend::emo2::{Model, VARIANTS, Variant};
use emoc_ir::{Cost, CostTable};
use serde::Serialize;

use crate::{
    record::NetworkRecord,
    table::{Side, Table, bytes, grouped},
};

#[derive(Serialize)]
pub struct StageRow {
    pub stage: String,
    #[serde(flatten)]
    pub cost: Cost,
}

pub fn stage_rows(cost: &CostTable) -> Vec<StageRow> {
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
pub fn published(model: &Model) -> Vec<Published> {
    let Some(variant) = model.architecture.variant else {
        return Vec::new();
    };
    let all = published_of(variant);
    let same_size = |row: &&Published| [row.input_size; 2] == model.geometry.input_size;
    match all.iter().find(same_size) {
        Some(row) => vec![row.clone()],
        None => all,
    }
}

/// The published figures of all variants that have any.
pub fn published_table() -> Vec<(&'static Variant, Vec<Published>)> {
    let rows = VARIANTS.iter().map(|row| (row, published_of(row)));
    rows.filter(|(_, figures)| !figures.is_empty()).collect()
}

fn published_of(variant: &Variant) -> Vec<Published> {
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
    at_224.into_iter().chain(at_512).collect()
}

/// Multiply-accumulates for people.
pub fn millions(macs: u64) -> String {
    format!("{:.1}M", macs as f64 / 1e6)
}

/// The total and what is published, in a line.
pub fn macs_line(macs: u64, network: &NetworkRecord, published: &[Published]) -> String {
    let mut line = millions(macs);
    for (index, row) in published.iter().enumerate() {
        let Published {
            input_size: size,
            window,
            mmacs,
        } = row;
        line += if index == 0 { "; published: " } else { ", " };
        let same = network.input_size == [*size; 2] && network.window == *window;
        line += &match same {
            true => format!("{mmacs}M"),
            false => format!("{mmacs}M at {size}x{size} with window {window}"),
        };
    }
    line
}

/// A line per stage.
pub fn stage_table(macs: u64, stages: &[StageRow]) -> Table {
    let mut table = Table::new(&[
        ("stage", Side::Left),
        ("parameters", Side::Right),
        ("MACs", Side::Right),
        ("share", Side::Right),
        ("activations", Side::Right),
    ]);
    let total = macs.max(1) as f64;
    let costly = |row: &&StageRow| row.cost.parameters > 0 || row.cost.macs > 0;
    for StageRow { stage, cost } in stages.iter().filter(costly) {
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
