//! The report for people.

use std::fmt::Write;

use super::{
    Report,
    subject::Facts,
    weights::{Lone, Row, WeightsDiff},
    words::Change,
};
use crate::{
    agreement_table::{cosine, difference},
    inspect::cost::millions,
    table::{Cell, Side, Table, bytes, grouped},
    ui::{BOLD, DIM, one_line},
};

/// Weights that are listed unless all are asked for.
const SHOWN: usize = 20;

pub fn text(report: &Report, all: bool) -> String {
    let Report { a, b, .. } = report;
    let mut text = String::new();
    for (name, facts) in [("A", a), ("B", b)] {
        let line = format!("{}: {}", facts.path, facts.description);
        let _ = writeln!(text, "{BOLD}{name}{BOLD:#}  {}", one_line(&line));
    }
    let _ = write!(text, "\n{}", sizes(a, b));
    text.push_str(&words(&report.differences, a, b));
    match &report.weights {
        Some(diff) => text.push_str(&weights(diff, all)),
        None => text.push_str(
            "\nthe weights of a crate are packed: they are compared with those of a crate in the \
             same type,\nor of a checkpoint\n",
        ),
    }
    text
}

fn sizes(a: &Facts, b: &Facts) -> Table {
    let mut table = Table::new(&[
        ("", Side::Left),
        ("A", Side::Right),
        ("B", Side::Right),
        ("change", Side::Right),
    ]);
    let mut row = |name: &str, numbers: [Option<u64>; 2], spelt: fn(u64) -> String| {
        if numbers == [None, None] {
            return;
        }
        let change = match numbers {
            [Some(a), Some(b)] if a != b && a > 0 => {
                format!("{:+.1} %", 100.0 * (b as f64 / a as f64 - 1.0))
            }
            _ => String::new(),
        };
        let [a, b] = numbers.map(|number| number.map_or("-".into(), spelt));
        table.row([name.into(), a.into(), b.into(), change.into()]);
    };
    row("size", [Some(a.bytes), Some(b.bytes)], bytes);
    row("parameters", [a.parameters, b.parameters], grouped);
    row("MACs", [a.macs, b.macs], millions);
    let nodes = [a, b].map(|facts| facts.nodes.map(|nodes| nodes as u64));
    row("nodes", nodes, grouped);
    table
}

fn words(changes: &[Change], a: &Facts, b: &Facts) -> String {
    let mut text = String::new();
    if changes.is_empty() {
        if a.network.is_some() && b.network.is_some() {
            text.push_str("\nthe networks have the same form\n");
        }
        return text;
    }
    let _ = writeln!(text, "\n{BOLD}differences{BOLD:#}");
    for Change { what, a, b } in changes {
        let line = format!("{what}: {a} -> {b}");
        let _ = writeln!(text, "  {}", one_line(&line));
    }
    text
}

fn weights(diff: &WeightsDiff, all: bool) -> String {
    let shown = if all { usize::MAX } else { SHOWN };
    let mut text = String::new();
    let identical = match (diff.compared(), diff.identical) {
        (0, _) => "none of the same key and shape".to_owned(),
        (compared, identical) if compared == identical => {
            format!("{compared} of the same key and shape, all identical")
        }
        (compared, identical) => {
            format!("{compared} of the same key and shape, {identical} of them identical")
        }
    };
    let _ = write!(text, "\n{BOLD}weights{BOLD:#}  {identical}");
    if diff.same_in_another_type > 0 {
        let count = diff.same_in_another_type;
        let _ = write!(text, ", {count} equal in another type");
    }
    text.push('\n');
    if !diff.different.is_empty() {
        text.push_str(&rows(&diff.different, shown));
        let (cosine, distance) = (diff.total.cosine, diff.total.distance);
        let left_out = match diff.total.nonfinite {
            0 => String::new(),
            1 => "without 1 element that is NaN or infinite\n".into(),
            count => format!("without {count} elements that are NaN or infinite\n"),
        };
        if cosine.is_finite() && distance.is_finite() {
            let _ = writeln!(
                text,
                "{DIM}relative to the standard deviation of A's values\n{left_out}all together: \
                 cosine {cosine:.7}, distance {:.3} % of A's length{DIM:#}",
                100.0 * distance
            );
        }
    }
    let reshaped = diff.other_shape.iter();
    let reshaped: Vec<_> = reshaped
        .map(|row| format!("{} {:?} -> {:?}", row.key, row.a, row.b))
        .collect();
    let lone = |rows: &[Lone]| -> Vec<String> {
        let rows = rows.iter();
        rows.map(|row| format!("{} {:?}", row.key, row.shape))
            .collect()
    };
    for (heading, lines) in [
        ("of another shape", reshaped),
        ("only in A", lone(&diff.only_in_a)),
        ("only in B", lone(&diff.only_in_b)),
    ] {
        text.push_str(&list(heading, &lines, shown));
    }
    text
}

fn rows(rows: &[Row], shown: usize) -> String {
    let mut table = Table::new(&[
        ("differs", Side::Left),
        ("max abs", Side::Right),
        ("relative", Side::Right),
        ("cosine", Side::Right),
        ("", Side::Left),
    ]);
    // Counters differ between any two checkpoints of a training, and tell nothing.
    let weights = rows.iter().take_while(|row| !row.is_integer).count();
    let shown = match (shown, weights) {
        (usize::MAX, _) | (_, 0) => shown,
        _ => shown.min(weights),
    };
    for row in rows.iter().take(shown) {
        let types = row.types.map(|[a, b]| format!("{a} -> {b}"));
        let nonfinite = (row.nonfinite > 0).then(|| format!("{} not finite", row.nonfinite));
        let remarks: Vec<_> = types.into_iter().chain(nonfinite).collect();
        table.row([
            row.key.clone().into(),
            number(row.max_abs),
            number(row.relative),
            cosine(row.cosine).into(),
            remarks.join(", ").into(),
        ]);
    }
    let mut text = table.to_string();
    let integers = match rows.len() - weights {
        _ if shown > weights || weights == 0 => String::new(),
        0 => String::new(),
        integers if integers == rows.len() - shown => {
            ", integers such as num_batches_tracked".into()
        }
        integers => format!(", {integers} of them integers such as num_batches_tracked"),
    };
    text.push_str(&more(rows.len(), shown, &integers));
    text
}

/// A difference, large ones without digits that nobody reads.
fn number(number: f64) -> Cell {
    match number {
        1e3.. if number.is_finite() => format!("{number:.1e}").into(),
        _ => difference(number).into(),
    }
}

fn list(heading: &str, lines: &[String], shown: usize) -> String {
    let mut text = String::new();
    if lines.is_empty() {
        return text;
    }
    let _ = writeln!(text, "\n{BOLD}{heading}{BOLD:#}  {}", lines.len());
    for line in lines.iter().take(shown) {
        let _ = writeln!(text, "  {}", one_line(line));
    }
    text.push_str(&more(lines.len(), shown, ""));
    text
}

fn more(count: usize, shown: usize, what: &str) -> String {
    match count.saturating_sub(shown) {
        0 => String::new(),
        more => format!("  and {more} more{what}; --all lists them\n"),
    }
}
