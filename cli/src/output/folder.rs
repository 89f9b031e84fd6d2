//! An artifact that is a folder: it appears whole or not at all, and replaces only what emoc
//! wrote.
//!
//! A folder is emoc's own if its manifest lists every file in it with the digest that the file
//! has. What cargo leaves there (`target/`, `Cargo.lock`) is carried over to the new folder. Any
//! other file is the user's: then the folder is refused, whatever is forced, and no file is
//! ever removed that was not looked at one by one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use emoc_ir::{Diagnostic, Kind, Result};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{TemporaryFolder, lock, refuse_input, say_leftovers, staged};
use crate::{
    manifest::{self, FileRecord},
    ui::Ui,
};

/// The manifest's name in the folder of a crate.
pub const MANIFEST: &str = "emoc.json";

/// What cargo makes where it builds.
const CARGO_FOLDER: &str = "target";
const CARGO_FILE: &str = "Cargo.lock";
/// With this in it, cargo's folder is known to be one.
const CARGO_TAG: &str = "CACHEDIR.TAG";

/// Entries looked at: an emitted crate has a few dozen.
const MAX_ENTRIES: usize = 10_000;
const MAX_DEPTH: usize = 16;

/// Where a folder will be.
pub struct Folder {
    path: PathBuf,
    parent: PathBuf,
    /// The name of the file that lists the others.
    manifest: &'static str,
    force: bool,
    /// Created early: it proves that the parent can be written to.
    staging: TemporaryFolder,
}

impl Folder {
    /// Refuses what can be refused before the work.
    ///
    /// # Errors
    /// The path is a file, the input or a folder that must not be replaced, or its parent cannot
    /// be written to.
    pub fn prepare(
        path: &Path,
        manifest: &'static str,
        input: Option<&Path>,
        force: bool,
        ui: &Ui,
    ) -> Result<Self> {
        if path.file_name().is_none() {
            return Err(Diagnostic::usage("the output needs a name")
                .file(path)
                .help("for example --output model"));
        }
        refuse_input(path, input)?;
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        say_leftovers(&parent, ui);
        let staging = TemporaryFolder::create_in(&parent, 0o777)
            .map_err(|error| Diagnostic::io("write to the folder", path, &error))?;
        let folder = Self {
            path: path.to_owned(),
            parent,
            manifest,
            force,
            staging,
        };
        let _locked = lock(&folder.parent);
        // What may be replaced by force depends on the files that will come.
        folder.survey(None)?;
        Ok(folder)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses to replace what is there by these files, as [`write`](Self::write) would.
    ///
    /// # Errors
    /// Files that are not emoc's.
    pub fn accept(&self, files: &[(String, Vec<u8>)]) -> Result<()> {
        let _locked = lock(&self.parent);
        self.survey(Some(files)).map(|_| ())
    }

    /// Writes the files; paths are relative, with `/`.
    ///
    /// # Errors
    /// The file system refuses. What was there before is there then, and nothing else.
    pub fn write(self, files: &[(String, Vec<u8>)], ui: &Ui) -> Result<()> {
        for (name, bytes) in files {
            self.staging.write(name, bytes)?;
        }
        let failed = |error| Diagnostic::io("write", &self.path, &error);
        let made = list(self.staging.path())?;
        let folders = made
            .folders
            .iter()
            .map(|name| self.staging.path().join(name));
        for folder in folders.chain([self.staging.path().to_owned()]) {
            fs::File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(failed)?;
        }

        let locked = lock(&self.parent);
        // Something may have come there in the meantime.
        let old = self.survey(Some(files))?;
        // Signals wait until the old folder is gone.
        let mut staged = staged();
        let Some(old) = old else {
            fs::rename(self.staging.path(), &self.path).map_err(failed)?;
            self.staging.keep(&mut staged);
            return locked.and_then(|parent| parent.sync_all()).map_err(failed);
        };
        exchange(self.staging.path(), &self.path).map_err(failed)?;
        // The temporary name is the old folder's now.
        let path = self.path;
        let replaced = self.staging.keep(&mut staged);
        old.carry_over(&replaced, &path);
        if let Err(error) = old.remove(&replaced) {
            let replaced = replaced.display();
            ui.warn(format_args!(
                "what was in {} before is kept in {replaced}: {error}",
                path.display()
            ));
        }
        let failed = |error| Diagnostic::io("write", &path, &error);
        locked.and_then(|parent| parent.sync_all()).map_err(failed)
    }

    /// What is at the path now; none if there is nothing. `files` are to come.
    fn survey(&self, files: Option<&[(String, Vec<u8>)]>) -> Result<Option<Listing>> {
        let found = match fs::symlink_metadata(&self.path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Diagnostic::io("look at the output", &self.path, &error)),
        };
        let refuse = |message: &str, help: &str| {
            Err(Diagnostic::new(Kind::FileSystem, message)
                .file(&self.path)
                .help(help))
        };
        let elsewhere = "give the path of a new folder: --output model";
        if found.is_symlink() {
            return refuse(
                "the output path is a symbolic link, which is not followed",
                elsewhere,
            );
        }
        if !found.is_dir() {
            return refuse("the output path is no folder", elsewhere);
        }
        let listing = list(&self.path)?;
        if listing.files.is_empty() && listing.cargos.is_empty() {
            return Ok(Some(listing));
        }
        let listed = manifest::folder_files(&self.path.join(self.manifest));
        if !self.force && listed.is_none() {
            let message = format!(
                "the folder exists, and has no {} of emoc in it",
                self.manifest
            );
            return refuse(
                &message,
                "--output writes elsewhere; --force replaces it if it holds nothing but files of \
                 the names that emoc writes",
            );
        }
        let listed = listed.unwrap_or_default();
        for name in &listing.files {
            self.judge(name, &listed, files)?;
        }
        Ok(Some(listing))
    }

