//! Crates: what is written where, what is checked, and what is left alone.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, fs::symlink},
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{command, emoc, fixture, names, stderr, stdout};

/// Emitted in a fraction of a second.
const COMPILE: &str = "compile --variant 1M --target rust --input-size 64";
const CRATE: &str = "emov2-1m-64";

fn unchecked(folder: &Path, flags: &str) -> Output {
    emoc(folder, &format!("{COMPILE} --no-check --quiet {flags}"))
}

#[track_caller]
fn accepted(output: &Output) {
    assert!(output.status.success(), "{}", stderr(output));
}

#[track_caller]
fn refused(output: &Output, code: i32, message: &str) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{message}: {said}");
    assert!(said.contains(message), "`{message}` is not in:\n{said}");
    assert!(!said.contains("panicked"), "{said}");
}

/// Every file below a folder with its content.
fn tree(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for name in names(folder) {
        let path = folder.join(&name);
        if path.is_dir() {
            let inside = tree(&path).into_iter();
            files.extend(inside.map(|(file, bytes)| (format!("{name}/{file}"), bytes)));
        } else {
            files.push((name, fs::read(path).expect("a file")));
        }
    }
    files
}

/// A program named `cargo` in a folder of its own, for `PATH`.
fn cargo_that(folder: &Path, builds: &str) -> String {
    let script =
        format!("#!/bin/sh\n[ \"$1\" = --version ] && echo cargo 1.2.3 && exit\n{builds}\n");
    let programs = folder.join("programs");
    fs::create_dir_all(&programs).expect("a folder");
    let program = programs.join("cargo");
    fs::write(&program, script).expect("a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("permissions");
    format!("{}:/usr/bin:/bin", programs.display())
}

#[test]
fn flags_that_do_not_fit() {
    let folder = tempfile::tempdir().expect("a folder");
    for (flags, message) in [
        ("--opset 20", "--opset is for --target onnx"),
        ("--max-rank 5", "--max-rank is for --target onnx"),
        ("--batch 2", "one image at a time"),
        ("--batch dynamic", "one image at a time"),
        ("--crate-name 2fast", "starts with a letter"),
        ("--crate-name ../up", "small letters and digits"),
        ("--crate-name std", "no word of Rust"),
        ("--weights-dtype bf16", "bf16"),
        ("--output .", "needs a name"),
        (
            "--target onnx --crate-name a",
            "--crate-name is for --target rust",
        ),
        (
            "--target onnx --weights-dtype f16",
            "--weights-dtype is for --target rust",
        ),
    ] {
        let compile = COMPILE.replace(" --target rust", "");
        let target = if flags.contains("--target") {
            ""
        } else {
            "--target rust"
        };
        refused(
            &emoc(folder.path(), &format!("{compile} {target} {flags}")),
            2,
            message,
        );
    }
    assert_eq!(names(folder.path()), [""; 0]);
}

/// The whole way: emitted, built, run, compared, written, read back.
#[test]
fn a_crate_is_built_and_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let temporary = tempfile::tempdir().expect("a folder");
    let run = |arguments: &str| {
        let mut command = command(folder.path(), arguments);
        command
            .env("TMPDIR", temporary.path())
            .output()
            .expect("emoc starts")
    };
    let output = run(&format!("{COMPILE} --json"));
    accepted(&output);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let [built, tract, ..] = &report["checks"].as_array().expect("rows")[..] else {
        panic!("{report}");
    };
    for (row, runtime, ran) in [
        (built, "Rust crate", "artifact"),
        (tract, "tract", "onnx_instead"),
    ] {
        assert_eq!(row["runtime"], runtime);
        assert_eq!(row["ran"], ran);
        assert_eq!(row["verdict"], "agrees", "{row}");
        assert!(
            row["inference_ms"].as_f64().is_some_and(|ms| ms > 0.0),
            "{row}"
        );
    }
    assert_eq!(report["crate_name"], CRATE);
    assert_eq!(report["weights_dtype"], "f32");
    assert!(
        report["arena_bytes"]
            .as_u64()
            .is_some_and(|bytes| bytes > 0)
    );
    assert_eq!(names(folder.path()), [CRATE]);
    assert_eq!(
        names(temporary.path()),
        [""; 0],
        "what was built is removed"
    );

    let mut first = tree(&folder.path().join(CRATE));
    let listed = report["files"].as_array().expect("files").len();
    assert_eq!(
        listed + 1,
        first.len(),
        "the manifest lists all files but itself"
    );
    // Unchecked, the crate is the same; only the manifest knows.
    accepted(&unchecked(folder.path(), ""));
    let mut second = tree(&folder.path().join(CRATE));
    for files in [&mut first, &mut second] {
        files.retain(|(name, _)| name != "emoc.json");
    }
    assert!(first == second, "the same input gives the same bytes");
    assert_eq!(names(folder.path()), [CRATE], "the old folder is gone");
    let root = folder.path().display().to_string();
    for (name, bytes) in &first {
        let text = String::from_utf8_lossy(bytes);
        assert!(!text.contains(&root), "{name} speaks of this machine");
    }

    let inspected = run(&format!("inspect {CRATE} --json"));
    let inspected: Value = serde_json::from_slice(&inspected.stdout).expect("JSON");
    for key in [
        "crate_name",
        "weights_dtype",
        "arena_bytes",
        "weight_bytes",
        "network",
        "bytes",
    ] {
        assert_eq!(inspected[key], report[key], "{key}");
    }
    assert_eq!(inspected["weights_sha256"], report["weights"]["sha256"]);
    refused(
        &run(&format!("check {CRATE} --per-block")),
        2,
        "leave --per-block out",
    );
}

