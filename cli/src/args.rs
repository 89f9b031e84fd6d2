//! What can be typed. Every flag is spelt the same in every command that has it.

mod examples;
mod model;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use emoc_backends::{rust_crate, tensorrt};
use serde::{Deserialize, Serialize};

use crate::{
    bench, diff, doctor,
    eval::{self, EvalArgs},
    report,
    run::{self, RunArgs},
};
use examples::{
    CHECK_EXAMPLES, COMPILE_EXAMPLES, COMPLETIONS_EXAMPLES, EXAMPLES, EXIT_CODES, INSPECT_EXAMPLES,
};
pub use model::{AttentionArg, BatchArg, ModelArgs, Weights, dim_head, input_size};

/// Compiles EMOv2 vision models from PyTorch checkpoints to checked ONNX files, TensorRT bundles and Rust crates.
#[derive(Debug, Parser)]
#[command(name = "emoc", version, after_help = format!("{EXAMPLES}\n{EXIT_CODES}"))]
#[command(max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// How results are shown.
#[derive(Debug, Clone, Copy, Args)]
pub struct OutputArgs {
    /// Print the result as JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more: passes, times, digests
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "built once")]
pub enum Command {
    /// Compile a checkpoint to an artifact and check it against the reference
    #[command(after_help = format!("{COMPILE_EXAMPLES}\n{EXIT_CODES}"))]
    Compile(CompileArgs),
    /// Say what is in a checkpoint or an artifact
    #[command(after_help = format!("{INSPECT_EXAMPLES}\n{EXIT_CODES}"))]
    Inspect(InspectArgs),
    /// Compare an artifact with the reference again
    #[command(after_help = format!("{CHECK_EXAMPLES}\n{EXIT_CODES}"))]
    Check(CheckArgs),
    /// Say what a model sees in pictures
    #[command(after_help = format!("{}\n\n{EXIT_CODES}", run::EXAMPLES))]
    Run(RunArgs),
    /// Evaluate a model on a folder of pictures: top-1, top-5, per class
    #[command(after_help = format!("{}\n\n{EXIT_CODES}", eval::EXAMPLES))]
    Eval(EvalArgs),
    /// Write everything about a model on one HTML page
    #[command(after_help = format!("{}\n{EXIT_CODES}", report::EXAMPLES))]
    Report(report::ReportArgs),
    /// Measure models in every runtime that can run them
    #[command(after_help = format!("{}\n{EXIT_CODES}", bench::EXAMPLES))]
    Bench(bench::BenchArgs),
    /// What `bench` measures: a process that runs one model
    #[command(hide = true)]
    BenchWorker(bench::WorkerArgs),
    /// Say how two checkpoints or artifacts differ
    #[command(after_help = format!("{}\n{EXIT_CODES}", diff::EXAMPLES))]
    Diff(diff::DiffArgs),
    /// Say what emoc finds on this machine, and how to get what is missing
    #[command(after_help = doctor::EXAMPLES)]
    Doctor,
    /// Print shell completions
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub struct CompileArgs {
    #[command(flatten)]
    pub checkpoint: CheckpointArg,
    /// What to compile to
    #[arg(long, value_enum, default_value_t = Target::Onnx)]
    pub target: Target,
    /// Where to write: a file, the manifest (.json) goes beside it; for a crate a folder
    /// [default: named after the model, in the current folder]
    #[arg(short, long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub output: Option<PathBuf>,
    /// Replace a file that emoc did not write, or that was changed since
    #[arg(long)]
    pub force: bool,
    /// Class names, one a line, to be stored in the artifact
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub labels: Option<PathBuf>,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub onnx: OnnxArgs,
    #[command(flatten)]
    pub precision: PrecisionArgs,
    #[command(flatten)]
    pub rust: RustArgs,
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// Do not run the artifact
    #[arg(long, help_heading = "Check", conflicts_with_all = ["onnxruntime_lib", "tensorrt_rtx"])]
    pub no_check: bool,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// An ONNX file
    Onnx,
    /// A Rust crate without dependencies
    Rust,
    /// A folder from which TensorRT builds an engine, on the GPU that runs it
    Tensorrt,
    /// The same with engines for TensorRT-RTX in it, built here, without a GPU
    TensorrtRtx,
}

impl Target {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Target::Onnx => "onnx",
            Target::Rust => "rust",
            Target::Tensorrt => "tensorrt",
            Target::TensorrtRtx => "tensorrt-rtx",
        }
    }
}

