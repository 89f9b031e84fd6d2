//! The zip container of `torch.save`, read by stricter rules than unpackers need: the directory
//! at the end of the file is the only truth, everything else must agree with it, and no byte
//! belongs to two members.

use std::ops::Range;

use emoc_ir::{Diagnostic, Result};

use super::pickle::is_name;
use crate::source::Record;

/// Members of one file.
const MAX_MEMBERS: u64 = 65_536;
/// Bytes out per byte in. Weights hardly compress; a bomb does.
const MAX_RATIO: u64 = 20;
/// A data descriptor follows the data (bit 3), names are UTF-8 (bit 11). Encryption, patches and
/// the rest are refused.
const FLAGS: u16 = 0x808;
const HAS_DESCRIPTOR: u16 = 0x8;

const END: u32 = 0x0605_4b50;
const END64: u32 = 0x0606_4b50;
const LOCATOR64: u32 = 0x0706_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;

/// One member.
#[derive(Debug)]
pub(super) struct Member {
    pub name: String,
    /// The data.
    pub span: Range<usize>,
    /// Header, data and descriptor.
    extent: Range<usize>,
    deflated: bool,
    size: u64,
    crc: u32,
}

impl Member {
    pub fn record(&self) -> Record {
        let mut record = Record::new(format!("entry `{}`", self.name), self.span.clone());
        record.inflated = self.deflated.then_some(self.size as usize);
        // PyTorch can be told to write no checksums; then the field is 0.
        record.crc = (self.crc != 0).then_some(self.crc);
        record
    }

