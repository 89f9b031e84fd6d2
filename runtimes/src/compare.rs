//! Does an output agree with the reference?
//!
//! What counts is the largest absolute difference, measured against the *spread* of the
//! reference: the population standard deviation of its values in this run. Everything else here
//! helps a person to read a disagreement.

use std::fmt;

use serde::Serialize;

use crate::NamedTensor;

/// How far an output may be from the reference: `factor x max(floor, spread)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// The share of the spread that is tolerated.
    pub factor: f64,
    /// The spread to assume at least, so that a quiet output is not held to less than rounding.
    pub floor: f64,
}

impl Tolerance {
    /// For float32 arithmetic. PyTorch itself differs from float64 by up to 3e-5 at a spread of
    /// 1 to 3.5; the smallest mistake of a kind worth finding moves the logits by 1e-3.
    pub const FLOAT32: Self = Self {
        factor: 1e-4,
        floor: 1.0,
    };

    /// For float16 weights and values with float32 islands, against the float32 network: rounding
    /// the weights alone moves the outputs by 2e-3 to 3.5e-3 of their spread.
    pub const FLOAT16: Self = Self {
        factor: 5e-3,
        floor: 0.0,
    };

    /// The largest absolute difference allowed for a reference of this spread.
    pub fn limit(&self, spread: f64) -> f64 {
        self.factor * spread.max(self.floor)
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { factor, floor } = self;
        match floor {
            0.0 => write!(f, "{factor:e} x spread"),
            floor => write!(f, "{factor:e} x max({floor}, spread)"),
        }
    }
}

/// Whether an output passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Within the tolerance everywhere.
    Agrees,
    /// It does not; the reason, to follow `output X`.
    Disagrees(String),
}

/// How one output compares with the reference. Numbers that cannot be had (another shape,
/// values that are not finite) are NaN, in JSON null.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The output's name.
    pub output: String,
    /// Largest absolute difference.
    pub max_abs: f64,
    /// `max_abs` relative to the spread.
    pub max_rel: f64,
    /// Cosine of the angle between the two, as one long vector each.
    pub cosine: f64,
    /// The ranking of the classes, for logits (`[N, classes]`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top5: Option<TopK>,
    /// Population standard deviation of the reference's values.
    pub spread: f64,
    /// What `max_abs` may be.
    pub tolerance: f64,
    /// Whether it is.
    pub verdict: Verdict,
}

/// How many of the best places have the same class in both, over all images of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TopK {
    /// Places that agree.
    pub agree: usize,
    /// Places compared: 5 for each image, fewer if there are fewer classes.
    pub of: usize,
}

impl Comparison {
    /// Whether the output is within the tolerance.
    pub fn agrees(&self) -> bool {
        self.verdict == Verdict::Agrees
    }

    fn incomparable(expected: &NamedTensor, tolerance: Tolerance, why: String) -> Self {
        let spread = spread(&expected.data);
        Self {
            output: expected.name.clone(),
            max_abs: f64::NAN,
            max_rel: f64::NAN,
            cosine: f64::NAN,
            top5: None,
            spread,
            tolerance: tolerance.limit(spread),
            verdict: Verdict::Disagrees(why),
        }
    }
}

/// Compares one output with the reference. A value that is not finite, on either side, another
/// shape and an output without values never agree.
pub fn compare(expected: &NamedTensor, actual: &NamedTensor, tolerance: Tolerance) -> Comparison {
    if let Some(why) = incomparable(expected, actual) {
        return Comparison::incomparable(expected, tolerance, why);
    }
    let spread = spread(&expected.data);
    let limit = tolerance.limit(spread);
    let (max_abs, place) = largest_difference(&expected.data, &actual.data);
    let verdict = if max_abs <= limit {
        Verdict::Agrees
    } else {
        let place = coordinates(place, &expected.shape);
        Verdict::Disagrees(format!(
            "differs by {max_abs:.3e}, over the tolerance of {limit:.3e}, most at {place:?}"
        ))
    };
    Comparison {
        output: expected.name.clone(),
        max_abs,
        max_rel: if max_abs == 0.0 {
            0.0
        } else {
            max_abs / spread
        },
        cosine: cosine(&expected.data, &actual.data),
        top5: top5(expected, actual, limit),
        spread,
        tolerance: limit,
        verdict,
    }
}

/// Compares every output of the reference with the one of the same name. One that is missing
/// disagrees; further outputs of `actual` are nobody's business.
pub fn compare_all(
    expected: &[NamedTensor],
    actual: &[NamedTensor],
    tolerance: Tolerance,
) -> Vec<Comparison> {
    let compare_one = |expected: &NamedTensor| {
        let actual = actual.iter().find(|actual| actual.name == expected.name);
        match actual {
            Some(actual) => compare(expected, actual, tolerance),
            None => Comparison::incomparable(expected, tolerance, "is missing".into()),
        }
    };
    expected.iter().map(compare_one).collect()
}

