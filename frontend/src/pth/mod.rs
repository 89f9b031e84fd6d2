//! Files of `torch.save`, in both of its formats, read without Python: nothing in them is
//! looked up, constructed or executed.
//!
//! In reading order: [`zip`] and [`legacy`] are the containers, [`pickle`] and [`objects`] run
//! the object stream into an [`arena`], [`globals`] and [`rebuild`] say what its names mean,
//! [`list`] names the tensors that came out.

mod arena;
mod globals;
mod legacy;
mod list;
mod objects;
mod pickle;
mod rebuild;
mod zip;

use std::{borrow::Cow, sync::Arc};

use emoc_ir::{DType, Diagnostic, Result};

use self::{arena::Storage, list::list, pickle::unpickle, zip::Member};
pub(crate) use self::{
    legacy::read_legacy,
    pickle::is_name,
    rebuild::{MAX_DIM, MAX_RANK},
};
use crate::{
    checkpoint::Listing,
    source::{Record, Source, read},
};

/// Reads the zip format: `root/data.pkl` and one member per storage.
pub(crate) fn read_zip(source: &Arc<Source>) -> Result<Listing> {
    let file = source.bytes();
    let (members, root) = zip::members(file)?;
    let find = |name: &str| {
        let name = format!("{root}{name}");
        let at = members.binary_search_by(|member| member.name.as_str().cmp(&name));
        at.ok()
    };
    refuse_other_archives(&members, &root)?;
    if let Some(at) = find("byteorder") {
        check_byteorder(file, &members[at])?;
    }
    let Some(at) = find("data.pkl") else {
        return Err(Diagnostic::input(
            "the zip file is no PyTorch checkpoint: it has no `data.pkl`",
        ));
    };
    let pickle = read_pickle(file, &members[at])?;
    let unpickled = unpickle(&pickle, &members[at].name, 0)?;
    if unpickled.len != pickle.len() {
        return Err(
            Diagnostic::input("bytes follow the end of the pickle").at(format!(
                "entry `{}`, byte {}",
                members[at].name, unpickled.len
            )),
        );
    }

    // One record per member that holds a storage.
    let mut records = Vec::new();
    let mut slots: Vec<Option<(usize, Option<DType>)>> = vec![None; members.len()];
    let mut record_of = Vec::with_capacity(unpickled.arena.storages.len());
    for storage in &unpickled.arena.storages {
        let key = String::from_utf8_lossy(&pickle[storage.key.range()]);
        let refuse = |what: String| {
            Diagnostic::input(what).at(format!("entry `{root}data/{}`", key.escape_debug()))
        };
        let at = find(&format!("data/{key}"));
        let at = at.ok_or_else(|| refuse("the entry of a storage is missing".to_owned()))?;
        check_size(storage, members[at].size()).map_err(refuse)?;
        let (record, dtype) = *slots[at].get_or_insert_with(|| {
            records.push(members[at].record());
            (records.len() - 1, storage.dtype)
        });
        if dtype != storage.dtype {
            return Err(refuse(
                "a storage is declared with two element types".to_owned(),
            ));
        }
        record_of.push(record);
    }
    source.set_records(records);
    list(&unpickled, &pickle, &record_of, source)
}

fn check_size(storage: &Storage, found: u64) -> Result<(), String> {
    let declared = storage.bytes;
    match found == declared || storage.dtype.is_none() {
        true => Ok(()),
        false => Err(format!(
            "the storage holds {found} bytes, the pickle declares {declared}"
        )),
    }
}

fn refuse_other_archives(members: &[Member], root: &str) -> Result<()> {
    let holds = |start: &str| {
        let names = members.iter();
        let mut names = names.filter_map(|member| member.name.strip_prefix(root));
        names.any(|name| name.starts_with(start))
    };
    let what = if holds("constants.pkl") || holds("code/") {
        "a TorchScript archive (`torch.jit.save`): it holds code"
    } else if holds("archive_format") || holds("models/") {
        "an archive of torch.export: it holds a program"
    } else if holds(".data/extern_modules") {
        "an archive of torch.package: it holds code"
    } else {
        return Ok(());
    };
    Err(Diagnostic::input(format!("the file is {what}"))
        .help("load it in Python and save its weights: `torch.save(model.state_dict(), path)`"))
}

fn check_byteorder(file: &[u8], member: &Member) -> Result<()> {
    let refuse = |what: String| Err(Diagnostic::input(what).at(format!("entry `{}`", member.name)));
    if member.size() > 16 {
        return refuse("the byte order is not understood".to_owned());
    }
    match &*read(file, &member.record())? {
        b"little" => Ok(()),
        b"big" => refuse("the checkpoint was written on a big-endian machine".to_owned()),
        other => refuse(format!(
            "byte order \"{}\" is unknown",
            other.escape_ascii()
        )),
    }
}

fn read_pickle<'a>(file: &'a [u8], member: &Member) -> Result<Cow<'a, [u8]>> {
    if member.size() > pickle::MAX_BYTES as u64 {
        return Err(Diagnostic::input(format!(
            "the pickle is {} bytes long, more than {}",
            member.size(),
            pickle::MAX_BYTES
        ))
        .at(format!("entry `{}`", member.name)));
    }
    let record: Record = member.record();
    read(file, &record)
}
