//! `emoc run`: what a model sees in pictures.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::{Args, ValueHint};
use emoc_ir::{Diagnostic, Result};
use emoc_preprocess::Transform;
use serde::Serialize;

use crate::{
    agreement, json,
    labels::Labels,
    model::{ClassifierArgs, Engine, Model, ModelFacts, Predictor, open_picture, softmax, top},
    table::{Side, Table, counted},
    ui::{BOLD, DIM, ERROR, Ui, one_line},
};

pub const EXAMPLES: &str = "\
Examples:
  emoc run emov2_5m_224.onnx cat.jpg
  emoc run EMOv2_5M.pth *.jpg --json
  emoc run emov2-5m-224/ cat.jpg                   # a Rust crate, built with cargo
  emoc run latest_ckpt.pth leaf.png --weights ema --input-size 256 --labels names.txt";

/// Classes that are shown of each picture.
const SHOWN: usize = 5;

#[derive(Debug, Args)]
pub struct RunArgs {
    /// A checkpoint, an ONNX file, or the folder of a bundle or a crate. A crate is built and
    /// run, as `cargo run` would
    #[arg(value_hint = ValueHint::AnyPath)]
    model: PathBuf,
    /// JPEG, PNG, WebP or BMP
    #[arg(value_name = "PICTURE", value_hint = ValueHint::FilePath, required = true)]
    pictures: Vec<PathBuf>,
    #[command(flatten)]
    flags: ClassifierArgs,
}

/// What `--json` says.
#[derive(Serialize)]
struct RunResult<'a> {
    model: &'a ModelFacts,
    runtime: &'a str,
    runtime_version: Option<&'a str>,
    threads: usize,
    pictures: Vec<PictureRow>,
}

