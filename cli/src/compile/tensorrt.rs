//! To a TensorRT bundle.

use std::{fmt::Write, path::PathBuf};

use emoc_backends::tensorrt::{self, Batch, Bundle, Golden, Plan};
use emoc_ir::{Diagnostic, Result, Verified};
use emoc_runtimes::{Missing, Tolerance, tensorrt_rtx::Builder};
use serde::Serialize;

use super::{
    CompileResult, Prepared,
    precise::{Judges, Precise},
    provenance, remarks,
};
use crate::{
    agreement::{self, Reference, Row, engine_row},
    agreement_table,
    args::{BatchArg, CompileArgs, Precision, PrecisionArgs, Target},
    json,
    manifest::{FileRecord, Preprocessing},
    network::Network,
    output::Folder,
    pipeline::Optimised,
    precision::{self, PrecisionRecord},
    record::NetworkRecord,
    table::bytes,
    ui::{BOLD, GOOD, Ui, printable},
};

/// Images at once where nobody says more than that their number varies.
const ANY_BATCH: Batch = Batch {
    min: 1,
    opt: 4,
    max: 8,
};

pub fn run(args: &CompileArgs, ui: &Ui) -> Result<()> {
    let checkpoint = args.checkpoint.checkpoint.as_deref();
    let prepare =
        |path: &PathBuf| Folder::prepare(path, tensorrt::PLAN, checkpoint, args.force, ui);
    // Whatever can be refused without the network is refused before it is read.
    let folder = args.output.as_ref().map(prepare).transpose()?;
    let runtimes = match args.no_check {
        true => Vec::new(),
        false => agreement::runtimes(&args.runtime)?,
    };
    let with_engines = args.target == Target::TensorrtRtx;
    let builder = match args.no_check && !with_engines {
        true => None,
        false => Some(agreement::tensorrt_rtx(
            with_engines || args.runtime.tensorrt_rtx,
        )?),
    };
    let prepared = Prepared::load(args, ui)?;
    let network = &prepared.network;
    let folder = match folder {
        Some(folder) => folder,
        None => prepare(&PathBuf::from(format!(
            "{}_tensorrt",
            network.model.graph.name
        )))?,
    };
    let batch = batch(args.model.batch, ui);
    let optimised = prepared.optimise(args, ui)?;
    let faithful = &network.model.graph;
    let images = agreement::DYNAMIC_BATCH.clamp(batch.min, batch.max);
    let reference = Reference::evaluate(faithful, images, Tolerance::FLOAT32, ui)?;
    let judges = (!args.no_check).then(|| Judges {
        faithful,
        reference: &reference,
        runtimes: &runtimes,
    });
    let models = models(args, &prepared, &optimised.graph, judges.as_ref(), ui)?;

    let mut bundle = bundle(args, &prepared, batch, &models, &reference)?;
    let mut files = tensorrt::emit(&bundle)?;
    folder.accept(&files)?;
    let mut plan = plan_of(&files)?;
    let rows = match (&builder, args.no_check) {
        (Some(builder), false) => rows(builder, &models, &plan, ui)?,
        _ => Vec::new(),
    };
    // Engines of models that disagree would be built to be thrown away.
    if let (true, Some(Ok(builder)), Ok(())) =
        (with_engines, &builder, agreement::demand(&rows, ""))
    {
        bundle.engines = engines(builder, &models, &plan, ui)?;
        files = tensorrt::emit(&bundle)?;
        plan = plan_of(&files)?;
    }
    let compiled = Compiled {
        network,
        optimised: &optimised,
        models: &models,
        rows: &rows,
        plan,
        files,
    };
    compiled.finish(folder, ui)
}

/// The batch of the engines.
fn batch(batch: Option<BatchArg>, ui: &Ui) -> Batch {
    match batch.unwrap_or(BatchArg::Fixed(1)) {
        BatchArg::Fixed(images) => Batch {
            min: images,
            opt: images,
            max: images,
        },
        BatchArg::Range { min, opt, max } => Batch { min, opt, max },
        BatchArg::Dynamic => {
            let Batch { min, opt, max } = ANY_BATCH;
            ui.note(format_args!(
                "the engines take batches of {min} to {max} and are fastest for {opt}; \
                 --batch MIN..MAX:OPT chooses"
            ));
            ANY_BATCH
        }
    }
}

/// The network in float32, and in the other precision that was asked for.
fn models(
    args: &CompileArgs,
    prepared: &Prepared,
    optimised: &Verified,
    judges: Option<&Judges>,
    ui: &Ui,
) -> Result<Vec<Precise>> {
    let wide = PrecisionArgs {
        precision: None,
        islands: None,
    };
    let asked = match args.precision.precision() {
        Precision::F32 => vec![wide],
        Precision::F16 => vec![wide, args.precision],
    };
    let asked = asked.iter();
    asked
        .map(|precision| Precise::make(args, precision, prepared, optimised, judges, ui))
        .collect()
}

