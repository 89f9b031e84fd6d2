//! One error shape for the whole compiler: what is wrong, where, and what to do.
//!
//! A [`Diagnostic`] is built where the fault is found, gains its place on the way up
//! ([`Diagnostic::file`], [`Diagnostic::key`], [`Diagnostic::node`]) and is printed once,
//! by the command line.

use std::{fmt, path::Path};

use serde::Serialize;

/// What kind of failure a [`Diagnostic`] reports. The command line maps it to an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// An artifact's outputs differ from the reference by more than the tolerance (exit code 1).
    Disagreement,
    /// Flags that contradict each other, or a choice that only the user can make (exit code 2).
    Usage,
    /// A checkpoint, picture or graph that must not or cannot be used (exit code 3).
    Input,
    /// The file system refused: missing file, no permission, disk full (exit code 4).
    FileSystem,
    /// A runtime that was demanded is not there (exit code 5).
    RuntimeMissing,
    /// The user ended long work early (exit code 128 and the signal's number).
    Interrupted,
    /// The compiler broke one of its own invariants: a defect of emoc, never of the input.
    Internal,
}

/// One failure: a sentence, its place, and advice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Decides the exit code.
    pub kind: Kind,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// The file, as the user spelt it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The entry, byte offset or line inside the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// The checkpoint key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The graph node (a PyTorch module path).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Further findings of the same kind, one line each; nothing is reported one at a time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// The result of every fallible step of the compiler. The error is boxed to keep `Ok` small.
pub type Result<T, E = Box<Diagnostic>> = std::result::Result<T, E>;

impl Diagnostic {
    /// A failure of the given kind, without a place yet.
    pub fn new(kind: Kind, message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            kind,
            message: message.into(),
            file: None,
            place: None,
            key: None,
            node: None,
            details: Vec::new(),
            help: None,
        })
    }

    /// An input that is refused.
    pub fn input(message: impl Into<String>) -> Box<Self> {
        Self::new(Kind::Input, message)
    }

    /// Flags that do not fit together.
    pub fn usage(message: impl Into<String>) -> Box<Self> {
        Self::new(Kind::Usage, message)
    }

    /// A defect of emoc itself.
    pub fn internal(message: impl Into<String>) -> Box<Self> {
        Self::new(Kind::Internal, message)
    }

    /// A failed file operation on `path`.
    pub fn io(doing: &str, path: &Path, error: &std::io::Error) -> Box<Self> {
        Self::new(Kind::FileSystem, format!("cannot {doing}: {error}")).file(path)
    }

    /// Sets the file, unless a deeper layer already did.
    #[must_use]
    pub fn file(mut self: Box<Self>, path: &Path) -> Box<Self> {
        self.file.get_or_insert_with(|| path.display().to_string());
        self
    }

    /// Sets the place inside the file (entry, offset, line), unless a deeper layer already did.
    #[must_use]
    pub fn at(mut self: Box<Self>, place: impl Into<String>) -> Box<Self> {
        self.place.get_or_insert_with(|| place.into());
        self
    }

    /// Sets the checkpoint key, unless a deeper layer already did.
    #[must_use]
    pub fn key(mut self: Box<Self>, key: impl Into<String>) -> Box<Self> {
        self.key.get_or_insert_with(|| key.into());
        self
    }

    /// Sets the graph node, unless a deeper layer already did.
    #[must_use]
    pub fn node(mut self: Box<Self>, node: impl Into<String>) -> Box<Self> {
        self.node.get_or_insert_with(|| node.into());
        self
    }

    /// Appends one more finding.
    #[must_use]
    pub fn detail(mut self: Box<Self>, line: impl Into<String>) -> Box<Self> {
        self.details.push(line.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self: Box<Self>, help: impl Into<String>) -> Box<Self> {
        self.help = Some(help.into());
        self
    }
}

/// Text from a checkpoint, made safe to print: control characters are escaped, so that a name
/// in a hostile file cannot move the cursor or colour the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escape = c.is_control() && c != '\n';
            let escaped = escape.then(|| c.escape_default()).into_iter().flatten();
            escaped.chain((!escape).then_some(c))
        })
        .collect()
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", printable(&self.message))?;
        let place = [
            ("file", &self.file),
            ("at", &self.place),
            ("key", &self.key),
            ("node", &self.node),
        ];
        for (what, value) in place {
            if let Some(value) = value {
                write!(f, "\n  {what:>4}: {}", printable(value))?;
            }
        }
        for line in &self.details {
            write!(f, "\n        {}", printable(line))?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {}", printable(help))?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}
