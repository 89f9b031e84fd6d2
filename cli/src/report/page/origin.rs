//! How a picture comes in, where everything comes from, and how to come to the same.

use maud::{Markup, html};

use super::{safe, shape};
use crate::{
    manifest::FileRecord,
    network::Weights,
    report::data::Report,
    table::{bytes, grouped},
};

pub fn preprocessing(report: &Report) -> Markup {
    let rule = &report.preprocessing;
    let list = |numbers: [f64; 3]| numbers.map(|number| number.to_string()).join(", ");
    html! {
        section #preprocessing {
            h2 { "Preprocessing" }
            ol.steps {
                li { "Decode to 8-bit " (rule.color) "." }
                @match &rule.resize {
                    Some(resize) => {
                        li {
                            "Scale, keeping the ratio, until the picture just covers "
                            (shape(&resize.cover)) ": " (resize.filter) "."
                        }
                        li { "Cut " (shape(&resize.center_crop)) " out of the centre." }
                    }
                    None => li {
                        "Scale as detection or segmentation asks for: a backbone has no rule of \
                         its own."
                    },
                }
                li { "Multiply by " (rule.scale) "." }
                li {
                    "Subtract " (list(rule.mean)) " and divide by " (list(rule.std))
                    ", by channel."
                }
                li { "Order as " (rule.layout) "." }
            }
            @if let Some(labels) = &report.labels {
                details.labels {
                    summary { (labels.len()) " classes have names" }
                    ol start="0" {
                        @for label in labels {
                            li { bdi { (safe(label)) } }
                        }
                    }
                }
            }
        }
    }
}

pub fn section(report: &Report) -> Markup {
    let network = &report.network;
    html! {
        section #origin {
            h2 { "Origin" }
            @if let Some(compile) = &report.commands.compile {
                p { "The command that makes this artifact:" }
                pre { code { (safe(compile)) } }
                @if report.labels.is_some() {
                    p.note { "names.txt holds the names of the classes, one a line." }
                }
            }
            @if let Some(check) = &report.commands.check {
                p { "The command that checks it again:" }
                pre { code { (safe(check)) } }
            }
            dl.facts {
                (weights(report.weights))
                dt { "Network" }
                dd {
                    "depths " (shape(&network.depths).replace('×', ", ")) "; channels "
                    (shape(&network.dims).replace('×', ", "))
                    @if let Some(classes) = network.classes { "; " (grouped(classes as u64)) " classes" }
                }
                dt { "Window" }
                dd {
                    @match network.window {
                        0 => "one over the whole map",
                        window => (window),
                    }
                    @if report.window_by_default { ", the default at this size" }
                }
                dt { "Written by" }
                dd { (safe(&report.artifact.producer)) }
                @for model in &report.artifact.models {
                    @if !model.islands.is_empty() {
                        dt { "In float32" }
                        dd { (safe(&model.islands.join(", "))) }
                    }
                }
            }
            (files(&report.artifact.files))
        }
    }
}

fn weights(weights: &Weights) -> Markup {
    html! {
        dt { "Weights" }
        @match weights {
            Weights::Seeded { seed, sha256 } => {
                dd { "made from seed " (seed) }
                dt { "Their SHA-256" }
                dd { code { (sha256) } }
            },
            Weights::Artifact { choice, sha256 } => {
                dd { (choice) ", of a checkpoint that was not given" }
                dt { "Their SHA-256" }
                dd { code { (safe(sha256)) } }
            },
            Weights::Checkpoint { choice, file, root, stripped_prefixes, tensors, sha256 } => {
                dd {
                    (choice) ", " (tensors) " tensors in "
                    @if root.is_empty() { "the root of the file" } @else { code { (safe(root)) } }
                    @for prefix in stripped_prefixes { ", prefix " code { (prefix) } " removed" }
                }
                dt { "Their SHA-256" }
                dd { code { (sha256) } }
                dt { "Checkpoint" }
                dd { (safe(&file.format)) ", " (bytes(file.bytes)) }
                dt { "Its SHA-256" }
                dd { code { (file.sha256) } }
            },
        }
    }
}

fn files(files: &[FileRecord]) -> Markup {
    html! {
        table.files {
            thead { tr { th { "File" } th.num { "Size" } th { "SHA-256" } } }
            tbody {
                @for FileRecord { file, bytes: size, sha256 } in files {
                    tr {
                        td { (safe(file)) }
                        td.num { (bytes(*size)) }
                        td { code { (safe(sha256)) } }
                    }
                }
            }
        }
    }
}
