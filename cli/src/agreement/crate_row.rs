//! The row of an emitted crate, and what the crate is held to.

use std::path::PathBuf;

use emoc_backends::{
    onnx,
    rust_crate::{self, Emitted},
};
use emoc_ir::{Diagnostic, Graph, Kind, Result, Verified};
use emoc_runtimes::{
    Found, InputFact, NamedTensor, Tolerance, all_agree, compare_all,
    rust_crate::{Cargo, CrateSession, NAME},
};

use super::{DYNAMIC_BATCH, Reference, Row, compare_onnx, measure};
use crate::{
    args::WeightsDtype,
    manifest,
    output::{CHILDREN, TemporaryFolder},
    ui::Ui,
};

/// What a crate is held to.
pub struct References {
    faithful: Reference,
    /// On the weights as they are stored, where that rounds them.
    rounded: Option<Reference>,
}

impl References {
    /// Evaluates the faithful graph, and where `dtype` rounds its weights the optimised one with
    /// rounded weights.
    ///
    /// # Errors
    /// The graph is too large to be evaluated, or a weight too large for `dtype`.
    pub fn evaluate(
        faithful: &Graph,
        optimised: &Graph,
        dtype: WeightsDtype,
        ui: &Ui,
    ) -> Result<Self> {
        // Arithmetic is float32 whatever the weights are stored as.
        let faithful = Reference::evaluate(faithful, DYNAMIC_BATCH, Tolerance::FLOAT32, ui)?;
        let rounded = match dtype {
            WeightsDtype::F32 => None,
            WeightsDtype::F16 => {
                let graph = rust_crate::rounded(optimised, rust_crate::WeightsDtype::F16)?;
                Some(faithful.of(&graph, ui)?)
            }
        };
        Ok(Self { faithful, rounded })
    }

    /// The one that decides.
    fn deciding(&self) -> &Reference {
        self.rounded.as_ref().unwrap_or(&self.faithful)
    }

    /// The values that a crate's own test compares with: an input and the outputs.
    pub fn golden(&self) -> (Vec<f32>, Vec<Vec<f32>>) {
        self.deciding().values()
    }
}

/// Builds and runs a crate, and beside it the ONNX file of the same graph in every runtime.
///
/// # Errors
/// The file system refuses, or the passes changed the network. What is wrong with the crate is
/// in its row.
pub fn judge_crate(
    emitted: &Emitted,
    references: &References,
    optimised: &Verified,
    runtimes: &[Found],
    ui: &Ui,
) -> Result<Vec<Row>> {
    let faithful = &references.faithful;
    if references.rounded.is_some() {
        // The crate's reference is made from the optimised graph: who judges that one?
        let found = faithful.of(optimised, ui)?;
        let compared = compare_all(&faithful.outputs, &found.outputs, faithful.tolerance);
        if !all_agree(&compared) {
            let message = "the optimised graph does not agree with the reference";
            return Err(Diagnostic::new(Kind::Disagreement, message));
        }
    }
    let mut rows = vec![crate_row(emitted, references, ui)?];
    ui.step("emitting ONNX for comparison");
    let options = manifest::onnx_options(&manifest::OnnxOptions::default(), Vec::new());
    let onnx = onnx::emit(optimised, &options)?;
    rows.extend(compare_onnx(&onnx, faithful, runtimes, ui));
    Ok(rows)
}

/// Builds the crate in a temporary folder and runs it there.
fn crate_row(emitted: &Emitted, references: &References, ui: &Ui) -> Result<Row> {
    let path = std::env::var_os("PATH");
    let cargo = match Cargo::find(path.as_deref(), &CHILDREN) {
        Ok(cargo) => cargo,
        Err(missing) => return Ok(Row::missing(&missing)),
    };
    ui.step("building the crate");
    let folder = TemporaryFolder::create()?;
    let version = Some(format!("cargo {}", cargo.version()));
    let reference = references.deciding();
    let built = build_crate(emitted, &cargo, &folder);
    let ran = built.and_then(|program| {
        ui.step("running the crate");
        let (input, outputs) = facts(reference);
        let mut session = CrateSession::new(program, folder.path(), input, outputs, &CHILDREN);
        let measured = measure(&mut session, &reference.input)?;
        let isa = session.report().map(|report| report.isa.clone());
        Ok((measured, isa))
    });
    let (measured, isa) = match ran {
        Ok(ran) => ran,
        Err(error) => return Ok(Row::failed(NAME, version, error)),
    };
    let mut row = measured.row(NAME, version, reference);
    row.isa = isa;
    if references.rounded.is_some() {
        let unrounded = &references.faithful.outputs;
        row.rounding = compare_all(unrounded, &measured.outputs, reference.tolerance);
    }
    Ok(row)
}

/// Builds a crate in a temporary folder: the program that runs it.
///
/// # Errors
/// The file system refuses, or the crate does not build.
pub fn build_crate(emitted: &Emitted, cargo: &Cargo, folder: &TemporaryFolder) -> Result<PathBuf> {
    let example = rust_crate::check_example(emitted);
    for (name, bytes) in emitted.files.iter().chain([&example]) {
        folder.write(&format!("crate/{name}"), bytes)?;
    }
    let (source, target) = (folder.path().join("crate"), folder.path().join("target"));
    cargo.build(&source, &target, &CHILDREN)
}

/// What a crate takes and gives, for one image.
fn facts(reference: &Reference) -> (InputFact, Vec<InputFact>) {
    let outputs = reference.outputs.iter().map(NamedTensor::fact);
    (reference.input.fact(), outputs.collect())
}

impl Reference {
    /// The same input through another graph.
    ///
    /// # Errors
    /// The graph is too large to be evaluated.
    fn of(&self, graph: &Graph, ui: &Ui) -> Result<Self> {
        ui.step("evaluating the reference on the optimised graph");
        Ok(Self {
            input: self.input.clone(),
            outputs: super::evaluate(graph, &self.input, &super::outputs(graph))?,
            tolerance: self.tolerance,
        })
    }
}
