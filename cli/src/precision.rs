//! Float16 artifacts: which parts stay float32, and what is said about them.

use std::fmt::Write;

use emoc_backends::onnx::Description;
use emoc_ir::{Diagnostic, Result, Verified, reference::Tensor, seeded};
use emoc_passes::precision::{self, Choice, Flushed, Island, Islands, Narrowed};
use emoc_runtimes::Tolerance;
use serde::Serialize;

use crate::{
    agreement::{Row, Verdict},
    args::{IslandsArg, Precision, PrecisionArgs},
    json,
    manifest::key,
    ui::{DIM, Ui},
};

/// What of the tolerance `--islands auto` uses up at first; the rest is for runtimes that also add
/// up in float16, which the reference does not.
pub const SHARE: f64 = 0.5;

/// A smaller share is not tried.
const SMALLEST_SHARE: f64 = SHARE / 8.0;

/// The word for float16 in an artifact's metadata.
const F16: &str = "f16";

/// How many islands and weights a report lists before it stops.
const LISTED: usize = 8;

/// A graph as it is emitted, and what was decided about its precision.
pub struct Emitted {
    pub graph: Verified,
    /// None in float32.
    pub record: Option<PrecisionRecord>,
}

/// What was decided about a float16 artifact.
#[derive(Debug, Clone, Serialize)]
pub struct PrecisionRecord {
    pub precision: Precision,
    /// What stays float32.
    pub islands: Vec<String>,
    pub chosen: IslandsArg,
    /// Weights beyond float16's range; the parts that use them are among the islands.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overflowing: Vec<String>,
    /// Weights with elements that float16 has no number but 0 for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flushed: Vec<FlushedRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<MeasuredRecord>,
}

#[derive(Debug, Clone, Serialize)]
pub struct FlushedRecord {
    pub key: String,
    pub elements: usize,
    pub of: usize,
}

/// Errors in units of the outputs' spread, by the reference evaluator.
#[derive(Debug, Clone, Serialize)]
pub struct MeasuredRecord {
    pub target: f64,
    pub error: f64,
    pub error_without_islands: f64,
    /// What each island alone leaves; empty if none was needed.
    pub gains: Vec<GainRecord>,
}

#[derive(Debug, Clone, Serialize)]
pub struct GainRecord {
    pub island: String,
    pub error: f64,
}

/// The graph in the precision that was asked for; islands are measured to use up at most `share`
/// of the tolerance.
///
/// # Errors
/// Flags that contradict each other, or a graph that is too large to be measured.
pub fn apply(args: &PrecisionArgs, graph: Verified, share: f64, ui: &Ui) -> Result<Emitted> {
    if args.precision() == Precision::F32 {
        let record = None;
        return Ok(Emitted { graph, record });
    }
    let chosen = args.islands.unwrap_or_default();
    let (islands, measured) = match chosen {
        IslandsArg::Standard => (precision::standard(&graph), None),
        IslandsArg::Auto => {
            let (islands, measured) = measure(&graph, share, ui)?;
            (islands, Some(measured))
        }
    };
    let narrowed = precision::to_f16(&graph, &islands)?;
    let record = PrecisionRecord {
        precision: Precision::F16,
        islands: narrowed.islands.iter().map(Island::to_string).collect(),
        chosen,
        flushed: narrowed.flushed.iter().map(FlushedRecord::of).collect(),
        overflowing: narrowed.overflowing,
        measured,
    };
    record.warn(ui);
    Ok(Emitted {
        graph: narrowed.graph,
        record: Some(record),
    })
}

/// The share to measure with next, if a runtime disagrees with what was measured.
pub fn next_share(args: &PrecisionArgs, share: f64, rows: &[Row], ui: &Ui) -> Option<f64> {
    let disagrees = |row: &&Row| row.verdict == Verdict::Disagrees;
    let row = rows.iter().find(disagrees)?;
    if args.islands != Some(IslandsArg::Auto) || share <= SMALLEST_SHARE {
        return None;
    }
    let runtime = row.runtime;
    ui.note(format_args!(
        "{runtime} is too far off with these islands: measuring for half of the error"
    ));
    Some(share / 2.0)
}

/// What helps where an artifact disagrees because it is float16.
///
/// # Errors
/// The disagreement.
pub fn help(demanded: Result<()>, record: Option<&PrecisionRecord>) -> Result<()> {
    match record.map(|record| record.chosen) {
        Some(IslandsArg::Standard) => demanded.map_err(|error| {
            error.help("--islands auto measures what this network needs in float32")
        }),
        Some(IslandsArg::Auto) | None => demanded,
    }
}

/// The precision that an artifact's metadata names; without one it is float32.
///
/// # Errors
/// It names another.
pub fn of(artifact: &Description) -> Result<Precision> {
    match artifact.get(key::PRECISION) {
        None => Ok(Precision::F32),
        Some(F16) => Ok(Precision::F16),
        Some(other) => {
            let other = other.escape_debug();
            let message = format!("the metadata names a precision that is unknown: `{other}`");
            Err(Diagnostic::input(message).at(format!("metadata `{}`", key::PRECISION)))
        }
    }
}

