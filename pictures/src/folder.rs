//! Pictures sorted into folders by class, found as torchvision's `ImageFolder` finds them.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

use emoc_ir::{Diagnostic, Result};

/// torchvision's `IMG_EXTENSIONS`. Kinds that [`super::decode`] does not read are among them: such
/// files are samples, and refused when they are opened.
const EXTENSIONS: [&str; 9] = [
    ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp",
];

/// The most folders of one class: links among folders can make paths without end.
const MAX_FOLDERS: usize = 100_000;

/// A data set in folders: `val/<class>/<picture>` or `<class>/<picture>`, pictures at any depth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFolder {
    /// The folder that holds the class folders: the one given, or `val` in it.
    pub root: PathBuf,
    /// The names of the class folders, sorted; a sample's class is an index into these.
    pub classes: Vec<String>,
    /// Class by class, and within a class in torchvision's order.
    pub samples: Vec<Sample>,
}

/// One picture of an [`ImageFolder`], not yet opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// To open it.
    pub path: PathBuf,
    /// Relative to the root, with `/` between folders; what is not UTF-8 is replaced.
    pub name: String,
    /// Index into the classes.
    pub class: usize,
}

impl ImageFolder {
    /// Lists `folder`. Nothing is opened but folders.
    ///
    /// # Errors
    ///
    /// If a folder cannot be read, there is no class folder, or one holds no picture.
    pub fn open(folder: &Path) -> Result<Self> {
        let val = folder.join("val");
        let in_val = if val.is_dir() {
            list(&val)?.folders
        } else {
            Vec::new()
        };
        let (root, folders) = if in_val.is_empty() {
            (folder.to_owned(), list(folder)?.folders)
        } else {
            (val, in_val)
        };
        if folders.is_empty() {
            return Err(Diagnostic::input("no class folder is in the folder")
                .file(folder)
                .help("the layout is <class>/<picture> or val/<class>/<picture>"));
        }
        let mut samples = Vec::new();
        let mut empty = Vec::new();
        for (class, name) in folders.iter().enumerate() {
            let before = samples.len();
            for path in pictures(&root.join(name))? {
                let name = relative(&path, &root);
                samples.push(Sample { path, name, class });
            }
            if samples.len() == before {
                empty.push(name.display().to_string());
            }
        }
        if !empty.is_empty() {
            return Err(no_pictures(&root, &empty));
        }
        let classes = folders
            .iter()
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        Ok(Self {
            root,
            classes,
            samples,
        })
    }
}

/// The names of the folders in a folder, sorted: its classes, with pictures or without.
///
/// # Errors
///
/// If the folder cannot be read.
pub fn class_names(folder: &Path) -> Result<Vec<String>> {
    let folders = list(folder)?.folders;
    let names = folders.iter().map(|name| name.to_string_lossy());
    Ok(names.map(|name| name.into_owned()).collect())
}

/// What is directly in a folder, each sorted as Python sorts names.
struct Listing {
    folders: Vec<OsString>,
    files: Vec<OsString>,
}

fn list(folder: &Path) -> Result<Listing> {
    let io = |error: io::Error| Diagnostic::io("list the folder", folder, &error);
    let (mut folders, mut files) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        // Links are followed; one that leads nowhere counts as a file, as for Python.
        let is_folder = fs::metadata(entry.path()).is_ok_and(|found| found.is_dir());
        let to = if is_folder { &mut folders } else { &mut files };
        to.push(entry.file_name());
    }
    folders.sort_by_cached_key(|name| python_str(name));
    files.sort_by_cached_key(|name| python_str(name));
    Ok(Listing { folders, files })
}

/// The pictures at any depth of a class folder, in the order of `sorted(os.walk(folder))`: folders
/// by their whole path, so that `a-b` comes before `a/b`.
fn pictures(class: &Path) -> Result<Vec<PathBuf>> {
    let io = |error: io::Error| Diagnostic::io("list the folder", class, &error);
    let mut walk = Walk {
        listed: Vec::new(),
        inside: vec![fs::canonicalize(class).map_err(io)?],
    };
    walk.enter(class)?;
    walk.listed
        .sort_by_cached_key(|(folder, _)| python_str(folder.as_os_str()));
    Ok(walk
        .listed
        .into_iter()
        .flat_map(|(folder, files)| files.into_iter().map(move |file| folder.join(file)))
        .collect())
}

struct Walk {
    /// Folders and the pictures directly in each.
    listed: Vec<(PathBuf, Vec<OsString>)>,
    /// Where the walk is: every folder from the class folder down, without links. A link to one of
    /// these would lead in a circle and is not followed.
    inside: Vec<PathBuf>,
}

impl Walk {
    fn enter(&mut self, folder: &Path) -> Result<()> {
        if self.listed.len() == MAX_FOLDERS {
            return Err(Diagnostic::input(format!(
                "more than {MAX_FOLDERS} folders in one class: do links lead in circles?"
            ))
            .file(folder));
        }
        let Listing { folders, mut files } = list(folder)?;
        files.retain(|name| is_picture(name));
        self.listed.push((folder.to_owned(), files));
        for name in folders {
            let path = folder.join(name);
            let real = fs::canonicalize(&path)
                .map_err(|error| Diagnostic::io("follow the link", &path, &error))?;
            if !self.inside.contains(&real) {
                self.inside.push(real);
                self.enter(&path)?;
                self.inside.pop();
            }
        }
        Ok(())
    }
}

/// By the end of its name, whatever its case. A hidden file is a picture too.
fn is_picture(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    EXTENSIONS.iter().any(|extension| {
        name.len()
            .checked_sub(extension.len())
            .is_some_and(|at| name[at..].eq_ignore_ascii_case(extension.as_bytes()))
    })
}

/// A file name as Python compares it: code points, bytes that are not UTF-8 as surrogates.
fn python_str(name: &OsStr) -> Vec<u32> {
    let mut points = Vec::new();
    for chunk in name.as_encoded_bytes().utf8_chunks() {
        points.extend(chunk.valid().chars().map(u32::from));
        points.extend(chunk.invalid().iter().map(|byte| 0xDC00 + u32::from(*byte)));
    }
    points
}

fn relative(path: &Path, root: &Path) -> String {
    let path = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<_> = path.iter().map(OsStr::to_string_lossy).collect();
    parts.join("/")
}

fn no_pictures(root: &Path, empty: &[String]) -> Box<Diagnostic> {
    const SHOWN: usize = 10;
    let mut names = empty[..empty.len().min(SHOWN)].join(", ");
    if empty.len() > SHOWN {
        names += &format!(" and {} more", empty.len() - SHOWN);
    }
    let error = Diagnostic::input(format!("no pictures in class {names}")).file(root);
    let help = format!(
        "each folder here is a class; pictures end with {}",
        EXTENSIONS.join(" ")
    );
    error.help(help)
}
