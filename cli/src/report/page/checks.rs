//! What every runtime answered, and how long it took.

use emoc_runtimes::{Comparison, Tolerance};
use maud::{Markup, html};

use super::{percent, safe, time};
use crate::{
    agreement::{self, Row, Verdict},
    agreement_table::{cosine, difference, engines, remarks, title, verdict_word},
    args::{Precision, WeightsDtype},
    precision,
    report::data::Report,
};

pub fn section(report: &Report) -> Markup {
    let is_rounded = report.artifact.crate_options.as_ref();
    let is_rounded = is_rounded.is_some_and(|made| made.weights_dtype == WeightsDtype::F16);
    let reference = if is_rounded {
        agreement::ROUNDED
    } else {
        agreement::FAITHFUL
    };
    html! {
        section #checks {
            h2 { "Checks" }
            @if report.checks.is_empty() {
                p { "Not run: there was nothing to compare it with." }
            } @else {
                p.note {
                    "The artifact, run here on a seeded input of "
                    (images(report)) ", against " (reference) "."
                }
                @for (heading, rows, tolerance) in groups(report) {
                    @if let Some(heading) = heading { h3 { (heading) } }
                    (table(&rows))
                    @for line in remarks(&rows, tolerance) {
                        p.note { (safe(&line)) }
                    }
                    @for line in engines(&rows) {
                        p.note.measured { (safe(&line)) }
                    }
                    @for row in rows.iter().filter(|row| row.is_bad()) {
                        (faults(row))
                    }
                }
                (latency(report.checks))
            }
        }
    }
}

fn images(report: &Report) -> &'static str {
    match report.network.batch().fixed() {
        Some(1) => "one image",
        Some(_) => "one batch",
        None => "several images",
    }
}

/// The rows of each model with what they are held to.
fn groups(report: &Report) -> Vec<(Option<&'static str>, Vec<Row>, Tolerance)> {
    let models = &report.artifact.models;
    let only = models
        .first()
        .map_or(Precision::F32, |model| model.precision);
    if report.checks.iter().all(|row| row.model.is_none()) {
        return vec![(None, report.checks.to_vec(), precision::tolerance(only))];
    }
    let group = |model: Precision| {
        let rows = report.checks.iter().filter(|row| row.model == Some(model));
        let rows: Vec<_> = rows.cloned().collect();
        (Some(model.name()), rows, precision::tolerance(model))
    };
    let groups = [Precision::F32, Precision::F16].map(group);
    groups
        .into_iter()
        .filter(|(_, rows, _)| !rows.is_empty())
        .collect()
}

fn table(rows: &[Row]) -> Markup {
    html! {
        table.stack {
            thead {
                tr {
                    th { "Runtime" }
                    th { "Output" }
                    th.num { "Max abs" }
                    th.num { "Relative" }
                    th.num { "Cosine" }
                    th.num { "Top-5" }
                    th.num { "Time" }
                    th { "Verdict" }
                }
            }
            tbody {
                @for row in rows {
                    @if row.outputs.is_empty() {
                        tr {
                            th { (safe(&title(row))) }
                            td.gap colspan="6" {}
                            td { (verdict(row.verdict)) }
                        }
                    }
                    @for (index, output) in row.outputs.iter().enumerate() {
                        (compared(row, output, index == 0))
                    }
                }
            }
        }
    }
}

fn compared(row: &Row, output: &Comparison, first: bool) -> Markup {
    let top5 = output.top5.as_ref();
    let top5 = top5.map_or("–".into(), |top5| format!("{}/{}", top5.agree, top5.of));
    html! {
        tr {
            th { @if first { (safe(&title(row))) } }
            td data-name="Output" { (safe(&output.output)) }
            td.num data-name="Max abs" { (difference(output.max_abs)) }
            td.num data-name="Relative" { (difference(output.max_rel)) }
            td.num data-name="Cosine" { (cosine(output.cosine)) }
            td.num data-name="Top-5" { (top5) }
            td.num.measured data-name="Time" {
                @match row.inference_ms.filter(|_| first) {
                    Some(ms) => (time(ms)),
                    None => "",
                }
            }
            td {
                (verdict(match output.agrees() {
                    true => Verdict::Agrees,
                    false => Verdict::Disagrees,
                }))
            }
        }
    }
}

fn verdict(verdict: Verdict) -> Markup {
    let class = match verdict {
        Verdict::Agrees | Verdict::Builds => "good",
        Verdict::Disagrees | Verdict::Fails => "bad",
        Verdict::NotFound => "open",
    };
    html! { span class={ "badge " (class) } { (verdict_word(verdict)) } }
}

fn faults(row: &Row) -> Markup {
    html! {
        div.fault {
            b { (safe(&row.name())) }
            @for line in agreement::reasons(row) {
                p { (safe(&line)) }
            }
        }
    }
}

/// Times as bars; a runtime that ran nothing has none.
fn latency(rows: &[Row]) -> Markup {
    let timed: Vec<_> = rows
        .iter()
        .filter_map(|row| Some((row, row.inference_ms?)))
        .collect();
    let slowest = timed.iter().map(|(_, ms)| *ms).fold(0.0, f64::max);
    html! {
        @if !timed.is_empty() {
            h3 { "Latency" }
            p.note { "The fastest of a few inferences on one thread, on this machine at that time." }
            div.latency {
                @for (row, ms) in timed {
                    span {
                        (safe(&title(row)))
                        @if let Some(model) = row.model { ", " (model.name()) }
                    }
                    span.bar { i.measured style={ "width:" (percent(ms, slowest)) } {} }
                    span.num.measured { (time(ms)) }
                }
            }
        }
    }
}
