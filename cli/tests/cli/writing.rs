//! Files appear whole or not at all.

use std::{
    fs,
    io::Read,
    os::unix::{fs::PermissionsExt, fs::symlink, process::CommandExt, process::ExitStatusExt},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{COMPILE, command, emoc, names, skipped, stderr, stdout};

const FILES: [&str; 2] = ["emov2_1m_64.json", "emov2_1m_64.onnx"];

#[test]
fn the_same_input_gives_the_same_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut first = None;
    // The second run also shows that emoc's own artifact is replaced without --force.
    for threads in ["2", "1"] {
        let run = command(folder.path(), COMPILE)
            .env("RAYON_NUM_THREADS", threads)
            .output();
        let output = run.expect("emoc starts");
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(
            stderr(&output).contains("made from seed 0"),
            "{}",
            stderr(&output)
        );
        let table = stdout(&output);
        assert!(
            table.contains("tract") && table.contains("agrees"),
            "{table}"
        );
        let files = FILES.map(|name| fs::read(folder.path().join(name)).expect("a file"));
        assert_eq!(first.get_or_insert(files.clone()), &files);
    }
    assert_eq!(names(folder.path()), FILES, "nothing else is left");
    let mode = fs::metadata(folder.path().join(FILES[1])).expect("the artifact");
    assert_eq!(
        mode.permissions().mode() & 0o444,
        0o444,
        "others can read it, as any new file"
    );
}

/// Refused without `--force`: whatever emoc did not write, or was changed since.
#[test]
fn other_files_are_not_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let compile = format!("{COMPILE} --no-check");
    let refused = |arguments: &str, message: &str| {
        let before = names(folder.path());
        let output = emoc(folder.path(), arguments);
        assert_eq!(
            output.status.code(),
            Some(4),
            "{arguments}: {}",
            stderr(&output)
        );
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
        assert_eq!(names(folder.path()), before, "{arguments}");
    };
    let accepted = |arguments: &str| {
        let output = emoc(folder.path(), arguments);
        assert!(output.status.success(), "{arguments}: {}", stderr(&output));
    };
    let [manifest, artifact] = FILES.map(|name| folder.path().join(name));

    fs::write(&manifest, "{}").expect("a file");
    refused(&compile, "is no manifest of emoc");
    fs::remove_file(&manifest).expect("a file");
    accepted(&compile);
    let mut bytes = fs::read(&artifact).expect("the artifact");
    bytes.push(0);
    fs::write(&artifact, &bytes).expect("the artifact");
    refused(&compile, "it was changed since");
    accepted(&format!("{compile} --force"));
    fs::remove_file(&manifest).expect("the manifest");
    refused(&compile, "has no manifest of emoc beside it");

    let target = folder.path().join("precious");
    fs::write(&target, "precious").expect("a file");
    symlink(&target, folder.path().join("link.onnx")).expect("a link");
    refused(&format!("{compile} --output link.onnx"), "symbolic link");
    accepted(&format!("{compile} --output link.onnx --force"));
    assert_eq!(
        fs::read(&target).expect("the file"),
        b"precious",
        "the link was replaced"
    );

    fs::create_dir(folder.path().join("folder.onnx")).expect("a folder");
    refused(
        &format!("{compile} --output folder.onnx --force"),
        "is a folder",
    );
}

#[test]
fn the_input_is_not_the_output() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = folder.path().join("tiny.pth");
    fs::copy(crate::fixture("tiny.pth"), &input).expect("a copy");
    symlink(&input, folder.path().join("link.onnx")).expect("a link");
    for output in ["tiny.pth", "./tiny.pth", "link.onnx"] {
        let arguments = format!("compile --checkpoint tiny.pth --output {output} --force");
        let run = emoc(folder.path(), &arguments);
        assert_eq!(run.status.code(), Some(2), "{output}: {}", stderr(&run));
        assert!(
            stderr(&run).contains("would replace the input"),
            "{}",
            stderr(&run)
        );
    }
    assert_eq!(names(folder.path()), ["link.onnx", "tiny.pth"]);
}

