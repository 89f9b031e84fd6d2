//! Other programs: run with a limit on their time and on what is kept of their words.

use std::{
    io::Read,
    mem,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use emoc_ir::{Diagnostic, Kind, Result};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::guard::brief;

/// What is kept of each stream. A build that prints more has been failing for long.
pub(crate) const KEPT: u64 = 4 << 20;

/// The longest pause before looking again whether a program has ended.
const PAUSE: Duration = Duration::from_millis(20);

/// The programs that are running now. Each is the head of a process group of its own (cargo
/// starts compilers), which a signal to this process does not reach: whoever handles signals
/// calls [`end`](Self::end).
#[derive(Debug, Default)]
pub struct Children(Mutex<Vec<Pid>>);

impl Children {
    /// None yet.
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Ends every program and the programs that it started, for a process that is about to exit:
    /// no other program starts after this, and whoever waits for one waits for ever.
    pub fn end(&self) {
        let list = self.list();
        list.iter().copied().for_each(kill);
        mem::forget(list);
    }

    /// Takes a program that has ended from the list.
    pub(crate) fn forget(&self, group: Option<Pid>) {
        self.list().retain(|&listed| Some(listed) != group);
    }

    fn list(&self) -> MutexGuard<'_, Vec<Pid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a program and all that it started.
pub(crate) fn kill(group: Pid) {
    // Fails when the program has just ended by itself.
    let _ = kill_process_group(group, Signal::KILL);
}

/// What a program that ended said.
pub(crate) struct Ended {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Ended {
    /// How it ended: `exit code 101`, `signal 11`.
    pub fn how(&self) -> String {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => self.status.to_string(),
        }
    }

    /// The lines of its standard error from the first that tells of an error on, as many as a
    /// person reads.
    pub fn complaint(&self) -> Vec<String> {
        const LINES: usize = 12;
        let text = String::from_utf8_lossy(&self.stderr);
        let lines: Vec<_> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let first = lines.iter().position(|line| {
            let line = line.trim_start();
            line.starts_with("error") || line.contains("panicked")
        });
        let from = first.unwrap_or(lines.len().saturating_sub(LINES));
        let shown = lines[from..].iter().take(LINES);
        shown.map(|line| brief(line)).collect()
    }
}

/// Starts `command` as the head of a process group, which is listed among the children.
///
/// # Errors
/// It does not start.
pub(crate) fn start(command: &mut Command, children: &Children) -> Result<(Child, Option<Pid>)> {
    let program = Path::new(command.get_program()).to_owned();
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    // Held until the child is listed: nobody can be told to end it before.
    let mut list = children.list();
    let started = command.spawn();
    let child = started.map_err(|error| Diagnostic::io("start the program", &program, &error))?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    list.extend(group);
    Ok((child, group))
}

/// Runs `command` with nothing to read, for at most `patience`.
///
/// # Errors
/// It does not start, or does not end in time; then it is killed, with all that it started.
pub(crate) fn run(command: &mut Command, patience: Duration, children: &Children) -> Result<Ended> {
    let program = Path::new(command.get_program()).to_owned();
    let (mut child, group) = start(command.stdin(Stdio::null()), children)?;
    let streams = (child.stdout.take(), child.stderr.take());
    let outcome = thread::scope(|scope| {
        let stdout = scope.spawn(|| keep(streams.0));
        let stderr = scope.spawn(|| keep(streams.1));
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_millis(1);
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Ok(Some(status)),
                Ok(None) if Instant::now() >= deadline => break Ok(None),
                Ok(None) => thread::sleep(pause),
                Err(error) => break Err(error),
            }
            pause = (2 * pause).min(PAUSE);
        };
        // Also ends what it may have left behind, which holds the pipes open.
        group.into_iter().for_each(kill);
        let _ = child.wait();
        let said = (stdout.join(), stderr.join());
        status.map(|status| (status, said))
    });
    children.forget(group);

    let (status, (stdout, stderr)) =
        outcome.map_err(|error| Diagnostic::io("wait for the program", &program, &error))?;
    let Some(status) = status else {
        let seconds = patience.as_secs();
        let message = format!("the program did not end within {seconds} seconds");
        return Err(Diagnostic::new(Kind::Input, message).file(&program));
    };
    Ok(Ended {
        status,
        stdout: stdout.unwrap_or_default(),
        stderr: stderr.unwrap_or_default(),
    })
}

/// The beginning of a stream; the rest is read too, so that the program is not held up.
pub(crate) fn keep(stream: Option<impl Read>) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(mut stream) = stream {
        // A stream that breaks is one that ends.
        let _ = stream.by_ref().take(KEPT).read_to_end(&mut kept);
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, patience: Duration) -> Result<Ended> {
        let children = Children::new();
        run(Command::new("sh").args(["-c", script]), patience, &children)
    }

    #[test]
    fn words_and_ends() {
        let minute = Duration::from_secs(60);
        for (script, stdout, how, complaint) in [
            ("echo yes", "yes\n", "exit code 0", &[][..]),
            ("kill -9 $$", "", "signal 9", &[]),
            (
                "echo a note >&2; echo error: no >&2; exit 3",
                "",
                "exit code 3",
                &["error: no"],
            ),
        ] {
            let ended = shell(script, minute).unwrap_or_else(|error| panic!("{script}: {error}"));
            assert_eq!(String::from_utf8_lossy(&ended.stdout), stdout, "{script}");
            assert_eq!(ended.how(), how, "{script}");
            assert_eq!(ended.complaint(), complaint, "{script}");
        }
    }

    /// Neither a program that never ends nor one that it left behind with its pipes is waited for.
    #[test]
    fn patience_ends() {
        let start = Instant::now();
        let error = shell("sleep 60", Duration::from_millis(50))
            .err()
            .expect("too slow");
        assert!(error.message.contains("did not end within"), "{error}");
        let left = shell("sleep 60 &", Duration::from_secs(60)).expect("an end");
        assert!(left.status.success());
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{:?}",
            start.elapsed()
        );
    }

    #[test]
    fn much_is_cut_and_does_not_block() {
        let ended = shell("head -c 20000000 /dev/zero", Duration::from_secs(60)).expect("an end");
        assert_eq!(ended.stdout.len() as u64, KEPT);
    }
}
