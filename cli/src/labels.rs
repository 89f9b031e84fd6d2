//! Class names.

use std::{fs, path::Path};

use emoc_ir::{Diagnostic, Result};

/// ImageNet-21k's file has 500 kB.
const MAX_BYTES: u64 = 16 << 20;

/// Reads the names of the classes, one a line.
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
    let io = |error| Diagnostic::io("read the class names", path, &error);
    let metadata = fs::metadata(path).map_err(io)?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return refuse("the class names are no text file of a usual size".into());
    }
    let bytes = fs::read(path).map_err(io)?;
    let Ok(text) = String::from_utf8(bytes) else {
        return refuse("the class names are not UTF-8 text".into());
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let names: Vec<_> = text.lines().map(|line| line.trim().to_owned()).collect();
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