/// The disk is full: the system allows the file half of what it needs.
#[test]
fn a_full_disk_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = env!("CARGO_BIN_EXE_emoc");
    let script = format!("ulimit -f 1000; exec {program} {COMPILE} --no-check");
    let run = Command::new("sh")
        .args(["-c", &script])
        .current_dir(folder.path())
        .output();
    let run = run.expect("a shell");
    assert_eq!(
        run.status.code(),
        Some(4),
        "{:?} {}",
        run.status,
        stderr(&run)
    );
    assert!(stderr(&run).contains(FILES[1]), "{}", stderr(&run));
    assert_eq!(names(folder.path()), [""; 0]);
}

/// A real file system without room, mounted where only this test sees it. What is there stays.
#[test]
fn a_full_file_system_is_left_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let mount = folder.path().display();
    let compile = format!("{} {COMPILE} --no-check", env!("CARGO_BIN_EXE_emoc"));
    let check = |size: &str, before: &str, code: i32, message: &str| {
        let script = format!(
            "mount -t tmpfs -o size={size} none {mount} && cd {mount} || exit 99; {before}; \
             old=$(sha256sum * 2>&1); {compile} --seed 1 --quiet; code=$?; \
             [ $code = 0 ] || [ \"$old\" = \"$(sha256sum * 2>&1)\" ] || code=98; \
             ls -A | sort; exit $code"
        );
        let arguments = ["--user", "--map-root-user", "--mount", "sh", "-c", &script];
        let run = Command::new("unshare").args(arguments).output();
        let run = run.expect("util-linux, which was there a moment ago");
        let said = stderr(&run);
        assert_eq!(run.status.code(), Some(code), "{size}, {before}: {said}");
        assert!(said.contains(message), "{size}, {before}: {said}");
        stdout(&run)
    };

    let probe = format!("mount -t tmpfs none {mount}");
    let probe = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &probe])
        .output();
    match probe {
        Ok(probe) if probe.status.success() => {}
        Ok(probe) => return skipped(&format!("no mount is permitted: {}", stderr(&probe))),
        Err(error) => return skipped(&format!("no `unshare`: {error}")),
    }
    let [manifest, artifact] = FILES;
    let both = format!("{manifest}\n{artifact}\n");
    let pair = format!("{COMPILE} --no-check --seed 1");
    assert!(emoc(folder.path(), &pair).status.success());
    let kib = |name: &str| {
        let file = fs::metadata(folder.path().join(name)).expect("a file");
        4 * file.len().div_ceil(4096)
    };
    let [manifest_kib, artifact_kib] = FILES.map(kib);
    let all_kib = artifact_kib + manifest_kib;
    let (alone, together) = (format!("{artifact_kib}k"), format!("{all_kib}k"));
    let (one_pair, two_pairs) = (format!("{}k", all_kib * 2 - 4), format!("{}k", all_kib * 2));
    let old = format!("{compile} --quiet");
    assert_eq!(check("1m", ":", 4, artifact), "", "nothing fits");
    assert_eq!(check(&alone, ":", 4, manifest), "", "the artifact fits");
    assert_eq!(check(&together, ":", 0, ""), both, "both fit");
    assert_eq!(
        check(&one_pair, &old, 4, manifest),
        both,
        "the old pair stays"
    );
    assert_eq!(
        check(&two_pairs, &old, 0, ""),
        both,
        "the new pair replaces it"
    );
}

