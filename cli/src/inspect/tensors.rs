//! `emoc inspect --tensors`: every tensor of any checkpoint.

use emoc_frontend::Checkpoint;
use emoc_ir::Result;
use serde::Serialize;

use crate::{
    json,
    table::{Side, Table},
    ui::{Ui, printable},
};

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
pub fn run(checkpoint: &Checkpoint, ui: &Ui) -> Result<()> {
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
        return json::print(&TensorList { tensors: rows }, ui);
    }
    let mut table = Table::new(&[
        ("tensor", Side::Left),
        ("type", Side::Left),
        ("shape", Side::Left),
        ("sha256", Side::Left),
    ]);
    for row in rows {
        let shape = format!("{:?}", row.shape);
        let name = printable(row.name);
        table.row([
            name.into(),
            row.dtype.into(),
            shape.into(),
            row.sha256[..16].into(),
        ]);
    }
    ui.print(table)
}
