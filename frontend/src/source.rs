//! The bytes of a checkpoint file, and the records (zip members, legacy storages, safetensors
//! ranges) in them. Tensors share a [`Source`] and read from it on demand.

use std::{
    borrow::Cow,
    fs::File,
    io::Read,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use emoc_ir::{Diagnostic, Result};
use sha2::{Digest, Sha256};

/// How many bytes are hashed before their pages are given back.
const CHUNK: usize = 1 << 20;

/// One contiguous piece of the file that holds a storage.
#[derive(Debug)]
pub(crate) struct Record {
    /// Where it is, in words for a message: "entry `net/data/3`".
    pub place: String,
    /// The bytes in the file (compressed, if `inflated` is set).
    pub span: Range<usize>,
    /// The size after decompression, for a deflated record.
    pub inflated: Option<usize>,
    /// The CRC-32 of the (inflated) bytes, if the container carries one.
    pub crc: Option<u32>,
    /// Whether the CRC has been found right.
    checked: AtomicBool,
}

impl Record {
    pub fn new(place: String, span: Range<usize>) -> Self {
        Self {
            place,
            span,
            inflated: None,
            crc: None,
            checked: AtomicBool::new(false),
        }
    }

    /// The size of the record's content in bytes.
    pub fn len(&self) -> usize {
        self.inflated.unwrap_or(self.span.len())
    }
}

#[derive(Debug)]
enum Bytes {
    Mapped(memmap2::Mmap),
    Owned(Vec<u8>),
}

/// The content of a record: borrowed from the file, or shared after decompression.
pub(crate) enum Content<'a> {
    Borrowed(&'a [u8]),
    Shared(Arc<[u8]>),
}

impl std::ops::Deref for Content<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Content::Borrowed(bytes) => bytes,
            Content::Shared(bytes) => bytes,
        }
    }
}

/// A checkpoint's bytes with its table of records.
#[derive(Debug)]
pub(crate) struct Source {
    path: Option<PathBuf>,
    bytes: Bytes,
    /// Set once the container has been read.
    records: OnceLock<Vec<Record>>,
    /// The record that was inflated last. Tensors that share a storage follow one another, so
    /// one slot saves nearly every repetition and bounds the memory by the largest record.
    inflated: Mutex<Option<(usize, Arc<[u8]>)>>,
}

impl Source {
    /// Maps a regular, non-empty file.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |error: std::io::Error| Diagnostic::io("open the checkpoint", path, &error);
        // Asked before opening: opening a named pipe would wait for a writer.
        let metadata = std::fs::metadata(path).map_err(io)?;
        let refuse = |what: &str| Err(Diagnostic::input(what).file(path));
        if metadata.is_dir() {
            return refuse("the checkpoint is a directory, not a file");
        }
        if !metadata.is_file() {
            return refuse("the checkpoint is not a regular file");
        }
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.len() == 0 {
            return refuse("the checkpoint is an empty file");
        }
        // SAFETY: the map is private and read-only. Another process that truncates the file while
        // it is mapped would make a read fault; every checkpoint reader that maps files lives with
        // that, and bytes that change in between are caught by no one, mapped or not.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        Ok(Self::new(Some(path.to_owned()), Bytes::Mapped(map)))
    }

    /// A checkpoint that is already in memory.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self::new(None, Bytes::Owned(bytes))
    }

    fn new(path: Option<PathBuf>, bytes: Bytes) -> Self {
        Self {
            path,
            bytes,
            records: OnceLock::new(),
            inflated: Mutex::new(None),
        }
    }

    /// Fills the table of records, once.
    pub fn set_records(&self, records: Vec<Record>) {
        let first = self.records.set(records);
        assert!(first.is_ok(), "a container is read once");
    }

    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }

    pub fn record(&self, record: usize) -> &Record {
        &self.records.get().expect("tensors are made after records")[record]
    }

    /// The content of a record, inflated if need be, its CRC verified on first use.
    pub fn content(&self, record: usize) -> Result<Content<'_>> {
        let row = self.record(record);
        let content = match row.inflated {
            None => Content::Borrowed(&self.bytes()[row.span.clone()]),
            Some(_) => {
                let mut slot = self.inflated.lock().unwrap_or_else(PoisonError::into_inner);
                match &*slot {
                    Some((number, bytes)) if *number == record => Content::Shared(bytes.clone()),
                    _ => {
                        // Free the previous one first.
                        *slot = None;
                        let bytes: Arc<[u8]> = read(self.bytes(), row)?.into_owned().into();
                        *slot = Some((record, bytes.clone()));
                        Content::Shared(bytes)
                    }
                }
            }
        };
        if row.inflated.is_none() && !row.checked.load(Ordering::Relaxed) {
            verify(row, &content)?;
            row.checked.store(true, Ordering::Relaxed);
        }
        Ok(content)
    }

    /// Gives the pages of a record back to the system once it has been read, so that walking
    /// through a file of any size needs little memory.
    pub fn release(&self, record: usize) {
        self.release_span(self.record(record).span.clone());
    }

    /// Gives all pages back.
    pub fn release_all(&self) {
        self.release_span(0..self.bytes().len());
    }

    fn release_span(&self, span: Range<usize>) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = &self.bytes {
            // Failure costs memory only.
            // SAFETY: dropping pages of a read-only map of a file loses nothing: they are read
            // from the file again when touched.
            let _ = unsafe {
                map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    span.start,
                    span.len(),
                )
            };
        }
    }

    /// SHA-256 of the whole file, in lower-case hexadecimal.
    pub fn sha256(&self) -> String {
        let mut hasher = Sha256::new();
        for (i, chunk) in self.bytes().chunks(CHUNK).enumerate() {
            hasher.update(chunk);
            self.release_span(i * CHUNK..i * CHUNK + chunk.len());
        }
        hex(&hasher.finalize())
    }
}

/// Reads a record once: inflates it if need be and verifies its CRC.
pub(crate) fn read<'a>(file: &'a [u8], record: &Record) -> Result<Cow<'a, [u8]>> {
    let raw = &file[record.span.clone()];
    let content = match record.inflated {
        None => Cow::Borrowed(raw),
        Some(size) => Cow::Owned(inflate(raw, size).map_err(|what| {
            Diagnostic::input(format!("the compressed data is damaged: {what}"))
                .at(record.place.clone())
                .help("copy or download the file again")
        })?),
    };
    verify(record, &content)?;
    Ok(content)
}

/// Inflates exactly `size` bytes from exactly `raw`.
fn inflate(raw: &[u8], size: usize) -> Result<Vec<u8>, String> {
    // The caller has bounded `size` by 20 times the compressed bytes.
    let mut decoder = flate2::bufread::DeflateDecoder::new(raw);
    let mut content = Vec::with_capacity(size);
    let limit = size as u64 + 1;
    let read = (&mut decoder).take(limit).read_to_end(&mut content);
    read.map_err(|error| error.to_string())?;
    if content.len() != size {
        let more = if content.len() > size {
            "more than "
        } else {
            ""
        };
        let found = content.len().min(size);
        return Err(format!("it holds {more}{found} bytes, {size} are declared"));
    }
    if decoder.total_in() != raw.len() as u64 {
        return Err("unused bytes follow it".to_owned());
    }
    Ok(content)
}

fn verify(record: &Record, content: &[u8]) -> Result<()> {
    match record.crc {
        Some(crc) if crc32fast::hash(content) != crc => Err(Diagnostic::input(
            "the checksum (CRC-32) does not match: the file is damaged",
        )
        .at(record.place.clone())
        .help("copy or download the file again")),
        _ => Ok(()),
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
