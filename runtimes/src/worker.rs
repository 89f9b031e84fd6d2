//! A process that has loaded a model and runs it when it is asked to: for measurements in which
//! nothing but the model is in the process, and several take turns.
//!
//! It says [`Ready`] in a line of JSON after its first inference. Then every line with a number on
//! its standard input is answered by a line with the times of that many inferences; it ends with
//! its input. [`serve`] is that program for a session, and emitted crates have an example that is
//! another ([`rust_crate::worker`](crate::rust_crate::worker)).

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use emoc_ir::{Diagnostic, Kind, Result};
use rustix::process::Pid;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Children, NamedTensor, Session,
    process::{self, Ended, KEPT},
};

/// Loading a model, or running it as often as is asked for at once.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a worker says when it has run the model once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ready {
    /// Threads that it computes on.
    pub threads: usize,
    /// The instruction set that a crate chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isa: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Times {
    times_ms: Vec<f64>,
}

/// The program of a worker: runs `session` once, and then as `requests` say.
///
/// # Errors
/// The session fails, or a request is no number; nobody listening any more is an end.
pub fn serve(
    session: &mut dyn Session,
    inputs: &[NamedTensor],
    requests: impl BufRead,
    mut answers: impl Write,
) -> Result<()> {
    session.run(inputs)?;
    let ready = Ready {
        threads: session.threads(),
        isa: None,
    };
    if !say(&mut answers, &ready)? {
        return Ok(());
    }
    for line in requests.lines() {
        let runs = line.ok().and_then(|line| line.trim().parse().ok());
        let runs = runs.ok_or_else(|| Diagnostic::usage("a request is a number of runs"))?;
        let times = session.times(inputs, runs)?.into_iter();
        let times = Times {
            times_ms: times.map(|time| 1e3 * time.as_secs_f64()).collect(),
        };
        if !say(&mut answers, &times)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether somebody heard it.
fn say(to: &mut impl Write, what: &impl Serialize) -> Result<bool> {
    let line = serde_json::to_string(what);
    let line = line.map_err(|error| Diagnostic::internal(format!("no JSON: {error}")))?;
    Ok(writeln!(to, "{line}").and_then(|()| to.flush()).is_ok())
}

/// A worker. It is ended when this is dropped.
pub struct Worker<'c> {
    program: PathBuf,
    child: Child,
    group: Option<Pid>,
    requests: Option<ChildStdin>,
    answers: Receiver<String>,
    complaints: Option<JoinHandle<Vec<u8>>>,
    children: &'c Children,
    ready: Ready,
    cold_start: Duration,
}

/// The next line, if it is no longer than what is kept: the limit is that of one answer, not of a
/// worker's life.
fn line(from: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    let read = from.take(KEPT).read_line(&mut line).ok()?;
    (read > 0 && line.ends_with('\n')).then_some(line)
}

impl<'c> Worker<'c> {
    /// Starts a worker and waits until it has run its model once.
    ///
    /// # Errors
    /// It does not start, or ends, or says nothing for two minutes.
    pub fn start(mut command: Command, children: &'c Children) -> Result<Self> {
        let start = Instant::now();
        let (mut child, group) = process::start(command.stdin(Stdio::piped()), children)?;
        let (sender, answers) = channel();
        let stdout = child.stdout.take();
        thread::spawn(move || {
            let mut stdout = stdout.map(BufReader::new);
            while let Some(line) = stdout.as_mut().and_then(line) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let stderr = child.stderr.take();
        let mut worker = Self {
            program: Path::new(command.get_program()).to_owned(),
            requests: child.stdin.take(),
            complaints: Some(thread::spawn(|| process::keep(stderr))),
            child,
            group,
            answers,
            children,
            ready: Ready {
                threads: 0,
                isa: None,
            },
            cold_start: Duration::ZERO,
        };
        worker.ready = worker.listen()?;
        worker.cold_start = start.elapsed();
        Ok(worker)
    }

    /// What it said when it was ready.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// From the start of the process to the end of its first inference.
    pub fn cold_start(&self) -> Duration {
        self.cold_start
    }

    /// How long each of `runs` inferences takes, one after the other.
    ///
    /// # Errors
    /// It ended, or does not answer.
    pub fn times(&mut self, runs: usize) -> Result<Vec<Duration>> {
        // If it has ended, the answer that does not come says why.
        if let Some(requests) = &mut self.requests {
            let _ = writeln!(requests, "{runs}").and_then(|()| requests.flush());
        }
        let times: Times = self.listen()?;
        let times = times.times_ms.into_iter();
        times
            .map(|ms| {
                Duration::try_from_secs_f64(ms / 1e3)
                    .map_err(|_| Diagnostic::input(format!("a run took {ms} ms, it is said")))
            })
            .collect()
    }

    /// The most memory that it has used, in bytes; none where the system does not tell.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kibibytes * 1024)
    }

    /// The time that its threads have computed; none where the system does not tell.
    pub fn cpu_time(&self) -> Option<Duration> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).ok()?;
        let mut total = 0;
        for task in tasks {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            let nanoseconds: u64 = text.split_whitespace().next()?.parse().ok()?;
            total += nanoseconds;
        }
        Some(Duration::from_nanos(total))
    }

    fn listen<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = match self.answers.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                let seconds = PATIENCE.as_secs();
                let message = format!("the program does not answer within {seconds} seconds");
                return Err(Diagnostic::new(Kind::Input, message).file(&self.program));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(self.post_mortem()),
        };
        serde_json::from_str(&line).map_err(|error| {
            Diagnostic::input(format!("the program's answer cannot be read: {error}"))
                .file(&self.program)
        })
    }

    /// Why it ended.
    fn post_mortem(&mut self) -> Box<Diagnostic> {
        self.group.into_iter().for_each(process::kill);
        let status = match self.child.wait() {
            Ok(status) => status,
            Err(error) => return Diagnostic::io("wait for the program", &self.program, &error),
        };
        let stderr = self.complaints.take().and_then(|thread| thread.join().ok());
        let ended = Ended {
            status,
            stdout: Vec::new(),
            stderr: stderr.unwrap_or_default(),
        };
        let fault = Diagnostic::input(format!("the program ended: {}", ended.how()));
        let complaint = ended.complaint().into_iter();
        complaint.fold(fault, Diagnostic::detail)
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        self.group.into_iter().for_each(process::kill);
        let _ = self.child.wait();
        self.children.forget(self.group);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell<'c>(script: &str, children: &'c Children) -> Result<Worker<'c>> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Worker::start(command, children)
    }

    #[test]
    fn questions_and_answers() {
        let children = Children::new();
        let script = r#"echo '{"threads": 2, "isa": "none"}'
            while read runs; do echo "{\"times_ms\": [$runs, 0.5]}"; done"#;
        let mut worker = shell(script, &children).expect("a worker");
        assert_eq!(worker.ready().threads, 2);
        assert_eq!(worker.ready().isa.as_deref(), Some("none"));
        for runs in [3, 7] {
            let times = worker.times(runs).expect("times");
            let expected = [
                Duration::from_millis(runs as u64),
                Duration::from_micros(500),
            ];
            assert_eq!(times, expected);
        }
        if cfg!(target_os = "linux") {
            assert!(worker.peak_memory() > Some(0));
            assert!(worker.cpu_time().is_some());
        }
    }

    /// A worker may say more in its life than an answer may hold.
    #[test]
    fn answers_have_a_limit_each() {
        let children = Children::new();
        // A number with 3 million digits, and one with 5 million.
        let script = r#"echo '{"threads": 1}'
            while read runs; do
                echo "{\"times_ms\": [0.$(head -c ${runs}000000 /dev/zero | tr '\0' 1)]}"
            done"#;
        let mut worker = shell(script, &children).expect("a worker");
        for _ in 0..3 {
            let times = worker.times(3).expect("a long answer");
            assert_eq!(times, [Duration::from_nanos(111_111)]);
        }
        let fault = worker.times(5).expect_err("an answer that is too long");
        assert!(fault.message.contains("the program ended"), "{fault}");
    }

    #[test]
    fn ends_and_nonsense_are_errors() {
        let children = Children::new();
        for (script, expected) in [
            (
                "echo error: no model >&2; exit 3",
                "the program ended: exit code 3",
            ),
            ("kill -9 $$", "the program ended: signal 9"),
            ("echo yes", "cannot be read"),
        ] {
            let fault = shell(script, &children).err().expect(script);
            assert!(fault.message.contains(expected), "{script}: {fault}");
        }
        let fault = shell("echo error: no model >&2; exit 3", &children).err();
        assert_eq!(fault.expect("an end").details, ["error: no model"]);
        let once = r#"echo '{"threads": 1}'; read runs; echo '{"times_ms": [-1]}'; exit 4"#;
        let mut worker = shell(once, &children).expect("a worker");
        let fault = worker.times(1).expect_err("a negative time");
        assert!(fault.message.contains("-1 ms"), "{fault}");
        let fault = worker.times(1).expect_err("an end");
        assert!(fault.message.contains("exit code 4"), "{fault}");
    }

    /// A program that runs on is ended with its worker.
    #[test]
    fn nothing_is_left() {
        let children = Children::new();
        let script = r#"echo '{"threads": 1}'; sleep 60; sleep 60"#;
        let worker = shell(script, &children).expect("a worker");
        let id = worker.child.id();
        drop(worker);
        assert!(!Path::new(&format!("/proc/{id}/status")).exists());
    }
}
