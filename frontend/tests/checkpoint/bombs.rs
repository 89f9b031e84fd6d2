//! Small files that want much memory or time.

use std::time::Instant;

use crate::support::{Case, Pickle, check_refused, load, raw, torch_zip};

/// Doubles a container `levels` times: `x = (x, x)`, memoized.
fn laughs(first: Pickle, levels: usize) -> Vec<u8> {
    let mut pickle = first.raw(b"q\x000");
    for level in 0..levels as u8 {
        pickle = pickle.raw(b"](h").raw(&[level]).raw(b"h").raw(&[level]);
        pickle = pickle.raw(b"eq").raw(&[level + 1, b'0']);
    }
    torch_zip(pickle.raw(b"h").raw(&[levels as u8, b'.']))
}

#[test]
fn bombs_are_refused() {
    let repeat = |bytes: &[u8], count: usize| bytes.repeat(count);
    let nested =
        |count: usize| [repeat(b"]", count), repeat(b"a", count - 1), b".".to_vec()].concat();
    let inert = [
        repeat(b"ca\nb\n", 600),
        b")R".to_vec(),
        repeat(b"\x85R", 599),
        b".".to_vec(),
    ]
    .concat();
    // Lists that are filled after they went into others: none knows how deep it goes.
    let inside_out = [
        b"]]q\x01ah\x01".to_vec(),
        repeat(b"]q\x01a0h\x01", 600),
        b"0.".to_vec(),
    ]
    .concat();
    let memo = [b"N".to_vec(), repeat(b"\x94", 5_000_000), b".".to_vec()].concat();
    let mut many = Pickle::new().raw(b"](").tensor().raw(b"q\x00");
    many = many.raw(&repeat(b"h\x00", 300_000)).raw(b"e.");
    // 1000 tensors of 16 MiB each, all expanded from one float.
    let expanded = Pickle::new().raw(b"](");
    let expanded = (0..1000).fold(expanded, |pickle, _| {
        pickle.view(("FloatStorage", "0", 4), 0, &[1 << 22], &[0])
    });
    let expanded = torch_zip(expanded.raw(b"e."));
    check_refused(vec![
        ("10,000 lists", raw(&nested(10_000)), "deeper than 512"),
        ("513 lists and a leaf", raw(&nested(514)), "deeper than 512"),
        ("10,000 marks", raw(&repeat(b"(", 10_000)), "marks are open"),
        ("600 calls", raw(&inert), "deeper than 512"),
        ("inside out", raw(&inside_out), "deeper than 512"),
        ("5,000,000 lists", raw(&repeat(b"]", 5_000_000)), "opcodes"),
        ("5,000,000 memos", raw(&memo), "opcodes"),
        (
            "2^60 lists",
            laughs(Pickle::new().raw(b"]"), 60),
            "more than 4194304 values",
        ),
        (
            "2^60 tensors",
            laughs(Pickle::new().tensor(), 60),
            "more than 131072 tensors",
        ),
        (
            "300,000 times one tensor",
            torch_zip(many),
            "more than 131072 tensors",
        ),
        (
            "1000 expanded",
            expanded,
            "repeat their storages beyond reason",
        ),
    ] as Vec<Case>);
}

/// Files that make a reader do the same large thing again and again. They may load or not, but
/// the time must stay in proportion.
#[test]
fn repetition_takes_no_time() {
    let times = |count: usize, bytes: &[u8]| bytes.repeat(count);
    let text = || Pickle::new().str(&"k".repeat(20_000_000)).raw(b"q\x010");
    let mut pairs = Pickle::new().raw(b"](");
    for key in 0..100_000 {
        pairs = pairs.int(key).raw(b"N\x86");
    }
    let pairs = pairs
        .raw(b"eq\x000")
        .global("collections", "OrderedDict")
        .raw(b"q\x010")
        .raw(&times(1000, b"h\x01h\x00\x85R0"));
    let size = Pickle::new()
        .raw(b"(")
        .raw(&times(1_000_000, b"N"))
        .raw(b"tq\x000")
        .global("torch", "Size")
        .raw(b"q\x010")
        .raw(&times(500_000, b"h\x01h\x00R0"));
    let long = Pickle::new()
        .raw(b"](")
        .raw(&times(2_000_000, b"N"))
        .raw(b"eq\x000}(");
    let long = (0..4000).fold(long, |dict, key| dict.int(key).raw(b"h\x00"));
    let keys = text().raw(b"](").raw(&times(100_000, b"}h\x01Ns"));
    let storages = |id: &[u8]| {
        text()
            .str("storage")
            .raw(b"q\x020")
            .global("torch", "FloatStorage")
            .raw(b"q\x030")
            .str("0")
            .raw(b"q\x040](")
            .raw(&times(100_000, id))
    };
    let classes: String = (0..200_000).map(|i| format!("cm{i}\nName\n0")).collect();
    let tuples = Pickle::new().raw(b"N").raw(&times(500, b"\x85q\x00"));
    let cases = [
        ("one list made into many dicts", pairs.raw(b"N.")),
        ("one long tuple as arguments", size.raw(b"N.")),
        ("one long list described", long.raw(b"u.")),
        ("one long key in many dicts", keys.raw(b"e.")),
        (
            "one long device",
            storages(b"(h\x02h\x03h\x04h\x01K\x04tQ").raw(b"e."),
        ),
        (
            "one long storage key",
            storages(b"(h\x02h\x03h\x01h\x04K\x04tQ").raw(b"e."),
        ),
        (
            "many classes",
            Pickle::new().raw(classes.as_bytes()).raw(b"N."),
        ),
        (
            "many deep tuples",
            tuples.raw(&times(1_000_000, b"h\x00\x850")).raw(b"."),
        ),
    ];
    for (name, pickle) in cases {
        let bytes = torch_zip(pickle);
        let start = Instant::now();
        let _ = load(&bytes);
        let took = start.elapsed();
        assert!(took.as_millis() < 1000, "{name}: took {took:?}");
    }
}
