//! To an ONNX file.

use std::{fmt::Write, path::PathBuf};

use emoc_backends::onnx;
use emoc_ir::Result;
use emoc_runtimes::{OnnxModel, Tolerance};
use serde::Serialize;

use super::{
    CompileResult, Prepared,
    precise::{Judges, Precise},
    remarks,
};
use crate::{
    agreement::{self, FAITHFUL, Reference},
    agreement_table,
    args::{CompileArgs, Precision},
    json,
    manifest::{self, Content, FileRecord, Manifest, Options},
    network::Network,
    output::Outputs,
    pipeline::Optimised,
    precision::{self, PrecisionRecord},
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

    let optimised = prepared.optimise(args, ui)?;
    let faithful = &network.model.graph;
    let reference = match args.no_check {
        true => None,
        false => {
            let batch = agreement::DYNAMIC_BATCH;
            Some(Reference::evaluate(
                faithful,
                batch,
                Tolerance::FLOAT32,
                ui,
            )?)
        }
    };
    let judges = reference.as_ref().map(|reference| Judges {
        faithful,
        reference,
        runtimes: &runtimes,
    });
    let judges = judges.as_ref();
    let model = Precise::make(
        args,
        &args.precision,
        &prepared,
        &optimised.graph,
        judges,
        ui,
    )?;
    let result = Compiled {
        network,
        optimised: &optimised,
        model: &model,
        labels,
    };
    result.finish(outputs, ui)
}

/// An artifact with its proof, not yet written.
struct Compiled<'a> {
    network: &'a Network,
    optimised: &'a Optimised,
    model: &'a Precise,
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
        let demanded = agreement::demand(&self.model.rows, "; nothing was written");
        let demanded = precision::help(demanded, self.model.emission.precision());
        if demanded.is_err() {
            drop(outputs);
            self.report(None, ui)?;
            return demanded;
        }
        ui.step("writing");
        let manifest = self.manifest(outputs.artifact().file_name())?.to_bytes()?;
        outputs.write(&self.model.onnx, &manifest, |bytes| {
            OnnxModel::read(bytes).map(|_| ())
        })?;
        self.report(Some(paths), ui)
    }

    fn manifest(&self, name: Option<&std::ffi::OsStr>) -> Result<Manifest<'_>> {
        let name = name.unwrap_or_default().to_string_lossy();
        Ok(Manifest::new(Content {
            files: vec![FileRecord::of(&name, &self.model.onnx)],
            network: self.network,
            options: Options::Onnx(self.model.emission.options.clone()),
            passes: &self.optimised.passes,
            labels: self.labels,
            check: agreement::record(&self.model.rows, FAITHFUL, self.model.emission.tolerance()),
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
            bytes: self.model.onnx.len(),
            sha256: manifest::sha256(&self.model.onnx),
            nodes: onnx::describe(&self.model.onnx)?.nodes,
            precision: self.model.emission.precision().cloned(),
        };
        let passes = &self.optimised.passes;
        Ok(CompileResult::new(
            paths,
            facts,
            self.network,
            passes,
            &self.model.rows,
        ))
    }

    fn text(&self, paths: Option<[String; 2]>) -> Result<String> {
        let mut text = String::new();
        if !self.model.rows.is_empty() {
            text = agreement_table::agreement(&self.model.rows, self.model.emission.tolerance());
        }
        if let Some(precision) = self.model.emission.precision() {
            text.push_str(&precision.text());
        }
        let Some([artifact, manifest]) = paths else {
            return Ok(text);
        };
        let nodes = onnx::describe(&self.model.onnx)?.nodes;
        let size = bytes(self.model.onnx.len() as u64);
        let opset = self.model.emission.options.opset;
        let precision = match self.model.precision {
            Precision::F32 => "",
            Precision::F16 => ", float16",
        };
        let remarks = remarks(self.network, &self.model.rows);
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
        let optimised = crate::pipeline::run(&made.pipeline, graph, &ui).expect("a graph");
        let faithful = &meant_network.model.graph;
        let reference = Reference::evaluate(faithful, 1, Tolerance::FLOAT32, &ui);
        let mut runtimes = agreement::runtimes(&meant.runtime).expect("runtimes");
        runtimes.truncate(1);
        let judges = Judges {
            faithful,
            reference: &reference.expect("a reference"),
            runtimes: &runtimes,
        };
        let prepared = Prepared {
            network: made_network,
            labels: None,
        };
        let precision = &made.precision;
        let graph = &optimised.graph;
        let model = Precise::make(&made, precision, &prepared, graph, Some(&judges), &ui);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.onnx");
        let compiled = Compiled {
            network: &meant_network,
            optimised: &optimised,
            model: &model.expect("a model"),
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
