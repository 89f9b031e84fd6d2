//! Tensors that cannot be, and tensors rebuilt in ways that are not understood.

use crate::support::{Pickle, archive_of, check_refused, storage0, torch_zip};

#[test]
fn impossible_tensors_are_refused() {
    let view = |offset, sizes: &[i64], strides: &[i64]| {
        let storage = ("FloatStorage", "0", 4);
        torch_zip(
            Pickle::new()
                .view(storage, offset, sizes, strides)
                .raw(b"."),
        )
    };
    let max = i64::MAX;
    let rebuilt = |module: &str, name: &str, args: fn(Pickle) -> Pickle| {
        let pickle = Pickle::new().global(module, name).raw(b"(");
        torch_zip(args(pickle).raw(b"tR."))
    };
    let plain: fn(Pickle) -> Pickle = |p| {
        p.storage("FloatStorage", "0", 4)
            .int(0)
            .ints(&[4])
            .ints(&[1])
            .raw(b"\x89N")
    };
    let with_metadata = |name: &str, value: &[u8]| {
        let pickle = Pickle::new()
            .global("torch._utils", "_rebuild_tensor_v2")
            .raw(b"(");
        let pickle = plain(pickle).raw(b"}").str(name).raw(value).raw(b"s");
        torch_zip(pickle.raw(b"tR."))
    };
    let storage =
        |class: &str, numel: i64| torch_zip(Pickle::new().storage(class, "0", numel).raw(b"."));
    let inside = |module: &str, name: &str| {
        let pickle = Pickle::new().global(module, name).raw(b"(");
        torch_zip(pickle.storage("FloatStorage", "0", 4).raw(b"tR."))
    };
    let two_types = Pickle::new()
        .raw(b"](")
        .tensor()
        .view(("IntStorage", "0", 4), 0, &[4], &[1])
        .raw(b"e.");
    let traversal = Pickle::new()
        .view(("FloatStorage", "../0", 4), 0, &[4], &[1])
        .raw(b".");
    let expanded = Pickle::new()
        .view(("FloatStorage", "0", 4), 0, &[1 << 25], &[0])
        .raw(b".");
    check_refused(vec![
        (
            "beyond",
            view(0, &[5], &[1]),
            "reaches to byte 20 of a storage of 16 bytes",
        ),
        ("offset beyond", view(4, &[1], &[1]), "reaches to byte 20"),
        (
            "offset and stride",
            view(1, &[2, 2], &[2, 1]),
            "reaches to byte 20",
        ),
        (
            "negative offset",
            view(-1, &[4], &[1]),
            "the offset of a tensor is negative",
        ),
        (
            "negative stride",
            view(3, &[4], &[-1]),
            "the stride of a tensor is negative",
        ),
        (
            "negative size",
            view(0, &[-4], &[1]),
            "the size of a tensor is negative",
        ),
        ("stride overflow", view(0, &[3], &[max]), "overflows"),
        ("offset overflow", view(max, &[2], &[1]), "overflows"),
        ("bytes overflow", view(max / 2, &[1], &[1]), "overflows"),
        (
            "size overflow",
            view(0, &[1 << 30, 1 << 30, 1 << 30], &[0, 0, 0]),
            "overflows",
        ),
        (
            "long axis",
            view(0, &[1 << 31], &[0]),
            "an axis of 2147483648",
        ),
        ("rank 9", view(0, &[1; 9], &[1; 9]), "more than 8 axes"),
        (
            "size without stride",
            view(0, &[2, 2], &[1]),
            "2 sizes and 1 strides",
        ),
        (
            "expanded to 128 MiB",
            torch_zip(expanded),
            "is expanded from a storage of 16 bytes",
        ),
        (
            "other directory",
            torch_zip(traversal),
            "the entry of a storage is missing",
        ),
        ("two types", torch_zip(two_types), "two element types"),
        (
            "huge storage",
            storage("DoubleStorage", max),
            "is impossible",
        ),
        (
            "negative storage",
            storage("FloatStorage", -1),
            "a storage's size is negative",
        ),
        (
            "no storage class",
            storage("Tensor", 4),
            "not a storage class",
        ),
        (
            "unknown elements",
            torch_zip(
                Pickle::new()
                    .view(("QInt8Storage", "0", 16), 0, &[16], &[1])
                    .raw(b"."),
            ),
            "not supported",
        ),
        (
            "sparse",
            rebuilt("torch._utils", "_rebuild_sparse_tensor", plain),
            "not understood",
        ),
        (
            "quantized",
            rebuilt("torch._utils", "_rebuild_qtensor", plain),
            "not understood",
        ),
        (
            "meta",
            rebuilt("torch._utils", "_rebuild_meta_tensor_no_storage", plain),
            "not understood",
        ),
        (
            "too few arguments",
            rebuilt("torch._utils", "_rebuild_tensor_v2", |p| p),
            "not understood",
        ),
        (
            "parameter of nothing",
            rebuilt("torch._utils", "_rebuild_parameter", |p| p.raw(b"NNN")),
            "not understood",
        ),
        ("conj", with_metadata("conj", b"\x88"), "`conj` set"),
        ("neg", with_metadata("neg", b"\x88"), "`neg` set"),
        (
            "unknown bit",
            with_metadata("inverse", b"\x89"),
            "`inverse` set",
        ),
        (
            "foreign rebuild",
            inside("my.code", "rebuild"),
            "a tensor is rebuilt by `my.code.rebuild`",
        ),
        (
            "foreign state",
            torch_zip(
                Pickle::new()
                    .global("my.code", "Tensor")
                    .raw(b")\x81}")
                    .str("data")
                    .storage("FloatStorage", "0", 4)
                    .raw(b"sb."),
            ),
            "a tensor is rebuilt by `my.code.Tensor`",
        ),
        (
            "set of storages",
            torch_zip(
                Pickle::new()
                    .raw(b"\x8f(")
                    .storage("FloatStorage", "0", 4)
                    .raw(b"\x90."),
            ),
            "a tensor is rebuilt by a set",
        ),
        (
            "storage with wrong count",
            archive_of(
                Pickle::new().storage("FloatStorage", "0", 3).raw(b"."),
                &[("0", storage0())],
            )
            .bytes(),
            "the pickle declares 12",
        ),
    ]);
}
