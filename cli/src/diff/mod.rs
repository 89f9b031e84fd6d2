//! `emoc diff`: how two checkpoints or artifacts differ.
//!
//! Each side becomes a [`Subject`]: facts, settings in words, and weights by key. A checkpoint
//! beside an artifact is compiled in memory as the artifact was, so that both have the same keys.

mod compiled;
mod subject;
mod text;
mod weights;
mod words;

use std::path::PathBuf;

use clap::{Args, ValueHint};
use emoc_ir::{Diagnostic, Result};
use serde::Serialize;

use crate::{
    args::{self, AttentionArg, ModelArgs, Weights},
    artifact::ModelKind,
    json,
    ui::Ui,
};
use subject::{Artifact, Facts, Subject};
use weights::WeightsDiff;
use words::Change;

pub const EXAMPLES: &str = "\
Examples:
  emoc diff before.pth after.safetensors
  emoc diff ckpt.pth ckpt.pth --weights net --other-weights ema
      how far the moving average is from the network
  emoc diff emov2_5m_224.onnx emov2_5m_512.onnx
  emoc diff EMOv2_5M.pth emov2_5m_224.onnx
      compiles the checkpoint in memory as the file was, and compares the weights of both
";

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// A checkpoint (.pth, .pt, .safetensors) or an artifact (.onnx, or the folder of a crate or bundle)
    #[arg(value_hint = ValueHint::AnyPath)]
    a: PathBuf,
    /// What it is compared with
    #[arg(value_hint = ValueHint::AnyPath)]
    b: PathBuf,
    /// List every weight that differs, not the 20 that differ most
    #[arg(long)]
    all: bool,
    /// Which weights of a trainer's file: the network's, or their moving average (`net_E`)
    #[arg(long, value_enum, help_heading = "Checkpoints")]
    weights: Option<Weights>,
    /// The same for B alone
    #[arg(long, value_enum, help_heading = "Checkpoints")]
    other_weights: Option<Weights>,
    /// Input height and width in pixels: 224, or 300x200 [default: 224]
    #[arg(long, value_name = "H[xW]", value_parser = args::input_size, help_heading = "Checkpoints")]
    input_size: Option<[usize; 2]>,
    /// Side of the attention windows [default: 8 at 256 and 512, otherwise 7]
    #[arg(long, value_name = "N", help_heading = "Checkpoints")]
    window: Option<u16>,
    /// Channels of one q or k head in stages 3 and 4, for a network that is not published
    #[arg(long, value_name = "A,B", value_parser = args::dim_head, help_heading = "Checkpoints")]
    dim_head: Option<[usize; 2]>,
    /// Which windows attend, for a network that is not published
    #[arg(long, value_enum, help_heading = "Checkpoints")]
    attention: Option<AttentionArg>,
}

impl DiffArgs {
    /// The flags that a network is made with.
    fn model(&self, weights: Option<Weights>) -> ModelArgs {
        ModelArgs {
            variant: None,
            weights,
            input_size: self.input_size,
            window: self.window,
            batch: None,
            seed: None,
            dim_head: self.dim_head,
            attention: self.attention,
            // A difference is looked for, whatever the numbers are.
            allow_nonfinite: true,
            expect_sha256: None,
        }
    }

    fn model_a(&self) -> ModelArgs {
        self.model(self.weights)
    }

    fn model_b(&self) -> ModelArgs {
        self.model(self.other_weights.or(self.weights))
    }

    /// Refuses flags that would do nothing.
    fn refuse_idle(&self, kinds: [ModelKind; 2]) -> Result<()> {
        let none = !kinds.contains(&ModelKind::Checkpoint);
        let flags = [
            ("--weights", self.weights.is_some() && none),
            ("--input-size", self.input_size.is_some() && none),
            ("--window", self.window.is_some() && none),
            ("--dim-head", self.dim_head.is_some() && none),
            ("--attention", self.attention.is_some() && none),
        ];
        if let Some((flag, _)) = flags.iter().find(|(_, idle)| *idle) {
            let message = format!("{flag} speaks of a checkpoint, and both are artifacts");
            return Err(Diagnostic::usage(message).help("leave it out"));
        }
        if self.other_weights.is_some() && kinds[1] != ModelKind::Checkpoint {
            let message = "--other-weights speaks of B, which is no checkpoint";
            return Err(Diagnostic::usage(message)
                .file(&self.b)
                .help("--weights chooses those of A"));
        }
        Ok(())
    }
}

/// What `--json` says.
#[derive(Serialize)]
struct Report {
    a: Facts,
    b: Facts,
    /// Of the networks and of what artifacts were made with.
    differences: Vec<Change>,
    /// None if those of a crate, which are packed, cannot be compared with the other ones.
    weights: Option<WeightsDiff>,
}

pub fn run(args: &DiffArgs, ui: &Ui) -> Result<()> {
    let kinds = [ModelKind::of(&args.a), ModelKind::of(&args.b)];
    args.refuse_idle(kinds)?;
    let (a, b) = open(args, kinds, ui)?;
    ui.step("comparing");
    let differences = words::changes(&a, &b);
    let weights = weights::compare(&a.weights, &b.weights)?;
    let report = Report {
        a: a.facts,
        b: b.facts,
        differences,
        weights,
    };
    json::show(&report, || text::text(&report, args.all), ui)
}

fn open(args: &DiffArgs, kinds: [ModelKind; 2], ui: &Ui) -> Result<(Subject, Subject)> {
    let (a, b) = (&*args.a, &*args.b);
    Ok(match kinds {
        [ModelKind::Checkpoint, ModelKind::Checkpoint] => {
            let first = Subject::checkpoint(a, &args.model_a(), ui)?;
            (first, Subject::checkpoint(b, &args.model_b(), ui)?)
        }
        [ModelKind::Checkpoint, kind] => {
            let artifact = Artifact::open(kind, b, ui)?;
            let first = compiled::subject(a, &args.model_a(), &artifact, ui)?;
            (first, artifact.subject()?)
        }
        [kind, ModelKind::Checkpoint] => {
            let artifact = Artifact::open(kind, a, ui)?;
            let second = compiled::subject(b, &args.model_b(), &artifact, ui)?;
            (artifact.subject()?, second)
        }
        [first, second] => {
            let mut first = Artifact::open(first, a, ui)?;
            let mut second = Artifact::open(second, b, ui)?;
            first.suit(&second)?;
            second.suit(&first)?;
            (first.subject()?, second.subject()?)
        }
    })
}
