//! Tables of agreement.

use std::fmt::Write;

use anstyle::Style;
use emoc_runtimes::{Comparison, Tolerance};

use crate::{
    agreement::{BlockTable, EngineRecord, Ran, Row, Verdict},
    args::Precision,
    precision,
    table::{Cell, Side, Table, bytes},
    ui::{BOLD, DIM, ERROR, GOOD, WARNING},
};

/// One line per runtime and output, and below it what is to be known about them. Columns that
/// would tell nothing are left out: names where there is one output, ranks where there are none.
pub fn agreement(rows: &[Row], tolerance: Tolerance) -> String {
    let several = rows.iter().any(|row| row.outputs.len() > 1);
    let mut compared = rows.iter().flat_map(|row| &row.outputs);
    let ranked = compared.any(|comparison| comparison.top5.is_some());
    let columns = [
        ("runtime", Side::Left, true),
        ("output", Side::Left, several),
        ("max abs", Side::Right, true),
        ("relative", Side::Right, true),
        ("cosine", Side::Right, true),
        ("top-5", Side::Right, ranked),
        ("time", Side::Right, true),
        ("verdict", Side::Left, true),
    ];
    let shown = columns.iter().filter(|(.., shown)| *shown);
    let mut table = Table::new(
        &shown
            .map(|&(name, side, _)| (name, side))
            .collect::<Vec<_>>(),
    );
    let mut add = |cells: [Cell; 8]| {
        let cells = cells.into_iter().zip(&columns);
        table.row(cells.filter_map(|(cell, (.., shown))| shown.then_some(cell)));
    };
    for row in rows {
        if row.outputs.is_empty() {
            let mut cells: [Cell; 8] = Default::default();
            [cells[0], cells[7]] = [title(row).into(), verdict(row.verdict)];
            add(cells);
        }
        for (index, comparison) in row.outputs.iter().enumerate() {
            let first = index == 0;
            let name = match first {
                true => title(row).into(),
                false => Cell::default(),
            };
            let [output, max_abs, max_rel, cosine, top5] = numbers(comparison);
            let time = row.inference_ms.filter(|_| first);
            let time = time.map_or(String::new(), |ms| format!("{ms:.1} ms"));
            let verdict = verdict(match comparison.agrees() {
                true => Verdict::Agrees,
                false => Verdict::Disagrees,
            });
            add([
                name,
                output,
                max_abs,
                max_rel,
                cosine,
                top5,
                time.into(),
                verdict,
            ]);
        }
    }
    table.to_string() + &footer(rows, tolerance)
}

/// The same for the models of a bundle, each with its tolerance.
pub fn bundle(rows: &[Row]) -> String {
    let mut text = String::new();
    for model in [Precision::F32, Precision::F16] {
        let of_model = |row: &&Row| row.model == Some(model);
        let rows: Vec<_> = rows.iter().filter(of_model).cloned().collect();
        if !rows.is_empty() {
            let table = agreement(&rows, precision::tolerance(model));
            let _ = writeln!(text, "{BOLD}{}{BOLD:#}\n{table}", model.name());
        }
    }
    text
}

/// The runtime with what its numbers depend on.
pub fn title(row: &Row) -> String {
    let runtime = row.runtime;
    // A crate's time depends on its instruction set, and not on the version of cargo.
    match (&row.isa, &row.version, row.ran) {
        (Some(isa), ..) => format!("{runtime}, {isa}"),
        (None, Some(version), Ran::Artifact) => format!("{runtime} {version}"),
        (None, Some(version), Ran::OnnxInstead) => format!("{runtime} {version} (ONNX)"),
        (None, None, Ran::Artifact) => runtime.to_owned(),
        (None, None, Ran::OnnxInstead) => format!("{runtime} (ONNX)"),
    }
}

/// Output, largest difference, relative difference, cosine, top-5.
fn numbers(comparison: &Comparison) -> [Cell; 5] {
    let top5 = match &comparison.top5 {
        Some(top5) => format!("{}/{}", top5.agree, top5.of),
        None => "-".to_owned(),
    };
    [
        comparison.output.clone().into(),
        difference(comparison.max_abs).into(),
        difference(comparison.max_rel).into(),
        cosine(comparison.cosine).into(),
        top5.into(),
    ]
}

/// A difference, absolute or relative.
pub fn difference(number: f64) -> String {
    match number {
        _ if !number.is_finite() => "-".into(),
        0.01.. => format!("{number:.2}"),
        _ => format!("{number:.1e}"),
    }
}