/// Whether every output agrees, and there is at least one: an empty check proves nothing.
pub fn all_agree(comparisons: &[Comparison]) -> bool {
    !comparisons.is_empty() && comparisons.iter().all(Comparison::agrees)
}

/// The first block whose output is outside the tolerance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Divergence {
    /// The block's name.
    pub block: String,
    /// The last block before it that agrees; none if it is the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_agreeing: Option<String>,
    /// By how much it is off.
    pub comparison: Comparison,
}

/// Finds where a run leaves the reference: `expected` holds the outputs at the block ends in the
/// order of computation, named after the blocks; `actual` has them in any order.
pub fn first_divergence(
    expected: &[NamedTensor],
    actual: &[NamedTensor],
    tolerance: Tolerance,
) -> Option<Divergence> {
    let comparisons = compare_all(expected, actual, tolerance);
    let first = comparisons.iter().position(|block| !block.agrees())?;
    let last_agreeing = first
        .checked_sub(1)
        .map(|index| comparisons[index].output.clone());
    let comparison = comparisons.into_iter().nth(first)?;
    Some(Divergence {
        block: comparison.output.clone(),
        last_agreeing,
        comparison,
    })
}

/// Why the two cannot be compared value by value.
fn incomparable(expected: &NamedTensor, actual: &NamedTensor) -> Option<String> {
    if let Some(fault) = expected.inconsistency() {
        return Some(format!("cannot be judged: the reference {fault}"));
    }
    if let Some(fault) = actual.inconsistency() {
        return Some(fault);
    }
    if expected.shape != actual.shape {
        let (expected, actual) = (&expected.shape, &actual.shape);
        return Some(format!("has shape {actual:?} instead of {expected:?}"));
    }
    if expected.data.is_empty() {
        return Some("holds no values".into());
    }
    for (whose, tensor) in [("the reference", expected), ("the output", actual)] {
        let bad = |value: &f32| !value.is_finite();
        if let Some(first) = tensor.data.iter().position(bad) {
            let count = tensor.data.iter().filter(|value| bad(value)).count();
            let place = coordinates(first, &tensor.shape);
            return Some(format!(
                "cannot be judged: {whose} holds {count} values that are not finite, first at {place:?}"
            ));
        }
    }
    None
}

/// Population standard deviation, in float64 and two passes.
fn spread(values: &[f32]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
    let square = |&v: &f32| (f64::from(v) - mean).powi(2);
    (values.iter().map(square).sum::<f64>() / count).sqrt()
}

/// The largest absolute difference and the index where it is.
fn largest_difference(a: &[f32], b: &[f32]) -> (f64, usize) {
    let differences = a
        .iter()
        .zip(b)
        .map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs());
    let start = (0.0, 0);
    differences
        .enumerate()
        .fold(start, |largest, (index, difference)| {
            if difference > largest.0 {
                (difference, index)
            } else {
                largest
            }
        })
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b));
        products.sum()
    };
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    match norms > 0.0 {
        true => (dot(a, b) / norms).clamp(-1.0, 1.0),
        // A zero vector has no direction: the same as another zero vector, unlike any other.
        false => f64::from(a == b),
    }
}

/// Compares the ranking of the classes. Both outputs may be off by `limit`, so two classes whose
/// reference values are within twice that are tied and may be swapped: outputs within the
/// tolerance always rank alike.
fn top5(expected: &NamedTensor, actual: &NamedTensor, limit: f64) -> Option<TopK> {
    let &[_, classes] = expected.shape.as_slice() else {
        return None;
    };
    let mut result = TopK { agree: 0, of: 0 };
    let rows = expected
        .data
        .chunks(classes)
        .zip(actual.data.chunks(classes));
    for (expected, actual) in rows {
        for (e, a) in best(expected).zip(best(actual)).take(5) {
            let gap = f64::from(expected[e]) - f64::from(expected[a]);
            result.of += 1;
            result.agree += usize::from(e == a || gap.abs() <= 2.0 * limit);
        }
    }
    Some(result)
}

/// Class indices, best first; equal values in the order of the classes.
fn best(row: &[f32]) -> impl Iterator<Item = usize> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
    order.into_iter()
}

/// The multi-dimensional index of the row-major position `index`.
fn coordinates(mut index: usize, shape: &[usize]) -> Vec<usize> {
    let mut place = vec![0; shape.len()];
    for (coordinate, &size) in place.iter_mut().zip(shape).rev() {
        *coordinate = index % size;
        index /= size;
    }
    place
}

#[cfg(test)]
mod tests;
