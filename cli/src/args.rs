//! What can be typed. Every flag is spelt the same in every command that has it.

use std::path::PathBuf;

use clap::{
    ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint,
    builder::{PossibleValuesParser, TypedValueParser},
};
use emoc_backends::{rust_crate, tensorrt};
use emoc_frontend::{
    Choice,
    emo2::{self, VARIANTS, Variant},
};
use emoc_ir::{Diagnostic, Dim, ops::Attention};
use serde::{Deserialize, Serialize};

use crate::{
    bench, diff, doctor,
    eval::{self, EvalArgs},
    report,
    run::{self, RunArgs},
};

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   an artifact disagrees with the reference; nothing was written
  2   the command line is wrong, or leaves something open
  3   an input is refused: not what it should be, damaged, or hostile
  4   the file system: missing, exists already, not writable, full
  5   a runtime that was asked for is not there
  70  a defect of emoc itself; please report it
  130, 143  interrupted (SIGINT, SIGTERM); nothing half-written is left";

const EXAMPLES: &str = "\
Examples:
  emoc inspect EMOv2_5M.pth
  emoc compile --checkpoint EMOv2_5M.pth --target onnx
  emoc compile --variant 5M --target onnx          # without a checkpoint: seeded weights
  emoc compile --checkpoint EMOv2_5M.pth --target rust
  emoc compile --checkpoint EMOv2_5M.pth --target tensorrt --precision f16
  emoc check emov2_5m_224.onnx --checkpoint EMOv2_5M.pth
";

const COMPILE_EXAMPLES: &str = "\
Examples:
  emoc compile --checkpoint EMOv2_5M.pth
      writes emov2_5m_224.onnx and emov2_5m_224.json, checked in every runtime found
  emoc compile --checkpoint latest_ckpt.pth --weights ema --output model.onnx --labels names.txt
  emoc compile --checkpoint detector.pth --input-size 300 --window 10
      a backbone without a head: outputs stage1 to stage4
  emoc compile --variant 5M --input-size 512 --batch dynamic
  emoc compile --checkpoint EMOv2_5M.pth --precision f16 --islands auto
  emoc compile --checkpoint EMOv2_5M.pth --target rust --weights-dtype f16
      writes the crate emov2-5m-224/, built with cargo and checked
  emoc compile --checkpoint EMOv2_5M.pth --target tensorrt --precision f16 --batch 1..8:4
      writes emov2_5m_224_tensorrt/, from which build.sh makes the engine on the GPU
  emoc compile --checkpoint EMOv2_5M.pth --print-after i2rmb --no-check > graph.emir
";

const INSPECT_EXAMPLES: &str = "\
Examples:
  emoc inspect EMOv2_5M.pth --input-size 512
  emoc inspect emov2_5m_224.onnx
  emoc inspect emov2-5m-224/                       # a Rust crate
  emoc inspect --variant 5M --graph > emov2_5m.emir
  emoc inspect any_checkpoint.pt --tensors --json
";

const CHECK_EXAMPLES: &str = "\
Examples:
  emoc check emov2_5m_224.onnx --checkpoint EMOv2_5M.pth
  emoc check emov2_5m_224.onnx --per-block         # compiled from seeded weights
  emoc check emov2-5m-224/ --checkpoint EMOv2_5M.pth
      builds the crate and runs it, as `cargo run` would: only for code that you trust
";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  emoc completions bash > ~/.local/share/bash-completion/completions/emoc
  emoc completions zsh > ~/.zfunc/_emoc
  emoc completions fish > ~/.config/fish/completions/emoc.fish
";

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

