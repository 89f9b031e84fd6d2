//! The results of shards, put together.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use emoc_ir::{Diagnostic, Result};

use super::{
    dataset::MAX_SHARDS,
    evaluation::{ClassResult, Comparison, Evaluation, ModelResult, SCHEMA, SHOWN},
};
use crate::ui::Ui;

/// ImageNet's logits have 600 MB as JSON.
const MAX_BYTES: u64 = 4 << 30;

/// More than there are: sums of counts below it do not overflow.
const MAX_PICTURES: usize = 1 << 40;

/// Reads the results of shards and merges them.
///
/// # Errors
/// A file is no such result, or they are not shards of the same evaluation.
pub fn files(paths: &[PathBuf], ui: &Ui) -> Result<Evaluation> {
    let mut merged: Option<Evaluation> = None;
    for path in paths {
        let next = read(path)?;
        if !next.is_complete_shard() {
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
    let mut result: Evaluation =
        serde_json::from_slice(&bytes).map_err(|error| refuse(error.to_string()))?;
    if result.schema != SCHEMA || !result.is_sane() {
        return Err(refuse("its numbers contradict each other".into()));
    }
    // What follows from the counts is not believed.
    result.main.settle();
    if let Some(compare) = &mut result.compare {
        compare.settle();
    }
    result.complete = result.main.images + result.skipped.len() == result.data.pictures;
    Ok(result)
}

impl Evaluation {
    /// Whether a file of any origin is a result that can be added to others.
    fn is_sane(&self) -> bool {
        let mut shards = BTreeSet::new();
        let sane = |&shard: &usize| 1 <= shard && shard <= self.of_shards && shards.insert(shard);
        let compared = self.compare.as_ref().is_none_or(|compare| {
            let images = compare.agreeing.checked_add(compare.flipped.len());
            images == Some(compare.other.images) && self.has_sane_counts(&compare.other)
        });
        self.of_shards <= MAX_SHARDS
            && self.data.pictures <= MAX_PICTURES
            && !self.shards.is_empty()
            && self.shards.iter().all(sane)
            && self.has_sane_counts(&self.main)
            && compared
    }

    fn has_sane_counts(&self, result: &ModelResult) -> bool {
        let most = self.data.pictures;
        let sum = |mut counts: Box<dyn Iterator<Item = usize> + '_>| {
            counts.try_fold(0, |sum: usize, count| {
                sum.checked_add(count).filter(|&sum| sum <= most)
            })
        };
        let rows = || result.per_class.iter();
        let ordered = |row: &ClassResult| row.correct <= row.in_top5 && row.in_top5 <= row.images;
        let images = sum(Box::new(rows().map(|row| row.images)));
        let correct = sum(Box::new(rows().map(|row| row.correct)));
        let wrong = sum(Box::new(result.confusions.iter().map(|row| row.images)));
        let lists = result
            .logits
            .as_ref()
            .is_none_or(|logits| logits.len() == result.images);
        rows().all(ordered)
            && images == Some(result.images)
            && correct.zip(wrong).map(|(correct, wrong)| correct + wrong) == images
            && result.worst.len() <= SHOWN
            && lists
    }
}

fn refuse<T>(why: &str) -> Result<T> {
    let message = format!("not of the same evaluation: {why}");
    Err(Diagnostic::input(message))
}

fn merge(a: Evaluation, b: Evaluation) -> Result<Evaluation> {
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
    if a.model != b.model {
        return refuse("the models are not the same");
    }
    if a.runtime != b.runtime {
        let (a, b) = (&a.runtime, &b.runtime);
        return refuse(&format!("{a} ran the model there, and {b} here"));
    }
    let same = |(a, b): (&ClassResult, &ClassResult)| a.class == b.class && a.name == b.name;
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
        (None, None) => None,
        _ => return refuse("one has logits, another has not"),
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
