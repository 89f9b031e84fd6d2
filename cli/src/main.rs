//! `emoc`: the command line, all reading and writing of files, and exit codes.

mod args;
mod exit;
mod ui;

mod bench;
mod check;
mod compile;
mod diff;
mod doctor;
mod eval;
mod inspect;
mod report;
mod run;

mod agreement;
mod agreement_table;
mod artifact;
mod labels;
mod manifest;
mod model;
mod network;
mod output;
mod pipeline;
mod precision;
mod record;

mod json;
mod prose;
mod table;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use emoc_ir::Diagnostic;
use ui::Ui;

fn main() -> ExitCode {
    exit::guarded(|| {
        let cli = Cli::parse();
        if let Err(error) = output::handle_signals() {
            return exit::fail(&Diagnostic::internal(format!("no signal handler: {error}")));
        }
        let outcome = {
            let ui = Ui::new(cli.output);
            run(cli.command, &ui)
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => exit::fail(&error),
        }
    })
}

fn run(command: Command, ui: &Ui) -> emoc_ir::Result<()> {
    match command {
        Command::Compile(args) => compile::run(&args, ui),
        Command::Check(args) => check::run(&args, ui),
        Command::Inspect(args) => inspect::run(&args, ui),
        Command::Run(args) => run::run(&args, ui),
        Command::Eval(args) => eval::run(&args, ui),
        Command::Report(args) => report::run(&args, ui),
        Command::Bench(args) => bench::run(&args, ui),
        Command::BenchWorker(args) => bench::work(&args),
        Command::Diff(args) => diff::run(&args, ui),
        Command::Doctor => doctor::run(ui),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "emoc", &mut script);
            ui.print(String::from_utf8_lossy(&script))
        }
    }
}
