//! To an ONNX file.

use std::{fmt::Write, path::PathBuf};

use emoc_backends::onnx;
use emoc_ir::{Result, Verified};
use emoc_runtimes::{OnnxModel, Tolerance};
use serde::Serialize;

use super::{CompileResult, Prepared, remarks};
use crate::{
    agreement::{self, FAITHFUL, Reference, Row},
    args::{CompileArgs, Precision},
    json,
    manifest::{self, Content, FileRecord, Manifest, OnnxOptions, Options},
    network::Network,
    output::Outputs,
    pipeline::{self, Optimised},
    precision::{self, PrecisionRecord},
    report,
    table::bytes,
    ui::{BOLD, GOOD, Ui, printable},
};

pub fn run(args: &CompileArgs, ui: &Ui) -> Result<()> {
    let checkpoint = args.checkpoint.checkpoint.as_deref();
    let prepare = |path: &PathBuf| Outputs::prepare(path, checkpoint, args.force, ui);
    // Whatever can be refused without the network is refused before it is read.
    let outputs = args.output.as_ref().map(prepare).transpose()?;
    let runtimes = match args.no_check {
        true => Vec::new(),
        false => agreement::runtimes(&args.runtime)?,
    };
    let prepared = Prepared::load(args, ui)?;
    let (network, labels) = (&prepared.network, prepared.labels.as_deref());
    let outputs = match outputs {
        Some(outputs) => outputs,
        None => prepare(&PathBuf::from(format!("{}.onnx", network.model.graph.name)))?,
    };

    let mut optimised = prepared.optimise(args, ui)?;
    let emitted = precision::apply(&args.precision, optimised.graph, ui)?;
    optimised.graph = emitted.graph;
    let emission = Emission::of(args, network, labels, emitted.record)?;
    ui.step("emitting");
    let artifact = emission.emit(&optimised.graph, false)?;

    let rows = match args.no_check {
        true => Vec::new(),
        false => {
            let faithful = &network.model.graph;
            let instrumented = || emission.emit(&optimised.graph, true);
            let batch = agreement::DYNAMIC_BATCH;
            let reference = Reference::evaluate(faithful, batch, emission.tolerance(), ui)?;
            agreement::judge(
                &artifact,
                faithful,
                &reference,
                &runtimes,
                &instrumented,
                ui,
            )?
        }
    };
    let result = Compiled {
        network,
        optimised: &optimised,
        rows: &rows,
        artifact: &artifact,
        tolerance: emission.tolerance(),
        options: emission.options,
        labels,
    };
    result.finish(outputs, ui)
}

/// How the artifact is emitted.
pub(super) struct Emission {
    options: OnnxOptions,
    metadata: Vec<(String, String)>,
}

impl Emission {
    pub(super) fn of(
        args: &CompileArgs,
        network: &Network,
        labels: Option<&[String]>,
        precision: Option<PrecisionRecord>,
    ) -> Result<Self> {
        let passes = pipeline::spelling(&args.pipeline);
        let mut metadata = manifest::metadata(network, &passes, labels)?;
        if let Some(precision) = &precision {
            metadata.extend(precision.metadata()?);
        }
        Ok(Self {
            options: OnnxOptions {
                opset: args.onnx.opset.unwrap_or(OnnxOptions::default().opset),
                max_rank: args.onnx.max_rank.map(usize::from),
                precision,
            },
            metadata,
        })
    }

    /// What the artifact is held to.
    fn tolerance(&self) -> Tolerance {
        precision::tolerance(self.options.precision())
    }

    pub(super) fn emit(&self, graph: &Verified, block_outputs: bool) -> Result<Vec<u8>> {
        let options = manifest::onnx_options(&self.options, self.metadata.clone());
        let options = onnx::Options {
            block_outputs,
            ..options
        };
        onnx::emit(graph, &options)
    }

    /// What was decided about float16.
    pub(super) fn precision(&self) -> Option<&PrecisionRecord> {
        self.options.precision.as_ref()
    }
}

/// An artifact with its proof, not yet written.
struct Compiled<'a> {
    network: &'a Network,
    optimised: &'a Optimised,
    rows: &'a [Row],
    artifact: &'a [u8],
    tolerance: Tolerance,
    options: OnnxOptions,
    labels: Option<&'a [String]>,
}

/// What `--json` says of an ONNX file.
#[derive(Serialize)]
struct Facts {
    bytes: usize,
    sha256: String,
    nodes: usize,
    #[serde(flatten)]
    precision: Option<PrecisionRecord>,
}

