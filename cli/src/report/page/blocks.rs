//! Differences at the ends of blocks, on a logarithmic scale against the tolerance.

use emoc_runtimes::Comparison;
use maud::{Markup, html};

use super::safe;
use crate::{
    agreement::BlockTable, agreement_table::difference, args::Precision, report::data::Report,
};

/// The scale goes from this to ten times the tolerance, in powers of ten.
const LOWEST: i32 = -4;
const HIGHEST: i32 = 1;

pub fn section(report: &Report) -> Markup {
    let models = [None, Some(Precision::F32), Some(Precision::F16)];
    let of_model = |model: Option<Precision>| {
        let tables = report.blocks.iter().filter(|table| table.model == model);
        (model, tables.collect::<Vec<_>>())
    };
    let groups = models.map(of_model).into_iter();
    let groups: Vec<_> = groups.filter(|(_, tables)| !tables.is_empty()).collect();
    let only = report.artifact.models.first().map(|model| model.precision);
    html! {
        section #blocks {
            h2 { "Blocks" }
            @if groups.is_empty() {
                p { "Not compared." }
            } @else {
                p.note {
                    "The largest difference from the reference at the end of each block, as a \
                     share of what would be tolerated there."
                    @if report.artifact.target == "rust" {
                        " Of emoc's ONNX file of the same graph: a crate does not show the ends of \
                         its blocks."
                    }
                }
            }
            @for (model, tables) in groups {
                @if let Some(model) = model { h3 { (model.name()) } }
                @if model.or(only) == Some(Precision::F16) {
                    p.note { "In float16 the outputs alone are judged; blocks show where it is lost." }
                }
                (chart(&tables))
            }
        }
    }
}

fn chart(tables: &[&BlockTable]) -> Markup {
    let first = tables.first().map_or(&[][..], |table| &table.blocks);
    html! {
        div.chart style={ "--runtimes:" (tables.len()) } {
            span.key {}
            div.axis {
                @for power in LOWEST..=HIGHEST {
                    span style={ "left:" (place(10f64.powi(power))) } { (tick(power)) }
                }
            }
            @for (index, table) in tables.iter().enumerate() {
                span.num.key { i class={ "dot r" (index) } {} " " (table.runtime) }
            }
            @for block in first {
                (row(block, tables))
            }
        }
    }
}

fn tick(power: i32) -> &'static str {
    match power {
        0 => "tolerance",
        1 => "×10",
        -1 => "10⁻¹",
        -2 => "10⁻²",
        -3 => "10⁻³",
        _ => "10⁻⁴",
    }
}

fn row(block: &Comparison, tables: &[&BlockTable]) -> Markup {
    let name = &block.output;
    let find = |table: &&BlockTable| -> Option<Comparison> {
        table
            .blocks
            .iter()
            .find(|found| found.output == *name)
            .cloned()
    };
    let found: Vec<_> = tables.iter().map(find).collect();
    html! {
        span { (safe(name)) }
        div.track {
            @for (index, block) in found.iter().enumerate() {
                @if let Some(block) = block {
                    i class={ "dot r" (index) } style={ "left:" (place(share(block))) } {}
                }
            }
        }
        @for block in &found {
            @match block {
                Some(block) => span.num.over[share(block) > 1.0] { (difference(block.max_abs)) },
                None => span.num { "–" },
            }
        }
    }
}

/// The difference in units of the tolerance; what cannot be compared is beyond the scale.
fn share(block: &Comparison) -> f64 {
    match block.max_abs.is_finite() {
        true => block.max_abs / block.tolerance.max(f64::MIN_POSITIVE),
        false => f64::INFINITY,
    }
}

fn place(share: f64) -> String {
    let (lowest, highest) = (f64::from(LOWEST), f64::from(HIGHEST));
    let power = share.log10().clamp(lowest, highest);
    format!("{:.2}%", 100.0 * (power - lowest) / (highest - lowest))
}