#[test]
fn float16_weights_are_judged_by_themselves_and_shown_beside_float32() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = "--dim-head 8,8 --attention hybrid --input-size 64 --target rust";
    let checkpoint = fixture("tiny.pth");
    let flags = format!("--checkpoint {checkpoint} {own} --crate-name tiny");
    accepted(&emoc(
        folder.path(),
        &format!("compile {flags} --no-check --output wide"),
    ));
    let output = emoc(
        folder.path(),
        &format!("compile {flags} --weights-dtype f16"),
    );
    accepted(&output);
    let table = stdout(&output);
    assert!(table.contains("float16 weights move logits by"), "{table}");
    assert!(
        table.contains("wrote tiny/") && table.contains("float16 weights,"),
        "{table}"
    );
    let size = |name: &str| {
        fs::metadata(folder.path().join(name))
            .expect("weights")
            .len()
    };
    // Half, but for the stem.
    let saved = size("wide/weights.bin") - size("tiny/weights.bin");
    let rounded = 2 * saved;
    assert!(
        rounded > size("wide/weights.bin") * 9 / 10,
        "{saved} bytes saved"
    );
    let checked = emoc(
        folder.path(),
        &format!("check tiny --checkpoint {checkpoint} --json"),
    );
    accepted(&checked);
    let report: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
    let moved = report["checks"][0]["rounding"][0]["max_rel"].as_f64();
    assert!(
        moved.is_some_and(|moved| 1e-5 < moved && moved < 1e-2),
        "{moved:?}"
    );
}

#[test]
fn without_cargo_there_is_a_row() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |arguments: &str| {
        let mut command = command(folder.path(), arguments);
        command.env("PATH", "").output().expect("emoc starts")
    };
    let output = run(COMPILE);
    accepted(&output);
    let table = stdout(&output);
    for part in [
        "Rust crate",
        "not found",
        "https://rustup.rs",
        "not checked",
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
    refused(
        &run(&format!("check {CRATE}")),
        5,
        "the crate was not checked",
    );
}

/// A build of a program that answers with zeros.
const ZEROS: &str = r#"cat > run <<'END'
#!/bin/sh
head -c 4000 /dev/zero > "$2"
echo '{"isa":"none","threads":1,"arena_bytes":0,"times_ms":[1]}'
END
chmod +x run
echo "{\"target\":{\"name\":\"emoc_check\"},\"executable\":\"$PWD/run\"}""#;