    /// Bytes of the content.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// What one entry of the central directory says.
struct Central {
    name: String,
    flags: u16,
    method: u16,
    crc: u32,
    compressed: u64,
    size: u64,
    header: u64,
}

/// Reads the directory and checks every member's local header. Members are sorted by name; the
/// second result is the single root folder, with its slash.
pub(super) fn members(file: &[u8]) -> Result<(Vec<Member>, String)> {
    let (directory, count) = find_directory(file)?;
    let mut reader = Reader {
        bytes: &file[..directory.end],
        at: directory.start,
    };
    let mut members = Vec::new();
    for _ in 0..count {
        let at = reader.at;
        let central = central(&mut reader)
            .and_then(|central| check_central(central, &file[..directory.start]))
            .map_err(|what| refuse(what).at(format!("zip directory, byte {at}")))?;
        let name = central.name.clone();
        let member = local(&file[..directory.start], central);
        members.push(member.map_err(|what| refuse(what).at(format!("entry `{name}`")))?);
    }
    if reader.at != directory.end {
        return Err(refuse("the zip directory is longer than its entries"));
    }
    check_overlaps(&mut members)?;
    check_names(members)
}

fn refuse(what: impl Into<String>) -> Box<Diagnostic> {
    Diagnostic::input(what)
}

type Checked<T> = Result<T, String>;

/// Little-endian fields; a read past the end is an error.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Checked<&'a [u8]> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let bytes = rest.get(..len).ok_or("the zip file is cut off or lies")?;
        self.at += len;
        Ok(bytes)
    }

    fn uint(&mut self, size: usize) -> Checked<u64> {
        let bytes = self.take(size)?.iter().rev();
        Ok(bytes.fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    fn u16(&mut self) -> Checked<u16> {
        Ok(self.uint(2)? as u16)
    }

    fn u32(&mut self) -> Checked<u32> {
        Ok(self.uint(4)? as u32)
    }

    fn signature(&mut self, expected: u32, what: &str) -> Checked<()> {
        match self.u32()? == expected {
            true => Ok(()),
            false => Err(format!("{what} has a wrong signature")),
        }
    }
}

/// The span of the central directory and the number of its entries.
fn find_directory(file: &[u8]) -> Result<(Range<usize>, u64)> {
    let damaged = |what: String| {
        refuse(what)
            .at("end of the zip file")
            .help("the file may be cut off: copy or download it again")
    };
    let end_at = file.len().checked_sub(22);
    let Some(end_at) = end_at.filter(|&at| file[at..].starts_with(&END.to_le_bytes())) else {
        return Err(damaged("the zip file has no end record".to_owned()));
    };
    let (span, count) = directory(file, end_at).map_err(damaged)?;
    Ok((span, count))
}

fn directory(file: &[u8], end_at: usize) -> Checked<(Range<usize>, u64)> {
    let mut end = Reader {
        bytes: file,
        at: end_at,
    };
    end.signature(END, "the end record")?;
    let disks = [end.u16()?, end.u16()?];
    let counts = [end.uint(2)?, end.uint(2)?];
    let (size, start) = (end.uint(4)?, end.uint(4)?);
    if end.u16()? != 0 {
        return Err("the zip file has a comment".to_owned());
    }
    let narrow = [counts[0], counts[1], size, start];
    let (wide, stop) = match directory64(file, end_at)? {
        Some(found) => found,
        None => (narrow, end_at),
    };
    // A field too small for its value is all ones; otherwise both say the same.
    let ones = [0xffff, 0xffff, 0xffff_ffff, 0xffff_ffff];
    for ((narrow, wide), ones) in narrow.into_iter().zip(wide).zip(ones) {
        if narrow != wide && narrow != ones || narrow == ones && stop == end_at {
            return Err("the zip64 record does not agree with the end record".to_owned());
        }
    }
    if disks != [0, 0] || wide[0] != wide[1] {
        return Err("the zip file spans several disks".to_owned());
    }
    let [count, _, size, start] = wide;
    if count > MAX_MEMBERS {
        return Err(format!(
            "the zip file has {count} members, more than {MAX_MEMBERS}"
        ));
    }
    if start.checked_add(size) != Some(stop as u64) {
        return Err("the zip directory does not end where the end record begins".to_owned());
    }
    Ok((start as usize..stop, count))
}

/// The fields of the zip64 end record and where it begins, if there is one.
fn directory64(file: &[u8], end_at: usize) -> Checked<Option<([u64; 4], usize)>> {
    let locator_at = end_at.checked_sub(20);
    let has_locator = |&at: &usize| file[at..].starts_with(&LOCATOR64.to_le_bytes());
    let Some(locator_at) = locator_at.filter(has_locator) else {
        return Ok(None);
    };
    let mut locator = Reader {
        bytes: file,
        at: locator_at + 4,
    };
    let (disk, at, disks) = (locator.u32()?, locator.uint(8)?, locator.u32()?);
    // Without extensions the record is 56 bytes.
    let expected = locator_at
        .checked_sub(56)
        .ok_or("the zip64 record is missing")?;
    if disk != 0 || disks > 1 || at != expected as u64 {
        return Err("the zip64 record is not where its locator says".to_owned());
    }
    let mut record = Reader {
        bytes: file,
        at: expected,
    };
    record.signature(END64, "the zip64 record")?;
    let size = record.uint(8)?;
    record.take(4)?;
    let disks = [record.u32()?, record.u32()?];
    if size != 44 || disks != [0, 0] {
        return Err("the zip64 record is not understood".to_owned());
    }
    let mut field = || record.uint(8);
    Ok(Some(([field()?, field()?, field()?, field()?], expected)))
}

/// Reads one entry of the central directory.
fn central(reader: &mut Reader) -> Checked<Central> {
    reader.signature(CENTRAL, "a directory entry")?;
    let (made_by, _needed) = (reader.u16()?, reader.u16()?);
    let (flags, method) = (reader.u16()?, reader.u16()?);
    let _time_and_date = reader.u32()?;
    let crc = reader.u32()?;
    let (mut compressed, mut size) = (reader.uint(4)?, reader.uint(4)?);
    let lengths = [reader.u16()?, reader.u16()?, reader.u16()?];
    let (disk, _internal, attributes) = (reader.u16()?, reader.u16()?, reader.u32()?);
    let mut header = reader.uint(4)?;
    let name = reader.take(usize::from(lengths[0]))?;
    let extra = reader.take(usize::from(lengths[1]))?;
    reader.take(usize::from(lengths[2]))?;
    widen(extra, [&mut size, &mut compressed, &mut header])?;
    let name = std::str::from_utf8(name).map_err(|_| "a member's name is not UTF-8")?;
    if !is_name(name) {
        return Err("a member's name is longer than 1 KiB or has control characters".to_owned());
    }
    if disk != 0 {
        return Err("the zip file spans several disks".to_owned());
    }
    // The file type of Unix, whoever claims to have written it.
    if attributes >> 28 == 0xa {
        return Err(format!(
            "`{name}` is a symbolic link (made by {made_by:#x})"
        ));
    }
    Ok(Central {
        name: name.to_owned(),
        flags,
        method,
        crc,
        compressed,
        size,
        header,
    })
}

/// Replaces fields that are all ones by the values of the zip64 extra field.
fn widen<const N: usize>(extra: &[u8], fields: [&mut u64; N]) -> Checked<()> {
    let mut reader = Reader {
        bytes: extra,
        at: 0,
    };
    let mut wide = None;
    while reader.at < extra.len() {
        let (id, len) = (reader.u16()?, reader.u16()?);
        let body = reader.take(usize::from(len))?;
        if id == 1 && wide.replace(body).is_some() {
            return Err("a member has two zip64 fields".to_owned());
        }
    }
    let mut wide = Reader {
        bytes: wide.unwrap_or_default(),
        at: 0,
    };
    for field in fields {
        if *field == 0xffff_ffff {
            *field = wide.uint(8).map_err(|_| "a zip64 field is missing")?;
        }
    }
    match wide.at == wide.bytes.len() {
        true => Ok(()),
        false => Err("a zip64 field does not agree with the 32-bit fields".to_owned()),
    }
}

/// Checks what can be checked without the local header. `body` is the file before its directory.
fn check_central(central: Central, body: &[u8]) -> Checked<Central> {
    let Central { name, .. } = &central;
    if central.flags & !FLAGS != 0 {
        return Err(format!(
            "`{name}` has unsupported flags {:#x}",
            central.flags
        ));
    }
    match central.method {
        0 if central.size != central.compressed => {
            return Err(format!("`{name}` is stored, but its two sizes differ"));
        }
        0 => {}
        8 if central.size > central.compressed.saturating_mul(MAX_RATIO) => {
            return Err(format!(
                "`{name}` is compressed more than {MAX_RATIO} to 1 ({} bytes to {})",
                central.size, central.compressed
            ));
        }
        8 => {}
        method => return Err(format!("`{name}` has unsupported compression {method}")),
    }
    if central.compressed > body.len() as u64 {
        return Err(format!(
            "`{name}` announces {} bytes in a file of {}",
            central.compressed,
            body.len()
        ));
    }
    Ok(central)
}

/// Finds a member's data behind its local header, which must agree with the directory.
fn local(body: &[u8], central: Central) -> Checked<Member> {
    let header = usize::try_from(central.header).unwrap_or(usize::MAX);
    let mut reader = Reader {
        bytes: body,
        at: header,
    };
    reader.signature(LOCAL, "the local header")?;
    let _needed = reader.u16()?;
    let (flags, method) = (reader.u16()?, reader.u16()?);
    let _time_and_date = reader.u32()?;
    let crc = reader.u32()?;
    let (mut compressed, mut size) = (reader.uint(4)?, reader.uint(4)?);
    let lengths = [reader.u16()?, reader.u16()?];
    let name = reader.take(usize::from(lengths[0]))?;
    let extra = reader.take(usize::from(lengths[1]))?;
    let start = reader.at;
    reader.take(central.compressed as usize)?;
    let end = reader.at;
    if size == 0xffff_ffff || compressed == 0xffff_ffff {
        widen(extra, [&mut size, &mut compressed])?;
    }
    let announced = [u64::from(crc), compressed, size];
    let actual = [u64::from(central.crc), central.compressed, central.size];
    // With a descriptor the header was written before the sizes were known.
    let later = flags & HAS_DESCRIPTOR != 0;
    let agrees = |(a, b): (u64, u64)| a == b || later && a == 0;
    if flags != central.flags
        || method != central.method
        || name != central.name.as_bytes()
        || !announced.into_iter().zip(actual).all(agrees)
    {
        return Err("the local header does not agree with the zip directory".to_owned());
    }
    if later {
        descriptor(&mut reader, actual)?;
    }
    Ok(Member {
        name: central.name,
        span: start..end,
        extent: header..reader.at,
        deflated: method == 8,
        size: central.size,
        crc: central.crc,
    })
}

/// Reads the data descriptor: an optional signature, the CRC, the sizes in 4 or 8 bytes.
fn descriptor(reader: &mut Reader, [crc, compressed, size]: [u64; 3]) -> Checked<()> {
    let start = reader.at;
    for (signature, width) in [(true, 4), (true, 8), (false, 4), (false, 8)] {
        reader.at = start;
        let mut read = || -> Checked<[u64; 3]> {
            if signature {
                reader.signature(DESCRIPTOR, "the data descriptor")?;
            }
            Ok([reader.uint(4)?, reader.uint(width)?, reader.uint(width)?])
        };
        if read() == Ok([crc, compressed, size]) {
            return Ok(());
        }
    }
    Err("the data descriptor does not agree with the zip directory".to_owned())
}

fn check_overlaps(members: &mut [Member]) -> Result<()> {
    members.sort_by_key(|member| member.extent.start);
    for pair in members.windows(2) {
        if pair[0].extent.end > pair[1].extent.start {
            return Err(refuse(format!("it overlaps entry `{}`", pair[0].name))
                .at(format!("entry `{}`", pair[1].name)));
        }
    }
    Ok(())
}

/// One root folder, unique names, nothing that could leave a folder.
fn check_names(mut members: Vec<Member>) -> Result<(Vec<Member>, String)> {
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let root = match members
        .first()
        .and_then(|member| member.name.split_once('/'))
    {
        Some((root, _)) => format!("{root}/"),
        None => {
            return Err(refuse(
                "the zip file has no root folder: it is no checkpoint",
            ));
        }
    };
    for member in &members {
        let name = &member.name;
        let odd = name.contains("..") || name.contains(['\\', ':']);
        let what = match name.strip_prefix(&root) {
            _ if odd => "the name is not allowed: it has `..`, `\\` or `:`",
            None => "the zip file has more than one root folder: it is no checkpoint",
            Some(rest) if rest.starts_with('/') || root == "/" => "the name is not relative",
            Some(_) => continue,
        };
        return Err(refuse(what).at(format!("entry `{name}`")));
    }
    if let Some(pair) = members.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(refuse("two members have this name").at(format!("entry `{}`", pair[0].name)));
    }
    Ok((members, root))
}
