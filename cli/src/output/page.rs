//! One file by itself, which says in its first bytes that emoc wrote it.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use emoc_ir::{Diagnostic, Result};

use super::{
    Staging, folder_of, foreign, lock, refuse_input, refuse_link, refuse_special, say_leftovers,
    staged,
};
use crate::ui::Ui;

/// How much of a file is looked at.
const HEAD: u64 = 4096;

/// Where a page will be.
pub struct Page {
    path: PathBuf,
    folder: PathBuf,
    force: bool,
    is_ours: fn(&[u8]) -> bool,
    /// Created early: it proves that the folder can be written to.
    staging: Staging,
}

impl Page {
    /// Refuses what can be refused before the work. `is_ours` sees the beginning of a file that
    /// would be replaced.
    ///
    /// # Errors
    /// The output is one of the inputs, exists and is not emoc's own (unless `force`), is no
    /// regular file, or its folder cannot be written to.
    pub fn prepare(
        path: PathBuf,
        inputs: &[&Path],
        force: bool,
        is_ours: fn(&[u8]) -> bool,
        ui: &Ui,
    ) -> Result<Self> {
        if path.file_name().is_none() {
            let error = Diagnostic::usage("the output needs a file name").file(&path);
            return Err(error.help("for example --output report.html"));
        }
        for input in inputs {
            refuse_input(&path, Some(input))?;
        }
        refuse_special(&path)?;
        let folder = folder_of(&path);
        refuse_foreign(&path, force, is_ours)?;
        say_leftovers(&folder, ui);
        Ok(Self {
            staging: Staging::create(&folder, &path)?,
            path,
            folder,
            force,
            is_ours,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the page.
    ///
    /// # Errors
    /// The file system refuses; a file that was there before is as it was then.
    pub fn write(mut self, bytes: &[u8]) -> Result<()> {
        self.staging.fill(bytes, &self.path)?;
        let locked = lock(&self.folder);
        // Something may have come there in the meantime.
        refuse_foreign(&self.path, self.force, self.is_ours)?;
        let staged = staged();
        self.staging.rename(&self.path)?;
        drop(staged);
        let synced = locked.and_then(|folder| folder.sync_all());
        synced.map_err(|error| Diagnostic::io("write", &self.path, &error))
    }
}

/// Refuses to replace a file that emoc did not write.
fn refuse_foreign(path: &Path, force: bool, is_ours: fn(&[u8]) -> bool) -> Result<()> {
    if force {
        return Ok(());
    }
    refuse_link(path)?;
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
    match (fs::symlink_metadata(path), read) {
        (Err(_), _) => Ok(()),
        (Ok(_), Ok(_)) if is_ours(&head) => Ok(()),
        (Ok(_), _) => Err(foreign(path, "is no report of emoc")),
    }
}
