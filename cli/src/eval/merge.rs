//! The results of shards, put together.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use emoc_ir::{Diagnostic, Result};

use super::evaluation::{Comparison, Evaluation, ModelResult, SCHEMA};
use crate::ui::Ui;

/// ImageNet's logits have 600 MB as JSON.
const MAX_BYTES: u64 = 4 << 30;

/// Reads the results of shards and merges them.
///
/// # Errors
/// A file is no such result, or they are not shards of the same evaluation.
pub fn files(paths: &[PathBuf], ui: &Ui) -> Result<Evaluation> {
    let mut merged: Option<Evaluation> = None;
    for path in paths {
        let next = read(path)?;
        if !next.complete_shard() {
            let path = path.display();
            ui.warn(format_args!("{path}: the evaluation was interrupted"));
        }
        merged = Some(match merged {
            None => next,
            Some(merged) => merge(merged, next).map_err(|error| error.file(path))?,
        });
    }
    let merged = merged.ok_or_else(|| Diagnostic::usage("nothing to merge"))?;
    let missing = (1..=merged.of_shards).filter(|shard| !merged.shards.contains(shard));
    let missing: Vec<_> = missing.take(10).map(|shard| shard.to_string()).collect();
    if !missing.is_empty() {
        let (list, of) = (missing.join(", "), merged.of_shards);
        ui.warn(format_args!("shards are missing, of {of}: {list}"));
    }
    Ok(merged)
}

fn read(path: &Path) -> Result<Evaluation> {
    let io = |error| Diagnostic::io("read the result", path, &error);
    let metadata = fs::metadata(path).map_err(io)?;
    let refuse = |why: String| {
        Diagnostic::input(format!("this is no result of `emoc eval --json`: {why}")).file(path)
    };
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(refuse("no regular file, or too large".into()));
    }
    let bytes = fs::read(path).map_err(io)?;
    let result: Evaluation =
        serde_json::from_slice(&bytes).map_err(|error| refuse(error.to_string()))?;
    match result.schema == SCHEMA && result.is_sane() {
        true => Ok(result),
        false => Err(refuse("its numbers contradict each other".into())),
    }
}

impl Evaluation {
    /// Counts of a file of any origin that sums stay true of.
    fn is_sane(&self) -> bool {
        let models = [Some(&self.main), self.compare.as_ref().map(|c| &c.other)];
        let sane = |result: &ModelResult| {
            let rows = result.per_class.iter();
            let images = rows.clone().try_fold(0, |sum: usize, row| {
                let ordered = row.correct <= row.in_top5 && row.in_top5 <= row.images;
                sum.checked_add(row.images).filter(|_| ordered)
            });
            images == Some(result.images) && result.images <= self.data.pictures
        };
        let shards = self
            .shards
            .iter()
            .all(|&shard| 1 <= shard && shard <= self.of_shards);
        shards && !self.shards.is_empty() && models.into_iter().flatten().all(sane)
    }

    /// Whether each of its shards was looked at to the end.
    fn complete_shard(&self) -> bool {
        let pictures = self.shards.iter().map(|shard| {
            let before = self.data.pictures + self.of_shards - shard;
            before / self.of_shards
        });
        pictures.sum::<usize>() == self.main.images + self.skipped.len()
    }
}

fn merge(a: Evaluation, b: Evaluation) -> Result<Evaluation> {
    let refuse = |why: &str| {
        Err(Diagnostic::input(format!(
            "not of the same evaluation: {why}"
        )))
    };
    if a.data != b.data {
        return refuse("the folders have other classes or pictures");
    }
    if a.of_shards != b.of_shards {
        return refuse("the folders were divided into another number of shards");
    }
    let taken: BTreeSet<_> = a.shards.iter().collect();
    if let Some(shard) = b.shards.iter().find(|shard| taken.contains(shard)) {
        return refuse(&format!("shard {shard} is there twice"));
    }
    let main = merge_models(a.main, b.main)?;
    let compare = match (a.compare, b.compare) {
        (None, None) => None,
        (Some(a), Some(b)) => Some(merge_comparisons(a, b)?),
        _ => return refuse("one compares two models, another does not"),
    };
    let mut shards = [a.shards, b.shards].concat();
    shards.sort_unstable();
    let mut skipped = [a.skipped, b.skipped].concat();
    skipped.sort();
    let mut time = a.time;
    time.seconds += b.time.seconds;
    time.workers = time.workers.max(b.time.workers);
    time.images_per_second = main.images as f64 / time.seconds;
    Ok(Evaluation {
        schema: SCHEMA,
        complete: main.images + skipped.len() == a.data.pictures,
        data: a.data,
        of_shards: a.of_shards,
        shards,
        main,
        skipped,
        compare,
        time,
    })
}

fn merge_models(mut a: ModelResult, b: ModelResult) -> Result<ModelResult> {
    let refuse = |why: &str| {
        Err(Diagnostic::input(format!(
            "not of the same evaluation: {why}"
        )))
    };
    if a.model != b.model {
        return refuse("the models are not the same");
    }
    if a.runtime != b.runtime {
        let (a, b) = (&a.runtime, &b.runtime);
        return refuse(&format!("{a} ran the model there, and {b} here"));
    }
    let same = |(a, b): (
        &super::evaluation::ClassResult,
        &super::evaluation::ClassResult,
    )| { a.class == b.class && a.name == b.name };
    if a.per_class.len() != b.per_class.len() || !a.per_class.iter().zip(&b.per_class).all(same) {
        return refuse("the classes are not the same");
    }
    for (a, b) in a.per_class.iter_mut().zip(b.per_class) {
        a.images += b.images;
        a.correct += b.correct;
        a.in_top5 += b.in_top5;
    }
    a.confusions.extend(b.confusions);
    a.worst.extend(b.worst);
    a.logits = match (a.logits, b.logits) {
        (Some(a), Some(b)) => Some([a, b].concat()),
        _ => None,
    };
    a.settle();
    Ok(a)
}

fn merge_comparisons(a: Comparison, b: Comparison) -> Result<Comparison> {
    let mut merged = Comparison {
        other: merge_models(a.other, b.other)?,
        agreement: 0.0,
        agreeing: a.agreeing + b.agreeing,
        flipped: [a.flipped, b.flipped].concat(),
        largest: [a.largest, b.largest].concat(),
    };
    merged.settle();
    Ok(merged)
}
