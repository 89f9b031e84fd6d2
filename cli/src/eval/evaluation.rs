//! The result of an evaluation: counts, and lists of what is worth looking at. It is made of
//! whole numbers and of numbers of single pictures, so that the results of shards merge exactly.

use std::{cmp::Ordering, collections::BTreeMap};

use emoc_ir::{Diagnostic, Result};
use emoc_pictures::Sample;
use serde::{Deserialize, Serialize};

use super::{
    dataset::Dataset,
    work::{Outcome, Side},
};
use crate::model::{ModelFacts, softmax, top};

/// Changes when results of different versions cannot be merged.
pub const SCHEMA: u32 = 1;

/// Length of the lists of single pictures.
pub const SHOWN: usize = 20;

/// What `--json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    pub schema: u32,
    pub data: DataFacts,
    /// Which parts of the pictures, from 1.
    pub shards: Vec<usize>,
    /// Of how many.
    pub of_shards: usize,
    /// Whether every picture of the folder was looked at.
    pub complete: bool,
    #[serde(flatten)]
    pub main: ModelResult,
    /// Pictures that could not be used, by name. They are not among `images`.
    pub skipped: Vec<Skipped>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compare: Option<Comparison>,
    pub time: TimeFacts,
}

/// The folder, for people and to tell whether two results are of the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFacts {
    /// Names of its folders.
    pub classes: Vec<String>,
    /// In all shards.
    pub pictures: usize,
    /// Of the classes' and pictures' names.
    pub sha256: String,
    /// Names of the network's classes; empty if they have none.
    pub labels: Vec<String>,
}

impl Evaluation {
    /// The name of a class of the network: its own, or the folder's.
    pub fn name(&self, class: usize) -> String {
        let row = self.main.per_class.iter().find(|row| row.class == class);
        let name = self.data.labels.get(class).or(row.map(|row| &row.name));
        name.map_or_else(|| format!("class {class}"), Clone::clone)
    }

    /// Whether every picture of its shards was looked at.
    pub fn is_complete_shard(&self) -> bool {
        let pictures = self.shards.iter().map(|shard| {
            let before = self.data.pictures + self.of_shards - shard;
            before / self.of_shards
        });
        pictures.sum::<usize>() == self.main.images + self.skipped.len()
    }
}

/// How good a model is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelResult {
    /// The name of its file or folder, which says nothing of what is in it.
    pub file: String,
    pub model: ModelFacts,
    /// What ran it.
    pub runtime: String,
    /// Pictures that count.
    pub images: usize,
    /// Share of the pictures whose class is the network's first guess.
    pub top1: f64,
    /// And among its first five.
    pub top5: f64,
    /// In the folder's order.
    pub per_class: Vec<ClassResult>,
    /// How often a class was taken for another, most often first.
    pub confusions: Vec<Confusion>,
    /// Wrong guesses, those with the largest loss first.
    pub worst: Vec<Wrong>,
    /// By name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub logits: Option<Vec<Logits>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassResult {
    /// The network's index.
    pub class: usize,
    pub name: String,
    pub images: usize,
    /// How many were guessed first.
    pub correct: usize,
    /// And among the first five.
    pub in_top5: usize,
    pub top1: f64,
    pub top5: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    pub class: usize,
    pub predicted: usize,
    pub images: usize,
}

/// A picture of one class that was taken for another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wrong {
    pub file: String,
    pub class: usize,
    pub predicted: usize,
    /// Of the guess.
    pub probability: f64,
    /// Cross entropy: minus the logarithm of the right class's probability.
    pub loss: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Logits {
    pub file: String,
    pub logits: Vec<f32>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Skipped {
    pub file: String,
    pub reason: String,
}

/// Another model, and where it differs from the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    #[serde(flatten)]
    pub other: ModelResult,
    /// Share of the pictures that both guess alike.
    pub agreement: f64,
    pub agreeing: usize,
    /// Pictures that they guess differently, by name.
    pub flipped: Vec<Flip>,
    /// Largest differences of a logit.
    pub largest: Vec<Difference>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flip {
    pub file: String,
    pub class: usize,
    /// By the first model.
    pub predicted: usize,
    /// By the other.
    pub other: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    pub file: String,
    pub max_abs: f64,
}

/// How long it took; merged results add up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimeFacts {
    pub seconds: f64,
    pub images_per_second: f64,
    /// Pictures at once.
    pub workers: usize,
}

