//! safetensors: eight bytes of header length, a JSON header, the data. Every byte of the data
//! belongs to exactly one tensor.

use std::{fmt, sync::Arc};

use emoc_ir::{DType, Diagnostic, Result};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

use crate::{
    checkpoint::{Entry, Group, Listing, MAX_TENSORS},
    pth::{MAX_DIM, MAX_RANK, is_name},
    source::{Record, Source},
    tensor::{Tensor, View},
};

/// Bytes of the JSON header.
const MAX_HEADER: u64 = 25_000_000;

/// Reads the header and checks it against the data.
pub(crate) fn read(source: &Arc<Source>) -> Result<Listing> {
    let refuse = |what: String| Diagnostic::input(what).at("safetensors header");
    let (header, data) = split(source.bytes()).map_err(refuse)?;
    let header: Header = serde_json::from_slice(header)
        .map_err(|error| refuse(format!("the header is not allowed: {error}")))?;
    let start = source.bytes().len() - data.len();

    let mut records = Vec::new();
    let mut listing = Listing::default();
    for (record, (name, info)) in header.tensors.into_iter().enumerate() {
        let refuse = |what: String| refuse(what).key(name.clone());
        if !is_name(&name) {
            return Err(refuse(
                "the name is longer than 1 KiB or has control characters".into(),
            ));
        }
        let dtype = check(&info, data.len()).map_err(refuse)?;
        let [from, to] = info.data_offsets;
        let span = start + from as usize..start + to as usize;
        records.push(Record::new(format!("byte {}", span.start), span));
        let shape: Vec<usize> = info.shape.0.iter().map(|&size| size as usize).collect();
        let view = View {
            source: source.clone(),
            record,
            offset: 0,
            strides: contiguous(&shape),
        };
        listing
            .tensors
            .push(Tensor::stored(name, dtype, shape, view));
    }
    check_coverage(&records, start, source.bytes().len()).map_err(refuse)?;
    source.set_records(records);
    listing.groups.push(Group {
        tensors: 0..listing.tensors.len(),
        direct: listing.tensors.len(),
        ..Group::default()
    });
    if let Some(count) = header.metadata {
        listing.entries.push(Entry {
            key: "__metadata__".to_owned(),
            description: format!("dict of {count}"),
        });
    }
    Ok(listing)
}

/// Header and data.
fn split(file: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let (len, rest) = file.split_first_chunk::<8>().ok_or("the file is cut off")?;
    let len = u64::from_le_bytes(*len);
    if len > MAX_HEADER {
        return Err(format!(
            "the header is announced as {len} bytes, at most {MAX_HEADER} are allowed"
        ));
    }
    let split = rest.split_at_checked(len as usize);
    split.ok_or_else(|| {
        format!(
            "the file is cut off or lies: a header of {len} bytes is announced, {} are left",
            rest.len()
        )
    })
}

/// Checks one tensor's description by itself; returns its element type.
fn check(info: &Info, data: usize) -> Result<DType, String> {
    let dtype: DType = info.dtype.parse()?;
    if dtype.name() != info.dtype {
        return Err(format!("unknown element type `{}`", info.dtype));
    }
    let Sizes(shape) = &info.shape;
    if let Some(size) = shape.iter().find(|&&size| size >= MAX_DIM) {
        return Err(format!("the tensor has an axis of {size} elements"));
    }
    let [from, to] = info.data_offsets;
    if from > to || to > data as u64 {
        return Err(format!(
            "the tensor is at bytes {from} to {to} of {data} bytes of data"
        ));
    }
    let needed = match shape.contains(&0) {
        true => Some(0),
        false => {
            let sizes = shape.iter().copied().chain([dtype.size() as u64]);
            sizes.into_iter().try_fold(1, u64::checked_mul)
        }
    };
    match needed == Some(to - from) {
        true => Ok(dtype),
        false => Err(format!(
            "{} bytes are given for a tensor of {dtype} {:?}",
            to - from,
            shape
        )),
    }
}

/// Checks that the records cover the data without holes and overlaps.
fn check_coverage(records: &[Record], start: usize, end: usize) -> Result<(), String> {
    let mut spans: Vec<_> = records.iter().map(|record| record.span.clone()).collect();
    spans.sort_unstable_by_key(|span| (span.start, span.end));
    let mut at = start;
    for span in spans {
        if span.start != at {
            let what = match span.start < at {
                true => "two tensors overlap",
                false => "no tensor covers the data",
            };
            return Err(format!("{what} at byte {}", span.start.min(at)));
        }
        at = span.end;
    }
    match at == end {
        true => Ok(()),
        false => Err(format!("no tensor covers the data from byte {at} to {end}")),
    }
}

/// Strides of a row-major tensor.
fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}

/// The JSON header. Its types bound its depth to 3, refuse numbers that are not integers, and
/// leave nothing to ignore.
struct Header {
    /// In file order.
    tensors: Vec<(String, Info)>,
    /// Number of entries of `__metadata__`.
    metadata: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Info {
    dtype: String,
    shape: Sizes,
    data_offsets: [u64; 2],
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;

        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut header = Header {
                    tensors: Vec::new(),
                    metadata: None,
                };
                while let Some(key) = map.next_key::<String>()? {
                    if key == "__metadata__" {
                        let metadata: Metadata = map.next_value()?;
                        if header.metadata.replace(metadata.0).is_some() {
                            return Err(A::Error::custom("`__metadata__` stands there twice"));
                        }
                    } else if header.tensors.len() == MAX_TENSORS {
                        return Err(A::Error::custom("there are too many tensors"));
                    } else {
                        header.tensors.push((key, map.next_value()?));
                    }
                }
                let names = header.tensors.iter().map(|tensor| tensor.0.as_str());
                refuse_duplicates(names.collect())?;
                Ok(header)
            }
        }

        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// The sizes of a tensor, no more of them than are allowed.
struct Sizes(Vec<u64>);

impl<'de> Deserialize<'de> for Sizes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SizesVisitor;

        impl<'de> Visitor<'de> for SizesVisitor {
            type Value = Sizes;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an array of sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Sizes, A::Error> {
                let mut sizes = Vec::new();
                while let Some(size) = seq.next_element()? {
                    if sizes.len() == MAX_RANK {
                        return Err(A::Error::custom(format_args!("more than {MAX_RANK} axes")));
                    }
                    sizes.push(size);
                }
                Ok(Sizes(sizes))
            }
        }

        deserializer.deserialize_seq(SizesVisitor)
    }
}

/// The number of entries of a map from str to str.
struct Metadata(usize);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MetadataVisitor;

        impl<'de> Visitor<'de> for MetadataVisitor {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
                let mut keys = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    if keys.len() == MAX_TENSORS {
                        return Err(A::Error::custom("there is too much metadata"));
                    }
                    keys.push(key);
                    map.next_value::<String>()?;
                }
                refuse_duplicates(keys.iter().map(String::as_str).collect())?;
                Ok(Metadata(keys.len()))
            }
        }

        deserializer.deserialize_map(MetadataVisitor)
    }
}

/// Compared after unescaping: `"a"` and `"\u0061"` are the same key.
fn refuse_duplicates<E: Error>(mut keys: Vec<&str>) -> Result<(), E> {
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(E::custom(format_args!("duplicate key `{}`", pair[0]))),
        None => Ok(()),
    }
}