/// Cosines are near 1; what they lack tells more.
pub fn cosine(cosine: f64) -> String {
    match cosine.is_finite() {
        true => format!("{cosine:.7}"),
        false => "-".into(),
    }
}

fn verdict(verdict: Verdict) -> Cell {
    let style: Style = match verdict {
        Verdict::Agrees | Verdict::Builds => GOOD,
        Verdict::Disagrees | Verdict::Fails => ERROR,
        Verdict::NotFound => WARNING,
    };
    Cell::styled(verdict_word(verdict), style)
}

pub fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Agrees => "agrees",
        Verdict::Disagrees => "DISAGREES",
        Verdict::Builds => "builds",
        Verdict::Fails => "FAILS",
        Verdict::NotFound => "not found",
    }
}

fn footer(rows: &[Row], tolerance: Tolerance) -> String {
    let lines = remarks(rows, tolerance).into_iter().chain(engines(rows));
    let dim = |line: String| format!("{DIM}{line}{DIM:#}\n");
    lines.map(dim).collect()
}

/// What is to be known about a table of rows.
pub fn remarks(rows: &[Row], tolerance: Tolerance) -> Vec<String> {
    let mut lines = Vec::new();
    let compared = rows.iter().flat_map(|row| &row.outputs);
    // The same reference for all runtimes, and the loosest output stands for the others.
    if let Some(widest) = compared.max_by(|a, b| a.tolerance.total_cmp(&b.tolerance)) {
        let (limit, spread) = (widest.tolerance, widest.spread);
        lines.push(format!(
            "tolerance {limit:.1e} = {tolerance}, spread {spread:.2}; times on one thread"
        ));
    }
    lines.extend(rows.iter().flat_map(rounding));
    if rows.iter().any(|row| row.ran == Ran::OnnxInstead) {
        lines.push("(ONNX): emoc's ONNX file of the same graph, for comparison".into());
    }
    for missing in rows.iter().filter_map(|row| row.missing.as_ref()) {
        lines.push(format!(
            "{}: {}; {}",
            missing.name, missing.reason, missing.help
        ));
        lines.extend(missing.refused.iter().map(|why| format!("  {why}")));
    }
    lines
}

/// The engines that were built, and how long that took.
pub fn engines(rows: &[Row]) -> Vec<String> {
    let engine = |row: &Row| Some(built(row.runtime, row.engine.as_ref()?));
    rows.iter().filter_map(engine).collect()
}

/// What was built, for which GPUs.
fn built(runtime: &str, engine: &EngineRecord) -> String {
    let capabilities = engine.capabilities.iter().map(ToString::to_string);
    let capabilities = capabilities.collect::<Vec<_>>().join(", ");
    let size = bytes(engine.bytes as u64);
    let (layers, seconds) = (engine.layers, engine.seconds);
    let mut line = format!(
        "{runtime}: an engine for {capabilities}, {size}, {layers} layers, in {seconds:.1} s"
    );
    for warning in &engine.warnings {
        let _ = write!(line, "\n  {warning}");
    }
    line
}

/// How far rounded weights move the outputs: to be known, not to be judged.
fn rounding(row: &Row) -> Vec<String> {
    let line = |comparison: &Comparison| {
        let Comparison {
            output,
            max_abs,
            max_rel,
            ..
        } = comparison;
        format!("float16 weights move {output} by {max_abs:.1e}, {max_rel:.1e} x spread")
    };
    row.rounding.iter().map(line).collect()
}

/// Differences at the ends of blocks: in float32 each with a verdict, in float16, where outputs
/// alone are judged, each in units of the block's spread.
pub fn blocks(tables: &[&BlockTable], tolerance: Tolerance) -> String {
    let judged = tolerance == Tolerance::FLOAT32;
    let mut columns = vec![("block", Side::Left), ("spread", Side::Right)];
    for table in tables {
        columns.push((table.runtime, Side::Right));
        columns.push(match judged {
            true => ("", Side::Left),
            false => ("relative", Side::Right),
        });
    }
    let mut text = Table::new(&columns);
    let first = tables.first().map_or(&[][..], |table| &table.blocks);
    for (index, block) in first.iter().enumerate() {
        let spread = format!("{:.3}", block.spread);
        let mut cells = vec![block.output.clone().into(), spread.into()];
        for table in tables {
            let Some(block) = table.blocks.get(index) else {
                continue;
            };
            cells.push(difference(block.max_abs).into());
            cells.push(match (judged, block.agrees()) {
                (false, _) => difference(block.max_rel).into(),
                (true, true) => verdict(Verdict::Agrees),
                (true, false) => verdict(Verdict::Disagrees),
            });
        }
        text.row(cells);
    }
    text.to_string()
}