impl TimeFacts {
    pub fn new(seconds: f64, workers: usize) -> Self {
        Self {
            seconds,
            images_per_second: 0.0,
            workers,
        }
    }
}

/// A share; of nothing it is nothing.
pub fn share(part: usize, of: usize) -> f64 {
    match of {
        0 => 0.0,
        of => part as f64 / of as f64,
    }
}

/// The largest loss first; equal ones by name.
pub fn by_loss(a: &Wrong, b: &Wrong) -> Ordering {
    b.loss.total_cmp(&a.loss).then_with(|| a.file.cmp(&b.file))
}

/// The largest first; equal ones by name.
pub fn by_difference(a: &Difference, b: &Difference) -> Ordering {
    let order = b.max_abs.total_cmp(&a.max_abs);
    order.then_with(|| a.file.cmp(&b.file))
}

impl ModelResult {
    /// Brings lists and shares into line with the counts: after pictures were added, or results.
    pub fn settle(&mut self) {
        for row in &mut self.per_class {
            row.top1 = share(row.correct, row.images);
            row.top5 = share(row.in_top5, row.images);
        }
        let sum = |count: fn(&ClassResult) -> usize| self.per_class.iter().map(count).sum();
        self.images = sum(|row| row.images);
        self.top1 = share(sum(|row| row.correct), self.images);
        self.top5 = share(sum(|row| row.in_top5), self.images);
        let mut pairs = BTreeMap::new();
        for row in &self.confusions {
            *pairs.entry((row.class, row.predicted)).or_insert(0) += row.images;
        }
        let confusion = |((class, predicted), images)| Confusion {
            class,
            predicted,
            images,
        };
        self.confusions = pairs.into_iter().map(confusion).collect();
        // Stable: equal counts stay in the order of the classes.
        self.confusions
            .sort_by_key(|row| std::cmp::Reverse(row.images));
        self.worst.sort_by(by_loss);
        self.worst.truncate(SHOWN);
        if let Some(logits) = &mut self.logits {
            logits.sort_by(|a, b| a.file.cmp(&b.file));
        }
    }
}

impl Comparison {
    /// The same for what is compared.
    pub fn settle(&mut self) {
        self.other.settle();
        self.agreement = share(self.agreeing, self.other.images);
        self.flipped.sort_by(|a, b| a.file.cmp(&b.file));
        self.largest.sort_by(by_difference);
        self.largest.truncate(SHOWN);
    }
}

/// Counts while pictures come in.
pub struct Tally {
    results: Vec<ModelResult>,
    /// Where in `per_class` a class of the network is.
    places: BTreeMap<usize, usize>,
    comparison: Option<Pairs>,
    skipped: Vec<Skipped>,
    seen: usize,
}

/// What two models say of the same pictures.
#[derive(Default)]
struct Pairs {
    agreeing: usize,
    flipped: Vec<Flip>,
    largest: Vec<Difference>,
}

impl Tally {
    pub fn new(dataset: &Dataset, sides: &[Side], logits: bool) -> Self {
        let named = dataset.classes.iter().zip(&dataset.names);
        let per_class = named.map(|(&class, name)| ClassResult {
            class,
            name: name.clone(),
            images: 0,
            correct: 0,
            in_top5: 0,
            top1: 0.0,
            top5: 0.0,
        });
        let per_class: Vec<_> = per_class.collect();
        let result = |side: &Side| ModelResult {
            file: side.file.clone(),
            model: side.model.facts.clone(),
            runtime: side.engine.title(),
            images: 0,
            top1: 0.0,
            top5: 0.0,
            per_class: per_class.clone(),
            confusions: Vec::new(),
            worst: Vec::new(),
            logits: logits.then(Vec::new),
        };
        let classes = dataset.classes.iter().enumerate();
        Self {
            results: sides.iter().map(result).collect(),
            places: classes.map(|(place, &class)| (class, place)).collect(),
            comparison: (sides.len() > 1).then(Pairs::default),
            skipped: Vec::new(),
            seen: 0,
        }
    }