#[test]
fn a_folder_that_cannot_be_written_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("emoc");
    fs::copy(env!("CARGO_BIN_EXE_emoc"), &program).expect("a copy of emoc");
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).expect("a folder");
    for path in [folder.path(), &closed] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o555)).expect("permissions");
    }
    let mut run = Command::new(&program);
    run.args(COMPILE.split_whitespace()).current_dir(&closed);
    // Permissions do not bind root.
    if fs::write(closed.join("probe"), "").is_ok() {
        fs::remove_file(closed.join("probe")).expect("the probe");
        run.uid(65534).gid(65534);
    }
    let run = run.output();
    for path in [folder.path(), &closed] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("permissions");
    }
    let run = match run {
        Ok(run) => run,
        Err(error) => return skipped(&format!("no other user to run as: {error}")),
    };
    assert_eq!(run.status.code(), Some(4), "{}", stderr(&run));
    assert!(
        stderr(&run).contains("cannot write to the folder"),
        "{}",
        stderr(&run)
    );
    assert_eq!(names(&closed), [""; 0]);
}

/// Starts a run that takes seconds and waits until it has something to leave behind.
fn started(folder: &Path) -> Child {
    let mut command = command(
        folder,
        "compile --variant 50M --output big.onnx --window 7 --input-size 512",
    );
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let child = child.expect("emoc starts");
    let patience = Instant::now() + Duration::from_secs(30);
    while names(folder).is_empty() && Instant::now() < patience {
        thread::sleep(Duration::from_millis(5));
    }
    child
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill")
        .args([name, &pid])
        .status()
        .expect("kill starts");
    assert!(sent.success());
}

#[test]
fn signals_remove_what_is_half_done() {
    for (name, code) in [("-INT", 130), ("-TERM", 143)] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = started(folder.path());
        assert_eq!(names(folder.path()).len(), 1, "the run has begun");
        signal(&child, name);
        assert_eq!(child.wait().expect("an end").code(), Some(code), "{name}");
        assert_eq!(names(folder.path()), [""; 0], "{name}");
    }
}

#[test]
fn a_killed_run_is_mentioned_and_stands_in_nobodys_way() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = started(folder.path());
    // A run that is alive is not mentioned.
    let beside = emoc(folder.path(), &format!("{COMPILE} --no-check"));
    assert!(
        !stderr(&beside).contains("was killed"),
        "{}",
        stderr(&beside)
    );
    signal(&child, "-KILL");
    assert_eq!(child.wait().expect("an end").signal(), Some(9));
    let mut text = String::new();
    let mut pipe = child.stderr.take().expect("a pipe");
    pipe.read_to_string(&mut text).expect("its last words");

    let left = names(folder.path());
    let left: Vec<_> = left
        .iter()
        .filter(|name| name.starts_with(".emoc-"))
        .collect();
    assert_eq!(left.len(), 1, "one temporary file: {left:?}");
    let next = emoc(folder.path(), &format!("{COMPILE} --no-check"));
    assert!(next.status.success(), "{}", stderr(&next));
    let mentioned = format!("{} is left from a run that was killed", left[0]);
    assert!(stderr(&next).contains(&mentioned), "{}", stderr(&next));
}

/// Killed between the two renames: the artifact is there, its manifest is still temporary.
#[test]
fn an_artifact_without_its_manifest_is_still_emocs_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let compile = format!("{COMPILE} --no-check");
    assert!(emoc(folder.path(), &compile).status.success());
    let [manifest, _] = FILES.map(|name| folder.path().join(name));
    fs::rename(&manifest, folder.path().join(".emoc-killed.tmp")).expect("the manifest");
    let next = emoc(folder.path(), &compile);
    assert!(next.status.success(), "{}", stderr(&next));
    assert!(manifest.exists());
}

/// Runs that write the same files end with a pair that belongs together.
#[test]
fn runs_at_once_do_not_mix_their_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let seeds: Vec<_> = (0..6)
        .map(|seed| format!("compile --variant 1M --input-size 64 --no-check --seed {seed}"))
        .collect();
    let children = seeds.iter().map(|arguments| {
        let mut command = command(folder.path(), arguments);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        child.expect("emoc starts")
    });
    let children: Vec<_> = children.collect();
    for child in children {
        let output = child.wait_with_output().expect("an end");
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert_eq!(names(folder.path()), FILES);
    // A pair that did not belong together would be refused now.
    let next = emoc(folder.path(), &seeds[0]);
    assert!(next.status.success(), "{}", stderr(&next));
}
