//! `emoc report`: everything about an artifact on one page that needs no network.

mod command;
mod data;
mod page;
mod structure;
mod subject;

use std::path::PathBuf;

use clap::{Args, ValueHint};
use emoc_ir::{Diagnostic, Kind, Result};

use crate::{
    agreement::{self, Row},
    args::{CheckpointArg, ModelArgs, RuntimeArgs},
    json,
    output::Page,
    table::bytes,
    ui::{BOLD, GOOD, Ui, printable},
};
use data::Report;
use subject::Subject;

pub const EXAMPLES: &str = "\
Examples:
  emoc report EMOv2_5M.pth
      compiles it to ONNX in memory, runs that, writes emov2_5m_224.html
  emoc report emov2_5m_224.onnx --checkpoint EMOv2_5M.pth --output report.html
  emoc report emov2_5m_224_tensorrt/ --checkpoint EMOv2_5M.pth
  emoc report emov2-5m-224/ --checkpoint EMOv2_5M.pth
      builds the crate and runs it, as `cargo run` would: only for code that you trust
  emoc report --variant 5M                         # without a checkpoint: seeded weights
  emoc report emov2_5m_224.onnx --json             # the same for programs; writes no file

The page shows disagreements too: then it is written, and the exit code is 1. The same input gives
the same bytes, but for the times that were measured.
";

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// A checkpoint (.pth, .pt, .safetensors) or an artifact (.onnx, the folder of a crate or of
    /// a TensorRT bundle)
    #[arg(value_name = "MODEL", value_hint = ValueHint::AnyPath, required_unless_present_any = ["variant", "checkpoint"])]
    pub model_path: Option<PathBuf>,
    /// Where to write the page [default: named after the network, in the current folder; with
    /// --json nowhere]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Replace a file that is no report of emoc
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub checkpoint: CheckpointArg,
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
}

pub fn run(args: &ReportArgs, ui: &Ui) -> Result<()> {
    let inputs = [&args.model_path, &args.checkpoint.checkpoint];
    let inputs: Vec<_> = inputs.into_iter().flatten().map(PathBuf::as_path).collect();
    let prepare = |path: PathBuf| Page::prepare(path, &inputs, args.force, page::is_report, ui);
    // Whatever can be refused without the network is refused before it is read.
    let output = args.output.clone().map(prepare).transpose()?;
    let subject = Subject::open(args, ui)?;
    let name = || PathBuf::from(format!("{}.html", subject.name()));
    let output = match output {
        None if !ui.json() => Some(prepare(name())?),
        output => output,
    };
    ui.step("writing the report");
    let report = Report::of(&subject)?;
    let written = output.map(|output| write(output, &report)).transpose()?;
    let text = || {
        let checks = match subject.is_checked() {
            true => subject.checked.text(),
            false => String::new(),
        };
        checks + &written.unwrap_or_default()
    };
    json::show(&report, text, ui)?;
    demand(&subject, args)
}

/// Writes the page and says so.
fn write(output: Page, report: &Report) -> Result<String> {
    let html = page::render(report);
    let path = printable(&output.path().display().to_string());
    output.write(html.as_bytes())?;
    let size = bytes(html.len() as u64);
    Ok(format!(
        "{GOOD}wrote{GOOD:#} {BOLD}{path}{BOLD:#} ({size})\n"
    ))
}

/// A page about a disagreement is a good page, and the run still failed.
fn demand(subject: &Subject, args: &ReportArgs) -> Result<()> {
    let rows = &subject.checked.rows;
    let demanded = agreement::demand(rows, "; the report shows where");
    let at = |error: Box<Diagnostic>| match &args.model_path {
        Some(path) => error.file(path),
        None => error,
    };
    demanded.map_err(at)?;
    match !subject.is_checked() || rows.iter().any(Row::is_good) {
        true => Ok(()),
        false => {
            let message = "the artifact was not checked: nothing that runs it is there";
            Err(at(Diagnostic::new(Kind::RuntimeMissing, message)))
        }
    }
}
