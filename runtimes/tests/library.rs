//! ONNX Runtime's library is missing or wrong: always a row or an error with a reason. A process
//! of its own, since one process can load one library and this one must never have a good one.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests tell what they measured and what they skipped"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use emoc_ir::Kind;
use emoc_runtimes::{Found, Missing, Options, all};

/// The row of ONNX Runtime; tract's is always there.
#[track_caller]
fn missing_row(options: &Options) -> Missing {
    let rows = all(options).expect("nothing is demanded");
    let names: Vec<_> = rows.iter().map(Found::name).collect();
    assert_eq!(names, ["tract", "ONNX Runtime"]);
    assert!(matches!(rows[0], Found::Ready(_)));
    match rows.into_iter().nth(1) {
        Some(Found::Missing(missing)) => missing,
        _ => panic!("{options:?} found a library"),
    }
}

/// The path, given in each of the ways a user may give it, is refused for `reason`.
#[track_caller]
fn check_refused(path: &Path, reason: &str) {
    let set = missing_row(&Options {
        ort_dylib_path: Some(path.to_owned()),
        ..Options::default()
    });
    assert_eq!(set.reason, "ORT_DYLIB_PATH cannot be used");
    assert!(set.refused[0].contains(reason), "{set:?} lacks {reason:?}");
    assert!(set.help.contains("scripts/fetch-onnxruntime"), "{set:?}");

    let demanded = all(&Options {
        onnxruntime_lib: Some(path.to_owned()),
        ..Options::default()
    });
    let error = demanded.err().expect("demanded and unusable is an error");
    assert_eq!(error.kind, Kind::RuntimeMissing, "{error}");
    assert!(error.message.contains(reason), "{error} lacks {reason:?}");
    assert!(error.file.is_some() && error.help.is_some(), "{error}");
}

#[test]
fn nothing_installed_is_a_row_that_says_how_to_get_it() {
    let row = missing_row(&Options::default());
    assert_eq!((row.reason.as_str(), row.refused.len()), ("not found", 0));
    for way in [
        "scripts/fetch-onnxruntime",
        "pip install onnxruntime",
        "--onnxruntime-lib",
    ] {
        assert!(row.help.contains(way), "{row:?} lacks {way}");
    }

    // A variable that is set to nothing counts as unset; folders that are not there are fine.
    let row = missing_row(&Options {
        ort_dylib_path: Some(PathBuf::new()),
        onnxruntime_dir: Some("/nonexistent/.onnxruntime".into()),
        path: Some("/nonexistent/bin::relative".into()),
        home: Some("/nonexistent".into()),
        ..Options::default()
    });
    assert_eq!(row.reason, "not found");
}

#[test]
fn wrong_files_are_refused_before_they_are_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    check_refused(&folder.path().join("absent.so"), "No such file");
    check_refused(folder.path(), "a folder without an ONNX Runtime library");
    check_refused(&write("empty.so", b""), "not a shared library");
    check_refused(&write("text.so", &[b'x'; 5000]), "not a shared library");

    // This test is itself an ELF file; cut, or relabelled, it is none that can be loaded.
    let program = fs::read(std::env::current_exe().unwrap()).unwrap();
    if cfg!(target_os = "linux") {
        check_refused(&write("cut.so", &program[..program.len() / 2]), "truncated");
        let mut foreign = program.clone();
        foreign[18] ^= 0xff;
        check_refused(&write("foreign.so", &foreign), "another architecture");
        check_refused(&write("head.so", &program[..40]), "not a shared library");
    }

    // In a folder that is searched, what was refused is told too.
    let local = folder.path().join(".onnxruntime");
    fs::create_dir(&local).unwrap();
    fs::write(local.join("libonnxruntime.so.1.32.0"), "").unwrap();
    let row = missing_row(&Options {
        onnxruntime_dir: Some(local),
        ..Options::default()
    });
    assert_eq!(row.reason, "no library can be used");
    assert!(
        row.refused[0].contains("1.32.0: not a shared library"),
        "{row:?}"
    );
}

#[test]
#[cfg(unix)]
fn a_pipe_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.so");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    check_refused(&pipe, "not a regular file");
}

#[test]
#[cfg(target_os = "linux")]
fn libraries_that_are_not_onnx_runtime_are_refused() {
    let libc = fs::read_to_string("/proc/self/maps").unwrap();
    let libc = libc
        .split_whitespace()
        .find(|word| word.ends_with("/libc.so.6"));
    check_refused(
        Path::new(libc.expect("this program uses libc")),
        "does not export `OrtGetApiBase`",
    );

    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("fake.c");
    fs::write(&source, FAKE).unwrap();
    let build = |name: &str, base: &str, version: &str| {
        let library = folder.path().join(name);
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .args([format!("-DBASE={base}"), format!("-DVERSION={version}")])
            .status();
        built
            .is_ok_and(|status| status.success())
            .then_some(library)
    };
    let Some(old) = build("old.so", "&base", "\"1.16.3\"") else {
        eprintln!("skipped: no C compiler for a library that pretends to be ONNX Runtime");
        return;
    };
    check_refused(&old, "but got '1.16.3'");
    check_refused(
        &build("null.so", "0", "\"1.32.0\"").unwrap(),
        "base.is_null()",
    );
    let liar = build("liar.so", "&base", "\"1.32.0\"").unwrap();
    check_refused(&liar, "Failed to initialize ORT API");
    // It was believed once, and so stays: nothing else may run under its name.
    check_refused(&old, "a process can load one library");
}

/// ONNX Runtime's entry point with nothing behind it.
const FAKE: &str = "
struct base { const void *(*api)(unsigned); const char *(*version)(void); };
static const void *api(unsigned version) { return 0; }
static const char *version(void) { return VERSION; }
static struct base base = { api, version };
const struct base *OrtGetApiBase(void) { return BASE; }
";