#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "ONNX")]
pub struct OnnxArgs {
    /// Version of the ONNX operators [default: 20]
    #[arg(long, value_name = "17-23", value_parser = clap::value_parser!(u32).range(17..=23))]
    pub opset: Option<u32>,
    /// Keep every tensor at this rank or below (5 for Core ML and most NPUs)
    #[arg(long, value_name = "RANK")]
    pub max_rank: Option<u8>,
}

#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Precision")]
pub struct PrecisionArgs {
    /// What an ONNX file computes in; its inputs and outputs are float32 [default: f32]
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,
    /// What stays float32 in float16 [default: standard]
    #[arg(long, value_enum)]
    pub islands: Option<IslandsArg>,
}

impl PrecisionArgs {
    /// The precision, by default float32.
    pub fn precision(&self) -> Precision {
        self.precision.unwrap_or_default()
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Float32
    #[default]
    F32,
    /// Float16, with islands of float32
    F16,
}

impl From<Precision> for tensorrt::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => tensorrt::Precision::F32,
            Precision::F16 => tensorrt::Precision::F16,
        }
    }
}

impl Precision {
    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "float32",
            Precision::F16 => "float16",
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IslandsArg {
    /// The stem, every softmax, the last norm, pool and classifier
    #[default]
    Standard,
    /// Measured: the fewest that hold the tolerance
    Auto,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Rust crate")]
pub struct RustArgs {
    /// The crate's name [default: after the model, emov2-5m-224]
    #[arg(long, value_name = "NAME", value_parser = crate_name)]
    pub crate_name: Option<String>,
    /// How the weights are stored; they are computed with as float32 [default: f32]
    #[arg(long, value_name = "DTYPE", value_enum)]
    pub weights_dtype: Option<WeightsDtype>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightsDtype {
    /// Float32
    #[default]
    F32,
    /// Float16: half the size, rounded
    F16,
}

impl From<WeightsDtype> for rust_crate::WeightsDtype {
    fn from(dtype: WeightsDtype) -> Self {
        match dtype {
            WeightsDtype::F32 => rust_crate::WeightsDtype::F32,
            WeightsDtype::F16 => rust_crate::WeightsDtype::F16,
        }
    }
}

impl WeightsDtype {
    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            WeightsDtype::F32 => "float32",
            WeightsDtype::F16 => "float16",
        }
    }
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Passes")]
pub struct PipelineArgs {
    /// Which passes run
    #[arg(long, value_enum, default_value_t = Passes::All)]
    pub passes: Passes,
    /// Print the graph after this pass, instead of the report
    #[arg(long, value_name = "PASS", conflicts_with = "json")]
    pub print_after: Option<String>,
    /// Leave out the passes after this one
    #[arg(long, value_name = "PASS")]
    pub stop_after: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Passes {
    /// The whole pipeline
    All,
    /// The faithful graph, one node per PyTorch module
    None,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A checkpoint (.pth, .pt, .safetensors) or an artifact (.onnx, or the folder of a crate)
    #[arg(value_hint = ValueHint::AnyPath, required_unless_present = "variant")]
    pub file: Option<PathBuf>,
    /// Print the network's graph (.emir)
    #[arg(long, conflicts_with = "tensors")]
    pub graph: bool,
    /// List every tensor of any checkpoint, EMOv2 or not
    #[arg(long, requires = "file")]
    pub tensors: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The artifact (.onnx, or the folder of a crate); what no flag says is taken from its metadata
    #[arg(value_hint = ValueHint::AnyPath)]
    pub artifact: PathBuf,
    #[command(flatten)]
    pub checkpoint: CheckpointArg,
    /// Compare the end of every block, not the outputs alone
    #[arg(long)]
    pub per_block: bool,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
}

#[derive(Debug, Clone, Args)]
pub struct CheckpointArg {
    /// The weights: a file of `torch.save` or .safetensors [default: seeded weights]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub checkpoint: Option<PathBuf>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Check")]
pub struct RuntimeArgs {
    /// An ONNX Runtime library, or a folder with one, that must be used
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub onnxruntime_lib: Option<PathBuf>,
    /// TensorRT-RTX must build the models of a TensorRT bundle
    #[arg(long)]
    pub tensorrt_rtx: bool,
}

fn crate_name(text: &str) -> Result<String, String> {
    let checked = rust_crate::check_name(text);
    checked.map_err(|error| error.help.unwrap_or(error.message))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
