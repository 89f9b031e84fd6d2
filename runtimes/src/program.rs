//! Programs of the machine: found in the folders of `PATH`, and asked for their versions.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{Children, Missing, process};

/// A version is said at once, or after a toolchain has been looked for.
const PATIENCE: Duration = Duration::from_secs(30);

/// The name of Python in reports.
const PYTHON: &str = "python3";

/// A program that says its version.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    version: String,
}

impl Program {
    /// Python 3, in the folders of `path` (the value of `PATH`).
    ///
    /// # Errors
    /// There is none, or it does not run: a row of the report.
    pub fn python(path: Option<&OsStr>, children: &Children) -> Result<Self, Missing> {
        let missing = |reason: String| Missing {
            name: PYTHON,
            reason,
            refused: Vec::new(),
            help: "install Python 3 (https://www.python.org, or the system's package `python3`) \
                   and have `python3` on the PATH"
                .into(),
        };
        let file = find(path, PYTHON).ok_or_else(|| missing("not found".into()))?;
        Self::ask(file, "Python", children).map_err(|(reason, refused)| Missing {
            refused,
            ..missing(reason)
        })
    }

    /// A program whose `--version` begins with `word` and the version. The error is a reason, and
    /// what the program said.
    pub(crate) fn ask(
        path: PathBuf,
        word: &str,
        children: &Children,
    ) -> Result<Self, (String, Vec<String>)> {
        let asked = process::run(Command::new(&path).arg("--version"), PATIENCE, children);
        let ended =
            asked.map_err(|error| (format!("does not run: {}", error.message), Vec::new()))?;
        let text = String::from_utf8_lossy(&ended.stdout);
        let mut words = text.split_whitespace();
        match (words.next(), words.next()) {
            (Some(found), Some(version)) if found == word => Ok(Self {
                version: version.chars().filter(|c| !c.is_control()).collect(),
                path,
            }),
            _ => Err((format!("does not run: {}", ended.how()), ended.complaint())),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The version, such as `1.95.0`.
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// The first file called `name` in the folders of `path`. A relative folder would let the current
/// one decide what is run, and is passed over.
pub(crate) fn find(path: Option<&OsStr>, name: &str) -> Option<PathBuf> {
    let name = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let folders = path.map(std::env::split_paths).into_iter().flatten();
    let folders = folders.filter(|folder| folder.is_absolute());
    let mut files = folders.map(|folder| folder.join(&name));
    files.find(|file| file.is_file())
}
