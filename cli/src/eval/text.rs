//! An evaluation for people.

use std::fmt::Write;

use super::evaluation::{Comparison, Evaluation, ModelResult};
use crate::{
    table::{Side, Table, counted, grouped},
    ui::{BOLD, DIM, one_line},
};

/// Classes, pairs and pictures that are shown.
const ROWS: usize = 10;

/// Folders of so many classes are shown whole.
const FEW_CLASSES: usize = 20;

pub fn text(evaluation: &Evaluation) -> String {
    let mut text = String::new();
    let main = &evaluation.main;
    let _ = write!(text, "{}", summary(evaluation));
    if main.images > 0 {
        let _ = write!(text, "\n{}", classes(main));
    }
    let _ = write!(text, "{}{}", confusions(evaluation), worst(evaluation));
    if let Some(comparison) = &evaluation.compare {
        let _ = write!(text, "{}", differences(evaluation, comparison));
    }
    text.push_str(&skipped(evaluation));
    text
}

fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

fn summary(evaluation: &Evaluation) -> String {
    let mut text = String::new();
    let main = &evaluation.main;
    let others = evaluation.compare.as_ref().map(|compare| &compare.other);
    let mut table = Table::new(&[
        ("model", Side::Left),
        ("top-1", Side::Right),
        ("top-5", Side::Right),
        ("runtime", Side::Left),
    ]);
    for result in [Some(main), others].into_iter().flatten() {
        table.row([
            match others {
                Some(_) => format!("{}: {}", result.file, result.model.name()).into(),
                None => result.model.name().into(),
            },
            percent(result.top1).into(),
            percent(result.top5).into(),
            result.runtime.clone().into(),
        ]);
    }
    let _ = write!(text, "{table}");
    let classes = main.per_class.iter().filter(|row| row.images > 0).count();
    let (seconds, rate) = (evaluation.time.seconds, evaluation.time.images_per_second);
    let skipped = match evaluation.skipped.len() {
        0 => String::new(),
        skipped => format!(", {} skipped", grouped(skipped as u64)),
    };
    let at_once = match evaluation.time.workers {
        1 => String::new(),
        workers => format!(", {workers} at once"),
    };
    let _ = writeln!(
        text,
        "{DIM}{} of {}{skipped} in {seconds:.1} s: {rate:.1} a second{at_once}{DIM:#}",
        counted(main.images, "picture"),
        counted(classes, "class"),
    );
    if !evaluation.complete {
        let of = grouped(evaluation.data.pictures as u64);
        let _ = writeln!(text, "{DIM}a part: the folder has {of} pictures{DIM:#}");
    }
    text
}

fn heading(name: &str) -> String {
    format!("\n{BOLD}{name}{BOLD:#}\n")
}

/// All classes where they are few, and otherwise those with the lowest Top-1.
fn classes(result: &ModelResult) -> String {
    let seen = result.per_class.iter().filter(|row| row.images > 0);
    let mut rows: Vec<_> = seen.collect();
    let all = rows.len() <= FEW_CLASSES;
    let mut text = String::new();
    if !all {
        // Stable: equal shares stay in the order of the classes.
        rows.sort_by(|a, b| a.top1.total_cmp(&b.top1));
        rows.truncate(ROWS);
        text = heading("the classes with the lowest top-1");
    }
    let mut table = Table::new(&[
        ("class", Side::Right),
        ("pictures", Side::Right),
        ("top-1", Side::Right),
        ("top-5", Side::Right),
        ("name", Side::Left),
    ]);
    for row in rows {
        table.row([
            row.class.to_string().into(),
            grouped(row.images as u64).into(),
            percent(row.top1).into(),
            percent(row.top5).into(),
            row.name.clone().into(),
        ]);
    }
    text + &table.to_string()
}

fn confusions(evaluation: &Evaluation) -> String {
    let result = &evaluation.main;
    if result.confusions.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("pictures", Side::Right),
        ("of", Side::Left),
        ("taken for", Side::Left),
    ]);
    for row in result.confusions.iter().take(ROWS) {
        table.row([
            grouped(row.images as u64).into(),
            evaluation.name(row.class).into(),
            evaluation.name(row.predicted).into(),
        ]);
    }
    format!("{}{table}", heading("most often confused"))
}

fn worst(evaluation: &Evaluation) -> String {
    let result = &evaluation.main;
    if result.worst.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("loss", Side::Right),
        ("sure", Side::Right),
        ("taken for", Side::Left),
        ("picture", Side::Left),
    ]);
    for row in result.worst.iter().take(ROWS) {
        table.row([
            format!("{:.2}", row.loss).into(),
            percent(row.probability).into(),
            evaluation.name(row.predicted).into(),
            row.file.clone().into(),
        ]);
    }
    format!("{}{table}", heading("the largest losses"))
}

fn differences(evaluation: &Evaluation, comparison: &Comparison) -> String {
    let mut text = heading("between the two models");
    let flipped = comparison.flipped.len();
    let agreement = percent(comparison.agreement);
    let _ = writeln!(
        text,
        "they guess alike on {agreement}, {flipped} pictures differ"
    );
    if let Some(largest) = comparison.largest.first() {
        let (file, difference) = (one_line(&largest.file), largest.max_abs);
        let _ = match difference {
            0.0 => writeln!(text, "their logits are equal"),
            _ => writeln!(
                text,
                "a logit differs by at most {difference:.1e}, in {file}"
            ),
        };
    }
    if flipped == 0 {
        return text;
    }
    let mut table = Table::new(&[
        ("first", Side::Left),
        ("other", Side::Left),
        ("right", Side::Left),
        ("picture", Side::Left),
    ]);
    for row in comparison.flipped.iter().take(ROWS) {
        table.row([
            evaluation.name(row.predicted).into(),
            evaluation.name(row.other).into(),
            evaluation.name(row.class).into(),
            row.file.clone().into(),
        ]);
    }
    let _ = write!(text, "\n{table}");
    text
}

fn skipped(evaluation: &Evaluation) -> String {
    let skipped = &evaluation.skipped;
    if skipped.is_empty() {
        return String::new();
    }
    let mut text = heading(&format!("skipped: {}", counted(skipped.len(), "picture")));
    for row in skipped.iter().take(ROWS) {
        let _ = writeln!(
            text,
            "{}",
            one_line(&format!("{}: {}", row.file, row.reason))
        );
    }
    if skipped.len() > ROWS {
        let _ = writeln!(text, "and {} more, see --json", skipped.len() - ROWS);
    }
    text
}
