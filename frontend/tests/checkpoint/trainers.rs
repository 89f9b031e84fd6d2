//! What trainers put beside their weights loads, stays closed, and is named. The pickles in
//! `trainers.txt` are Python's own (`make_trainers.py`), in protocols 2 to 5.

use emoc_frontend::{Checkpoint, Choice, StateDict};

use crate::support::{Pickle, line, storage0, torch_zip};

/// What `extra` is said to be, and the tensors listed in it.
const EXPECTED: &[(&str, &str, &[&str])] = &[
    (
        "namespace",
        "object of `argparse.Namespace`, not opened",
        &[],
    ),
    (
        "numpy_core_scalar",
        "object of `numpy.core.multiarray.scalar`, not opened",
        &[],
    ),
    (
        "numpy__core_scalar",
        "object of `numpy._core.multiarray.scalar`, not opened",
        &[],
    ),
    (
        "numpy_core_array",
        "object of `numpy.core.multiarray._reconstruct`, not opened",
        &[],
    ),
    (
        "history_buffer",
        "object of `mmengine.logging.history_buffer.HistoryBuffer`, not opened",
        &[],
    ),
    ("datetime", "object of `datetime.datetime`, not opened", &[]),
    (
        "timedelta",
        "object of `datetime.timedelta`, not opened",
        &[],
    ),
    (
        "defaultdict",
        "object of `collections.defaultdict`, not opened",
        &[],
    ),
    (
        "counter",
        "object of `collections.Counter`, not opened",
        &[],
    ),
    ("deque", "object of `collections.deque`, not opened", &[]),
    ("enum", "object of `train.Mode`, not opened", &[]),
    ("partial", "object of `functools.partial`, not opened", &[]),
    (
        "bound_method",
        "object of `mmengine.config.config.ConfigDict`, not opened",
        &[],
    ),
    (
        "config_dict",
        "object of `mmengine.config.config.ConfigDict`, not opened",
        &[],
    ),
    (
        "omegaconf",
        "object of `omegaconf.dictconfig.DictConfig`, not opened",
        &[],
    ),
    (
        "class_reference",
        "class `torch.optim.lr_scheduler.CosineAnnealingLR`",
        &[],
    ),
    ("cycle", "dict of 1", &[]),
    ("big_integer", "an integer beyond 64 bits", &[]),
    ("negative_integers", "list of 4", &[]),
    ("lone_surrogate", "\"a\u{fffd}\u{fffd}\u{fffd}b\"", &[]),
    ("set", "a set", &[]),
    ("frozenset", "a set", &[]),
    ("builtin_values", "list of 7", &[]),
    (
        "exception",
        "object of `builtins.ValueError`, not opened",
        &[],
    ),
    ("uuid", "object of `uuid.UUID`, not opened", &[]),
    ("decimal", "object of `decimal.Decimal`, not opened", &[]),
    ("dataclass", "object of `train.Point`, not opened", &[]),
    ("namedtuple", "object of `train.Pair`, not opened", &[]),
    ("torch_values", "list of 3", &[]),
    (
        "tensor_in_object",
        "object of `train.Holder`, not opened, holding tensors that are not listed",
        &[],
    ),
    ("parameter", "", &["extra F32 [2, 2]"]),
    ("tensor_subclass", "", &["extra F32 [2, 2]"]),
    (
        "optimizer",
        "dict of 2",
        &[
            "extra/state/0/step F32 [2, 2]",
            "extra/state/0/exp_avg F32 [2, 2]",
        ],
    ),
    (
        "tensors_in_lists",
        "list of 2",
        &["extra/0 F32 [2, 2]", "extra/1/1/k F32 [2, 2]"],
    ),
    ("other_keys", "dict of 3", &["extra/s F32 [2, 2]"]),
];

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

