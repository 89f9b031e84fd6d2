//! Which islands a network needs, by measurement.

use emoc_ir::{
    Diagnostic, Graph, Result, Verified,
    reference::{Precision, Tensor, evaluate},
};

use super::{Island, Islands, candidates, to_f16};

/// The islands that were chosen, and why.
#[derive(Debug, Clone)]
pub struct Choice {
    /// No island can be left out without missing the target.
    pub islands: Islands,
    /// The error that is left, in units of the outputs' spread.
    pub error: f64,
    /// The error without any island.
    pub error_without: f64,
    /// Every candidate, the most useful first; empty if none was needed.
    pub gains: Vec<Gain>,
}

/// What one island buys.
#[derive(Debug, Clone)]
pub struct Gain {
    /// The island.
    pub island: Island,
    /// The error with it alone.
    pub error: f64,
}

/// Measures every candidate on `inputs` and keeps the fewest islands for which no output differs
/// from float32 by more than `target` times its spread: candidates are taken by what they buy
/// alone until the target is met, and those that turn out not to be needed are given back.
///
/// `observe` hears of every evaluation, with a count and what is evaluated.
///
/// # Errors
/// The graph is too large to be evaluated, or the inputs do not fit it.
pub fn choose(
    graph: &Verified,
    inputs: &[Tensor],
    target: f64,
    observe: &mut dyn FnMut(usize, &str),
) -> Result<Choice> {
    let mut search = Search {
        graph,
        inputs,
        expected: run(graph, inputs)?,
        evaluations: 0,
        observe,
    };
    let error_without = search.error(&Islands::new(), "no island")?;
    if error_without <= target {
        return Ok(Choice {
            islands: Islands::new(),
            error: error_without,
            error_without,
            gains: Vec::new(),
        });
    }
    let mut gains = Vec::new();
    for island in candidates(graph) {
        let error = search.error(&[island.clone()].into(), &island.to_string())?;
        gains.push(Gain { island, error });
    }
    gains.sort_by(|a, b| a.error.total_cmp(&b.error));
    let count = search.fewest(&gains, target)?;
    let mut islands: Islands = taken(&gains, count);
    // What one island no longer needs to cover may make another superfluous.
    loop {
        let before = islands.len();
        for gain in gains[..count].iter().rev() {
            let mut fewer = islands.clone();
            if fewer.remove(&gain.island)
                && search.error(&fewer, "giving back what is not needed")? <= target
            {
                islands = fewer;
            }
        }
        if islands.len() == before {
            break;
        }
    }
    let error = search.error(&islands, "the choice")?;
    Ok(Choice {
        islands,
        error,
        error_without,
        gains,
    })
}

fn taken(gains: &[Gain], count: usize) -> Islands {
    let taken = gains[..count].iter();
    taken.map(|gain| gain.island.clone()).collect()
}

struct Search<'a> {
    graph: &'a Verified,
    inputs: &'a [Tensor],
    /// What float32 gives for each input.
    expected: Vec<Vec<Tensor>>,
    evaluations: usize,
    observe: &'a mut dyn FnMut(usize, &str),
}

impl Search<'_> {
    /// The largest difference of any output with these islands, in units of its spread.
    fn error(&mut self, islands: &Islands, what: &str) -> Result<f64> {
        self.evaluations += 1;
        (self.observe)(self.evaluations, what);
        let narrow = to_f16(self.graph, islands)?.graph;
        let found = run(&narrow, self.inputs)?;
        let pairs = self.expected.iter().flatten().zip(found.iter().flatten());
        Ok(pairs
            .map(|(wide, narrow)| difference(wide, narrow))
            .fold(0.0, larger))
    }

    /// How many of the most useful islands meet the target. With all of them everything is
    /// float32.
    fn fewest(&mut self, gains: &[Gain], target: f64) -> Result<usize> {
        let (mut too_few, mut enough) = (0, gains.len());
        while enough - too_few > 1 {
            let middle = usize::midpoint(too_few, enough);
            let error = self.error(&taken(gains, middle), &format!("{middle} islands"))?;
            match error <= target {
                true => enough = middle,
                false => too_few = middle,
            }
        }
        Ok(enough)
    }
}

fn run(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Vec<Tensor>>> {
    if inputs.is_empty() {
        return Err(Diagnostic::internal("there is no input to measure with"));
    }
    let run = |input: &Tensor| evaluate(graph, std::slice::from_ref(input), Precision::F32);
    inputs.iter().map(run).collect()
}

/// The largest difference in units of the spread of `expected`; a NaN is infinitely far away.
fn difference(expected: &Tensor, found: &Tensor) -> f64 {
    let count = expected.data.len() as f64;
    let mean = expected.data.iter().sum::<f64>() / count;
    let variance = expected
        .data
        .iter()
        .map(|x| (x - mean).powi(2))
        .sum::<f64>()
        / count;
    let pairs = expected.data.iter().zip(&found.data);
    let largest = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, larger);
    match largest {
        0.0 => 0.0,
        largest => largest / variance.sqrt(),
    }
}

/// The larger number; NaN counts as infinity.
fn larger(a: f64, b: f64) -> f64 {
    if b.is_nan() { f64::INFINITY } else { a.max(b) }
}