/// One picture and what was seen in it.
#[derive(Serialize)]
struct PictureRow {
    file: String,
    #[serde(flatten)]
    seen: Seen,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Seen {
    Classes(Classes),
    Fault { error: Box<Diagnostic> },
}

#[derive(Serialize)]
struct Classes {
    width: u32,
    height: u32,
    top: Vec<ClassRow>,
    decode_ms: f64,
    preprocess_ms: f64,
    inference_ms: f64,
}

#[derive(Serialize)]
struct ClassRow {
    class: usize,
    label: String,
    probability: f64,
    logit: f32,
}

pub fn run(args: &RunArgs, ui: &Ui) -> Result<()> {
    let flags = &args.flags;
    let choice = flags.uses.choice()?;
    let runtimes = agreement::runtimes(&flags.uses.wanted())?;
    let model = Model::open(&args.model, &flags.network, ui)?;
    let labels = flags
        .labels(&model)
        .map_err(|error| error.file(&args.model))?;
    // One picture after the other: all cores work on each.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let engine = model.engine(choice, threads, &runtimes, ui)?;
    let transform = model.transform()?;
    ui.step(format!("loading into {}", engine.name));
    let mut predictor = Predictor::new(&model, &engine)?;
    let mut rows = Vec::new();
    for path in &args.pictures {
        ui.step(format!("looking at {}", path.display()));
        let seen = look(path, &transform, &mut predictor, &labels, ui);
        rows.push(PictureRow {
            file: path.display().to_string(),
            seen: match seen {
                Ok(classes) => Seen::Classes(classes),
                Err(error) => Seen::Fault { error },
            },
        });
    }
    show(&model, &engine, predictor.threads(), rows, ui)
}

fn look(
    path: &Path,
    transform: &Transform,
    predictor: &mut Predictor,
    labels: &Labels,
    ui: &Ui,
) -> Result<Classes> {
    let start = Instant::now();
    let picture = open_picture(path, ui)?;
    let decoded = start.elapsed();
    let input = transform.apply(&picture.picture()?);
    let ready = start.elapsed();
    let logits = predictor.logits(&[input])?.pop();
    let done = start.elapsed();
    let logits = logits.ok_or_else(|| Diagnostic::internal("the logits are missing"))?;
    let logits = logits.map_err(|error| error.file(path))?;
    let probabilities = softmax(&logits);
    let rows = top(&logits, SHOWN).into_iter().map(|class| ClassRow {
        class,
        label: labels.name(class).into_owned(),
        probability: probabilities[class],
        logit: logits[class],
    });
    Ok(Classes {
        width: picture.width,
        height: picture.height,
        top: rows.collect(),
        decode_ms: milliseconds(decoded),
        preprocess_ms: milliseconds(ready - decoded),
        inference_ms: milliseconds(done - ready),
    })
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Prints what was seen, and fails if a picture could not be read.
fn show(
    model: &Model,
    engine: &Engine,
    threads: usize,
    pictures: Vec<PictureRow>,
    ui: &Ui,
) -> Result<()> {
    let result = RunResult {
        model: &model.facts,
        runtime: engine.name,
        runtime_version: engine.version.as_deref(),
        threads,
        pictures,
    };
    json::show(&result, || text(&result, engine), ui)?;
    let faults = result.pictures.iter().filter_map(|row| match &row.seen {
        Seen::Fault { error } => Some(error),
        Seen::Classes(_) => None,
    });
    let faults: Vec<_> = faults.collect();
    let (Some(first), all) = (faults.first(), result.pictures.len()) else {
        return Ok(());
    };
    // One picture's fault speaks for itself.
    if all == 1 {
        return Err((*first).clone());
    }
    let message = format!("{} of {all} pictures cannot be used", faults.len());
    Err(Diagnostic::new(first.kind, message))
}

fn text(result: &RunResult, engine: &Engine) -> String {
    let mut text = String::new();
    let several = result.pictures.len() > 1;
    for PictureRow { file, seen } in &result.pictures {
        let file = one_line(file);
        match seen {
            Seen::Classes(classes) => {
                let Classes { width, height, .. } = classes;
                let _ = writeln!(text, "{BOLD}{file}{BOLD:#} {DIM}{width}x{height}{DIM:#}");
                let _ = writeln!(text, "{}", class_table(&classes.top));
            }
            Seen::Fault { error } if several => {
                let nameless = Diagnostic {
                    file: None,
                    ..(**error).clone()
                };
                let _ = writeln!(
                    text,
                    "{BOLD}{file}{BOLD:#}\n{ERROR}error{ERROR:#}: {nameless}\n"
                );
            }
            Seen::Fault { .. } => {}
        }
    }
    let seen = result.pictures.iter().filter_map(|row| match &row.seen {
        Seen::Classes(classes) => Some(classes),
        Seen::Fault { .. } => None,
    });
    let seen: Vec<_> = seen.collect();
    if seen.is_empty() {
        return text;
    }
    let median = |time: fn(&Classes) -> f64| {
        let mut times: Vec<_> = seen.iter().map(|classes| time(classes)).collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let title = one_line(&result.model.name());
    let runtime = engine.title();
    let infer = match engine.is_program() {
        true => "start the crate and infer",
        false => "infer",
    };
    let threads = counted(result.threads, "thread");
    let _ = writeln!(
        text,
        "{title}, {runtime} on {threads}\n{DIM}a picture: {:.1} ms to decode, {:.1} ms to \
         preprocess, {:.1} ms to {infer}{DIM:#}",
        median(|classes| classes.decode_ms),
        median(|classes| classes.preprocess_ms),
        median(|classes| classes.inference_ms),
    );
    text
}

fn class_table(rows: &[ClassRow]) -> Table {
    let mut table = Table::new(&[
        ("probability", Side::Right),
        ("logit", Side::Right),
        ("class", Side::Right),
        ("name", Side::Left),
    ]);
    for row in rows {
        table.row([
            format!("{:.2} %", 100.0 * row.probability).into(),
            format!("{:.3}", row.logit).into(),
            row.class.to_string().into(),
            row.label.clone().into(),
        ]);
    }
    table
}
