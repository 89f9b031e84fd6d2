//! To a Rust crate.

use std::{fmt::Write, path::PathBuf};

use emoc_backends::rust_crate::{self, Emitted};
use emoc_ir::Result;
use emoc_runtimes::Tolerance;
use serde::Serialize;

use super::{CompileResult, Prepared, provenance, remarks};
use crate::{
    agreement::{self, FAITHFUL, ROUNDED, References, Row},
    agreement_table,
    args::{CompileArgs, WeightsDtype},
    json,
    manifest::{Content, CrateOptions, FileRecord, Manifest, Options},
    network::Network,
    output::{Folder, MANIFEST},
    pipeline::Optimised,
    table::bytes,
    ui::{BOLD, GOOD, Ui, printable},
};

pub fn run(args: &CompileArgs, ui: &Ui) -> Result<()> {
    let checkpoint = args.checkpoint.checkpoint.as_deref();
    let prepare = |path: &PathBuf| Folder::prepare(path, MANIFEST, checkpoint, args.force, ui);
    // Whatever can be refused without the network is refused before it is read.
    let folder = args.output.as_ref().map(prepare).transpose()?;
    let runtimes = match args.no_check {
        true => Vec::new(),
        false => agreement::runtimes(&args.runtime)?,
    };
    let prepared = Prepared::load(args, ui)?;
    let network = &prepared.network;
    let name = match &args.rust.crate_name {
        Some(name) => name.clone(),
        None => network.model.graph.name.replace('_', "-"),
    };
    let folder = match folder {
        Some(folder) => folder,
        None => prepare(&PathBuf::from(&name))?,
    };
    let optimised = prepared.optimise(args, ui)?;

    let dtype = args.rust.weights_dtype.unwrap_or_default();
    let faithful = &network.model.graph;
    // The crate's own test has the reference's values, so they are needed unchecked too.
    let references = References::evaluate(faithful, &optimised.graph, dtype, ui)?;
    ui.step("emitting");
    let options = rust_crate::Options {
        crate_name: Some(name),
        weights: dtype.into(),
        labels: prepared.labels.clone(),
        provenance: provenance(args, network)?,
        golden: Some(references.golden()),
    };
    let emitted = rust_crate::emit(&optimised.graph, &options)?;
    folder.accept(&emitted.files)?;
    let rows = match args.no_check {
        true => Vec::new(),
        false => agreement::judge_crate(&emitted, &references, &optimised.graph, &runtimes, ui)?,
    };
    let compiled = Compiled {
        network,
        optimised: &optimised,
        rows: &rows,
        emitted,
        dtype,
        labels: prepared.labels.as_deref(),
    };
    compiled.finish(folder, ui)
}

/// A crate with its proof, not yet written.
struct Compiled<'a> {
    network: &'a Network,
    optimised: &'a Optimised,
    rows: &'a [Row],
    emitted: Emitted,
    dtype: WeightsDtype,
    labels: Option<&'a [String]>,
}

/// What `--json` says of a crate.
#[derive(Serialize)]
struct Facts {
    #[serde(flatten)]
    options: CrateOptions,
    bytes: usize,
    files: Vec<FileRecord>,
}

impl Compiled<'_> {
    /// Writes the crate unless it disagrees, and reports either way.
    fn finish(mut self, folder: Folder, ui: &Ui) -> Result<()> {
        let demanded = agreement::demand(self.rows, "; nothing was written");
        if demanded.is_err() {
            drop(folder);
            self.report(None, ui)?;
            return demanded;
        }
        ui.step("writing");
        let path = folder.path().to_owned();
        let manifest = self.manifest().to_bytes()?;
        let mut files = std::mem::take(&mut self.emitted.files);
        let listed = files.len();
        files.push((MANIFEST.to_owned(), manifest));
        folder.write(&files, ui)?;
        files.truncate(listed);
        self.emitted.files = files;
        let paths = [path.join(""), path.join(MANIFEST)].map(|path| path.display().to_string());
        self.report(Some(paths), ui)
    }

    fn manifest(&self) -> Manifest<'_> {
        let reference = match self.dtype {
            WeightsDtype::F32 => FAITHFUL,
            WeightsDtype::F16 => ROUNDED,
        };
        Manifest::new(Content {
            files: self.files(),
            network: self.network,
            options: Options::Rust(self.options()),
            passes: &self.optimised.passes,
            labels: self.labels,
            check: agreement::record(self.rows, reference, Tolerance::FLOAT32),
        })
    }

    fn files(&self) -> Vec<FileRecord> {
        let files = self.emitted.files.iter();
        files
            .map(|(name, bytes)| FileRecord::of(name, bytes))
            .collect()
    }

    fn options(&self) -> CrateOptions {
        CrateOptions {
            crate_name: self.emitted.name.clone(),
            weights_dtype: self.dtype,
            arena_bytes: self.emitted.arena_bytes,
            weight_bytes: self.emitted.weight_bytes,
        }
    }

    fn bytes(&self) -> usize {
        self.emitted
            .files
            .iter()
            .map(|(_, bytes)| bytes.len())
            .sum()
    }

    fn report(&self, paths: Option<[String; 2]>, ui: &Ui) -> Result<()> {
        if let Some(graph) = &self.optimised.printed {
            return ui.print(graph);
        }
        if ui.json() {
            let facts = Facts {
                options: self.options(),
                bytes: self.bytes(),
                files: self.files(),
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
        let mut text = String::new();
        if !self.rows.is_empty() {
            text = agreement_table::agreement(self.rows, Tolerance::FLOAT32);
        }
        let Some([folder, _]) = paths else {
            return text;
        };
        let dtype = self.dtype.name();
        let size = bytes(self.bytes() as u64);
        let activations = bytes(self.emitted.arena_bytes as u64);
        let remarks = remarks(self.network, self.rows);
        let folder = printable(&folder);
        let _ = writeln!(
            text,
            "{GOOD}wrote{GOOD:#} {BOLD}{folder}{BOLD:#} ({size}, {dtype} weights, activations \
             {activations}{remarks})"
        );
        text
    }
}