/// The graph in the precision of an artifact, with its islands.
///
/// # Errors
/// The metadata lists no islands, or a weight cannot be read.
pub fn again(graph: Verified, artifact: &Description) -> Result<Verified> {
    if of(artifact)? == Precision::F32 {
        return Ok(graph);
    }
    let refuse = |why: String| Diagnostic::input(why).at(format!("metadata `{}`", key::ISLANDS));
    let islands = artifact.get(key::ISLANDS).unwrap_or_default();
    let islands: Vec<String> = serde_json::from_str(islands)
        .map_err(|error| refuse(format!("the metadata lists no islands: {error}")))?;
    let islands: Islands = islands.iter().map(|text| Island::parse(text)).collect();
    let known = precision::candidates(&graph);
    if let Some(island) = islands.iter().find(|island| !known.contains(island)) {
        let island = island.to_string();
        let island = island.escape_debug();
        return Err(refuse(format!("the network has no part `{island}`")));
    }
    precision::to_f16(&graph, &islands).map(|Narrowed { graph, .. }| graph)
}

/// What an artifact of this precision is held to.
pub fn tolerance(precision: Precision) -> Tolerance {
    match precision {
        Precision::F32 => Tolerance::FLOAT32,
        Precision::F16 => Tolerance::FLOAT16,
    }
}

fn measure(graph: &Verified, share: f64, ui: &Ui) -> Result<(Islands, MeasuredRecord)> {
    let [input] = graph.inputs() else {
        return Err(Diagnostic::internal("a network has one input"));
    };
    let shape = graph.ty(*input).shape.resolve(1);
    // The first image of the check's input, and another.
    let picture = |seed| Tensor::from_f32(&shape, &seeded::values("input", &shape, seed));
    let target = share * Tolerance::FLOAT16.factor;
    let mut observe = |count: usize, what: &str| {
        ui.step(format!("measuring float16, run {count}: {what}"));
    };
    let pictures = [picture(0), picture(1)];
    let Choice {
        islands,
        error,
        error_without,
        gains,
    } = precision::choose(graph, &pictures, target, &mut observe)?;
    let gains = gains.into_iter().map(|gain| GainRecord {
        island: gain.island.to_string(),
        error: gain.error,
    });
    let measured = MeasuredRecord {
        target,
        error,
        error_without_islands: error_without,
        gains: gains.collect(),
    };
    Ok((islands, measured))
}

impl FlushedRecord {
    fn of(flushed: &Flushed) -> Self {
        let Flushed { key, elements, of } = flushed.clone();
        Self { key, elements, of }
    }
}

impl PrecisionRecord {
    /// What the artifact says of it; [`again`] reads it back.
    pub fn metadata(&self) -> Result<[(String, String); 2]> {
        let islands = json::line(&self.islands)?;
        Ok([
            (key::PRECISION.into(), F16.into()),
            (key::ISLANDS.into(), islands),
        ])
    }

    fn warn(&self, ui: &Ui) {
        if !self.overflowing.is_empty() {
            let keys = list(&self.overflowing);
            ui.warn(format_args!(
                "beyond float16's range, so their parts stay float32: {keys}"
            ));
        }
        if !self.flushed.is_empty() {
            let flushed = self.flushed.iter();
            let spelt: Vec<_> = flushed
                .map(|row| format!("{} ({} of {})", row.key, row.elements, row.of))
                .collect();
            ui.note(format_args!(
                "elements that become 0 in float16: {}",
                list(&spelt)
            ));
        }
    }

    /// Lines of the report.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let parsed: Vec<_> = self
            .islands
            .iter()
            .map(|text| Island::parse(text))
            .collect();
        let pick = |pick: fn(&Island) -> Option<&String>| -> Vec<String> {
            parsed.iter().filter_map(pick).cloned().collect()
        };
        let parts = pick(|island| match island {
            Island::Part(part) => Some(part),
            Island::Softmax(_) => None,
        });
        let softmaxes = pick(|island| match island {
            Island::Part(_) => None,
            Island::Softmax(part) => Some(part),
        });
        let mut islands = Vec::new();
        if !parts.is_empty() {
            islands.push(list(&parts));
        }
        if !softmaxes.is_empty() {
            islands.push(format!("softmax of {}", list(&softmaxes)));
        }
        if islands.is_empty() {
            islands.push("nothing".into());
        }
        let islands = islands.join("; ");
        let _ = writeln!(text, "{DIM}float16; in float32: {islands}{DIM:#}");
        if let Some(measured) = &self.measured {
            let (error, without) = (measured.error, measured.error_without_islands);
            let _ = writeln!(
                text,
                "{DIM}measured: {without:.1e} x spread without islands, {error:.1e} with \
                 these{DIM:#}"
            );
        }
        text
    }
}

/// The first few of a list.
fn list(items: &[String]) -> String {
    let shown = &items[..items.len().min(LISTED)];
    match items.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
