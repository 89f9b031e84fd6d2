//! Zip files that lie. Every case is one change to a file that loads.

use crate::support::{
    Archive, Header, Member, Pickle, archive, archive_of, check_refused, load, storage0,
};

fn good() -> Archive {
    archive(Pickle::new().tensor().raw(b"."))
}

fn edited(edit: impl FnOnce(&mut Archive)) -> Vec<u8> {
    good().edit(edit).bytes()
}

/// A change to both headers of storage 0.
fn storage(edit: impl Fn(&mut Header)) -> Vec<u8> {
    edited(|archive| archive.member("data/0").both(edit))
}

fn with(member: Member) -> Vec<u8> {
    edited(|archive| archive.members.push(member))
}

fn named(name: &str) -> Vec<u8> {
    with(Member::stored(name, vec![]))
}

/// The 32-bit value at `from_end` bytes before the end, replaced.
fn patched(from_end: usize, value: u32) -> Vec<u8> {
    let mut bytes = good().bytes();
    let at = bytes.len() - from_end;
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    bytes
}

#[test]
fn unchanged_archives_load() {
    let deflated = good().edit(|archive| {
        *archive.member("data/0") = Member::deflated("net/data/0", &storage0());
        let pickle = archive.member("data.pkl").data.clone();
        *archive.member("data.pkl") = Member::deflated("net/data.pkl", &pickle);
    });
    let descriptors = good().edit(|archive| {
        for member in &mut archive.members {
            *member = member.clone().with_descriptor();
        }
    });
    let unsigned = descriptors.clone().edit(|archive| {
        archive.member("data/0").descriptor.drain(..4);
    });
    let no_crc = good().edit(|archive| archive.member("data/0").both(|header| header.crc = 0));
    let padded = good().edit(|archive| {
        archive.member("data/0").local.extra = b"FB\x03\0ZZZ".to_vec();
    });
    let cases = [
        ("plain", good()),
        ("deflated", deflated),
        ("descriptors", descriptors),
        ("descriptor without signature", unsigned),
        ("no checksum", no_crc),
        ("padding", padded),
        ("zip64", good().edit(|archive| archive.zip64 = Some(|_| ()))),
        (
            "no byteorder",
            good().edit(|archive| drop(archive.members.remove(1))),
        ),
    ];
    for (name, archive) in cases {
        let tensors = load(&archive.bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(tensors, [(" F32 [2, 2]".to_owned(), storage0())], "{name}");
    }
}

#[test]
fn lying_archives_are_refused() {
    let zeros = Member::deflated("net/data/0", &[0; 100_000]);
    let bomb = archive_of(
        Pickle::new()
            .view(("FloatStorage", "0", 25_000), 0, &[25_000], &[1])
            .raw(b"."),
        &[],
    )
    .edit(|archive| archive.members.push(zeros));
    let deflated_from = |content: &[u8], edit: fn(&mut Member)| {
        edited(|archive| {
            let member = archive.member("data/0");
            *member = Member::deflated("net/data/0", content);
            edit(member);
        })
    };
    let deflated = |edit| deflated_from(&storage0(), edit);
    let claims_16: fn(&mut Member) = |member| member.both(|header| header.size = 16);
    let descriptor = |edit: fn(&mut Member)| {
        edited(|archive| {
            let member = archive.member("data/0");
            *member = member.clone().with_descriptor();
            edit(member);
        })
    };
    let zip64 = |edit| edited(|archive| archive.zip64 = Some(edit));
    let extra = |central: &[u8]| {
        edited(|archive| archive.member("data/0").central.extra = central.to_vec())
    };
    let mut comment = good().bytes();
    let at = comment.len() - 2;
    comment[at] = 1;
    comment.push(b'c');
    let prefixed = [good().bytes(), good().bytes()].concat();
    let byteorder = |order: &[u8]| {
        edited(|archive| {
            *archive.member("byteorder") = Member::stored("net/byteorder", order.into())
        })
    };
    check_refused(vec![
        ("wrong CRC", storage(|header| header.crc ^= 1), "CRC-32"),
        (
            "wrong CRC of the pickle",
            edited(|archive| archive.member("data.pkl").both(|header| header.crc ^= 1)),
            "CRC-32",
        ),
        (
            "changed data",
            edited(|archive| archive.member("data/0").data[0] ^= 1),
            "CRC-32",
        ),
        (
            "local CRC",
            edited(|archive| archive.member("data/0").local.crc ^= 1),
            "local header",
        ),
        (
            "local size",
            edited(|archive| archive.member("data/0").local.size += 1),
            "local header",
        ),
        (
            "local name",
            edited(|archive| archive.member("data/0").local.name[0] = b'x'),
            "local header",
        ),
        (
            "local method",
            edited(|archive| archive.member("data/0").local.method = 8),
            "local header",
        ),
        (
            "local flags",
            edited(|archive| archive.member("data/0").local.flags = 0),
            "local header",
        ),
        (
            "two sizes",
            storage(|header| header.size += 1),
            "its two sizes differ",
        ),
        (
            "longer than the file",
            storage(|header| (header.size, header.compressed) = (1 << 30, 1 << 30)),
            "announces 1073741824 bytes",
        ),
        (
            "into the next member",
            storage(|header| (header.size, header.compressed) = (20, 20)),
            "it overlaps entry",
        ),
        (
            "encrypted",
            storage(|header| header.flags |= 1),
            "unsupported flags",
        ),
        (
            "patch data",
            storage(|header| header.flags |= 0x20),
            "unsupported flags",
        ),
        (
            "bzip2",
            storage(|header| header.method = 12),
            "unsupported compression 12",
        ),
        ("bomb", bomb.bytes(), "more than 20 to 1"),
        (
            "lying bomb",
            deflated_from(&[0; 100], claims_16),
            "more than 16 bytes",
        ),
        (
            "short deflate",
            deflated_from(&[0; 8], claims_16),
            "are declared",
        ),
        (
            "bytes after the deflated data",
            deflated(|member| {
                member.data.push(0);
                member.both(|header| header.compressed += 1);
            }),
            "unused bytes follow",
        ),
        (
            "damaged deflate",
            deflated(|member| member.data[0] = 0xff),
            "damaged",
        ),
        (
            "descriptor CRC",
            descriptor(|member| member.descriptor[4] ^= 1),
            "data descriptor",
        ),
        (
            "descriptor size",
            descriptor(|member| member.descriptor[12] ^= 1),
            "data descriptor",
        ),
        (
            "no descriptor",
            descriptor(|member| member.descriptor.clear()),
            "data descriptor",
        ),
        (
            "symbolic link",
            edited(|archive| archive.member("data/0").attributes = 0xa1ff << 16),
            "symbolic link",
        ),
        (
            "two members, one place",
            edited(|archive| {
                let mut twin = Member::stored("net/data/0", storage0());
                twin.both(|header| header.name = b"net/data/1".to_vec());
                twin.central.name = b"net/data/0".to_vec();
                twin.offset = archive.member("data/0").offset;
                archive.members.push(twin);
            }),
            "local header",
        ),
        (
            "same name twice",
            with(Member::stored("net/data/0", storage0())),
            "two members",
        ),
        (
            "one header for two",
            edited(|archive| {
                let first = archive.members[0].clone();
                archive.members.push(Member {
                    offset: Some(0),
                    ..first
                });
            }),
            "it overlaps entry",
        ),
        (
            "offset beyond",
            edited(|archive| archive.member("data/0").offset = Some(1 << 31)),
            "cut off or lies",
        ),
        (
            "offset inside data",
            edited(|archive| archive.member("data/0").offset = Some(60)),
            "wrong signature",
        ),
        ("parent folder", named("net/../x"), "is not allowed"),
        ("backslash", named("net/a\\b"), "is not allowed"),
        ("drive", named("net/c:x"), "is not allowed"),
        ("NUL", named("net/a\0b"), "control characters"),
        ("escape", named("net/\x1b[2J"), "control characters"),
        ("second root", named("other/x"), "more than one root folder"),
        ("no root", named("x"), "more than one root folder"),
        ("absolute", named("/x"), "not relative"),
        (
            "name that is not UTF-8",
            edited(|archive| {
                archive
                    .member("data/0")
                    .both(|header| header.name[0] = 0xff)
            }),
            "not UTF-8",
        ),
        (
            "no data.pkl",
            edited(|archive| drop(archive.members.remove(0))),
            "no `data.pkl`",
        ),
        (
            "missing storage",
            edited(|archive| drop(archive.members.remove(2))),
            "the entry of a storage is missing",
        ),
        (
            "short storage",
            archive_of(Pickle::new().tensor().raw(b"."), &[("0", vec![0; 15])]).bytes(),
            "holds 15 bytes, the pickle declares 16",
        ),
        (
            "long storage",
            archive_of(Pickle::new().tensor().raw(b"."), &[("0", vec![0; 17])]).bytes(),
            "holds 17 bytes, the pickle declares 16",
        ),
        ("big-endian", byteorder(b"big"), "big-endian"),
        ("middle-endian", byteorder(b"pdp"), "is unknown"),
        (
            "long byte order",
            byteorder(&[b'l'; 1 << 20]),
            "not understood",
        ),
        ("comment", comment, "no end record"),
        (
            "two archives",
            prefixed,
            "does not end where the end record begins",
        ),
        ("directory elsewhere", patched(6, 0), "does not end where"),
        (
            "directory longer",
            patched(10, 10_000),
            "does not end where",
        ),
        ("counts differ", patched(14, 0x0005_0004), "several disks"),
        (
            "fewer entries",
            patched(14, 0x0003_0003),
            "longer than its entries",
        ),
        ("more entries", patched(14, 0x0005_0005), "cut off or lies"),
        ("on disk 1", patched(18, 1), "several disks"),
        (
            "too large for zip32",
            patched(6, u32::MAX),
            "zip64 record does not agree",
        ),
        (
            "zip64 count",
            zip64(|end| end[1] += 1),
            "zip64 record does not agree",
        ),
        (
            "zip64 size",
            zip64(|end| end[2] += 1),
            "zip64 record does not agree",
        ),
        (
            "zip64 start",
            zip64(|end| end[3] = u64::MAX),
            "zip64 record does not agree",
        ),
        (
            "zip64 field without need",
            extra(b"\x01\0\x08\0\0\0\0\0\0\0\0\0"),
            "zip64 field",
        ),
        (
            "extra field cut off",
            extra(b"\x01\0\xff\0"),
            "cut off or lies",
        ),
        (
            "zip64 size in the field",
            edited(|archive| {
                let member = archive.member("data/0");
                member.both(|header| header.size = u32::MAX);
                member.both(|header| {
                    header.extra = b"\x01\0\x08\0\xff\xff\xff\xff\0\0\0\x80".to_vec()
                });
            }),
            "its two sizes differ",
        ),
        (
            "zip64 field missing",
            storage(|header| (header.size, header.compressed) = (u32::MAX, u32::MAX)),
            "zip64 field is missing",
        ),
    ]);
}

#[test]
fn too_many_members_are_refused() {
    // The end record cannot count so many without zip64; only the count is looked at.
    let bytes =
        good().edit(|archive| archive.zip64 = Some(|end| (end[0], end[1]) = (65_537, 65_537)));
    let mut bytes = bytes.bytes();
    let end = bytes.len() - 14;
    bytes[end..end + 4].fill(0xff);
    check_refused(vec![("65,537 members", bytes, "more than 65536")]);
}
