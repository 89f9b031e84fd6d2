//! `emoc bench`: models in every runtime that can run them, measured in turn.
//!
//! Each candidate (a model, a runtime, a number of threads) is a process of its own, so that its
//! memory and its start are its own too. In every round each of them runs once, after a run that
//! does not count: whatever else the machine does hits all of them alike.

mod candidates;
mod measure;
mod text;
mod worker;

use std::{path::PathBuf, thread};

use clap::{Args, ValueHint};
use emoc_ir::{Diagnostic, Result};
use serde::Serialize;

pub use worker::{WorkerArgs, work};

use crate::{
    agreement,
    args::{ModelArgs, RuntimeArgs},
    json,
    model::{Model, ModelFacts, RuntimeChoice},
    ui::Ui,
};
use candidates::{Candidates, Failed};
use measure::{Measured, Noise};

pub const EXAMPLES: &str = "\
Examples:
  emoc bench emov2_5m_224.onnx
  emoc bench EMOv2_5M.pth --input-size 512
      compiled to ONNX and to a Rust crate, which is built with cargo
  emoc bench before.onnx after.onnx emov2-5m-224/
      builds the crate and runs it, as `cargo run` would: only for code that you trust
  emoc bench emov2_5m_224.onnx --runtime onnxruntime --runs 200 --json
";

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Checkpoints, ONNX files, folders of bundles or crates
    #[arg(value_name = "MODEL", required = true, value_hint = ValueHint::AnyPath)]
    models: Vec<PathBuf>,
    /// Rounds that are measured [default: 25, or fewer (at least 5) where they take over 10 s]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: Option<u32>,
    /// Measure in this runtime alone; may be given several times [default: all that are found]
    #[arg(long, value_enum, help_heading = "Runtime")]
    runtime: Vec<RuntimeChoice>,
    /// An ONNX Runtime library, or a folder with one, that must be used
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath, help_heading = "Runtime")]
    onnxruntime_lib: Option<PathBuf>,
    #[command(flatten)]
    network: ModelArgs,
}

/// What `--json` says.
#[derive(Serialize)]
struct Report {
    /// Threads that run at the same time on this machine.
    cores: usize,
    /// Rounds that were measured.
    rounds: usize,
    models: Vec<Named>,
    /// The fastest first; `ratio` is to it.
    results: Vec<Measured>,
    /// What could not be measured.
    failed: Vec<Failed>,
    /// Why the times are not to be trusted; empty if all is well.
    noise: Vec<Noise>,
}

/// A model with the letter that stands for it.
#[derive(Serialize)]
struct Named {
    name: String,
    path: String,
    #[serde(flatten)]
    facts: ModelFacts,
}

pub fn run(args: &BenchArgs, ui: &Ui) -> Result<()> {
    if args.runtime.contains(&RuntimeChoice::Reference) {
        let message = "the reference evaluator is there to be right, and is not measured";
        return Err(Diagnostic::usage(message).help("--runtime tract, onnxruntime or rust"));
    }
    let runtimes = agreement::runtimes(&RuntimeArgs {
        onnxruntime_lib: args.onnxruntime_lib.clone(),
        tensorrt_rtx: false,
    })?;
    let paths = args.models.iter().map(PathBuf::as_path);
    let models = Model::open_all(paths, &args.network, ui)?;
    for &choice in &args.runtime {
        if !models.iter().any(|model| model.takes(choice)) {
            let message = format!("{} runs none of these models", choice.name());
            return Err(Diagnostic::usage(message).help("leave its --runtime out"));
        }
    }
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let mut candidates = Candidates::prepare(&models, &args.runtime, &runtimes, cores, ui)?;
    let (rounds, results) = measure::rounds(&mut candidates, args.runs, ui);
    let noise = measure::noise(&results);
    let named = models.into_iter().zip(&args.models).enumerate();
    let report = Report {
        cores,
        rounds,
        models: named
            .map(|(index, (model, path))| Named {
                name: candidates::name(index),
                path: path.display().to_string(),
                facts: model.facts,
            })
            .collect(),
        results,
        failed: candidates.failed,
        noise,
    };
    json::show(&report, || text::text(&report), ui)?;
    match report.results.is_empty() {
        false => Ok(()),
        true => Err(nothing(&report)),
    }
}

/// The error of a run that measured nothing: the first reason.
fn nothing(report: &Report) -> Box<Diagnostic> {
    let first = report.failed.first();
    match first {
        Some(Failed { error, .. }) => error.clone(),
        None => Diagnostic::usage("no runtime that is asked for runs these models")
            .help("leave --runtime out"),
    }
}