/// Builds that go wrong leave nothing and say why.
#[test]
fn what_does_not_agree_is_not_written() {
    for (builds, message) in [
        (ZEROS, "output `logits` differs by"),
        (
            "echo error: no compiler >&2; exit 101",
            "error: no compiler",
        ),
        ("kill -9 $$", "the crate does not build: signal 9"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = cargo_that(folder.path(), builds);
        let mut command = command(folder.path(), COMPILE);
        let output = command.env("PATH", path).output().expect("emoc starts");
        refused(&output, 1, message);
        assert!(stderr(&output).contains("nothing was written"));
        assert_eq!(names(folder.path()), ["programs"], "{message}");
    }
}

/// A folder that is checked stays as it is, whatever comes out.
#[test]
fn a_check_that_disagrees() {
    let folder = tempfile::tempdir().expect("a folder");
    accepted(&unchecked(folder.path(), ""));
    fs::write(folder.path().join(CRATE).join("README.md"), "mine").expect("a file");
    let path = cargo_that(folder.path(), ZEROS);
    let before = tree(folder.path());
    let mut command = command(folder.path(), &format!("check {CRATE} --seed 1"));
    let output = command.env("PATH", path).output().expect("emoc starts");
    refused(&output, 1, "output `logits` differs by");
    for warning in [
        "these are not the weights that the artifact was compiled from",
        "README.md was changed since emoc wrote it",
    ] {
        assert!(stderr(&output).contains(warning), "{}", stderr(&output));
    }
    assert!(tree(folder.path()) == before);
}

/// The build is ended too, with what it started.
#[test]
fn a_signal_ends_the_build() {
    let folder = tempfile::tempdir().expect("a folder");
    let temporary = tempfile::tempdir().expect("a folder");
    let path = cargo_that(
        folder.path(),
        "sleep 60 & echo $! > $FILE.new; mv $FILE.new $FILE; wait",
    );
    let file = folder.path().join("programs/pid");
    let mut command = command(folder.path(), COMPILE);
    command
        .env("PATH", path)
        .env("FILE", &file)
        .env("TMPDIR", temporary.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("emoc starts");
    let patience = Instant::now() + Duration::from_secs(60);
    while !file.exists() && Instant::now() < patience {
        thread::sleep(Duration::from_millis(5));
    }
    let builder = fs::read_to_string(&file).expect("a build that has begun");
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(sent.expect("kill starts").success());
    assert_eq!(child.wait().expect("an end").code(), Some(143));
    assert_eq!(names(folder.path()), ["programs"]);
    assert_eq!(names(temporary.path()), [""; 0]);
    let alive = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", builder.trim()));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    while alive() && Instant::now() < patience {
        thread::sleep(Duration::from_millis(5));
    }
    assert!(!alive(), "the build goes on");
}

/// What emoc did not write is never removed.
#[test]
fn other_folders_are_not_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    let made = root.join(CRATE);
    let stays = |flags: &str, code: i32, message: &str| {
        let before = tree(root);
        refused(&unchecked(root, flags), code, message);
        assert!(tree(root) == before, "{message}: something changed");
    };

    // A file, a link, the input, a folder of somebody else.
    fs::write(root.join("file"), "mine").expect("a file");
    stays("--output file", 4, "is no folder");
    stays("--output file --force", 4, "is no folder");
    fs::create_dir(root.join("mine")).expect("a folder");
    symlink("mine", root.join("link")).expect("a link");
    stays("--output link --force", 4, "symbolic link");
    fs::write(root.join("mine/notes.txt"), "mine").expect("a file");
    stays("--output mine", 4, "has no emoc.json of emoc in it");
    stays("--output mine --force", 4, "is not emoc's");
    stays("--output no/such", 4, "no/such");
    // A folder with an ONNX file and its manifest is no crate's.
    let onnx = "compile --variant 1M --input-size 64 --no-check --output onnx/emoc.onnx";
    fs::create_dir(root.join("onnx")).expect("a folder");
    accepted(&emoc(root, onnx));
    stays("--output onnx", 4, "has no emoc.json of emoc in it");
    stays("--output onnx --force", 4, "is not emoc's");

    // emoc's own folder, until somebody changes something in it.
    accepted(&unchecked(root, ""));
    accepted(&unchecked(root, "--seed 1"));
    fs::write(made.join("src/lib.rs"), "mine").expect("a file");
    stays("", 4, "was changed since emoc wrote it");
    accepted(&unchecked(root, "--force"));
    for mine in ["src/mine.rs", "notes.txt", ".git", "target"] {
        fs::write(made.join(mine), "mine").expect("a file");
        stays("", 4, "is not emoc's");
        stays("--force", 4, "is not emoc's");
        fs::remove_file(made.join(mine)).expect("a file");
    }
    fs::remove_file(made.join("emoc.json")).expect("the manifest");
    stays("", 4, "has no emoc.json of emoc in it");
    accepted(&unchecked(root, "--force"));

    // What cargo leaves is carried over.
    fs::create_dir_all(made.join("target/release")).expect("a folder");
    fs::write(made.join("target/CACHEDIR.TAG"), "").expect("a file");
    fs::write(made.join("target/release/built"), "built").expect("a file");
    fs::write(made.join("Cargo.lock"), "lock").expect("a file");
    accepted(&unchecked(root, ""));
    let kept = fs::read_to_string(made.join("target/release/built"));
    assert_eq!(kept.expect("cargo's file"), "built");
    assert!(made.join("Cargo.lock").exists());
    // An empty folder is as good as none.
    fs::create_dir(root.join("empty")).expect("a folder");
    accepted(&unchecked(root, "--output empty/"));
    let left = names(root);
    assert!(
        !left.iter().any(|name| name.starts_with(".emoc-")),
        "{left:?}"
    );
}

