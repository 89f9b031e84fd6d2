//! Temporary folders: one becomes an artifact, another is where an artifact is built and run.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use emoc_ir::{Diagnostic, Kind, Result};

use super::{PREFIX, SUFFIX, staged};

/// A folder that is removed with all that is in it, unless it is [kept](Self::keep). Signals
/// remove it too.
pub struct TemporaryFolder {
    path: Option<PathBuf>,
    /// Tells other runs that this one is alive.
    _lock: File,
}

impl TemporaryFolder {
    /// A folder in the system's place for temporary files, for this user alone.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn create() -> Result<Self> {
        let parent = std::env::temp_dir();
        Self::create_in(&parent, 0o700)
            .map_err(|error| Diagnostic::io("make a temporary folder", &parent, &error))
    }

    /// A folder beside which it will be renamed. `mode` is what the umask takes away from.
    pub(super) fn create_in(parent: &Path, mode: u32) -> io::Result<Self> {
        // Held while the folder is made, so that a signal cannot come between it and the list.
        let mut staged = staged();
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .suffix(SUFFIX)
            .permissions(Permissions::from_mode(mode))
            .tempdir_in(parent)?;
        let lock = File::open(folder.path())?;
        let _locked = lock.lock();
        let path = folder.keep();
        staged.push(path.clone());
        Ok(Self {
            path: Some(path),
            _lock: lock,
        })
    }

    pub fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    /// Writes a file with its folders to the disk and sees that it is there. `name` is relative,
    /// with `/`.
    ///
    /// # Errors
    /// The file system refuses, or gives other bytes back than it was given.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        // A signal waits until the file is written, and nothing is written after it.
        let _staged = staged();
        let path = self.path().join(name);
        let failed = |error| Diagnostic::io("write", &path, &error);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut file = File::create_new(&path).map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        if fs::read(&path).map_err(failed)? != bytes {
            let message = "the disk gives other bytes back than were written";
            return Err(Diagnostic::new(Kind::FileSystem, message).file(&path));
        }
        Ok(())
    }

    /// The path of the folder, which nobody removes any more.
    pub(super) fn keep(mut self, staged: &mut Vec<PathBuf>) -> PathBuf {
        let path = self.path.take().unwrap_or_default();
        staged.retain(|listed| *listed != path);
        path
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            remove(&path);
            staged().retain(|listed| *listed != path);
        }
    }
}

/// Removes a temporary file or folder. A program that was ended a moment ago may still put files
/// there, so there are several tries.
pub(super) fn remove(path: &Path) {
    for _ in 0..5 {
        let removed = match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(_) => return,
        };
        if removed.is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