impl Compiled<'_> {
    /// Writes the artifact unless a runtime disagrees, and reports either way.
    fn finish(&self, outputs: Outputs, ui: &Ui) -> Result<()> {
        let paths = [outputs.artifact(), outputs.manifest()].map(|path| path.display().to_string());
        let demanded = agreement::demand(self.rows, "; nothing was written");
        let demanded = precision::help(demanded, self.options.precision.as_ref());
        if demanded.is_err() {
            drop(outputs);
            self.report(None, ui)?;
            return demanded;
        }
        ui.step("writing");
        let manifest = self.manifest(outputs.artifact().file_name())?.to_bytes()?;
        outputs.write(self.artifact, &manifest, |bytes| {
            OnnxModel::read(bytes).map(|_| ())
        })?;
        self.report(Some(paths), ui)
    }

    fn manifest(&self, name: Option<&std::ffi::OsStr>) -> Result<Manifest<'_>> {
        let name = name.unwrap_or_default().to_string_lossy();
        Ok(Manifest::new(Content {
            files: vec![FileRecord::of(&name, self.artifact)],
            network: self.network,
            options: Options::Onnx(self.options.clone()),
            passes: &self.optimised.passes,
            labels: self.labels,
            check: agreement::record(self.rows, FAITHFUL, self.tolerance),
        }))
    }

    fn report(&self, paths: Option<[String; 2]>, ui: &Ui) -> Result<()> {
        if let Some(graph) = &self.optimised.printed {
            return ui.print(graph);
        }
        if ui.json() {
            return json::print(&self.result(paths)?, ui);
        }
        if ui.quiet() {
            return Ok(());
        }
        ui.print_prose(self.text(paths)?)
    }

    fn result(&self, paths: Option<[String; 2]>) -> Result<CompileResult<'_, Facts>> {
        let facts = Facts {
            bytes: self.artifact.len(),
            sha256: manifest::sha256(self.artifact),
            nodes: onnx::describe(self.artifact)?.nodes,
            precision: self.options.precision.clone(),
        };
        let passes = &self.optimised.passes;
        Ok(CompileResult::new(
            paths,
            facts,
            self.network,
            passes,
            self.rows,
        ))
    }

    fn text(&self, paths: Option<[String; 2]>) -> Result<String> {
        let mut text = String::new();
        if !self.rows.is_empty() {
            text = report::agreement(self.rows, self.tolerance);
        }
        if let Some(precision) = &self.options.precision {
            text.push_str(&precision.text());
        }
        let Some([artifact, manifest]) = paths else {
            return Ok(text);
        };
        let nodes = onnx::describe(self.artifact)?.nodes;
        let size = bytes(self.artifact.len() as u64);
        let opset = self.options.opset;
        let precision = match self.options.precision() {
            Precision::F32 => "",
            Precision::F16 => ", float16",
        };
        let remarks = remarks(self.network, self.rows);
        let (artifact, manifest) = (printable(&artifact), printable(&manifest));
        let _ = writeln!(
            text,
            "{GOOD}wrote{GOOD:#} {BOLD}{artifact}{BOLD:#} \
             ({size}, {nodes} nodes, opset {opset}{precision}{remarks}) and {manifest}"
        );
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        args::{Cli, Command},
        network::{self, Need},
    };
    use clap::Parser;
    use emoc_ir::Kind;

    fn args(flags: &str) -> CompileArgs {
        let line = format!("emoc compile --variant 1M --input-size 64 {flags}");
        match Cli::parse_from(line.split_whitespace()).command {
            Command::Compile(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn network(args: &CompileArgs) -> Network {
        let network = network::load(&args.model, None, Need::Everything, &Ui::silent());
        network.expect("a network")
    }

    /// A compiler that gets the windows wrong, as a stand-in for any defect of a pass or backend.
    #[test]
    fn a_disagreement_leaves_nothing_and_names_the_block() {
        let ui = Ui::silent();
        let (meant, made) = (args("--window 7"), args("--window 2"));
        let (meant_network, made_network) = (network(&meant), network(&made));
        let graph = made_network.model.graph.clone().verify().expect("a graph");
        let optimised = pipeline::run(&made.pipeline, graph, &ui).expect("a graph");
        let emission = Emission::of(&made, &made_network, None, None).expect("an emission");
        let artifact = emission.emit(&optimised.graph, false).expect("an artifact");

        let faithful = &meant_network.model.graph;
        let reference = Reference::evaluate(faithful, 1, Tolerance::FLOAT32, &ui);
        let reference = reference.expect("a reference");
        let mut runtimes = agreement::runtimes(&meant.runtime).expect("runtimes");
        runtimes.truncate(1);
        let instrumented = || emission.emit(&optimised.graph, true);
        let rows = agreement::judge(
            &artifact,
            faithful,
            &reference,
            &runtimes,
            &instrumented,
            &ui,
        );
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.onnx");
        let compiled = Compiled {
            network: &meant_network,
            optimised: &optimised,
            rows: &rows.expect("verdicts"),
            artifact: &artifact,
            tolerance: Tolerance::FLOAT32,
            options: emission.options,
            labels: None,
        };
        let outputs = Outputs::prepare(&path, None, false, &ui).expect("a folder to write to");
        let error = compiled.finish(outputs, &ui).expect_err("a disagreement");
        assert_eq!(error.kind, Kind::Disagreement, "{error}");
        let expected = "the first divergence is at the end of block `stage3.1` (`stage3.0` still";
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.message.ends_with("nothing was written"), "{error}");
        let left = std::fs::read_dir(folder.path())
            .expect("the folder")
            .count();
        assert_eq!(left, 0, "files are left behind");
    }
}
