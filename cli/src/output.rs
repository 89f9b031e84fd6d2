//! Writing an artifact and its manifest: both or neither, never half of one.
//!
//! Everything that can be refused is refused before the work ([`Outputs::prepare`]). The bytes go
//! to temporary files in the target's folder, are synced, read back and renamed
//! ([`Outputs::write`]). A signal removes the temporary files; a power cut or SIGKILL leaves at
//! most files named `.emoc-*.tmp`, which the next run mentions. An artifact that is a folder
//! ([`Folder`]) and a report ([`Page`]) are written in the same way.

mod folder;
mod page;
mod temporary;

use std::{
    fs::{self, File, Permissions, TryLockError},
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    thread,
};

pub use folder::{Folder, MANIFEST};
pub use page::Page;
pub use temporary::TemporaryFolder;

use emoc_ir::{Diagnostic, Kind, Result};
use emoc_runtimes::Children;
use signal_hook::{
    consts::{SIGINT, SIGTERM, SIGXFSZ},
    iterator::Signals,
    low_level,
};
use tempfile::{NamedTempFile, TempPath};

use crate::{
    manifest,
    ui::{self, Ui},
};

const PREFIX: &str = ".emoc-";
const SUFFIX: &str = ".tmp";

/// Temporary files and folders to remove when a signal ends the process. Whoever holds the lock
/// is renaming; signals wait for that.
static STAGED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Whether the next signal is only noted down, and the one that was.
static GENTLE: AtomicBool = AtomicBool::new(false);
static NOTED: AtomicU8 = AtomicU8::new(0);

/// Lets the next SIGINT or SIGTERM be noted down for [`interrupted`] instead of ending the
/// process: the work ends soon and has a result. A second signal ends it as ever.
pub fn stop_gently() {
    GENTLE.store(true, Ordering::Relaxed);
}

/// Ends what [`stop_gently`] began: a signal ends the process again.
pub fn stop_at_once() {
    GENTLE.store(false, Ordering::Relaxed);
}

/// Whether a signal was noted down.
pub fn interrupted() -> bool {
    NOTED.load(Ordering::Relaxed) > 0
}

/// The exit code of work that a signal ended early.
pub fn interrupted_by() -> u8 {
    128 + NOTED.load(Ordering::Relaxed)
}

/// Programs to end when a signal ends the process.
pub static CHILDREN: Children = Children::new();

fn staged() -> MutexGuard<'static, Vec<PathBuf>> {
    STAGED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes SIGINT and SIGTERM end the programs that were started, remove the temporary files and
/// exit with 130 and 143, and makes a limit on file sizes an error of the write instead of the end of the process.
///
/// # Errors
/// The system refuses a handler.
pub fn handle_signals() -> std::io::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || {
        for signal in signals.forever() {
            if GENTLE.swap(false, Ordering::Relaxed) {
                NOTED.store(u8::try_from(signal).unwrap_or(0), Ordering::Relaxed);
                continue;
            }
            let staged = staged();
            CHILDREN.end();
            staged.iter().for_each(|path| temporary::remove(path));
            ui::clear_line();
            // Destructors of other threads' work would race with it.
            low_level::exit(128 + signal);
        }
    });
    Ok(())
}

/// Where an artifact and its manifest will be.
pub struct Outputs {
    artifact: PathBuf,
    manifest: PathBuf,
    folder: PathBuf,
    force: bool,
    /// Created early: it proves that the folder can be written to.
    staging: Staging,
}

