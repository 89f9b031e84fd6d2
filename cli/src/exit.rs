//! Exit codes, and the last words of a run that failed.

use std::{
    io::{self, Write},
    panic,
    process::ExitCode,
};

use emoc_ir::{Diagnostic, Kind};

use crate::{
    output, prose,
    ui::{BOLD, ERROR},
};

/// The command line's own code for wrong usage, which clap uses too.
const USAGE: u8 = 2;
/// `EX_SOFTWARE` of sysexits.h: far from the codes that scripts look at.
const INTERNAL: u8 = 70;

/// The exit code of a failure. `--help` documents the same table.
pub fn code(kind: Kind) -> u8 {
    match kind {
        Kind::Disagreement => 1,
        Kind::Usage => USAGE,
        Kind::Input => 3,
        Kind::FileSystem => 4,
        Kind::RuntimeMissing => 5,
        Kind::Interrupted => output::interrupted_by(),
        Kind::Internal => INTERNAL,
        // `Kind` may grow in another crate before this table does.
        _ => INTERNAL,
    }
}

/// Prints the error and gives its exit code.
pub fn fail(error: &Diagnostic) -> ExitCode {
    let mut text = format!("{ERROR}error{ERROR:#}{BOLD}:{BOLD:#} {error}\n");
    if error.kind == Kind::Internal {
        text = text + BUG + "\n";
    }
    let text = prose::suited(&io::stderr(), text);
    // Nobody is left to tell when the standard error is closed.
    let _ = write!(anstream::stderr(), "{text}");
    ExitCode::from(code(error.kind))
}

const BUG: &str = "  this is a defect of emoc, not of your input: please report it with the \
                   command that you typed";

/// Runs `work`; a panic, which is always a defect, ends like any other error.
pub fn guarded(work: impl FnOnce() -> ExitCode + panic::UnwindSafe) -> ExitCode {
    panic::set_hook(Box::new(|info| {
        let what = info.payload_as_str().unwrap_or("without a message");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let error = Diagnostic::internal(format!("panicked: {what}")).at(place);
        fail(&error);
    }));
    panic::catch_unwind(work).unwrap_or(ExitCode::from(INTERNAL))
}
