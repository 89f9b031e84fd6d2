//! What the numbers of weights tell: [`Numbers`] that no network can use, and odd ones.

use std::fmt;

use emoc_ir::{Diagnostic, Graph, Result};
use rayon::prelude::*;

use crate::StateDict;

/// What is wrong with a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// A NaN or an infinity, also one that float32 makes of a larger float64.
    Nonfinite,
    /// A BatchNorm variance below zero.
    NegativeVariance,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Problem::Nonfinite => "NaN or infinity",
            Problem::NegativeVariance => "a negative variance",
        })
    }
}

/// A weight with numbers that make every output useless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// Its key in the state_dict.
    pub key: String,
    /// What is wrong.
    pub problem: Problem,
    /// Index of the first such number, in row-major order.
    pub first: usize,
    /// How many numbers have the problem.
    pub count: usize,
    /// How many numbers the weight has.
    pub values: usize,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            problem,
            first,
            count,
            values,
        } = self;
        write!(
            f,
            "{key}: {problem} at index {first}, {count} of {values} values"
        )
    }
}

impl Unusable {
    /// Some of them in a few words.
    pub fn summary(all: &[Self]) -> String {
        match all.len() {
            1 => "1 weight holds unusable numbers".to_owned(),
            count => format!("{count} weights hold unusable numbers"),
        }
    }
}

/// What looking at every weight of a network has shown, by key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Weights that cannot be used.
    pub unusable: Vec<Unusable>,
    /// What is odd without being wrong.
    pub warnings: Vec<String>,
}

impl Numbers {
    /// Looks at the weights of a graph as they are in a state_dict. They are read one by one and
    /// let go again.
    ///
    /// # Errors
    /// A weight cannot be read.
    pub fn of_state_dict(state_dict: &StateDict, graph: &Graph) -> Result<Self> {
        let mut numbers = Self::default();
        let keys = graph.weights.iter().map(|(key, _)| key);
        for (key, tensor) in keys.filter_map(|key| Some((key, state_dict.get(key)?))) {
            let dtype = tensor.dtype();
            if dtype.is_float() {
                numbers.add(key, &tensor.to_f32()?);
            } else {
                numbers.warnings.push(format!(
                    "{key}: it holds {dtype}, a floating-point tensor is needed"
                ));
            }
        }
        Ok(numbers)
    }

    /// Looks at the weights of a graph, which keep what they have read.
    pub(super) fn of_graph(graph: &Graph) -> Result<Self> {
        let weights: Vec<_> = graph.weights.iter().collect();
        let parts: Vec<_> = weights
            .par_iter()
            .map(|(key, weight)| {
                let mut numbers = Self::default();
                numbers.add(key, &weight.values().map_err(|e| e.key(*key))?);
                Ok::<_, Box<Diagnostic>>(numbers)
            })
            .collect::<Result<_>>()?;
        let mut numbers = Self::default();
        for part in parts {
            numbers.unusable.extend(part.unusable);
            numbers.warnings.extend(part.warnings);
        }
        Ok(numbers)
    }

    /// Refuses unusable weights, or makes warnings of them. Returns all warnings.
    pub(super) fn accept(self, allow_nonfinite: bool) -> Result<Vec<String>> {
        let Self { unusable, warnings } = self;
        let faults = unusable.iter().map(ToString::to_string);
        if unusable.is_empty() || allow_nonfinite {
            return Ok(warnings.into_iter().chain(faults).collect());
        }
        let message = Unusable::summary(&unusable);
        let report = faults.fold(Diagnostic::input(message), |r, fault| r.detail(fault));
        Err(report.help("--allow-nonfinite compiles them all the same"))
    }

    fn add(&mut self, key: &str, values: &[f32]) {
        let variance = key.ends_with("running_var");
        let find = |problem, bad: &dyn Fn(f32) -> bool| {
            let first = values.iter().position(|&x| bad(x))?;
            Some(Unusable {
                key: key.to_owned(),
                problem,
                first,
                count: values.iter().filter(|&&x| bad(x)).count(),
                values: values.len(),
            })
        };
        let fault = find(Problem::Nonfinite, &|x| !x.is_finite());
        self.unusable
            .extend(fault.or_else(|| find(Problem::NegativeVariance, &|x| variance && x < 0.0)));
        let dead = values.iter().filter(|&&x| x == 0.0).count();
        if variance && dead > 0 {
            self.warnings.push(format!(
                "{key}: {dead} channels have no variance and are scaled by 1000"
            ));
        }
    }
}