impl Outputs {
    /// Refuses what can be refused before the work.
    ///
    /// # Errors
    /// The output is the input, exists and is not emoc's own (unless `force`), is no regular
    /// file, or its folder cannot be written to.
    pub fn prepare(artifact: &Path, input: Option<&Path>, force: bool, ui: &Ui) -> Result<Self> {
        let manifest = artifact.with_extension("json");
        if artifact.file_name().is_none() || manifest == artifact {
            let message = "the output needs a file name, and .json is the manifest's ending";
            return Err(Diagnostic::usage(message)
                .file(artifact)
                .help("for example --output model.onnx"));
        }
        let folder = folder_of(artifact);
        for path in [artifact, &manifest] {
            refuse_input(path, input)?;
            refuse_special(path)?;
        }
        {
            let _locked = lock(&folder);
            refuse_foreign(artifact, &manifest, &folder, force)?;
        }
        say_leftovers(&folder, ui);
        Ok(Self {
            staging: Staging::create(&folder, artifact)?,
            artifact: artifact.to_owned(),
            manifest,
            folder,
            force,
        })
    }

    pub fn artifact(&self) -> &Path {
        &self.artifact
    }

    pub fn manifest(&self) -> &Path {
        &self.manifest
    }

    /// Writes both files. `reparse` sees the artifact's bytes as they were read back.
    ///
    /// # Errors
    /// The file system refuses, or gives other bytes back than it was given. Nothing is left
    /// behind then, and files that were there before are as they were.
    pub fn write(
        mut self,
        artifact: &[u8],
        manifest: &[u8],
        reparse: impl FnOnce(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let written = self.staging.fill(artifact, &self.artifact)?;
        reparse(&written)?;
        let mut beside = Staging::create(&self.folder, &self.manifest)?;
        beside.fill(manifest, &self.manifest)?;

        let locked = lock(&self.folder);
        // Something may have come there in the meantime.
        refuse_foreign(&self.artifact, &self.manifest, &self.folder, self.force)?;
        let staged = staged();
        self.staging.rename(&self.artifact)?;
        beside.rename(&self.manifest)?;
        drop(staged);
        let synced = locked.and_then(|folder| folder.sync_all());
        synced.map_err(|error| Diagnostic::io("write", &self.artifact, &error))
    }
}

/// The folder that a file is in.
fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Opens a folder and holds its lock as long as it is open: two runs at once must not mix their
/// files. Where a folder cannot be locked, as on some network file systems, they can, and then
/// the manifest's digest tells.
fn lock(folder: &Path) -> std::io::Result<File> {
    let folder = File::open(folder)?;
    let _locked = folder.lock();
    Ok(folder)
}

/// A temporary file that is removed unless it is renamed.
struct Staging {
    file: File,
    path: Option<TempPath>,
}

impl Staging {
    fn create(folder: &Path, target: &Path) -> Result<Self> {
        // Held while the file is made, so that a signal cannot come between it and the list.
        let mut staged = staged();
        let file = tempfile::Builder::new()
            .prefix(PREFIX)
            .suffix(SUFFIX)
            // As for any new file: the umask takes away what it wants.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            // The error would tell the temporary name.
            .map_err(|error| Diagnostic::io("write to the folder", target, &error.kind().into()))?;
        let (file, path) = NamedTempFile::into_parts(file);
        // Tells other runs that this one is alive; where locks do not work they mention the file.
        let _locked = file.lock();
        staged.push(path.to_path_buf());
        Ok(Self {
            file,
            path: Some(path),
        })
    }

    /// Writes the bytes to the disk and gives back what is there then.
    fn fill(&mut self, bytes: &[u8], target: &Path) -> Result<Vec<u8>> {
        let failed = |error| Diagnostic::io("write", target, &error);
        self.file.write_all(bytes).map_err(failed)?;
        self.file.flush().map_err(failed)?;
        self.file.sync_all().map_err(failed)?;
        let mut written = Vec::with_capacity(bytes.len());
        let path = self.path.as_deref().unwrap_or(target);
        let mut reader = File::open(path).map_err(failed)?;
        reader.read_to_end(&mut written).map_err(failed)?;
        if written != bytes {
            let message = "the disk gives other bytes back than were written";
            return Err(Diagnostic::new(Kind::FileSystem, message).file(target));
        }
        Ok(written)
    }

