//! Writers for the formats under test: tiny, and able to write nonsense on purpose.

use std::{path::PathBuf, time::Instant};

use emoc_frontend::{Checkpoint, Tensor};
use emoc_ir::{Kind, Result};

/// A fixture of the project.
pub fn fixture(name: &str) -> PathBuf {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures");
    PathBuf::from(root).join(name)
}

/// Opens a checkpoint and reads every tensor, so that damage anywhere in them shows.
pub fn load(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let checkpoint = Checkpoint::from_bytes(bytes.to_vec())?;
    let read = |tensor: &Tensor| Ok((line(tensor), tensor.bytes()?.into_owned()));
    checkpoint.tensors().iter().map(read).collect()
}

/// A tensor in one line: `name F32 [2, 3]`.
pub fn line(tensor: &Tensor) -> String {
    format!("{} {} {:?}", tensor.name(), tensor.dtype(), tensor.shape())
}

/// One file that must be refused: name, bytes, a piece of the message.
pub type Case = (&'static str, Vec<u8>, &'static str);

/// Checks that every case is refused as bad input, quickly, and for the right reason.
pub fn check_refused(cases: Vec<Case>) {
    let mut wrong = Vec::new();
    for (name, bytes, expected) in cases {
        let start = Instant::now();
        let result = load(&bytes);
        let took = start.elapsed();
        match result {
            Ok(tensors) => wrong.push(format!("{name}: loads {} tensors", tensors.len())),
            Err(error) if !error.to_string().contains(expected) => {
                wrong.push(format!("{name}: expected `{expected}`, found `{error}`"));
            }
            Err(error) if error.kind != Kind::Input => {
                wrong.push(format!("{name}: is {:?}, not Input", error.kind));
            }
            Err(_) if took.as_millis() > 1000 => wrong.push(format!("{name}: took {took:?}")),
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A pickle under construction.
#[derive(Clone)]
pub struct Pickle(pub Vec<u8>);

impl Pickle {
    pub fn new() -> Self {
        Self(vec![0x80, 2])
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn str(self, text: &str) -> Self {
        let len = (text.len() as u32).to_le_bytes();
        self.raw(b"X").raw(&len).raw(text.as_bytes())
    }

    /// LONG1 of 8 bytes.
    pub fn int(self, value: i64) -> Self {
        self.raw(&[0x8a, 8]).raw(&value.to_le_bytes())
    }

    pub fn global(self, module: &str, name: &str) -> Self {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    pub fn ints(self, values: &[i64]) -> Self {
        let open = self.raw(b"(");
        values
            .iter()
            .fold(open, |pickle, &v| pickle.int(v))
            .raw(b"t")
    }

    /// A storage by persistent id.
    pub fn storage(self, class: &str, key: &str, numel: i64) -> Self {
        let module = match class {
            "UntypedStorage" => "torch.storage",
            _ => "torch",
        };
        self.raw(b"(")
            .str("storage")
            .global(module, class)
            .str(key)
            .str("cpu")
            .int(numel)
            .raw(b"tQ")
    }

    /// A call of `_rebuild_tensor_v2` on a storage.
    pub fn view(
        self,
        storage: (&str, &str, i64),
        offset: i64,
        sizes: &[i64],
        strides: &[i64],
    ) -> Self {
        let (class, key, numel) = storage;
        self.global("torch._utils", "_rebuild_tensor_v2")
            .raw(b"(")
            .storage(class, key, numel)
            .int(offset)
            .ints(sizes)
            .ints(strides)
            .raw(b"\x89ccollections\nOrderedDict\n)Rt")
            .raw(b"R")
    }

    /// The tensor of `GOOD`: four floats of storage 0.
    pub fn tensor(self) -> Self {
        self.view(("FloatStorage", "0", 4), 0, &[2, 2], &[2, 1])
    }

    /// `{"weight": <the tensor>, "extra": <what `extra` pushes>}` and STOP.
    pub fn dict_with(extra: impl FnOnce(Self) -> Self) -> Self {
        let pickle = Self::new().raw(b"}(").str("weight").tensor().str("extra");
        extra(pickle).raw(b"u.")
    }
}

/// The floats of storage 0.
pub fn floats(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// Content of storage 0 in most tests.
pub fn storage0() -> Vec<u8> {
    floats(&[1.0, 2.0, 3.0, 4.0])
}

/// A zip checkpoint with this pickle and storage 0.
pub fn torch_zip(pickle: Pickle) -> Vec<u8> {
    archive(pickle).bytes()
}

/// A zip checkpoint whose pickle is just this, after PROTO.
pub fn raw(bytes: &[u8]) -> Vec<u8> {
    torch_zip(Pickle::new().raw(bytes))
}

/// The same as [`torch_zip`], still editable.
pub fn archive(pickle: Pickle) -> Archive {
    archive_of(pickle, &[("0", storage0())])
}

/// A zip checkpoint with this pickle and these storages.
pub fn archive_of(pickle: Pickle, storages: &[(&str, Vec<u8>)]) -> Archive {
    let mut members = vec![
        Member::stored("net/data.pkl", pickle.0),
        Member::stored("net/byteorder", b"little".to_vec()),
    ];
    let data = storages.iter();
    members
        .extend(data.map(|(key, data)| Member::stored(&format!("net/data/{key}"), data.clone())));
    members.push(Member::stored("net/version", b"3\n".to_vec()));
    Archive {
        members,
        zip64: None,
    }
}

/// One header of a zip member; a member has two, which may be made to disagree.
#[derive(Clone)]
pub struct Header {
    pub name: Vec<u8>,
    pub flags: u16,
    pub method: u16,
    pub crc: u32,
    pub compressed: u32,
    pub size: u32,
    pub extra: Vec<u8>,
}

#[derive(Clone)]
pub struct Member {
    pub central: Header,
    pub local: Header,
    pub attributes: u32,
    /// Where the directory claims the local header to be.
    pub offset: Option<u32>,
    pub data: Vec<u8>,
    pub descriptor: Vec<u8>,
}

impl Member {
    pub fn stored(name: &str, data: Vec<u8>) -> Self {
        let header = Header {
            name: name.as_bytes().to_vec(),
            flags: 0x800,
            method: 0,
            crc: crc32(&data),
            compressed: data.len() as u32,
            size: data.len() as u32,
            extra: Vec::new(),
        };
        Self {
            central: header.clone(),
            local: header,
            attributes: 0,
            offset: None,
            data,
            descriptor: Vec::new(),
        }
    }

    pub fn deflated(name: &str, data: &[u8]) -> Self {
        let mut encoder = flate2::read::DeflateEncoder::new(data, flate2::Compression::default());
        let mut packed = Vec::new();
        std::io::Read::read_to_end(&mut encoder, &mut packed).expect("reading memory");
        let mut member = Self::stored(name, packed);
        let size = data.len() as u32;
        member.both(|header| {
            header.method = 8;
            header.size = size;
            header.crc = crc32(data);
        });
        member
    }

    /// Changes both headers alike.
    pub fn both(&mut self, edit: impl Fn(&mut Header)) {
        edit(&mut self.central);
        edit(&mut self.local);
    }

    /// Moves CRC and sizes behind the data, as PyTorch writes them.
    pub fn with_descriptor(mut self) -> Self {
        self.both(|header| header.flags |= 8);
        let Header {
            crc,
            compressed,
            size,
            ..
        } = self.central;
        let fields = [0x0807_4b50, crc, compressed, size];
        self.descriptor = fields
            .iter()
            .flat_map(|field| field.to_le_bytes())
            .collect();
        (self.local.crc, self.local.compressed, self.local.size) = (0, 0, 0);
        self
    }
}

#[derive(Clone)]
pub struct Archive {
    pub members: Vec<Member>,
    /// Writes a zip64 end record, after changing its four fields: entries on this disk, entries,
    /// size and start of the directory.
    pub zip64: Option<fn(&mut [u64; 4])>,
}

impl Archive {
    /// The archive after a change.
    pub fn edit(mut self, edit: impl FnOnce(&mut Self)) -> Self {
        edit(&mut self);
        self
    }

    /// The member whose name ends so.
    pub fn member(&mut self, end: &str) -> &mut Member {
        let mut members = self.members.iter_mut();
        let found = members.find(|member| member.local.name.ends_with(end.as_bytes()));
        found.expect("the archive has the member")
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut directory = Vec::new();
        for member in &self.members {
            let offset = member.offset.unwrap_or(out.len() as u32);
            out.extend(0x0403_4b50u32.to_le_bytes());
            write_header(&mut out, &member.local, false);
            out.extend(&member.local.name);
            out.extend(&member.local.extra);
            out.extend(&member.data);
            out.extend(&member.descriptor);

            directory.extend(0x0201_4b50u32.to_le_bytes());
            directory.extend([0, 0]);
            write_header(&mut directory, &member.central, true);
            directory.extend([0; 2]);
            directory.extend(member.attributes.to_le_bytes());
            directory.extend(offset.to_le_bytes());
            directory.extend(&member.central.name);
            directory.extend(&member.central.extra);
        }
        let count = self.members.len() as u64;
        let mut end = [count, count, directory.len() as u64, out.len() as u64];
        out.extend(&directory);
        if let Some(edit) = self.zip64 {
            let at = out.len() as u64;
            let narrow = end;
            edit(&mut end);
            out.extend(0x0606_4b50u32.to_le_bytes());
            out.extend(44u64.to_le_bytes());
            out.extend([0; 12]);
            end.iter().for_each(|field| out.extend(field.to_le_bytes()));
            out.extend(0x0706_4b50u32.to_le_bytes());
            out.extend([0; 4]);
            out.extend(at.to_le_bytes());
            out.extend(1u32.to_le_bytes());
            end = narrow;
        }
        out.extend(0x0605_4b50u32.to_le_bytes());
        out.extend([0; 4]);
        out.extend((end[0] as u16).to_le_bytes());
        out.extend((end[1] as u16).to_le_bytes());
        out.extend((end[2] as u32).to_le_bytes());
        out.extend((end[3] as u32).to_le_bytes());
        out.extend([0, 0]);
        out
    }
}

/// The fields that both kinds of header share, in their order.
fn write_header(out: &mut Vec<u8>, header: &Header, central: bool) {
    out.extend([0, 0]);
    out.extend(header.flags.to_le_bytes());
    out.extend(header.method.to_le_bytes());
    out.extend([0; 4]);
    out.extend(header.crc.to_le_bytes());
    out.extend(header.compressed.to_le_bytes());
    out.extend(header.size.to_le_bytes());
    out.extend((header.name.len() as u16).to_le_bytes());
    out.extend((header.extra.len() as u16).to_le_bytes());
    if central {
        out.extend([0; 4]);
    }
}

pub fn crc32(data: &[u8]) -> u32 {
    crc32fast::hash(data)
}

/// A legacy file: the three leading pickles, the object, the keys, the storages.
pub fn legacy(pickle: Pickle, keys: &[&str], storages: &[(i64, Vec<u8>)]) -> Vec<u8> {
    legacy_with(1001, true, pickle, keys, storages)
}

pub fn legacy_with(
    version: i64,
    little_endian: bool,
    pickle: Pickle,
    keys: &[&str],
    storages: &[(i64, Vec<u8>)],
) -> Vec<u8> {
    let mut out = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
    out.extend(Pickle::new().int(version).raw(b".").0);
    let order: &[u8] = if little_endian { b"\x88" } else { b"\x89" };
    let machine = Pickle::new().raw(b"}").str("little_endian");
    out.extend(machine.raw(order).raw(b"s.").0);
    out.extend(pickle.0);
    let open = Pickle::new().raw(b"](");
    out.extend(
        keys.iter()
            .fold(open, |list, key| list.str(key))
            .raw(b"e.")
            .0,
    );
    for (numel, data) in storages {
        out.extend(numel.to_le_bytes());
        out.extend(data);
    }
    out
}

/// A safetensors file.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(data);
    out
}