    /// Counts a picture.
    pub fn add(&mut self, sample: &Sample, outcome: Outcome) {
        self.seen += 1;
        let sides = match outcome {
            Ok(sides) => sides,
            Err(reason) => {
                let file = sample.name.clone();
                self.skipped.push(Skipped { file, reason });
                return;
            }
        };
        let guesses: Vec<_> = sides.iter().map(|logits| top(logits, 5)).collect();
        if let (Some(pairs), [a, b]) = (&mut self.comparison, &sides[..]) {
            pairs.add(sample, [a, b], [guesses[0][0], guesses[1][0]]);
        }
        let place = self.places[&sample.class];
        for ((result, logits), guesses) in self.results.iter_mut().zip(sides).zip(guesses) {
            count(result, place, sample, &logits, &guesses);
            if let Some(list) = &mut result.logits {
                let file = sample.name.clone();
                list.push(Logits { file, logits });
            }
        }
    }

    /// The result.
    ///
    /// # Errors
    /// There was no model.
    pub fn finish(self, dataset: &Dataset, mut time: TimeFacts) -> Result<Evaluation> {
        let mut results = self.results.into_iter().map(|mut result| {
            result.settle();
            result
        });
        let mut skipped = self.skipped;
        skipped.sort();
        let main = results.next();
        let pairs = self.comparison.zip(results.next());
        let compare = pairs.map(|(pairs, other)| {
            let mut comparison = Comparison {
                other,
                agreement: 0.0,
                agreeing: pairs.agreeing,
                flipped: pairs.flipped,
                largest: pairs.largest,
            };
            comparison.settle();
            comparison
        });
        let main = main.ok_or_else(|| Diagnostic::internal("no model was evaluated"))?;
        time.images_per_second = main.images as f64 / time.seconds;
        Ok(Evaluation {
            schema: SCHEMA,
            data: dataset.facts.clone(),
            shards: vec![dataset.shard.number],
            of_shards: dataset.shard.of,
            complete: self.seen == dataset.facts.pictures,
            main,
            skipped,
            compare,
            time,
        })
    }
}

fn count(
    result: &mut ModelResult,
    place: usize,
    sample: &Sample,
    logits: &[f32],
    guesses: &[usize],
) {
    let (class, predicted) = (sample.class, guesses[0]);
    let row = &mut result.per_class[place];
    row.images += 1;
    row.correct += usize::from(predicted == class);
    row.in_top5 += usize::from(guesses.contains(&class));
    if predicted == class {
        return;
    }
    result.confusions.push(Confusion {
        class,
        predicted,
        images: 1,
    });
    let probabilities = softmax(logits);
    result.worst.push(Wrong {
        file: sample.name.clone(),
        class,
        predicted,
        probability: probabilities[predicted],
        loss: -probabilities[class].max(f64::MIN_POSITIVE).ln(),
    });
    if result.worst.len() > 2 * SHOWN {
        result.worst.sort_by(by_loss);
        result.worst.truncate(SHOWN);
    }
}

impl Pairs {
    fn add(&mut self, sample: &Sample, [a, b]: [&[f32]; 2], [predicted, other]: [usize; 2]) {
        let file = || sample.name.clone();
        match predicted == other {
            true => self.agreeing += 1,
            false => self.flipped.push(Flip {
                file: file(),
                class: sample.class,
                predicted,
                other,
            }),
        }
        let differences = a
            .iter()
            .zip(b)
            .map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs());
        self.largest.push(Difference {
            file: file(),
            max_abs: differences.fold(0.0, f64::max),
        });
        if self.largest.len() > 2 * SHOWN {
            self.largest.sort_by(by_difference);
            self.largest.truncate(SHOWN);
        }
    }
}
