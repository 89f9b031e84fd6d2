//! Where an ONNX Runtime library may be, without running Python and without walking the disk.

use std::{
    fs, iter,
    path::{Path, PathBuf},
};

use super::library::{self, Library};
use crate::Options;

/// Entries read of one folder, folders of `PATH`, and Python versions looked at: far more than
/// any machine has, and an end for one that has more.
const MAX_ENTRIES: usize = 512;

/// The first candidate that loads, or why each does not.
pub(super) fn first_usable(candidates: &[PathBuf]) -> Result<Library, Vec<String>> {
    let mut refused = Vec::new();
    for path in candidates {
        match library::open(path) {
            Ok(library) => return Ok(library),
            Err(why) => refused.push(format!("{}: {why}", path.display())),
        }
    }
    Err(refused)
}

/// A path that somebody gave: the library itself, or a folder that holds one.
pub(super) fn at(path: &Path) -> Vec<PathBuf> {
    let inside = libraries_in(path);
    if inside.is_empty() {
        vec![path.to_owned()]
    } else {
        inside
    }
}

/// Every library in the local folder, then in wheels.
pub(super) fn installed(options: &Options) -> Vec<PathBuf> {
    let local = options.onnxruntime_dir.iter().cloned();
    let wheels = site_packages(options)
        .into_iter()
        .map(|site| site.join("onnxruntime").join("capi"));
    let mut found = Vec::new();
    for library in local.chain(wheels).flat_map(|folder| libraries_in(&folder)) {
        if !found.contains(&library) {
            found.push(library);
        }
    }
    found
}

/// The ONNX Runtime libraries in `folder`, newest first.
fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = entries(folder)
        .into_iter()
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(is_library)
        })
        .collect();
    found.sort_by_key(|path| std::cmp::Reverse(library::version_in_name(path)));
    found
}

/// `libonnxruntime.so`, `libonnxruntime.so.1.32.0`, `libonnxruntime.1.32.0.dylib`,
/// `onnxruntime.dll`; not `libonnxruntime_providers_shared.so`.
fn is_library(name: &str) -> bool {
    if cfg!(windows) {
        return name.eq_ignore_ascii_case("onnxruntime.dll");
    }
    let rest = name.strip_prefix("libonnxruntime.");
    rest.is_some_and(|rest| match cfg!(target_os = "macos") {
        true => rest.ends_with("dylib"),
        false => rest == "so" || rest.starts_with("so."),
    })
}

/// The `site-packages` folders of every `python3` on `PATH` and of the user. A wheel serves
/// whichever Python it was installed for: only the library inside is used.
fn site_packages(options: &Options) -> Vec<PathBuf> {
    let path = options.path.clone().unwrap_or_default();
    let bins = std::env::split_paths(&path).take(MAX_ENTRIES);
    let pythons = bins
        // A relative entry would let the current folder decide what is loaded.
        .filter(|bin| bin.is_absolute())
        .filter(|bin| bin.join("python3").exists() || bin.join("python.exe").exists());
    // A virtual environment's python3 is a link into the Python it was made from, whose packages
    // it may not see; its own come first.
    let prefixes = pythons.flat_map(|bin| {
        let own = bin.parent().map(Path::to_owned);
        let linked = fs::canonicalize(bin.join("python3")).ok();
        let linked = linked.and_then(|python| Some(python.parent()?.parent()?.to_owned()));
        own.into_iter().chain(linked)
    });
    let user = options.home.iter().map(|home| home.join(".local"));
    prefixes
        .chain(user)
        .flat_map(|prefix| sites_of(&prefix))
        .collect()
}

