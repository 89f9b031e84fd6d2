//! `emoc`: the command line, all reading and writing of files, and exit codes.

mod args;
mod exit;
mod ui;

mod inspect;
mod network;
mod record;
mod table;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use ui::Ui;

fn main() -> ExitCode {
    exit::guarded(|| {
        let cli = Cli::parse();
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
        Command::Inspect(args) => inspect::run(&args, ui),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "emoc", &mut script);
            ui.print(String::from_utf8_lossy(&script))
        }
        _ => Err(emoc_ir::Diagnostic::usage("not yet")),
    }
}