/// The system allows a file half of what the weights need.
#[test]
fn a_full_disk_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    accepted(&unchecked(folder.path(), ""));
    let before = tree(folder.path());
    for output in [CRATE, "new"] {
        let program = env!("CARGO_BIN_EXE_emoc");
        let script = format!(
            "ulimit -f 1000; exec {program} {COMPILE} --no-check --seed 1 --output {output}"
        );
        let mut shell = Command::new("sh");
        let run = shell
            .args(["-c", &script])
            .current_dir(folder.path())
            .output();
        refused(&run.expect("a shell"), 4, "weights.bin");
        assert!(tree(folder.path()) == before, "{output}: something changed");
    }
}

/// `inspect` and `check` take a folder from anywhere.
#[test]
fn folders_that_are_no_crates() {
    let folder = tempfile::tempdir().expect("a folder");
    accepted(&unchecked(folder.path(), ""));
    let manifest = folder.path().join(CRATE).join("emoc.json");
    let good = fs::read_to_string(&manifest).expect("the manifest");
    for (from, to, code, message) in [
        ("Cargo.toml", "../file", 3, "outside of the folder"),
        ("Cargo.toml", "/etc/passwd", 3, "outside of the folder"),
        ("Cargo.toml", "src", 3, "no regular file"),
        ("Cargo.toml", "nothing", 4, "cannot read the crate"),
        (
            "\"schema\": 1",
            "\"schema\": 99",
            3,
            "a newer emoc wrote it",
        ),
        (
            "\"target\": \"rust\"",
            "\"target\": \"onnx\"",
            3,
            "another kind of artifact",
        ),
        ("{", "[", 3, "no manifest of a crate"),
        ("\"dims\": [32", "\"dims\": [0", 3, "describes no network"),
    ] {
        assert!(good.contains(from), "{from}");
        fs::write(&manifest, good.replacen(from, to, 1)).expect("the manifest");
        for command in ["inspect", "check"] {
            if code == 3 && message.contains("no network") && command == "check" {
                continue;
            }
            refused(
                &emoc(folder.path(), &format!("{command} {CRATE}")),
                code,
                message,
            );
        }
    }
    fs::remove_file(&manifest).expect("the manifest");
    for command in ["inspect", "check"] {
        let output = emoc(folder.path(), &format!("{command} {CRATE}"));
        refused(&output, 3, "no crate that emoc wrote");
    }
}