    /// Refuses to replace a file that is not emoc's.
    fn judge(
        &self,
        name: &str,
        listed: &[FileRecord],
        files: Option<&[(String, Vec<u8>)]>,
    ) -> Result<()> {
        let refuse = |message: &str, help: &str| {
            let path = self.path.join(name);
            Err(Diagnostic::new(Kind::FileSystem, message)
                .file(&path)
                .help(help))
        };
        if name == self.manifest {
            return Ok(());
        }
        let record = listed.iter().find(|record| record.file == name);
        match (record, self.force) {
            (Some(_), true) => Ok(()),
            (Some(record), false) if record.is_at(&self.path.join(name)) => Ok(()),
            (Some(_), false) => refuse(
                "the file was changed since emoc wrote it",
                "--force replaces it; --output writes elsewhere",
            ),
            // Which files will come is not known yet: this is asked again.
            (None, true) if files.is_none_or(|files| files.iter().any(|file| file.0 == name)) => {
                Ok(())
            }
            (None, _) => refuse(
                "the file is not emoc's, and the folder would be replaced as a whole",
                "move it out of the folder, or write elsewhere with --output",
            ),
        }
    }
}

/// The content of a folder, by names relative to it, in order.
#[derive(Default)]
struct Listing {
    /// Regular files, links, and whatever else is no folder.
    files: Vec<String>,
    /// Each after those inside it.
    folders: Vec<String>,
    /// What cargo left.
    cargos: Vec<&'static str>,
}

fn list(folder: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    if is_cargos(folder) {
        listing.cargos.push(CARGO_FOLDER);
    }
    if fs::symlink_metadata(folder.join(CARGO_FILE)).is_ok_and(|found| found.is_file()) {
        listing.cargos.push(CARGO_FILE);
    }
    let walked = listing.walk(folder, "", 0);
    walked.map_err(|error| Diagnostic::io("look through the output", folder, &error))?;
    Ok(listing)
}

fn is_cargos(folder: &Path) -> bool {
    let target = folder.join(CARGO_FOLDER);
    fs::symlink_metadata(&target).is_ok_and(|found| found.is_dir())
        && fs::symlink_metadata(target.join(CARGO_TAG)).is_ok_and(|found| found.is_file())
}

impl Listing {
    fn walk(&mut self, folder: &Path, prefix: &str, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other("its folders are nested too deeply"));
        }
        let mut entries: Vec<_> = fs::read_dir(folder)?.take(MAX_ENTRIES + 1).collect();
        entries.sort_by_key(|entry| entry.as_ref().map(fs::DirEntry::file_name).ok());
        for entry in entries {
            let entry = entry?;
            if self.files.len() + self.folders.len() >= MAX_ENTRIES {
                return Err(io::Error::other("it holds too many files"));
            }
            // A name that is no text is listed nowhere, in this spelling either.
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if depth == 0 && self.cargos.contains(&&*name) {
                continue;
            }
            // Links are not followed.
            if entry.file_type()?.is_dir() {
                self.walk(&entry.path(), &format!("{name}/"), depth + 1)?;
                self.folders.push(name);
            } else {
                self.files.push(name);
            }
        }
        Ok(())
    }

    /// Moves what cargo left to where it can use it again. It can make it again too.
    fn carry_over(&self, from: &Path, to: &Path) {
        for name in &self.cargos {
            let _ = fs::rename(from.join(name), to.join(name));
        }
    }

    /// Removes what was listed, and no more: a file that has come since keeps its folder.
    fn remove(&self, folder: &Path) -> io::Result<()> {
        let files = self
            .files
            .iter()
            .map(|name| fs::remove_file(folder.join(name)));
        files.collect::<io::Result<()>>()?;
        let folders = self
            .folders
            .iter()
            .map(|name| fs::remove_dir(folder.join(name)));
        folders.collect::<io::Result<()>>()?;
        fs::remove_dir(folder)
    }
}

/// Lets two folders of one file system change their names, at once where the system can.
fn exchange(new: &Path, old: &Path) -> io::Result<()> {
    match renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            let aside = new.with_extension("old.tmp");
            fs::rename(old, &aside)?;
            let renamed = fs::rename(new, old);
            // Whichever is at the temporary name goes back to the one that the caller expects.
            fs::rename(&aside, if renamed.is_ok() { new } else { old })?;
            renamed
        }
        exchanged => Ok(exchanged?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_change_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let [new, old] = ["new", "old"].map(|name| folder.path().join(name));
        for path in [&new, &old] {
            fs::create_dir(path).expect("a folder");
        }
        fs::write(new.join("file"), "new").expect("a file");
        exchange(&new, &old).expect("an exchange");
        assert_eq!(fs::read(old.join("file")).expect("the file"), b"new");
        assert!(new.exists());
    }
}
