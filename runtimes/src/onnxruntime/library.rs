//! Loading the library, once per process.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use emoc_ir::{Diagnostic, Result};
use ort::{environment::Environment, logging::LogLevel};

use super::NAME;
use crate::guard::{brief, guard};

/// The library this process uses, or the reason why it does not work. It stays loaded to the end:
/// ONNX Runtime's threads and globals do not survive being unloaded, and `ort` keeps the first one
/// that says it is ONNX Runtime for good, whatever follows.
static LOADED: Mutex<Option<(PathBuf, Result<Library, String>)>> = Mutex::new(None);

#[derive(Clone)]
pub(super) struct Library {
    pub(super) path: PathBuf,
    pub(super) version: String,
    pub(super) environment: Environment,
}

/// Loads the library at `path`, or says in a few words why not.
pub(super) fn open(path: &Path) -> Result<Library, String> {
    // `ort` takes a relative path to be beside the executable.
    let path = fs::canonicalize(path).map_err(|error| error.to_string())?;
    check_file(&path)?;
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((first, outcome)) = &*loaded {
        if *first == path {
            return outcome.clone();
        }
        let first = first.display();
        return Err(format!(
            "a process can load one library, and has loaded {first}"
        ));
    }
    let refused = |why: String| Diagnostic::input(brief(&why));
    let message = |error: Box<Diagnostic>| error.message;
    let builder = guard(NAME, || {
        ort::init_from(&path).map_err(|error| refused(error.to_string()))
    })
    .map_err(message)?;
    let environment = guard(NAME, || {
        builder
            .with_telemetry(false)
            // The default one writes to standard error, which belongs to the command line.
            .with_logger(Arc::new(|_, _, _, _, _| {}))
            .build()
            .inspect(|environment| environment.set_log_level(LogLevel::Fatal))
            .map_err(|error| refused(error.to_string()))
    });
    let library = environment.map_err(message).map(|environment| Library {
        version: version(&path),
        path: path.clone(),
        environment,
    });
    loaded.insert((path, library)).1.clone()
}

/// Refuses what the dynamic loader would answer badly: a pipe (it waits for ever), a truncated
/// file (the process dies of a bus error), another architecture ("no such file").
fn check_file(path: &Path) -> Result<(), String> {
    let unreadable = |error: std::io::Error| error.to_string();
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err("a folder without an ONNX Runtime library".into());
    }
    if !metadata.is_file() {
        return Err("not a regular file".into());
    }
    let mut head = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(64).read_to_end(&mut head).map_err(unreadable)?;
    if cfg!(target_os = "linux") {
        check_elf(&head, metadata.len())?;
    }
    Ok(())
}

/// Checks the header of an ELF file of `size` bytes. Offsets: elf(5), `Elf64_Ehdr`.
fn check_elf(head: &[u8], size: u64) -> Result<(), String> {
    let two = |at: usize| {
        head.get(at..at + 2)
            .map(|b| u16::from_le_bytes([b[0], b[1]]))
    };
    let (Some(machine), Some(section_size), Some(sections)) = (two(18), two(58), two(60)) else {
        return Err("not a shared library".into());
    };
    if !head.starts_with(b"\x7fELF") {
        return Err("not a shared library".into());
    }
    let ours = match std::env::consts::ARCH {
        "x86_64" => 62,
        "aarch64" => 183,
        _ => machine,
    };
    // Class 2 is 64-bit, data 1 little-endian: as both architectures above are.
    if head[4..6] != [2, 1] || machine != ours {
        let ours = std::env::consts::ARCH;
        return Err(format!(
            "a library for another architecture than this program's, {ours}"
        ));
    }
    // Linkers put the section table last.
    let table = head[40..48]
        .iter()
        .rev()
        .fold(0, |n, &byte| n << 8 | u64::from(byte));
    let end = table.checked_add(u64::from(section_size) * u64::from(sections));
    if end.is_none_or(|end| end > size) {
        return Err("the file is truncated; fetch it again".into());
    }
    Ok(())
}

/// The version, from the file's name (the only place that release builds of every system have in
/// common), else from the branch the library was built from.
fn version(path: &Path) -> String {
    let from_name = version_in_name(path);
    if from_name.len() > 1 {
        let numbers: Vec<_> = from_name.iter().map(u64::to_string).collect();
        return numbers.join(".");
    }
    let info = ort::info();
    let branch = info.split_once("git-branch=").map(|(_, rest)| rest);
    let branch = branch.and_then(|rest| rest.split([',', ' ']).next());
    branch.unwrap_or("unknown version").to_owned()
}

/// The numbers in a file's name, which order versions: `libonnxruntime.so.1.32.0` -> 1, 32, 0.
pub(super) fn version_in_name(path: &Path) -> Vec<u64> {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("");
    let numbers = name.split(|c: char| !c.is_ascii_digit());
    numbers.filter_map(|number| number.parse().ok()).collect()
}