#[test]
fn objects_of_trainers_are_carried_along() {
    let mut seen = Vec::new();
    for row in include_str!("trainers.txt").lines() {
        let [name, protocol, hex] = row.split(' ').collect::<Vec<_>>()[..] else {
            panic!("not a row: {row}");
        };
        let place = format!("{name}, protocol {protocol}");
        let &(_, description, tensors) = EXPECTED
            .iter()
            .find(|expected| expected.0 == name)
            .unwrap_or_else(|| panic!("nothing is expected of {name}"));
        if seen.last() != Some(&name) {
            seen.push(name);
        }
        let checkpoint = Checkpoint::from_bytes(torch_zip(Pickle(unhex(hex))))
            .unwrap_or_else(|error| panic!("{place}: {error}"));

        let found: Vec<_> = checkpoint.tensors().iter().map(line).collect();
        let mut expected = vec!["state_dict/weight F32 [2, 2]"];
        expected.extend(tensors);
        assert_eq!(found, expected, "{place}");
        for tensor in checkpoint.tensors() {
            assert_eq!(*tensor.bytes().expect("readable"), storage0(), "{place}");
        }

        let entry = checkpoint
            .entries()
            .iter()
            .find(|entry| entry.key == "extra");
        let found = entry.map_or("", |entry| &entry.description);
        // Protocol 2 writes the names of Python 2; sets have their own opcodes from 4 on.
        let found = found
            .replace("`exceptions.", "`builtins.")
            .replace("`__builtin__.", "`builtins.")
            .replace("object of `builtins.set`, not opened", "a set")
            .replace("object of `builtins.frozenset`, not opened", "a set");
        assert_eq!(found, description, "{place}");

        let chosen = StateDict::choose(&checkpoint, Choice::Net);
        let chosen = chosen.unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!(chosen.origin().root, "state_dict", "{place}");
        assert_eq!(chosen.len(), 1, "{place}");
    }
    let expected: Vec<_> = EXPECTED.iter().map(|row| row.0).collect();
    assert_eq!(seen, expected, "trainers.txt and the table differ");
}

/// Files that only older or other picklers write.
#[test]
fn other_picklers_are_understood() {
    let ordered = Pickle::new()
        .global("collections", "OrderedDict")
        .raw(b"](](")
        .raw(b"U\x01a")
        .tensor()
        .raw(b"ee\x85R.");
    let cases = [
        (
            "OrderedDict of Python 2, with str keys",
            ordered,
            "a F32 [2, 2]",
        ),
        (
            "class with its source",
            Pickle::new()
                .raw(b"}(")
                .str("m")
                .raw(b"(")
                .str("module")
                .global("train", "Net")
                .str("train.py")
                .str("class Net: ...")
                .raw(b"tQ)\x81")
                .str("a")
                .tensor()
                .raw(b"u."),
            "a F32 [2, 2]",
        ),
        (
            "classic class of Python 2",
            Pickle::new()
                .raw(b"}(")
                .str("o")
                .raw(b"(")
                .global("a", "B")
                .raw(b"o}b")
                .str("a")
                .tensor()
                .raw(b"u."),
            "a F32 [2, 2]",
        ),
        (
            "_rebuild_tensor of PyTorch 0.3",
            Pickle::new()
                .raw(b"}")
                .str("a")
                .global("torch._utils", "_rebuild_tensor")
                .raw(b"(")
                .storage("FloatStorage", "0", 4)
                .int(0)
                .ints(&[4])
                .ints(&[1])
                .raw(b"tRs."),
            "a F32 [4]",
        ),
        (
            "uint16 by _rebuild_tensor_v3",
            Pickle::new()
                .raw(b"}")
                .str("a")
                .global("torch._utils", "_rebuild_tensor_v3")
                .raw(b"(")
                .storage("UntypedStorage", "0", 16)
                .int(0)
                .ints(&[8])
                .ints(&[1])
                .raw(b"\x89N")
                .global("torch", "uint16")
                .raw(b"tRs."),
            "a U16 [8]",
        ),
        (
            "state_dict with _metadata",
            Pickle::new()
                .global("collections", "OrderedDict")
                .raw(b")R")
                .str("a")
                .tensor()
                .raw(b"s}")
                .str("_metadata")
                .raw(b"}sb."),
            "a F32 [2, 2]",
        ),
    ];
    for (name, pickle, expected) in cases {
        let checkpoint = Checkpoint::from_bytes(torch_zip(pickle))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let found: Vec<_> = checkpoint.tensors().iter().map(line).collect();
        assert_eq!(found, [expected], "{name}");
    }
}
