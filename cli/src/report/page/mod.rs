//! The page: HTML and CSS in one file, without scripts, that loads nothing.
//!
//! Labels, keys and names come from files of any origin: maud escapes them, and [`safe`] makes
//! visible what would not be. The policy in the head forbids every load all the same.

mod blocks;
mod checks;
mod cost;
mod graph;
mod origin;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::data::Report;
use crate::{
    agreement::Row,
    inspect::cost::millions,
    table::{bytes, grouped},
    ui::printable,
};

const STYLE: &str = include_str!("style.css");

/// How the generator's name begins.
const GENERATOR: &str = "emoc report ";

/// Nothing is loaded, whatever a label says.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// Whether a file that begins like this is a report.
pub fn is_report(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head);
    let generator = format!("<meta name=\"generator\" content=\"{GENERATOR}");
    head.starts_with("<!DOCTYPE html>") && head.contains(&generator)
}

pub fn render(report: &Report) -> String {
    let title = report.network.title();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="generator" content={ (GENERATOR) (report.producer_version) };
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // Without it a browser asks for one.
                link rel="icon" href="data:,";
                title { (safe(&title)) " – emoc" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header { (head(report, &title)) }
                main {
                    (warnings(report))
                    (graph::section(report))
                    (cost::section(report))
                    (cost::passes(report))
                    (checks::section(report))
                    (blocks::section(report))
                    (origin::preprocessing(report))
                    (origin::section(report))
                }
                footer {
                    "emoc " (report.producer_version) ". The same input gives the same page, but \
                    for the times that were measured. Nothing is loaded from anywhere."
                }
            }
        }
    };
    page.into_string()
}

/// Text from a file, without characters that hide or reorder others.
fn safe(text: &str) -> String {
    printable(text)
}

fn head(report: &Report, title: &str) -> Markup {
    let sections = [
        ("graph", "Graph"),
        ("cost", "Cost"),
        ("passes", "Passes"),
        ("checks", "Checks"),
        ("blocks", "Blocks"),
        ("preprocessing", "Preprocessing"),
        ("origin", "Origin"),
    ];
    html! {
        h1 { (safe(title)) }
        p.lead { (safe(&artifact_line(report))) }
        p { (verdict(report.checks)) }
        dl.tiles {
            (tile("Parameters", &grouped(report.parameters)))
            (tile("Multiply-accumulates", &macs(report.macs)))
            (tile("Size", &bytes(report.artifact.bytes)))
            @if let Some((ms, row)) = fastest(report.checks) {
                div {
                    dt { "Fastest, one thread" }
                    dd.measured { (time(ms)) }
                    dd.note.measured { (row.runtime) }
                }
            }
        }
        nav {
            @for (id, name) in sections {
                a href={ "#" (id) } { (name) }
            }
        }
    }
}

fn tile(name: &str, value: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn artifact_line(report: &Report) -> String {
    let artifact = &report.artifact;
    let what = match artifact.target {
        "onnx" => "ONNX file",
        "rust" => "Rust crate",
        _ => "TensorRT bundle",
    };
    let mut line = match &artifact.name {
        Some(name) => format!("{what} {name}"),
        None => format!("{what}, compiled for this report and not kept"),
    };
    for model in &artifact.models {
        let (precision, nodes, opset) = (model.precision.name(), model.nodes, model.opset);
        line += &format!("; {precision}, {nodes} nodes, opset {opset}");
    }
    if let Some(options) = &artifact.crate_options {
        let (dtype, arena) = (
            options.weights_dtype.name(),
            bytes(options.arena_bytes as u64),
        );
        line += &format!("; {dtype} weights, activations {arena}");
    }
    line
}

fn fastest(rows: &[Row]) -> Option<(f64, &Row)> {
    let timed = rows.iter().filter_map(|row| Some((row.inference_ms?, row)));
    timed.min_by(|(a, _), (b, _)| a.total_cmp(b))
}

/// The one word that everything else explains.
fn verdict(rows: &[Row]) -> Markup {
    let names = |wanted: fn(&Row) -> bool| -> String {
        let rows = rows.iter().filter(|row| wanted(row));
        let names: Vec<_> = rows.map(Row::name).collect();
        names.join(", ")
    };
    let (good, bad) = (names(Row::is_good), names(Row::is_bad));
    html! {
        @if !bad.is_empty() {
            span.badge.bad { "Disagrees with the reference in " (bad) }
        }
        @if !good.is_empty() {
            span.badge.good { "Agrees with the reference in " (good) }
        } @else if bad.is_empty() {
            span.badge.open {
                @if rows.is_empty() { "Not checked: the weights it was compiled from were not given" }
                @else { "Not checked: nothing that runs it was found" }
            }
        }
    }
}

fn warnings(report: &Report) -> Markup {
    html! {
        @if !report.warnings.is_empty() {
            section.warnings {
                @for warning in &report.warnings {
                    p { b { "Note: " } (safe(warning)) }
                }
            }
        }
    }
}

/// `48×56×56`, as PyTorch orders it: channels, height, width.
fn shape(sizes: &[usize]) -> String {
    let sizes: Vec<_> = sizes.iter().map(ToString::to_string).collect();
    sizes.join("×")
}

/// A share of a whole in percent, for the width of a bar.
fn percent(part: f64, whole: f64) -> String {
    let share = if whole > 0.0 { part / whole } else { 0.0 };
    format!("{:.2}%", 100.0 * share.clamp(0.0, 1.0))
}

/// Multiply-accumulates for people: `1035.5M`.
fn macs(count: u64) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..100_000 => format!("{:.1}k", count as f64 / 1e3),
        _ => millions(count),
    }
}

/// A time for people.
fn time(ms: f64) -> String {
    match ms {
        ..1.0 => format!("{:.0} µs", 1e3 * ms),
        _ => format!("{ms:.1} ms"),
    }
}