    fn rename(&mut self, target: &Path) -> Result<()> {
        match self.path.take() {
            Some(path) => path
                .persist(target)
                .map_err(|error| Diagnostic::io("write", target, &error.error)),
            None => Ok(()),
        }
    }
}

/// Whether both name the same existing file.
fn same_file(a: &Path, b: &Path) -> bool {
    let canonical = |path: &Path| fs::canonicalize(path).ok();
    canonical(a).is_some_and(|a| canonical(b) == Some(a))
}

/// Refuses to replace the input.
fn refuse_input(path: &Path, input: Option<&Path>) -> Result<()> {
    let Some(input) = input.filter(|input| same_file(input, path)) else {
        return Ok(());
    };
    let input = input.display();
    let message = format!("the output would replace the input {input}");
    Err(Diagnostic::usage(message)
        .file(path)
        .help("give another --output"))
}

/// Folders, devices and pipes are never replaced, whatever is forced.
fn refuse_special(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            let what = if metadata.is_dir() {
                "a folder"
            } else {
                "no regular file"
            };
            let message = format!("the output path is {what}");
            Err(Diagnostic::new(Kind::FileSystem, message)
                .file(path)
                .help("--output takes the path of a file"))
        }
        _ => Ok(()),
    }
}

/// Refuses to replace a file that emoc did not write, or that was changed since.
fn refuse_foreign(artifact: &Path, manifest: &Path, folder: &Path, force: bool) -> Result<()> {
    if force {
        return Ok(());
    }
    let refuse = |path: &Path, why: &str| Err(foreign(path, why));
    for path in [artifact, manifest] {
        refuse_link(path)?;
    }
    let beside = manifest_files(manifest);
    if manifest.exists() && beside.is_none() {
        return refuse(manifest, "is no manifest of emoc");
    }
    if !artifact.exists() {
        return Ok(());
    }
    let Some(listed) = beside else {
        return match orphan(artifact, folder) {
            true => Ok(()),
            false => refuse(artifact, "has no manifest of emoc beside it"),
        };
    };
    match lists(&listed, artifact) || orphan(artifact, folder) {
        true => Ok(()),
        false => refuse(
            artifact,
            "is not as the manifest beside it says: it was changed since",
        ),
    }
}

fn foreign(path: &Path, why: &str) -> Box<Diagnostic> {
    Diagnostic::new(Kind::FileSystem, format!("the file exists and {why}"))
        .file(path)
        .help("--force replaces it; --output writes elsewhere")
}

fn refuse_link(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink()) {
        true => {
            let why = "is a symbolic link, which would be replaced by a file";
            Err(foreign(path, why))
        }
        false => Ok(()),
    }
}

/// Whether a run was killed between the two renames: then the manifest is still a temporary file.
fn orphan(artifact: &Path, folder: &Path) -> bool {
    let manifests = leftovers(folder).into_iter();
    manifests
        .filter_map(|path| manifest_files(&path))
        .any(|listed| lists(&listed, artifact))
}

/// Files and digests that a manifest lists, if the file is one.
fn manifest_files(path: &Path) -> Option<Vec<manifest::FileRecord>> {
    manifest::files(&manifest::read(path)?)
}

fn lists(files: &[manifest::FileRecord], artifact: &Path) -> bool {
    let name = artifact.file_name().and_then(|name| name.to_str());
    let record = files.iter().find(|record| Some(&*record.file) == name);
    record.is_some_and(|record| record.is_at(artifact))
}

fn say_leftovers(folder: &Path, ui: &Ui) {
    for path in leftovers(folder) {
        let path = path.display();
        ui.warn(format_args!(
            "{path} is left from a run that was killed: delete it"
        ));
    }
}

/// Temporary files and folders in the folder whose run is dead, by name.
fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let ours = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        let middle = name.and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX));
        let alive = |file: File| matches!(file.try_lock(), Err(TryLockError::WouldBlock));
        middle.is_some() && File::open(path).is_ok_and(|file| !alive(file))
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut found: Vec<_> = paths.filter(ours).collect();
    found.sort();
    found
}
