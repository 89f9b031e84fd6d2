//! Folders of pictures, in the order and with the refusals of torchvision's `ImageFolder`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use emoc_ir::Kind;
use emoc_pictures::ImageFolder;
use tempfile::TempDir;

/// A folder with empty files; a name that ends with `/` makes a folder.
fn folder(names: &[&str]) -> TempDir {
    let root = tempfile::tempdir().expect("a folder");
    for name in names {
        let path = root.path().join(name);
        if name.ends_with('/') {
            fs::create_dir_all(&path).expect("a folder");
        } else {
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(&path, "").expect("a file");
        }
    }
    root
}

/// One line per picture: its class and its name below the root.
fn lines(found: &ImageFolder) -> Vec<String> {
    let line = |sample: &emoc_pictures::Sample| {
        assert!(sample.path.exists(), "{}", sample.path.display());
        format!("{} {}", found.classes[sample.class], sample.name)
    };
    found.samples.iter().map(line).collect()
}

fn check(names: &[&str], root: &str, expected: &[&str]) {
    let folder = folder(names);
    let found = ImageFolder::open(folder.path()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(lines(&found), expected, "{names:?}");
    let root: PathBuf = [folder.path(), Path::new(root)].iter().collect();
    assert_eq!(
        found.root.components().as_path(),
        root.components().as_path()
    );
}

#[test]
fn order() {
    // Classes and files by code point; upper case first, "10" before "9".
    check(
        &[
            "b/2.png",
            "b/10.jpg",
            "B/1.png",
            "a/é.png",
            "a/z.png",
            "9/x.bmp",
            "10/x.webp",
        ],
        "",
        &[
            "10 10/x.webp",
            "9 9/x.bmp",
            "B B/1.png",
            "a a/z.png",
            "a a/é.png",
            "b b/10.jpg",
            "b b/2.png",
        ],
    );
    // Inside a class the folders come by their whole path: `-` before `/`, a folder before its folders.
    check(
        &[
            "a/s/1.png",
            "a/s-t/1.png",
            "a/s/u/1.png",
            "a/z.png",
            "a/s/2.png",
        ],
        "",
        &[
            "a a/z.png",
            "a a/s/1.png",
            "a a/s/2.png",
            "a a/s-t/1.png",
            "a a/s/u/1.png",
        ],
    );
}

#[test]
fn which_files() {
    // By the end of the name, whatever its case; hidden ones too; never by content.
    check(
        &[
            "a/1.JPG",
            "a/2.JpEg",
            "a/3.tiff",
            "a/4.ppm",
            "a/.5.png",
            "a/.png",
            "a/notes.txt",
            "a/jpg",
            "a/6.png.bak",
        ],
        "",
        &[
            "a a/.5.png",
            "a a/.png",
            "a a/1.JPG",
            "a a/2.JpEg",
            "a a/3.tiff",
            "a a/4.ppm",
        ],
    );
}

#[test]
fn val() {
    check(&["val/a/1.png", "train/a/2.png"], "val", &["a a/1.png"]);
    // Without folders in it, `val` is nothing special.
    check(
        &["val/1.png", "a/2.png"],
        "",
        &["a a/2.png", "val val/1.png"],
    );
    check(&["val", "a/2.png"], "", &["a a/2.png"]);
}

#[test]
fn refusals() {
    let cases: [(&[&str], &str); 4] = [
        (&[], "no class folder"),
        (&["1.png", "2.png"], "no class folder"),
        (
            &["a/1.png", "b/notes.txt", "c/", "d/2.png"],
            "no pictures in class b, c",
        ),
        (&["a/", ".git/"], "no pictures in class .git, a"),
    ];
    for (names, expected) in cases {
        let folder = folder(names);
        let error = ImageFolder::open(folder.path()).expect_err(expected);
        assert_eq!(error.kind, Kind::Input, "{error}");
        assert!(error.message.contains(expected), "{names:?}: {error}");
    }
    let many: Vec<String> = (10..30).map(|i| format!("{i}/")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let error = ImageFolder::open(folder(&many).path()).expect_err("no pictures");
    assert!(error.message.ends_with("18, 19 and 10 more"), "{error}");

    let file = folder(&["file"]);
    for name in ["file", "nothing"] {
        let error = ImageFolder::open(&file.path().join(name)).expect_err("no folder");
        assert_eq!(error.kind, Kind::FileSystem, "{error}");
    }
}

#[cfg(unix)]
#[test]
fn links() {
    use std::os::unix::fs::symlink;

    let root = folder(&["a/1.png", "a/deep/2.png", "other/x/3.png"]);
    let at = |name: &str| root.path().join(name);
    // In a circle, back to itself and to a sibling that leads back; out of the class; to nothing.
    symlink(at("a"), at("a/deep/again")).expect("a link");
    symlink(at("a/deep"), at("a/deep/self")).expect("a link");
    symlink(at("other"), at("a/out")).expect("a link");
    symlink(at("a"), at("other/x/back")).expect("a link");
    symlink(at("nowhere"), at("a/broken.png")).expect("a link");
    symlink(at("a/1.png"), at("a/link.png")).expect("a link");
    let found = ImageFolder::open(root.path()).unwrap_or_else(|error| panic!("{error}"));
    let names: Vec<&str> = found
        .samples
        .iter()
        .map(|sample| sample.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "a/1.png",
            "a/broken.png",
            "a/link.png",
            "a/deep/2.png",
            "a/out/x/3.png",
            "other/x/3.png",
            "other/x/back/1.png",
            "other/x/back/broken.png",
            "other/x/back/link.png",
            "other/x/back/deep/2.png"
        ]
    );
}

/// Names that are not UTF-8 are read, and shown as well as can be.
#[cfg(target_os = "linux")]
#[test]
fn bytes_for_names() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    let root = tempfile::tempdir().expect("a folder");
    let class = root.path().join(OsStr::from_bytes(b"caf\xE9"));
    fs::create_dir(&class).expect("a folder");
    // Python sorts the lone byte as a surrogate: after \u{D7FF}, before \u{E000}.
    for name in [
        &b"\xFF.png"[..],
        "\u{E000}.png".as_bytes(),
        "\u{D7FF}.png".as_bytes(),
    ] {
        fs::write(class.join(OsStr::from_bytes(name)), "").expect("a file");
    }
    let found = ImageFolder::open(root.path()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found.classes, ["caf\u{FFFD}"]);
    let names: Vec<&str> = found
        .samples
        .iter()
        .map(|sample| sample.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "caf\u{FFFD}/\u{D7FF}.png",
            "caf\u{FFFD}/\u{FFFD}.png",
            "caf\u{FFFD}/\u{E000}.png"
        ]
    );
    assert!(found.samples.iter().all(|sample| sample.path.is_file()));
}
