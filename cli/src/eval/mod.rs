//! `emoc eval`: Top-1 and Top-5 on a folder of pictures, the published evaluation.

mod dataset;
mod evaluation;
mod merge;
mod text;
mod work;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use clap::{Args, ValueHint};
use emoc_ir::{Diagnostic, Kind, Result};

use crate::{
    agreement,
    args::ModelArgs,
    json,
    labels::{self, Labels},
    model::{Model, UseArgs},
    output,
    ui::Ui,
};
use dataset::{Dataset, Shard};
use evaluation::{Evaluation, Tally, TimeFacts};
use work::Side;

pub const EXAMPLES: &str = "\
Examples:
  emoc eval emov2_5m_224.onnx --data imagenet
      imagenet/val/<class>/<picture>, or imagenet/<class>/<picture>
  emoc eval latest_ckpt.pth --weights ema --data leaves --labels names.txt
  emoc eval model.f32.onnx --data imagenet --compare model.f16.onnx
  emoc eval model.onnx --data imagenet --shard 1/4 --json > 1.json
  emoc eval --merge 1.json 2.json 3.json 4.json    # the same as without --shard";

#[derive(Debug, Args)]
pub struct EvalArgs {
    /// A checkpoint, an ONNX file, or the folder of a bundle or a crate. A crate is built and
    /// run, as `cargo run` would
    #[arg(value_hint = ValueHint::AnyPath, required_unless_present = "merge")]
    model: Option<PathBuf>,
    /// The pictures, in a folder for each class, in the order of the classes as torchvision
    /// sorts them; or with folders named after the model's classes
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    #[arg(required_unless_present = "merge")]
    data: Option<PathBuf>,
    /// Evaluate this model too, and say where the two differ
    #[arg(long, value_name = "OTHER", value_hint = ValueHint::AnyPath)]
    compare: Option<PathBuf>,
    /// Evaluate one part of the pictures: 1/4 to 4/4
    #[arg(long, value_name = "I/N", value_parser = dataset::shard)]
    shard: Option<Shard>,
    /// Put the results (--json) of all shards together
    #[arg(long, value_name = "FILE", num_args = 1.., value_hint = ValueHint::FilePath)]
    #[arg(conflicts_with_all = ["model", "data", "compare", "shard", "logits", "labels"])]
    merge: Vec<PathBuf>,
    /// Add the logits of every picture to the JSON
    #[arg(long)]
    logits: bool,
    /// Names of the model's classes, one a line, or a folder with a folder for each class
    /// [default: the model's own; for 1000 classes ImageNet's]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    labels: Option<PathBuf>,
    #[command(flatten)]
    uses: UseArgs,
    #[command(flatten)]
    network: ModelArgs,
}

pub fn run(args: &EvalArgs, ui: &Ui) -> Result<()> {
    if !args.merge.is_empty() {
        ui.step("reading the results");
        return show(&merge::files(&args.merge, ui)?, ui);
    }
    if args.logits && !ui.json() {
        let message = "--logits adds to the JSON, and none is asked for";
        return Err(Diagnostic::usage(message).help("add --json"));
    }
    let (Some(path), Some(data)) = (&args.model, &args.data) else {
        return Err(Diagnostic::usage("a model and --data are needed"));
    };
    let evaluation = evaluate(args, path, data, ui)?;
    show(&evaluation, ui)?;
    match output::interrupted() {
        false => Ok(()),
        true => Err(Diagnostic::new(
            Kind::Interrupted,
            format!(
                "interrupted: the result is of {} pictures",
                evaluation.main.images
            ),
        )),
    }
}

fn evaluate(args: &EvalArgs, path: &Path, data: &Path, ui: &Ui) -> Result<Evaluation> {
    let choice = args.uses.choice()?;
    let runtimes = agreement::runtimes(&args.uses.wanted())?;
    let paths = [Some(path), args.compare.as_deref()];
    // Flags are for checkpoints; beside one, an artifact needs none.
    let beside = paths
        .iter()
        .flatten()
        .any(|path| Model::is_checkpoint(path));
    let open = |path: &Path| match beside && !Model::is_checkpoint(path) {
        true => Model::open(path, &ModelArgs::default(), ui),
        false => Model::open(path, &args.network, ui),
    };
    let models: Vec<_> = paths
        .into_iter()
        .flatten()
        .map(open)
        .collect::<Result<_>>()?;
    let classes = classes(&models)?;
    let labels = match &args.labels {
        Some(path) => Labels::new(Some(labels::read(path, Some(classes))?), Some(classes)),
        None => models[0].labels(),
    };
    ui.step("listing the pictures");
    let dataset = Dataset::open(data, &labels, classes, args.shard, ui)?;
    // Each core has a picture of its own, which needs less talk than sharing one.
    let engines = models.iter().enumerate().map(|(index, model)| {
        // The other model may be of a kind that the choice is not for.
        let choice = choice.filter(|&choice| index == 0 || model.takes(choice));
        model.engine(choice, 1, &runtimes, ui)
    });
    let engines: Vec<_> = engines.collect::<Result<_>>()?;
    let sides: Vec<_> = models
        .iter()
        .zip(&engines)
        .map(|(model, engine)| Side::new(model, engine))
        .collect::<Result<_>>()?;

    let mut tally = Tally::new(&dataset, &sides, args.logits);
    let start = Instant::now();
    output::stop_gently();
    ui.count("evaluating", dataset.samples.len());
    let workers = work::run(&dataset, &sides, ui, &mut |sample, outcome| {
        tally.add(sample, outcome);
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let evaluation = tally.finish(&dataset, TimeFacts::new(seconds, workers))?;
    if evaluation.main.images == 0 && !output::interrupted() {
        let fault = Diagnostic::input("no picture could be evaluated").file(data);
        let skipped = evaluation.skipped.iter().take(5);
        let lines = skipped.map(|skipped| format!("{}: {}", skipped.file, skipped.reason));
        return Err(lines.fold(fault, Diagnostic::detail));
    }
    Ok(evaluation)
}

/// The number of classes, which two models must share.
fn classes(models: &[Model]) -> Result<usize> {
    let classes: Vec<_> = models.iter().map(Model::classes).collect::<Result<_>>()?;
    match classes[..] {
        [classes] => Ok(classes),
        [a, b] if a == b => Ok(a),
        _ => {
            let message = format!("the two models have {classes:?} classes: nothing to compare");
            Err(Diagnostic::usage(message))
        }
    }
}

fn show(evaluation: &Evaluation, ui: &Ui) -> Result<()> {
    match (ui.json(), ui.quiet()) {
        (true, _) => json::print(evaluation, ui),
        (false, true) => Ok(()),
        (false, false) => ui.print_prose(text::text(evaluation)),
    }
}
