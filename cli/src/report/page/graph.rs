//! The network, stage by stage; blocks are folded.

use maud::{Markup, html};

use super::{macs, percent, safe, shape};
use crate::{
    report::{
        data::Report,
        structure::{Block, KeyRecord, Part, Stage},
    },
    table::{bytes, grouped},
};

pub fn section(report: &Report) -> Markup {
    let costliest = report.graph.iter().flat_map(|stage| &stage.blocks);
    let costliest = costliest.map(|block| block.macs).max().unwrap_or(0);
    let [height, width] = report.network.input_size;
    html! {
        section #graph {
            h2 { "Graph" }
            p.note {
                "As it was trained, before the passes. Shapes are channels × height × width of \
                 one image; a bar is a block's share of the multiply-accumulates, against the \
                 costliest. Open a block to see its parts and the keys of its weights."
            }
            (strip(report, [3, height, width]))
            @for stage in &report.graph {
                (card(stage, costliest))
            }
        }
    }
}

/// The maps, to scale.
fn strip(report: &Report, input: [usize; 3]) -> Markup {
    let largest = input[1].max(input[2]).max(2) as f64;
    // Halved five times: on a linear scale the last maps could not be seen.
    let scale = |side: usize| 12.0 + 68.0 * ((side.max(1) as f64).ln() / largest.ln());
    let map = |name: &str, link: &str, sizes: &[usize]| {
        let [height, width] = match sizes {
            [_, height, width] => [*height, *width],
            _ => [1, 1],
        };
        let style = format!("height:{:.1}px;width:{:.1}px", scale(height), scale(width));
        let channels = sizes.first().copied().unwrap_or(0);
        html! {
            a href={ "#" (link) } {
                span.map { i style=(style) {} }
                b { (name) }
                span { (channels) }
                @if let [_, height, width] = sizes {
                    span { (height) "×" (width) }
                }
            }
        }
    };
    html! {
        div.strip {
            (map("input", "graph", &input))
            @for stage in &report.graph {
                (map(&stage.name, &stage.name, &stage.output))
            }
        }
    }
}

fn title(stage: &Stage) -> String {
    match stage.name.strip_prefix("stage") {
        Some("0") => "Stage 0, the stem".into(),
        Some(number) => format!("Stage {number}"),
        None => "Head".into(),
    }
}

fn card(stage: &Stage, costliest: u64) -> Markup {
    html! {
        div.stage #(stage.name) {
            h3 {
                (title(stage))
                small {
                    (grouped(stage.parameters)) " parameters, " (macs(stage.macs)) " MACs, \
                    gives " (shape(&stage.output))
                }
            }
            @for block in &stage.blocks {
                details {
                    summary {
                        b { (safe(&block.name)) }
                        span.kind { (kind(block)) }
                        span.num { (grouped(block.parameters)) }
                        span.num { (macs(block.macs)) }
                        span.bar {
                            i style={ "width:" (percent(block.macs as f64, costliest as f64)) } {}
                        }
                    }
                    (opened(block))
                }
            }
        }
    }
}

/// What a block is, in a few words.
fn kind(block: &Block) -> String {
    let mut words = Vec::new();
    if let Some(attention) = &block.attention {
        let [height, width] = attention.window;
        words.push(format!("{} attention {height}×{width}", attention.kind));
    }
    if let Some([height, width]) = block.kernel.filter(|kernel| *kernel != [1, 1]) {
        words.push(format!("kernel {height}×{width}"));
    }
    if block.stride > 1 {
        words.push(format!("stride {}", block.stride));
    }
    if words.is_empty() {
        words.extend(
            block
                .parts
                .iter()
                .flat_map(|part| part.does.first().cloned()),
        );
    }
    words.join(", ")
}

fn opened(block: &Block) -> Markup {
    html! {
        div.opened {
            (flow(block))
            div {
                dl.facts {
                    dt { "Shapes" }
                    dd { (shape(&block.input)) " → " (shape(&block.output)) }
                    @if let Some([height, width]) = block.kernel {
                        dt { "Kernel" }
                        dd { (height) "×" (width) ", stride " (block.stride) }
                    }
                    @if let Some(attention) = &block.attention {
                        dt { "Attention" }
                        dd { (attention.kind) ", " (attention.heads) " heads" }
                        dt { "Window" }
                        dd {
                            (shape(&attention.window)) ", " (attention.windows) " on the map"
                            @if let Some(padded) = attention.padded {
                                " padded to " (shape(&padded))
                            }
                        }
                    }
                    dt { "Parameters" }
                    dd { (grouped(block.parameters)) }
                    dt { "MACs" }
                    dd { (grouped(block.macs)) }
                    dt { "Activations" }
                    dd { (bytes(block.activation_bytes)) }
                }
                (keys(&block.keys))
            }
        }
    }
}

fn keys(keys: &[KeyRecord]) -> Markup {
    html! {
        @if !keys.is_empty() {
            table.keys {
                thead { tr { th { "Key in the checkpoint" } th.num { "Shape" } } }
                tbody {
                    @for KeyRecord { key, shape: sizes } in keys {
                        tr { td { (code(key)) } td.num { (shape(sizes)) } }
                    }
                }
            }
        }
    }
}

/// A key, which is broken behind its dots if at all.
fn code(key: &str) -> Markup {
    html! {
        code {
            @for part in safe(key).split_inclusive('.') { (part) wbr; }
        }
    }
}

/// The parts below each other; what skips some of them runs beside them.
fn flow(block: &Block) -> Markup {
    let skips = skips(&block.parts);
    let lanes = skips.iter().map(|skip| skip.lane + 1).max().unwrap_or(0);
    html! {
        div.flow style={ "--lanes:" (lanes) } {
            div.io style="grid-row:1" { (shape(&block.input)) }
            @for (index, part) in block.parts.iter().enumerate() {
                (node(part, index))
            }
            @for Skip { from, to, lane } in skips {
                i.skip style={ "grid-row:" (from) "/" (to + 1) ";grid-column:2/" (lane + 3) } {}
            }
        }
    }
}

/// A part stands in the row below its predecessor's; the input has the first.
fn node(part: &Part, index: usize) -> Markup {
    let before = index.checked_sub(1);
    html! {
        div.part.linked[part.reads.contains(&before)] style={ "grid-row:" (index + 2) } {
            b { (safe(&part.name)) }
            @for step in &part.does {
                span { (step) }
            }
            span.out { (shape(&part.output)) }
        }
    }
}

struct Skip {
    /// Rows of the grid.
    from: usize,
    to: usize,
    /// Beside other skips.
    lane: usize,
}

/// What a part reads that is not right above it, the shortest innermost.
fn skips(parts: &[Part]) -> Vec<Skip> {
    let mut skips = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let before = index.checked_sub(1);
        for read in part.reads.iter().filter(|read| **read != before) {
            let from = read.map_or(1, |read| read + 2);
            skips.push((from, index + 2));
        }
    }
    skips.sort_by_key(|&(from, to)| (to - from, from));
    let mut placed: Vec<Skip> = Vec::new();
    for (from, to) in skips {
        let is_free = |lane: usize| {
            let mut others = placed.iter().filter(|skip| skip.lane == lane);
            others.all(|skip| to <= skip.from || skip.to <= from)
        };
        let lane = (0..).find(|&lane| is_free(lane)).unwrap_or(0);
        placed.push(Skip { from, to, lane });
    }
    placed
}
