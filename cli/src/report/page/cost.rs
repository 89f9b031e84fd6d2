//! Costs by stage beside what is published, and what the passes removed.

use std::cmp::Ordering;

use maud::{Markup, html};

use super::{macs, percent, safe};
use crate::{
    inspect::cost::{Published, StageRow},
    report::data::{PassRow, Report},
    table::{bytes, grouped},
};

pub fn section(report: &Report) -> Markup {
    let costly = |row: &&StageRow| row.cost.parameters > 0 || row.cost.macs > 0;
    let rows: Vec<_> = report.stages.iter().filter(costly).collect();
    let parameters = rows
        .iter()
        .map(|row| row.cost.parameters)
        .max()
        .unwrap_or(0) as f64;
    let most_macs = rows.iter().map(|row| row.cost.macs).max().unwrap_or(0) as f64;
    html! {
        section #cost {
            h2 { "Cost" }
            div.columns {
                table.bars {
                    thead {
                        tr {
                            th { "Stage" }
                            th { "Parameters" }
                            th { "MACs, one image" }
                            th.num.wide { "Activations" }
                        }
                    }
                    tbody {
                        @for row in rows {
                            tr {
                                td { (safe(&row.stage)) }
                                (bar(row.cost.parameters as f64, parameters, &grouped(row.cost.parameters)))
                                (bar(row.cost.macs as f64, most_macs, &macs(row.cost.macs)))
                                td.num.wide { (bytes(row.cost.activation_bytes)) }
                            }
                        }
                    }
                    tfoot {
                        tr {
                            th { "All" }
                            th { (grouped(report.parameters)) }
                            th { (macs(report.macs)) }
                            th.wide {}
                        }
                    }
                }
                (published(report))
            }
            p.note { "MACs are counted as fvcore counts them, which is what the authors publish." }
        }
    }
}

fn bar(part: f64, whole: f64, text: &str) -> Markup {
    html! {
        td {
            (text)
            span.bar { i style={ "width:" (percent(part, whole)) } {} }
        }
    }
}

/// The authors' figures, and this network's among them.
fn published(report: &Report) -> Markup {
    let variant = report.network.variant.as_deref();
    let is_this = |row: &Published| {
        let network = &report.network;
        [row.input_size; 2] == network.input_size && row.window == network.window
    };
    html! {
        table {
            thead {
                tr { th { "Published" } th { "Input" } th.num { "MACs" } th.num { "Here" } }
            }
            tbody {
                @for row in &report.published_table {
                    @for figure in &row.figures {
                        @let this = variant == Some(row.variant) && is_this(figure);
                        tr.this[this] {
                            td { (row.variant) }
                            td {
                                (figure.input_size) "×" (figure.input_size)
                                @if figure.window != 7 { ", window " (figure.window) }
                            }
                            td.num { (figure.mmacs) "M" }
                            td.num { @if this { (macs(report.macs)) } @else { "" } }
                        }
                    }
                }
            }
        }
    }
}

pub fn passes(report: &Report) -> Markup {
    let before = report.passes.first().map_or(0, |row| row.nodes_before);
    let after = report.passes.last().map_or(0, |row| row.nodes_after);
    html! {
        section #passes {
            h2 { "Passes" }
            @if report.passes.is_empty() {
                p { "None ran: the artifact is the faithful graph, a node for each PyTorch module." }
            } @else {
                p.note {
                    "Each is exact in real arithmetic. Together they leave " (after) " of "
                    (before) " nodes; a backend then writes its own."
                }
                table.passes {
                    thead {
                        tr {
                            th { "Pass" }
                            th.num { "Fired" }
                            th.num { "Nodes" }
                            th { "Left" }
                        }
                    }
                    tbody {
                        @for row in &report.passes {
                            (pass(row, before))
                        }
                    }
                }
            }
        }
    }
}

fn pass(row: &PassRow, faithful: usize) -> Markup {
    let (before, after) = (row.nodes_before, row.nodes_after);
    let change = match after.cmp(&before) {
        Ordering::Less => format!("−{}", before - after),
        Ordering::Equal => "0".into(),
        Ordering::Greater => format!("+{}", after - before),
    };
    html! {
        tr.idle[row.fired == 0] {
            td { b { (row.name) } span.why { (row.why) } }
            td.num { (row.fired) }
            td.num { (change) }
            td {
                (row.nodes_after)
                span.bar {
                    i style={ "width:" (percent(row.nodes_after as f64, faithful as f64)) } {}
                }
            }
        }
    }
}
