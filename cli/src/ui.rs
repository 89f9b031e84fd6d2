//! What a person sees while emoc works: notes on the standard error, and progress on a terminal.
//! Results go to the standard output (see [`Ui::print`]) and to nothing else.

use std::{
    fmt,
    io::{self, BufWriter, IsTerminal, Write},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anstyle::{AnsiColor, Style};
use emoc_ir::{Diagnostic, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{args::OutputArgs, prose};

pub const BOLD: Style = Style::new().bold();
pub const DIM: Style = Style::new().dimmed();
pub const ERROR: Style = AnsiColor::Red.on_default().bold();
pub const WARNING: Style = AnsiColor::Yellow.on_default().bold();
pub const NOTE: Style = AnsiColor::Cyan.on_default().bold();
pub const GOOD: Style = AnsiColor::Green.on_default();

/// Nothing moves on the terminal before this; most commands are done by then.
const PATIENCE: Duration = Duration::from_millis(500);

/// The person's side of a run.
pub struct Ui {
    args: OutputArgs,
    progress: Option<Progress>,
    step: Mutex<Option<(String, Instant)>>,
}

impl Ui {
    pub fn new(args: OutputArgs) -> Self {
        let wanted = !args.quiet && io::stderr().is_terminal();
        Self {
            args,
            progress: wanted.then(Progress::start),
            step: Mutex::new(None),
        }
    }

    /// Says nothing, for work that is done a second time.
    pub fn silent() -> Self {
        Self {
            args: OutputArgs {
                json: false,
                verbose: 0,
                quiet: true,
            },
            progress: None,
            step: Mutex::new(None),
        }
    }

    pub fn json(&self) -> bool {
        self.args.json
    }

    pub fn quiet(&self) -> bool {
        self.args.quiet
    }

    pub fn verbose(&self) -> bool {
        self.args.verbose > 0
    }

    /// Something the person should know and need not act on.
    pub fn note(&self, text: impl fmt::Display) {
        self.say(NOTE, "note", &text);
    }

    /// Something that may be wrong.
    pub fn warn(&self, text: impl fmt::Display) {
        self.say(WARNING, "warning", &text);
    }

    /// Something for `--verbose`.
    pub fn detail(&self, text: impl fmt::Display) {
        if self.verbose() {
            self.say(DIM, "", &text);
        }
    }

    fn say(&self, style: Style, label: &str, text: &dyn fmt::Display) {
        if self.args.quiet {
            return;
        }
        let text = printable(&text.to_string());
        let colon = if label.is_empty() { "" } else { ": " };
        let text = format!("{style}{label}{colon}{style:#}{text}");
        let text = prose::suited(&io::stderr(), text);
        self.suspend(|| {
            let _ = writeln!(anstream::stderr(), "{text}");
        });
    }

    /// Says what is being done now, until the next step.
    pub fn step(&self, what: impl Into<String>) {
        let what = one_line(&what.into());
        if let Some(progress) = &self.progress {
            progress.bar.set_style(spinner());
            progress.bar.set_message(what.clone());
        }
        let mut step = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        let last = step.replace((what, Instant::now()));
        drop(step);
        self.took(last);
    }

    /// Ends the last step and clears the terminal for what is printed now.
    pub fn done(&self) {
        let mut step = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        let last = step.take();
        drop(step);
        self.took(last);
        if let Some(progress) = &self.progress {
            progress.stop();
        }
    }

    /// Says what is being done to so many things, until the next step. [`Ui::advance`] counts
    /// them.
    pub fn count(&self, what: &str, things: usize) {
        self.step(what);
        if let Some(progress) = &self.progress {
            let style =
                ProgressStyle::with_template("{spinner} {msg} {bar:20} {pos} of {len}, {eta} left");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            progress.bar.set_style(style.progress_chars("=> "));
            progress.bar.set_length(things as u64);
        }
    }

    /// One of the things is done.
    pub fn advance(&self) {
        if let Some(progress) = &self.progress {
            progress.bar.inc(1);
        }
    }

    fn took(&self, step: Option<(String, Instant)>) {
        if let Some((what, start)) = step {
            let ms = start.elapsed().as_secs_f64() * 1e3;
            self.detail(format_args!("{what}: {ms:.0} ms"));
        }
    }

    fn suspend(&self, work: impl FnOnce()) {
        match &self.progress {
            Some(progress) => progress.bar.suspend(work),
            None => work(),
        }
    }

    /// Prints a result for people.
    ///
    /// # Errors
    /// Those of [`Ui::print`].
    pub fn print_prose(&self, text: String) -> Result<()> {
        self.print(prose::suited(&io::stdout(), text))
    }

    /// Prints a result to the standard output as it is. A reader that has seen enough (`| head`) is no
    /// error.
    ///
    /// # Errors
    /// The standard output cannot be written to, for example because a disk is full.
    pub fn print(&self, text: impl fmt::Display) -> Result<()> {
        self.done();
        let mut out = BufWriter::new(anstream::stdout().lock());
        let written = write!(out, "{text}").and_then(|()| out.flush());
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let path = Path::new("standard output");
                Err(Diagnostic::io("write the result", path, &error))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Ui {
    fn drop(&mut self) {
        self.done();
    }
}

/// Text from a file, made safe for a terminal.
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => safe.push(c),
            // Also marks that reorder the text around them.
            c if c.is_control()
                || ('\u{202a}'..='\u{202e}').contains(&c)
                || ('\u{2066}'..='\u{2069}').contains(&c) =>
            {
                safe.extend(c.escape_unicode());
            }
            c => safe.push(c),
        }
    }
    safe
}

/// The same for text that must stay in its line.
pub fn one_line(text: &str) -> String {
    printable(text).replace('\n', " ")
}

/// Clears the line that the prompt comes to, where a run ends without its [`Ui`]: the spinner's,
/// or the `^C` below it. The spinner then stays and says what was interrupted.
pub fn clear_line() {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[2K");
    }
}

fn spinner() -> ProgressStyle {
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})");
    style.unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// A spinner that shows itself only when there is something to wait for.
struct Progress {
    bar: ProgressBar,
    /// Set once the spinner must not appear any more.
    stopped: Arc<Mutex<bool>>,
}

impl Progress {
    fn start() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.set_style(spinner());
        let stopped = Arc::new(Mutex::new(false));
        let (timer_bar, timer_stopped) = (bar.clone(), stopped.clone());
        thread::spawn(move || {
            thread::sleep(PATIENCE);
            let stopped = timer_stopped.lock().unwrap_or_else(PoisonError::into_inner);
            if !*stopped {
                timer_bar.set_draw_target(ProgressDrawTarget::stderr());
                timer_bar.enable_steady_tick(Duration::from_millis(100));
            }
        });
        Self { bar, stopped }
    }

    fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bar.finish_and_clear();
    }
}
