//! What the Python program is asked for, and what it answers.

use std::fmt;

use emoc_ir::{Diagnostic, Result};
use serde::{Deserialize, Serialize};

use crate::ValueInfo;

/// A generation of GPUs that an engine can be built for without one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Capability {
    /// Turing: GeForce RTX 20. Has no float32 matrix products.
    Sm75,
    /// Ampere, data centre: A100.
    Sm80,
    /// Ampere: GeForce RTX 30.
    Sm86,
    /// Ada: GeForce RTX 40.
    Sm89,
}

impl Capability {
    /// Every generation, the oldest first.
    pub const ALL: [Self; 4] = [Self::Sm75, Self::Sm80, Self::Sm86, Self::Sm89];

    /// Those that compute in float32.
    pub const FLOAT32: [Self; 3] = [Self::Sm80, Self::Sm86, Self::Sm89];

    /// The name that NVIDIA gives it: `SM80`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sm75 => "SM75",
            Self::Sm80 => "SM80",
            Self::Sm86 => "SM86",
            Self::Sm89 => "SM89",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The shapes that one input may have when the engine runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShapeRange {
    /// The input's name.
    pub input: String,
    /// The smallest size of each dimension.
    pub min: Vec<usize>,
    /// The sizes that the engine is made fastest for.
    pub opt: Vec<usize>,
    /// The largest.
    pub max: Vec<usize>,
}

#[derive(Serialize)]
pub(super) struct Request<'r> {
    pub(super) model: &'static str,
    pub(super) engine: &'static str,
    pub(super) capabilities: &'r [Capability],
    pub(super) profile: &'r [ShapeRange],
}

#[derive(Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub(super) enum Answer {
    Version {
        version: String,
    },
    Missing {
        python: String,
        reason: String,
    },
    Built {
        layers: usize,
        warnings: Vec<String>,
        parse_seconds: f64,
        build_seconds: f64,
    },
    Parser {
        faults: Vec<Fault>,
    },
    Builder {
        messages: Vec<String>,
    },
}

#[derive(Deserialize)]
pub(super) struct Fault {
    pub(super) node: String,
    pub(super) operator: String,
    /// Such as `UNSUPPORTED_NODE`.
    pub(super) code: String,
    /// A sentence, or the assertion that did not hold.
    pub(super) reason: String,
}

/// Every symbolic dimension has one range, and no range says what the model does not.
/// TensorRT-RTX's own words for this name neither the input nor the remedy.
pub(super) fn check_ranges(inputs: &[ValueInfo], ranges: &[ShapeRange]) -> Result<()> {
    let mut faults = Vec::new();
    for input in inputs {
        let mut named = ranges.iter().filter(|range| range.input == input.name);
        let shape = input.shape.as_deref();
        let symbolic = shape.is_none_or(|shape| shape.contains(&None));
        match (named.next(), named.next()) {
            (None, _) if symbolic => faults.push(format!(
                "`{}` has a symbolic dimension and no range of shapes",
                input.name
            )),
            (None, _) => {}
            (Some(_), Some(_)) => faults.push(format!("`{}` is given twice", input.name)),
            (Some(range), None) => faults.extend(fault(shape, range)),
        }
    }
    for range in ranges {
        if inputs.iter().all(|input| input.name != range.input) {
            faults.push(format!("`{}` is no input of the model", range.input));
        }
    }
    if faults.is_empty() {
        return Ok(());
    }
    let error = Diagnostic::input("the optimisation profile does not fit the model's inputs")
        .help("give each input with a symbolic dimension its smallest, usual and largest shape");
    Err(faults.into_iter().fold(error, Diagnostic::detail))
}

/// Why a range does not fit an input of this shape.
fn fault(shape: Option<&[Option<usize>]>, range: &ShapeRange) -> Option<String> {
    let ShapeRange {
        input,
        min,
        opt,
        max,
    } = range;
    let said = format!("{min:?}, {opt:?}, {max:?}");
    let rank = shape.map_or(min.len(), <[_]>::len);
    if [min, opt, max].iter().any(|sizes| sizes.len() != rank) {
        return Some(format!(
            "`{input}` has {rank} dimensions, not those of {said}"
        ));
    }
    let sizes = min.iter().zip(opt).zip(max);
    let ordered = |((min, opt), max): ((&usize, &usize), &usize)| {
        0 < *min && min <= opt && opt <= max && i32::try_from(*max).is_ok()
    };
    if !sizes.clone().all(ordered) {
        return Some(format!("`{input}`: {said} do not rise from at least 1"));
    }
    let shape = shape.unwrap_or_default();
    let fixed = |(((min, _), max), dim): (((&usize, &usize), &usize), &Option<usize>)| {
        dim.is_none_or(|dim| dim == *min && dim == *max)
    };
    let fits = sizes.zip(shape).all(fixed);
    (!fits).then(|| format!("`{input}`: {said} change a dimension that the model fixes"))
}
