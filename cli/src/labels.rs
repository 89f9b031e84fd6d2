//! Class names.

use std::{borrow::Cow, fs, path::Path};

use emoc_ir::{Diagnostic, Result};
use emoc_pictures::class_names;

/// ImageNet-21k's file has 500 kB.
const MAX_BYTES: u64 = 16 << 20;

/// The classes of ILSVRC 2012 in their order: WordNet's id, and the first name of its synset.
const IMAGENET: &str = include_str!("imagenet.tsv");

/// WordNet's ids and the names of ImageNet's classes.
pub fn imagenet() -> impl Iterator<Item = (&'static str, &'static str)> {
    IMAGENET.lines().filter_map(|line| line.split_once('\t'))
}

/// Names of a model's classes.
pub struct Labels {
    names: Vec<String>,
    /// WordNet's ids of the same classes, if they are ImageNet's.
    ids: Vec<&'static str>,
}

impl Labels {
    /// These names, or for a thousand classes without names those of ImageNet.
    pub fn new(names: Option<Vec<String>>, classes: Option<usize>) -> Self {
        let imagenet: Vec<_> = imagenet().collect();
        match names {
            Some(names) => Self {
                names,
                ids: Vec::new(),
            },
            None if classes == Some(imagenet.len()) => Self {
                names: imagenet.iter().map(|&(_, name)| name.to_owned()).collect(),
                ids: imagenet.iter().map(|&(id, _)| id).collect(),
            },
            None => Self {
                names: Vec::new(),
                ids: Vec::new(),
            },
        }
    }

    /// The name of a class.
    pub fn name(&self, class: usize) -> Cow<'_, str> {
        match self.names.get(class) {
            Some(name) => name.into(),
            None => format!("class {class}").into(),
        }
    }

    /// The names; none if the classes have no names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The class that a folder of pictures is named after: its name, or its id in WordNet.
    pub fn class(&self, folder: &str) -> Option<usize> {
        let mut named = self.names.iter().enumerate();
        let ids = self.ids.iter().position(|&id| id == folder);
        let first = named.find(|(_, name)| *name == folder);
        let unique = !named.any(|(_, name)| name == folder);
        ids.or(first.filter(|_| unique).map(|(class, _)| class))
    }
}

/// Reads the names of the classes: one a line of a file, or those of the folders in a folder.
///
/// # Errors
/// The file cannot be read, is no plain text, or does not have one name for each class.
pub fn read(path: &Path, classes: Option<usize>) -> Result<Vec<String>> {
    let refuse = |why: String| Err(Diagnostic::input(why).file(path));
    let Some(classes) = classes else {
        return refuse(
            "class names are given, but the network is a backbone without classes".into(),
        );
    };
    let names = match path.is_dir() {
        true => class_names(path)?,
        false => lines(path)?,
    };
    if names.len() != classes {
        let found = names.len();
        return refuse(format!(
            "{found} class names for a network with {classes} classes"
        ));
    }
    let bad = |name: &String| name.is_empty() || name.chars().any(char::is_control);
    if let Some(line) = names.iter().position(bad) {
        let message = "a class name is empty or has control characters";
        return Err(Diagnostic::input(message)
            .file(path)
            .at(format!("line {}", line + 1)));
    }
    Ok(names)
}

fn lines(path: &Path) -> Result<Vec<String>> {
    let refuse = |why: &str| Err(Diagnostic::input(why).file(path));
    let io = |error| Diagnostic::io("read the class names", path, &error);
    let metadata = fs::metadata(path).map_err(io)?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return refuse("the class names are no text file of a usual size");
    }
    let bytes = fs::read(path).map_err(io)?;
    let Ok(text) = String::from_utf8(bytes) else {
        return refuse("the class names are not UTF-8 text");
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text.lines().map(|line| line.trim().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_for_each_class() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("names.txt");
        for (text, classes, expected) in [
            (&b"cat\ndog\n"[..], Some(2), Ok("cat,dog")),
            (b"\xef\xbb\xbfcat\r\n dog", Some(2), Ok("cat,dog")),
            (
                b"cat\ndog\n",
                Some(3),
                Err("2 class names for a network with 3 classes"),
            ),
            (
                b"cat\n\n",
                Some(2),
                Err("a class name is empty or has control characters"),
            ),
            (
                b"cat\n\x1b[31m",
                Some(2),
                Err("a class name is empty or has control characters"),
            ),
            (
                b"\xff\xfe",
                Some(1),
                Err("the class names are not UTF-8 text"),
            ),
            (
                b"cat",
                None,
                Err("class names are given, but the network is a backbone without classes"),
            ),
        ] {
            fs::write(&path, text).expect("a file");
            let found = read(&path, classes).map(|names| names.join(","));
            let found = found.map_err(|error| error.message);
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(found, expected, "{text:?}");
        }
    }
}
