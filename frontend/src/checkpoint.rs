//! [`Checkpoint`]: a file of weights, recognised by its content.

use std::{fmt, ops::Range, path::Path, sync::Arc};

use emoc_ir::{Diagnostic, Result};

use crate::{pth, safetensors, source::Source, tensor::Tensor};

/// Tensors of one file. The largest model here has 587, an optimizer triples that.
pub(crate) const MAX_TENSORS: usize = 1 << 17;

/// How a checkpoint is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `torch.save` since PyTorch 1.6: a zip file.
    TorchZip,
    /// `torch.save` before 1.6, or with `_use_new_zipfile_serialization=False`.
    TorchLegacy,
    /// safetensors.
    Safetensors,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::TorchZip => "PyTorch (zip)",
            Format::TorchLegacy => "PyTorch (legacy)",
            Format::Safetensors => "safetensors",
        })
    }
}

/// Something in the root of a checkpoint that is not itself a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key, made safe to print.
    pub key: String,
    /// What it is, in a few words: `dict of 2`, `13`, ``object of `argparse.Namespace`, not opened``.
    pub description: String,
}

/// A dict near the root that holds tensors: what a state_dict may be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Group {
    /// Keys from the root, joined with `/`.
    pub path: String,
    /// The last of them; empty for the root.
    pub key: String,
    pub depth: usize,
    /// The tensors in it, at any depth.
    pub tensors: Range<usize>,
    /// How many of them are its own values.
    pub direct: usize,
    /// Own values that are containers with tensors.
    pub nested: usize,
    /// Own values without tensors that are listed.
    pub others: usize,
    /// An own value is an object that is not opened and holds tensors.
    pub closed: bool,
}

/// Everything a reader finds out about a file.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub tensors: Vec<Tensor>,
    /// Outer before inner, in file order.
    pub groups: Vec<Group>,
    pub entries: Vec<Entry>,
}

/// A checkpoint: all its tensors by name, none of them read yet.
#[derive(Debug)]
pub struct Checkpoint {
    source: Arc<Source>,
    format: Format,
    pub(crate) listing: Listing,
}

impl Checkpoint {
    /// Opens a checkpoint of any supported [`Format`]; the name of the file does not matter. The
    /// file is mapped, its structure is checked completely, and tensors are read when asked for.
    ///
    /// # Errors
    /// The file cannot be read ([`emoc_ir::Kind::FileSystem`]), or must not be: it is damaged,
    /// hostile, or something else ([`emoc_ir::Kind::Input`]).
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(Source::open(path)?).map_err(|error| error.file(path))
    }

    /// Reads a checkpoint that is already in memory, as [`Self::open`] does.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        Self::read(Source::from_bytes(bytes))
    }

    fn read(source: Source) -> Result<Self> {
        let source = Arc::new(source);
        let format = recognise(source.bytes())?;
        let listing = match format {
            Format::TorchZip => pth::read_zip(&source)?,
            Format::TorchLegacy => pth::read_legacy(&source)?,
            Format::Safetensors => safetensors::read(&source)?,
        };
        // Looking at every member's header has touched much of the file.
        source.release_all();
        Ok(Self {
            source,
            format,
            listing,
        })
    }

    /// How the file is stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Size of the file in bytes.
    pub fn file_len(&self) -> u64 {
        self.source.bytes().len() as u64
    }

    /// SHA-256 of the whole file, in lower-case hexadecimal.
    pub fn sha256_file(&self) -> String {
        self.source.sha256()
    }

    /// The file, if it was opened by [`Self::open`].
    pub fn path(&self) -> Option<&Path> {
        self.source.path()
    }

    /// Every tensor, in file order. A tensor that is reachable in two ways is listed twice.
    pub fn tensors(&self) -> &[Tensor] {
        &self.listing.tensors
    }

    /// What else the root holds, in file order: the values of its dict that are no tensors.
    pub fn entries(&self) -> &[Entry] {
        &self.listing.entries
    }
}

/// Beginnings of files that people take for checkpoints.
const OTHERS: [(usize, &[u8], &str); 26] = [
    (0, b"\x1f\x8b", "a gzip file: decompress it first"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"GIF8", "a GIF picture"),
    (0, b"BM", "a BMP picture"),
    (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"),
    (8, b"WEBP", "a WebP picture"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras)"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"GGUF", "a GGUF file"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (0, b"\x7fELF", "an executable"),
    (
        0,
        b"\x28\xb5\x2f\xfd",
        "a Zstandard file: decompress it first",
    ),
    (0, b"\xfd7zXZ\0", "an xz file: decompress it first"),
    (0, b"BZh", "a bzip2 file: decompress it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (0, b"Rar!", "a RAR archive"),
    (
        0,
        b"version https://git-lfs",
        "a Git LFS pointer: the weights were not downloaded (`git lfs pull`)",
    ),
    (0, b"<!DOCTYPE", "a web page, perhaps a failed download"),
    (0, b"<!doctype", "a web page, perhaps a failed download"),
    (0, b"<html", "a web page, perhaps a failed download"),
    (0, b"PK\x05\x06", "an empty zip file"),
    (0, b"{", "a JSON file"),
];

/// Decides the format by content.
fn recognise(bytes: &[u8]) -> Result<Format> {
    // Before the pickle: a safetensors header of 640 bytes begins 80 02, like one.
    if bytes.get(8) == Some(&b'{') {
        return Ok(Format::Safetensors);
    }
    if bytes.starts_with(b"PK\x03\x04") {
        return Ok(Format::TorchZip);
    }
    if bytes.starts_with(b"\x80") {
        return Ok(Format::TorchLegacy);
    }
    let known = OTHERS
        .iter()
        .find(|(at, magic, _)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    let what = match known {
        Some((_, _, what)) => format!("the file is {what}"),
        None if bytes.is_empty() => "the checkpoint is an empty file".to_owned(),
        None if is_onnx(bytes) => "the file is an ONNX model, not a checkpoint".to_owned(),
        None => "the file is no checkpoint that emoc knows".to_owned(),
    };
    Err(Diagnostic::input(what)
        .help("emoc reads files of `torch.save` (.pth, .pt) and .safetensors"))
}

/// A protobuf whose first field is ONNX's `ir_version` and whose next is a string.
fn is_onnx(bytes: &[u8]) -> bool {
    matches!(bytes, [0x08, 1..=0x20, 0x12 | 0x1a | 0x3a, ..])
}
