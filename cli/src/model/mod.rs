//! A model to be used: whatever the user names (a checkpoint, an ONNX file, a bundle, a crate),
//! opened once. It knows its input, its classes and its preprocessing, so that no flag repeats
//! what the file says; an [`Engine`] gives the sessions that run it.

mod engine;
mod open;
mod predictor;
mod reference;

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use emoc_ir::{Diagnostic, Result};
use emoc_preprocess::Transform;
use emoc_runtimes::InputFact;
use serde::{Deserialize, Serialize};

pub use engine::{Engine, Take};
pub use predictor::{Predictor, open_picture, softmax, top};

use crate::{
    args::{ModelArgs, Precision, RuntimeArgs, WeightsDtype},
    artifact::ModelKind,
    labels::{self, Labels},
};
use open::Source;

/// What runs a model.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Runtime")]
pub struct UseArgs {
    /// What runs the model [default: ONNX Runtime, or tract where it is not found; a crate runs
    /// itself]
    #[arg(long, value_enum)]
    pub runtime: Option<RuntimeChoice>,
    /// An ONNX Runtime library, or a folder with one, that must be used
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub onnxruntime_lib: Option<PathBuf>,
}

/// The flags of a command that looks at pictures.
#[derive(Debug, Clone, Args)]
pub struct ClassifierArgs {
    /// Names of the model's classes, one a line, or a folder with a folder for each class
    /// [default: the model's own; for 1000 classes ImageNet's]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    labels: Option<PathBuf>,
    #[command(flatten)]
    pub uses: UseArgs,
    #[command(flatten)]
    pub network: ModelArgs,
}

impl ClassifierArgs {
    /// Names of the model's classes: those that are given, its own, or ImageNet's.
    ///
    /// # Errors
    /// The given ones cannot be read, or the model has no classes.
    pub fn labels(&self, model: &Model) -> Result<Labels> {
        let classes = Some(model.classes()?);
        let given = self.labels.as_deref();
        let given = given.map(|path| labels::read(path, classes)).transpose()?;
        Ok(Labels::new(given.or_else(|| model.labels.clone()), classes))
    }

    /// Whether names are given.
    pub fn has_labels(&self) -> bool {
        self.labels.is_some()
    }
}

impl UseArgs {
    /// What to look for.
    pub fn wanted(&self) -> RuntimeArgs {
        RuntimeArgs {
            onnxruntime_lib: self.onnxruntime_lib.clone(),
            tensorrt_rtx: false,
        }
    }

    /// The runtime that the flags demand.
    ///
    /// # Errors
    /// They demand two.
    pub fn choice(&self) -> Result<Option<RuntimeChoice>> {
        match (self.runtime, &self.onnxruntime_lib) {
            (None, Some(_)) => Ok(Some(RuntimeChoice::Onnxruntime)),
            (Some(other), Some(_)) if other != RuntimeChoice::Onnxruntime => {
                let message = "--onnxruntime-lib speaks of another runtime than --runtime";
                Err(Diagnostic::usage(message).help("leave one of them out"))
            }
            (choice, _) => Ok(choice),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RuntimeChoice {
    /// ONNX Runtime
    Onnxruntime,
    /// tract, which is built in
    Tract,
    /// The emitted Rust crate, built with cargo
    Rust,
    /// The reference evaluator: slow and obvious, for checkpoints
    Reference,
}

/// A model, opened.
pub struct Model {
    pub facts: ModelFacts,
    /// Names of the classes that the model itself has.
    pub labels: Option<Vec<String>>,
    /// Of one run, with one image where the batch is open.
    input: InputFact,
    /// The first output: the logits of a classifier.
    output: String,
    source: Source,
}

/// What a model is, for reports, and to tell whether two results are of the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// For people.
    pub title: String,
    pub kind: ModelKind,
    /// `net`, `ema` or `seeded`; unknown of a foreign file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Of the weights' content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights_sha256: Option<String>,
    /// Of the ONNX file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What it computes in.
    pub precision: Precision,
    /// How its weights are stored, of a crate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights_dtype: Option<WeightsDtype>,
    /// Height and width.
    pub input_size: [usize; 2],
    /// Side of the attention windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// None for a backbone.
    pub classes: Option<usize>,
}

impl RuntimeChoice {
    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            RuntimeChoice::Onnxruntime => emoc_runtimes::ONNX_RUNTIME,
            RuntimeChoice::Tract => emoc_runtimes::TRACT,
            RuntimeChoice::Rust => "the emitted crate",
            RuntimeChoice::Reference => "the reference evaluator",
        }
    }
}

impl ModelFacts {
    /// The model for people, with what tells it apart from others of the same network.
    pub fn name(&self) -> String {
        let mut name = self.title.clone();
        name += match self.weights.as_deref() {
            Some("ema") => ", ema",
            Some("seeded") => ", seeded weights",
            _ => "",
        };
        name += match (self.precision, self.weights_dtype) {
            (Precision::F16, _) => ", float16",
            (_, Some(WeightsDtype::F16)) => ", float16 weights",
            _ => "",
        };
        name
    }
}

impl Model {
    /// How many classes it tells apart.
    ///
    /// # Errors
    /// It is a backbone.
    pub fn classes(&self) -> Result<usize> {
        self.facts.classes.ok_or_else(|| {
            Diagnostic::input("the network is a backbone: it has no classes to name")
                .help("give a classifier; `emoc bench` and `emoc check` take backbones")
        })
    }

    /// What makes its input of a picture.
    ///
    /// # Errors
    /// Its input is larger than pictures are made.
    pub fn transform(&self) -> Result<Transform> {
        let [height, width] = self.facts.input_size.map(|n| u32::try_from(n).unwrap_or(0));
        Transform::new(height, width).map_err(|error| Diagnostic::input(error.to_string()))
    }
}
