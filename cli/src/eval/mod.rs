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
    agreement, json,
    model::{ClassifierArgs, Model},
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
    #[command(flatten)]
    flags: ClassifierArgs,
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
    match output::interrupted() && !evaluation.is_complete_shard() {
        false => Ok(()),
        true => {
            let images = evaluation.main.images;
            let message = format!("interrupted: the result is of {images} pictures");
            Err(Diagnostic::new(Kind::Interrupted, message))
        }
    }
}

fn evaluate(args: &EvalArgs, path: &Path, data: &Path, ui: &Ui) -> Result<Evaluation> {
    let flags = &args.flags;
    let choice = flags.uses.choice()?;
    let runtimes = agreement::runtimes(&flags.uses.wanted())?;
    let paths: Vec<_> = [Some(path), args.compare.as_deref()]
        .into_iter()
        .flatten()
        .collect();
    let models = Model::open_all(paths.iter().copied(), &flags.network, ui)?;
    let classes = classes(&models, flags.has_labels())?;
    let labels = flags.labels(&models[0])?;
    ui.step("listing the pictures");
    let dataset = Dataset::open(data, &labels, classes, args.shard, ui)?;
    // Each core has a picture of its own, which needs less talk than sharing one.
    let engines = models.iter().enumerate().map(|(index, model)| {
        // The other model may be of a kind that the choice is not for.
        let choice = choice.filter(|&choice| index == 0 || model.takes(choice));
        model.engine(choice, 1, &runtimes, ui)
    });
    let engines: Vec<_> = engines.collect::<Result<_>>()?;
    let sides = paths.iter().zip(&models).zip(&engines);
    let sides: Vec<_> = sides
        .map(|((path, model), engine)| Side::new(path, model, engine))
        .collect::<Result<_>>()?;

    let mut tally = Tally::new(&dataset, &sides, args.logits);
    let start = Instant::now();
    output::stop_gently();
    ui.count("evaluating", dataset.samples.len());
    let workers = work::run(&dataset, &sides, ui, &mut |sample, outcome| {
        tally.add(sample, outcome);
    });
    output::stop_at_once();
    let workers = workers?;
    let seconds = start.elapsed().as_secs_f64();
    let evaluation = tally.finish(&dataset, TimeFacts::new(seconds, workers))?;
    // Of a shard that is a result like another, which the merge waits for.
    if evaluation.main.images == 0 && args.shard.is_none() && !output::interrupted() {
        let fault = Diagnostic::input("no picture could be evaluated").file(data);
        let skipped = evaluation.skipped.iter().take(5);
        let lines = skipped.map(|skipped| format!("{}: {}", skipped.file, skipped.reason));
        return Err(lines.fold(fault, Diagnostic::detail));
    }
    Ok(evaluation)
}

/// The number of classes, which two models must share, and their names too unless others are
/// given.
fn classes(models: &[Model], named: bool) -> Result<usize> {
    let classes: Vec<_> = models.iter().map(Model::classes).collect::<Result<_>>()?;
    let [first, others @ ..] = models else {
        return Err(Diagnostic::internal("there is no model"));
    };
    if classes.iter().any(|&found| found != classes[0]) {
        let message = format!("the two models have {classes:?} classes: nothing to compare");
        return Err(Diagnostic::usage(message));
    }
    let differ = |other: &Model| match (&first.labels, &other.labels) {
        (Some(a), Some(b)) => a != b,
        _ => false,
    };
    if !named && others.iter().any(differ) {
        let message = "the two models name their classes differently: nothing to compare";
        return Err(Diagnostic::usage(message).help("--labels says what both mean"));
    }
    Ok(classes[0])
}

fn show(evaluation: &Evaluation, ui: &Ui) -> Result<()> {
    json::show(evaluation, || text::text(evaluation), ui)
}
