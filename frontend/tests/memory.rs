//! Inspecting a file must not need memory in proportion to it, and no file can demand much.
//! Alone in its test binary, because the peak is one of the whole process.

use std::{fs::File, io::Write, path::Path};

use emoc_frontend::{
    Checkpoint, Choice, StateDict,
    emo2::{self, Numbers},
};

const MIB: u64 = 1 << 20;

/// What `/proc/self/status` says of this process, in bytes.
fn status(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Says so past the test harness, which hides what passing tests print.
fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// By how much `work` raises the peak above the present, if the system tells.
fn rise(work: impl FnOnce()) -> Option<u64> {
    // Sets the peak back to the present.
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    let before = status("VmRSS:")?;
    work();
    Some(status("VmHWM:")?.saturating_sub(before))
}

/// Digests everything in a file, and looks at every number of a network.
fn inspect(path: &Path) {
    let checkpoint = Checkpoint::open(path).expect("the file is good");
    assert_eq!(checkpoint.sha256_file().len(), 64);
    for tensor in checkpoint.tensors() {
        assert_eq!(tensor.sha256().expect("readable").len(), 64);
    }
    let state_dict = StateDict::choose(&checkpoint, Choice::Net).expect("tensors alone");
    if let Ok(architecture) = emo2::architecture(&state_dict, &emo2::Hints::default()) {
        let geometry = emo2::Geometry {
            input_size: [224, 224],
            batch: emoc_ir::Dim::Fixed(1),
            window: 7,
        };
        let model = emo2::declared(architecture, geometry).expect("a network");
        let numbers = Numbers::of_state_dict(&state_dict, &model.graph).expect("readable");
        assert_eq!(numbers, Numbers::default());
    }
}

#[test]
fn memory_stays_in_proportion() {
    inspecting_needs_little();
    refusing_needs_little();
}

fn refusing_needs_little() {
    let fillers: [&[u8]; 4] = [b"]", b"]N\x94a0", b"N\x85", b"}NNs"];
    for filler in fillers {
        let pickle = [b"\x80\x02", &filler.repeat(5 << 20)[..]].concat();
        let refused = || drop(Checkpoint::from_bytes(pickle).expect_err("no file of torch.save"));
        if let Some(rise) = rise(refused) {
            let name = filler.escape_ascii();
            assert!(rise < 200 * MIB, "{name}: {} MiB", rise / MIB);
        }
    }
}

fn inspecting_needs_little() {
    // 128 MiB in 16 tensors.
    const TENSORS: usize = 16;
    const BYTES: usize = 8 << 20;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("large.safetensors");
    let mut file = File::create(&path).expect("a writable folder");
    let tensors: Vec<_> = (0..TENSORS)
        .map(|i| {
            let (from, to) = (i * BYTES, (i + 1) * BYTES);
            format!(
                "\"t{i}\":{{\"dtype\":\"U8\",\"shape\":[{BYTES}],\"data_offsets\":[{from},{to}]}}"
            )
        })
        .collect();
    let header = format!("{{{}}}", tensors.join(","));
    let mut write = |bytes: &[u8]| file.write_all(bytes).expect("space on the disk");
    write(&(header.len() as u64).to_le_bytes());
    write(header.as_bytes());
    let chunk: Vec<u8> = (0..=255).cycle().take(1 << 16).collect();
    (0..TENSORS * BYTES / chunk.len()).for_each(|_| write(&chunk));

    let mut files = vec![path];
    match std::env::var_os("EMOC_REFERENCE_DIR") {
        Some(folder) => files.push(Path::new(&folder).join("EMOv2_5M.pth")),
        None => skipped("EMOC_REFERENCE_DIR is not set"),
    }
    for path in files {
        let Some(rise) = rise(|| inspect(&path)) else {
            skipped("this system does not tell the peak memory");
            return;
        };
        assert!(rise < 16 * MIB, "{}: {} KiB", path.display(), rise / 1024);
    }
}
