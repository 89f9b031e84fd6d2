//! The format of `torch.save` before 1.6: five pickles in a row (a magic number, the version,
//! facts about the machine, the object, the list of storage keys), then the storages, each
//! behind its number of elements. It carries no checksum.

use std::sync::Arc;

use emoc_ir::{Diagnostic, Result};

use super::{
    arena::Node,
    list::list,
    pickle::{Unpickled, unpickle},
};
use crate::{
    checkpoint::Listing,
    source::{Record, Source},
};

/// 0x1950a86a20f9469cfc6c.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
const VERSION: i64 = 1001;

/// The pickles, one after another.
struct Pickles<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Pickles<'a> {
    /// Runs the next pickle; also returns its bytes.
    fn next(&mut self) -> Result<(Unpickled, &'a [u8])> {
        let bytes = &self.file[self.at..];
        let unpickled = unpickle(bytes, "", self.at)?;
        self.at += unpickled.len;
        Ok((unpickled, bytes))
    }

    fn refuse(&self, what: impl Into<String>) -> Box<Diagnostic> {
        Diagnostic::input(what).at(format!("byte {}", self.at))
    }
}

/// Reads the legacy format; also the place where any other pickle is refused.
pub(crate) fn read_legacy(source: &Arc<Source>) -> Result<Listing> {
    let file = source.bytes();
    let mut pickles = Pickles { file, at: 0 };
    // Run before it is compared, so that a hostile pickle is refused by what it names.
    let first = pickles.next()?;
    if !file.starts_with(MAGIC) || first.0.len != MAGIC.len() {
        return Err(
            Diagnostic::input("the file is a pickle, but not one of `torch.save`")
                .help("load it in Python and save its weights with `torch.save`"),
        );
    }
    let (version, _) = pickles.next()?;
    match version.arena.node(version.root) {
        Node::Int(VERSION) => {}
        _ => return Err(pickles.refuse("the version of the format is unknown")),
    }
    let (machine, bytes) = pickles.next()?;
    check_machine(&machine, bytes).map_err(|what| pickles.refuse(what))?;
    let (unpickled, pickle) = pickles.next()?;
    let record_of = read_storages(source, &mut pickles, &unpickled, pickle)?;
    list(&unpickled, pickle, &record_of, source)
}

/// The third pickle: a dict that says, among other things, in which order bytes stand.
fn check_machine(machine: &Unpickled, bytes: &[u8]) -> Result<(), &'static str> {
    let Node::Dict(entries) = machine.arena.node(machine.root) else {
        return Err("the description of the writing machine is not a dict");
    };
    for entry in machine.arena.links(entries) {
        if let Node::Str(key) = machine.arena.node(entry.key)
            && &bytes[key.range()] == b"little_endian"
            && matches!(machine.arena.node(entry.value), Node::Bool(false))
        {
            return Err("the checkpoint was written on a big-endian machine");
        }
    }
    Ok(())
}

/// Reads the list of keys and finds the storages behind it; returns the record of each storage
/// that the pickle mentions.
fn read_storages(
    source: &Source,
    pickles: &mut Pickles,
    unpickled: &Unpickled,
    pickle: &[u8],
) -> Result<Vec<usize>> {
    let storages = &unpickled.arena.storages;
    let key_of = |number: usize| &pickle[storages[number].key.range()];
    let mut by_key: Vec<usize> = (0..storages.len()).collect();
    by_key.sort_by_key(|&number| key_of(number));

    let (keys, key_bytes) = pickles.next()?;
    let listed = match keys.arena.node(keys.root) {
        Node::List(chain) => keys.arena.links(chain),
        _ => return Err(pickles.refuse("the list of storages is not a list")),
    };
    let mut records = Vec::new();
    let mut record_of = vec![usize::MAX; storages.len()];
    for link in listed {
        let Node::Str(key) = keys.arena.node(link.value) else {
            return Err(pickles.refuse("the key of a storage is not a str"));
        };
        let key = &key_bytes[key.range()];
        let from = by_key.partition_point(|&number| key_of(number) < key);
        let to = by_key.partition_point(|&number| key_of(number) <= key);
        let (Some(&first), name) = (by_key[from..to].first(), key.escape_ascii()) else {
            let name = key.escape_ascii();
            return Err(pickles.refuse(format!("storage \"{name}\" is listed, but not used")));
        };
        let (dtype, bytes) = (storages[first].dtype, storages[first].bytes);
        let Some(item) = dtype.map(|dtype| dtype.size() as u64) else {
            return Err(pickles.refuse(format!("storage \"{name}\" has unsupported elements")));
        };
        for &number in &by_key[from..to] {
            if (storages[number].dtype, storages[number].bytes) != (dtype, bytes) {
                return Err(pickles.refuse(format!("storage \"{name}\" is declared in two ways")));
            }
            if record_of[number] != usize::MAX {
                return Err(pickles.refuse(format!("storage \"{name}\" is listed twice")));
            }
            record_of[number] = records.len();
        }
        records.push(read_storage(pickles, &name.to_string(), item, bytes)?);
    }
    if let Some(number) = record_of.iter().position(|&record| record == usize::MAX) {
        let name = key_of(number).escape_ascii();
        return Err(pickles.refuse(format!("storage \"{name}\" is missing")));
    }
    if pickles.at != pickles.file.len() {
        return Err(pickles.refuse("bytes follow the last storage"));
    }
    source.set_records(records);
    Ok(record_of)
}

/// One storage: the number of elements, then their bytes.
fn read_storage(pickles: &mut Pickles, name: &str, item: u64, bytes: u64) -> Result<Record> {
    let rest = &pickles.file[pickles.at..];
    let Some((numel, rest)) = rest.split_first_chunk::<8>() else {
        return Err(pickles.refuse(format!("the file is cut off before storage \"{name}\"")));
    };
    let numel = u64::from_le_bytes(*numel);
    if numel.checked_mul(item) != Some(bytes) {
        return Err(pickles.refuse(format!(
            "storage \"{name}\" has {numel} elements, the pickle declares {}",
            bytes / item
        )));
    }
    if bytes > rest.len() as u64 {
        return Err(pickles.refuse(format!(
            "the file is cut off in storage \"{name}\": {bytes} bytes are announced, {} are left",
            rest.len()
        )));
    }
    let start = pickles.at + 8;
    pickles.at = start + bytes as usize;
    Ok(Record::new(format!("byte {start}"), start..pickles.at))
}