fn bundle(
    args: &CompileArgs,
    prepared: &Prepared,
    batch: Batch,
    models: &[Precise],
    reference: &Reference,
) -> Result<Bundle> {
    let network = &prepared.network;
    let record = NetworkRecord::of(&network.model);
    let mut batches = vec![batch.min, batch.opt, batch.max];
    batches.dedup();
    let model = |model: &Precise| {
        let precision = model.emission.precision();
        let memory = |&images: &usize| {
            let bytes = tensorrt::activation_memory(&model.graph, images)?;
            Ok((images, bytes))
        };
        Ok(tensorrt::Model {
            precision: model.precision.into(),
            onnx: model.onnx.clone(),
            islands: precision.map_or(Vec::new(), |record| record.islands.clone()),
            activation_memory: batches.iter().map(memory).collect::<Result<_>>()?,
        })
    };
    let (input, outputs) = reference.values();
    Ok(Bundle {
        name: record.name.clone(),
        title: record.title(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        models: models.iter().map(model).collect::<Result<_>>()?,
        batch,
        preprocessing: json::convert(&Preprocessing::of(&record))?,
        labels: prepared.labels.clone(),
        macs: network.model.graph.cost(1)?.total.macs,
        golden: Golden { input, outputs },
        engines: Vec::new(),
        provenance: provenance(args, network)?,
    })
}

/// What every runtime says of each model, and TensorRT-RTX.
fn rows(
    builder: &Result<Builder, Missing>,
    models: &[Precise],
    plan: &Plan,
    ui: &Ui,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for model in models {
        let judged = model.rows.iter().cloned();
        rows.extend(judged.map(|row| row.of(model.precision)));
        rows.push(engine_row(builder, model.precision, &model.onnx, plan, ui)?);
    }
    Ok(rows)
}

/// The engines that a bundle for TensorRT-RTX holds.
fn engines(
    builder: &Builder,
    models: &[Precise],
    plan: &Plan,
    ui: &Ui,
) -> Result<Vec<tensorrt::Engine>> {
    let mut all = Vec::new();
    for model in models {
        let built = agreement::engines(builder, model.precision, &model.onnx, plan, ui)?;
        for engine in built {
            let capabilities = engine.capabilities.iter();
            all.push(tensorrt::Engine {
                precision: model.precision.into(),
                capability: capabilities.map(ToString::to_string).collect(),
                tensorrt_rtx: builder.version().to_owned(),
                bytes: engine.bytes,
            });
        }
    }
    Ok(all)
}

/// The plan among the files of a bundle.
fn plan_of(files: &[(String, Vec<u8>)]) -> Result<Plan> {
    let plan = files.iter().find(|(path, _)| path == tensorrt::PLAN);
    let (_, bytes) = plan.ok_or_else(|| Diagnostic::internal("a bundle without its plan"))?;
    Plan::parse(bytes)
}

/// A bundle with its proof, not yet written.
struct Compiled<'a> {
    network: &'a Network,
    optimised: &'a Optimised,
    models: &'a [Precise],
    rows: &'a [Row],
    plan: Plan,
    files: Vec<(String, Vec<u8>)>,
}

/// What `--json` says of a bundle.
#[derive(Serialize)]
struct Facts<'a> {
    bytes: usize,
    files: Vec<FileRecord>,
    plan: &'a Plan,
}

impl Compiled<'_> {
    /// Writes the bundle unless a model disagrees, and reports either way.
    fn finish(self, folder: Folder, ui: &Ui) -> Result<()> {
        let demanded = agreement::demand(self.rows, "; nothing was written");
        let demanded = precision::help(demanded, self.precision());
        if demanded.is_err() {
            drop(folder);
            self.report(None, ui)?;
            return demanded;
        }
        ui.step("writing");
        let path = folder.path().to_owned();
        folder.write(&self.files, ui)?;
        let paths = [path.join(""), path.join(tensorrt::PLAN)];
        self.report(Some(paths.map(|path| path.display().to_string())), ui)
    }

    fn precision(&self) -> Option<&PrecisionRecord> {
        self.models
            .iter()
            .find_map(|model| model.emission.precision())
    }

    fn bytes(&self) -> usize {
        self.files.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    fn report(&self, paths: Option<[String; 2]>, ui: &Ui) -> Result<()> {
        if let Some(graph) = &self.optimised.printed {
            return ui.print(graph);
        }
        if ui.json() {
            let files = self.files.iter();
            let facts = Facts {
                bytes: self.bytes(),
                files: files
                    .map(|(name, bytes)| FileRecord::of(name, bytes))
                    .collect(),
                plan: &self.plan,
            };
            let passes = &self.optimised.passes;
            let result = CompileResult::new(paths, facts, self.network, passes, self.rows);
            return json::print(&result, ui);
        }
        if ui.quiet() {
            return Ok(());
        }
        ui.print_prose(self.text(paths))
    }

    fn text(&self, paths: Option<[String; 2]>) -> String {
        let mut text = agreement_table::bundle(self.rows);
        text.extend(self.precision().map(PrecisionRecord::text));
        let Some([folder, _]) = paths else {
            return text;
        };
        let size = bytes(self.bytes() as u64);
        let precisions: Vec<_> = self
            .models
            .iter()
            .map(|model| model.precision.name())
            .collect();
        let precisions = precisions.join(" and ");
        let range = &self.plan.tensorrt;
        let remarks = remarks(self.network, self.rows);
        let folder = printable(&folder);
        let _ = writeln!(
            text,
            "{GOOD}wrote{GOOD:#} {BOLD}{folder}{BOLD:#} ({size}, {precisions}, TensorRT {} to {}\
             {remarks})",
            range.oldest, range.newest_major
        );
        for engine in &self.plan.engines {
            let _ = writeln!(
                text,
                "{}, for TensorRT-RTX {} on {}",
                engine.file, engine.tensorrt_rtx, engine.capability
            );
        }
        let _ = writeln!(text, "on the GPU that will run it: sh {folder}build.sh");
        text
    }
}