/// The places below an installation prefix: the standard one, Debian's, Windows', and those of
/// the versions that pyenv keeps (its `bin` folder holds scripts, not Pythons).
fn sites_of(prefix: &Path) -> Vec<PathBuf> {
    let mut versions = entries(&prefix.join("versions"));
    versions.sort_by_key(|path| std::cmp::Reverse(library::version_in_name(path)));
    let mut sites = vec![prefix.join("Lib").join("site-packages")];
    for prefix in iter::once(prefix.to_owned()).chain(versions) {
        for lib in ["lib", "lib64", "local/lib"] {
            let mut pythons = entries(&prefix.join(lib));
            pythons.retain(|path| {
                let name = path.file_name().and_then(|name| name.to_str());
                name.is_some_and(|name| name.starts_with("python3"))
            });
            pythons.sort_by_key(|path| std::cmp::Reverse(library::version_in_name(path)));
            for python in pythons {
                sites.push(python.join("site-packages"));
                sites.push(python.join("dist-packages"));
            }
        }
    }
    sites
}

/// What a folder holds, sorted by name; nothing if it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(folder).into_iter().flatten().take(MAX_ENTRIES);
    let mut paths: Vec<_> = read.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_main_library_counts() {
        let cases = [
            ("libonnxruntime.so", true),
            ("libonnxruntime.so.1.32.0", true),
            ("libonnxruntime.so.1", true),
            ("libonnxruntime_providers_shared.so", false),
            ("onnxruntime_pybind11_state.so", false),
            ("libonnxruntime.sock", false),
            ("version", false),
        ];
        for (name, expected) in cases {
            assert_eq!(
                is_library(name),
                expected && cfg!(target_os = "linux"),
                "{name}"
            );
        }
    }

    /// Lays out empty files below a temporary root and lists what is found, relative to it.
    fn check(files: &[&str], path: &[&str], expected: &[&str]) {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for file in files {
            let file = root.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        let options = Options {
            onnxruntime_dir: Some(root.join(".onnxruntime")),
            path: Some(std::env::join_paths(path.iter().map(|bin| root.join(bin))).unwrap()),
            home: Some(root.join("home")),
            ..Options::default()
        };
        let found = installed(&options);
        let found: Vec<_> = found
            .iter()
            .map(|path| path.strip_prefix(root).unwrap())
            .collect();
        let expected: Vec<_> = expected.iter().map(Path::new).collect();
        assert_eq!(found, expected, "files {files:?}, PATH {path:?}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn libraries_are_found_in_order_and_wheels_beside_python() {
        let wheel = "site-packages/onnxruntime/capi/libonnxruntime.so.1.32.0";
        let system = format!("usr/lib/python3.13/{wheel}");
        let debian = "usr/lib/python3/dist-packages/onnxruntime/capi/libonnxruntime.so.1.20.0";
        let venv = format!("venv/lib/python3.9/{wheel}");
        let pyenv = format!("pyenv/versions/3.12.1/lib/python3.12/{wheel}");
        let user = format!("home/.local/lib/python3.13/{wheel}");
        let (old, new) = (
            ".onnxruntime/libonnxruntime.so.1.9.0",
            ".onnxruntime/libonnxruntime.so.1.31.0",
        );

        check(&[], &[], &[]);
        // By number: neither order of the letters gives this one.
        let newest = ".onnxruntime/libonnxruntime.so.1.32.0";
        check(&[old, newest, new], &[], &[newest, new, old]);
        check(&[&system, "usr/bin/python3"], &["usr/bin"], &[&system]);
        check(&[&system, "usr/bin/python"], &["usr/bin"], &[]);
        check(
            &[&system, debian, "usr/bin/python3"],
            &["bin", "usr/bin"],
            &[&system, debian],
        );
        check(
            &[
                &system,
                "usr/bin/python3",
                &venv,
                "venv/bin/python3",
                &user,
                old,
            ],
            &["venv/bin", "usr/bin", "usr/bin"],
            &[old, &venv, &system, &user],
        );
        check(
            &[&pyenv, "pyenv/shims/python3"],
            &["pyenv/shims"],
            &[&pyenv],
        );
    }
}