/// What the weights do not say.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Network")]
pub struct ModelArgs {
    /// The published variant; needed only without a checkpoint
    #[arg(long, value_parser = variant_parser(), ignore_case = true)]
    pub variant: Option<&'static Variant>,
    /// Which weights of a trainer's file: the network's, or their moving average (`net_E`)
    #[arg(long, value_enum)]
    pub weights: Option<Weights>,
    /// Input height and width in pixels: 224, or 300x200 [default: 224]
    #[arg(long, value_name = "H[xW]", value_parser = input_size)]
    pub input_size: Option<[usize; 2]>,
    /// Side of the attention windows; 0 is one window over the whole map [default: 8 at 256 and
    /// 512, otherwise 7]
    #[arg(long, value_name = "N")]
    pub window: Option<u16>,
    /// Images per inference: a number, or `dynamic`; for TensorRT also 1..8:4, from 1 to 8 and
    /// fastest for 4 [default: 1]
    #[arg(long, value_name = "N|dynamic|MIN..MAX[:OPT]", value_parser = batch)]
    pub batch: Option<BatchArg>,
    /// Seed of the weights without a checkpoint [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Channels of one q or k head in stages 3 and 4, for a network that is not published
    #[arg(long, value_name = "A,B", value_parser = dim_head)]
    pub dim_head: Option<[usize; 2]>,
    /// Which windows attend, for a network that is not published
    #[arg(long, value_enum)]
    pub attention: Option<AttentionArg>,
    /// Accept weights with NaN, infinity or a negative variance
    #[arg(long)]
    pub allow_nonfinite: bool,
    /// Refuse the checkpoint unless the file, or the content of its weights, has this SHA-256
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    pub expect_sha256: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Weights {
    /// The network's own
    Net,
    /// Their exponential moving average
    Ema,
}

impl From<Weights> for Choice {
    fn from(weights: Weights) -> Self {
        match weights {
            Weights::Net => Choice::Net,
            Weights::Ema => Choice::Ema,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AttentionArg {
    /// EMOv2: the sum of both
    Hybrid,
    /// EMOv1: dilated windows
    Remote,
    /// Contiguous windows
    Close,
}

impl From<AttentionArg> for Attention {
    fn from(attention: AttentionArg) -> Self {
        match attention {
            AttentionArg::Hybrid => Attention::Hybrid,
            AttentionArg::Remote => Attention::Remote,
            AttentionArg::Close => Attention::Close,
        }
    }
}

fn variant_parser() -> impl TypedValueParser<Value = &'static Variant> {
    PossibleValuesParser::new(VARIANTS.iter().map(|row| row.name))
        .try_map(|name| emo2::variant(&name).ok_or("no such variant"))
}

/// Height and width, as they are typed.
pub fn input_size(text: &str) -> Result<[usize; 2], String> {
    let side = |side: &str| {
        let pixels = side.parse().ok().filter(|&pixels| pixels > 0);
        pixels.ok_or_else(|| "a size is 224, or 300x200 (height x width)".to_owned())
    };
    match text.split_once(['x', 'X']) {
        Some((height, width)) => Ok([side(height)?, side(width)?]),
        None => side(text).map(|side| [side, side]),
    }
}

impl ModelArgs {
    /// The first of these flags that is given.
    pub fn first_given(&self) -> Option<&'static str> {
        let flags = [
            ("--variant", self.variant.is_some()),
            ("--weights", self.weights.is_some()),
            ("--input-size", self.input_size.is_some()),
            ("--window", self.window.is_some()),
            ("--batch", self.batch.is_some()),
            ("--seed", self.seed.is_some()),
            ("--dim-head", self.dim_head.is_some()),
            ("--attention", self.attention.is_some()),
            ("--allow-nonfinite", self.allow_nonfinite),
            ("--expect-sha256", self.expect_sha256.is_some()),
        ];
        let given = flags.iter().find(|(_, given)| *given);
        given.map(|&(flag, _)| flag)
    }

    /// A range of batches is what an engine is built for, and nothing else.
    ///
    /// # Errors
    /// There is one.
    pub fn refuse_range(&self) -> emoc_ir::Result<()> {
        match self.batch {
            Some(BatchArg::Range { .. }) => {
                let message = "a range of batches is for compile --target tensorrt";
                Err(Diagnostic::usage(message).help("--batch dynamic takes any number of images"))
            }
            _ => Ok(()),
        }
    }
}

/// Images per inference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchArg {
    /// That many.
    Fixed(usize),
    /// Any number.
    Dynamic,
    /// Any number, of which a TensorRT engine takes this range.
    Range { min: usize, opt: usize, max: usize },
}

impl BatchArg {
    /// The first axis of the input.
    pub fn dim(self) -> Dim {
        match self {
            BatchArg::Fixed(images) => Dim::Fixed(images),
            BatchArg::Dynamic | BatchArg::Range { .. } => Dim::Batch(1),
        }
    }
}

impl From<Dim> for BatchArg {
    fn from(dim: Dim) -> Self {
        dim.fixed().map_or(BatchArg::Dynamic, BatchArg::Fixed)
    }
}

fn batch(text: &str) -> Result<BatchArg, String> {
    let number = |text: &str| text.parse().ok().filter(|&images| images > 0);
    let range = |(min, rest): (&str, &str)| {
        let (max, opt) = rest.split_once(':').unwrap_or((rest, rest));
        let (min, opt, max) = (number(min)?, number(opt)?, number(max)?);
        let rising = min <= opt && opt <= max;
        rising.then_some(BatchArg::Range { min, opt, max })
    };
    let batch = match (text, text.split_once("..")) {
        ("dynamic", _) => Some(BatchArg::Dynamic),
        (_, Some(parts)) => range(parts),
        (_, None) => number(text).map(BatchArg::Fixed),
    };
    batch.ok_or_else(|| {
        "a batch is a number from 1, `dynamic`, or for TensorRT 1..8:4, the middle of which is last"
            .to_owned()
    })
}

/// Channels of a head, as they are typed.
pub fn dim_head(text: &str) -> Result<[usize; 2], String> {
    let number = |text: &str| text.trim().parse().ok().filter(|&n: &usize| n > 0);
    let pair = text
        .split_once(',')
        .and_then(|(third, fourth)| Some([number(third)?, number(fourth)?]));
    pair.ok_or_else(|| "two numbers are needed, for stages 3 and 4: 20,20".to_owned())
}

fn crate_name(text: &str) -> Result<String, String> {
    let checked = rust_crate::check_name(text);
    checked.map_err(|error| error.help.unwrap_or(error.message))?;
    Ok(text.to_owned())
}

fn sha256(text: &str) -> Result<String, String> {
    let hex = text.to_ascii_lowercase();
    let fits = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    fits.then_some(hex)
        .ok_or_else(|| "a SHA-256 is 64 hexadecimal digits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn values() {
        for (text, expected) in [
            ("224", Some([224, 224])),
            ("300x200", Some([300, 200])),
            ("0", None),
            ("300x", None),
            ("x", None),
            ("-1", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(input_size(text).ok(), expected, "--input-size {text}");
        }
        let range = |min, opt, max| BatchArg::Range { min, opt, max };
        for (text, expected) in [
            ("1", Some(BatchArg::Fixed(1))),
            ("dynamic", Some(BatchArg::Dynamic)),
            ("1..8:4", Some(range(1, 4, 8))),
            ("2..8", Some(range(2, 8, 8))),
            ("0", None),
            ("N", None),
            ("0..8", None),
            ("4..2", None),
            ("1..8:9", None),
            ("1..8:", None),
            ("..", None),
        ] {
            assert_eq!(batch(text).ok(), expected, "--batch {text}");
        }
        for (text, expected) in [("20,20", Some([20, 20])), ("20", None), ("0,8", None)] {
            assert_eq!(dim_head(text).ok(), expected, "--dim-head {text}");
        }
    }
}
