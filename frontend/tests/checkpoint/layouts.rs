//! Real files: the same weights in every layout that PyTorch and trainers write.

use std::io::Write;

use emoc_frontend::{Checkpoint, Choice, Format, StateDict};
use emoc_ir::DType;
use half::{bf16, f16};

use crate::support::fixture;

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(&fixture(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn choose(name: &str, choice: Choice) -> StateDict {
    let chosen = StateDict::choose(&open(name), choice);
    chosen.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every layout of the tiny model against its safetensors file, which the safetensors library
/// wrote: key by key, bit by bit.
#[test]
fn all_layouts_hold_the_same_tensors() {
    let arbiter = choose("tiny.safetensors", Choice::Net);
    assert_eq!(arbiter.len(), 130);
    let layouts = [
        ("tiny.pth", Format::TorchZip, "", &[][..]),
        ("tiny_legacy.pth", Format::TorchLegacy, "", &[]),
        ("tiny_official_net.pth", Format::TorchZip, "", &[]),
        ("tiny_ddp.pth", Format::TorchZip, "", &["module."]),
        ("tiny_strided.pth", Format::TorchZip, "model", &[]),
        ("tiny_trainer_ckpt.pth", Format::TorchZip, "net", &[]),
    ];
    for (name, format, root, stripped) in layouts {
        assert_eq!(open(name).format(), format, "{name}");
        let found = choose(name, Choice::Net);
        assert_eq!(found.origin().root, root, "{name}");
        assert_eq!(found.origin().stripped, stripped, "{name}");
        assert_eq!(found.len(), arbiter.len(), "{name}");
        for (key, expected) in arbiter.iter() {
            let place = format!("{name}, {key}");
            let tensor = found
                .get(key)
                .unwrap_or_else(|| panic!("{place} is missing"));
            assert_eq!(tensor.dtype(), expected.dtype(), "{place}");
            assert_eq!(tensor.shape(), expected.shape(), "{place}");
            let bytes = [tensor, expected].map(|tensor| tensor.bytes().expect("readable"));
            assert!(bytes[0] == bytes[1], "{place}: the bytes differ");
            let digests = [tensor, expected].map(|tensor| tensor.sha256().expect("readable"));
            assert_eq!(digests[0], digests[1], "{place}");
        }
        let digests = [&found, &arbiter].map(|dict| dict.sha256().expect("readable"));
        assert_eq!(digests[0], digests[1], "{name}");
    }
}

#[test]
fn half_precision_is_the_rounded_float() {
    let arbiter = choose("tiny.safetensors", Choice::Net);
    type Round = fn(f32) -> f32;
    let cases: [(&str, DType, Round); 2] = [
        ("tiny_fp16.pth", DType::F16, |x| f16::from_f32(x).to_f32()),
        ("tiny_bf16.pth", DType::BF16, |x| bf16::from_f32(x).to_f32()),
    ];
    for (name, dtype, round) in cases {
        for (key, tensor) in choose(name, Choice::Net).iter() {
            let expected = arbiter.get(key).expect("the same keys");
            if expected.dtype() == DType::I64 {
                assert_eq!(tensor.bytes(), expected.bytes(), "{name}, {key}");
                continue;
            }
            assert_eq!(tensor.dtype(), dtype, "{name}, {key}");
            let expected = expected.to_f32().expect("floats");
            let expected: Vec<f32> = expected.into_iter().map(round).collect();
            assert_eq!(tensor.to_f32().expect("floats"), expected, "{name}, {key}");
        }
    }
}

#[test]
fn the_average_is_other_weights() {
    let [net, ema] =
        [Choice::Net, Choice::Ema].map(|choice| choose("tiny_trainer_ckpt.pth", choice));
    assert_eq!(ema.origin().root, "net_E");
    let keys = |dict: &StateDict| {
        dict.iter()
            .map(|(key, _)| key.to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&net), keys(&ema));
    assert_ne!(net.sha256(), ema.sha256());
}

#[test]
fn detectors_give_their_backbone() {
    let cases = [
        ("tiny_mmdet.pth", 126, [("neck", 8), ("bbox_head", 2)]),
        (
            "tiny_mmseg.pth",
            102,
            [("decode_head", 2), ("auxiliary_head", 2)],
        ),
    ];
    for (name, len, ignored) in cases {
        let dict = choose(name, Choice::Net);
        let origin = dict.origin();
        assert_eq!(dict.len(), len, "{name}");
        assert_eq!(origin.root, "state_dict", "{name}");
        assert_eq!(origin.stripped, ["backbone."], "{name}");
        let ignored = ignored.map(|(first, count)| (first.to_owned(), count));
        assert_eq!(origin.ignored, ignored, "{name}");
        assert!(
            dict.iter().all(|(key, _)| key.starts_with("stage")),
            "{name}"
        );
    }
}

#[test]
fn the_rest_of_a_checkpoint_is_described() {
    let checkpoint = open("tiny_trainer_ckpt.pth");
    let entries = checkpoint.entries().iter();
    let lines: Vec<_> = entries
        .map(|entry| format!("{}: {}", entry.key, entry.description))
        .collect();
    let expected = [
        "net: dict of 130",
        "net_E: dict of 130",
        "optimizer: dict of 2",
        "scheduler: dict of 20",
        "scaler: dict of 5",
        "iter: 375300",
        "epoch: 300",
        "topk_recorder: dict of 4",
        "total_time: 76016.25",
        "nan_or_inf_cnt: 0",
    ];
    assert_eq!(lines, expected);
    let names = checkpoint.tensors().iter().map(|tensor| tensor.name());
    let steps = names.filter(|name| name.starts_with("optimizer/state/0/"));
    let expected =
        ["step", "exp_avg", "exp_avg_sq"].map(|name| format!("optimizer/state/0/{name}"));
    assert_eq!(steps.collect::<Vec<_>>(), expected);
}

/// The weights outlive the checkpoint they came from, on any thread.
#[test]
fn tensors_keep_their_file() {
    fn is_shared<T: Send + Sync + 'static>(_: &T) {}
    let dict = choose("tiny.pth", Choice::Net);
    is_shared(&dict);
    let thread = std::thread::spawn(move || dict.sha256());
    let digest = thread.join().expect("no panic").expect("readable");
    assert_eq!(Ok(digest), choose("tiny.pth", Choice::Net).sha256());
}

#[test]
fn the_file_has_a_digest_and_a_length() {
    let checkpoint = open("tiny.pth");
    assert_eq!(checkpoint.file_len(), 160_035);
    assert_eq!(
        checkpoint.sha256_file(),
        "bf840df3d67d4c797e0aae5fda94082c2b1a17b34f852db0333fa3a24d34fa8f",
    );
}

/// Every checkpoint of the large reference folder.
#[test]
fn reference_files_load() {
    let Some(folder) = std::env::var_os("EMOC_REFERENCE_DIR") else {
        // Past the test harness, which hides what passing tests print.
        let _ = writeln!(std::io::stderr(), "skipped: EMOC_REFERENCE_DIR is not set");
        return;
    };
    for (name, len) in [
        ("EMOv2_1M.pth", 228),
        ("EMOv2_5M.pth", 272),
        ("digits.pth", 228),
    ] {
        let path = std::path::Path::new(&folder).join(name);
        let checkpoint = Checkpoint::open(&path).unwrap_or_else(|error| panic!("{error}"));
        let dict = StateDict::choose(&checkpoint, Choice::Net);
        let dict = dict.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(dict.len(), len, "{name}");
        for tensor in checkpoint.tensors() {
            tensor.bytes().unwrap_or_else(|error| panic!("{error}"));
        }
    }
}
