//! An artifact read back: what it says about itself, and the network it was compiled from.

use std::{fs, path::Path};

use emoc_backends::onnx::{self, Description};
use emoc_ir::{Diagnostic, Result};

use crate::{
    args::{AttentionArg, ModelArgs, Weights},
    manifest::key,
    record::{AttentionRecord, NetworkRecord},
};

/// An ONNX file.
pub struct Artifact {
    pub bytes: Vec<u8>,
    pub description: Description,
    /// The network, if emoc wrote the file.
    pub network: Option<NetworkRecord>,
}

impl Artifact {
    /// Reads an ONNX file.
    ///
    /// # Errors
    /// It cannot be read, is no ONNX file, or its metadata describes no network.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |error| Diagnostic::io("read the artifact", path, &error);
        let metadata = fs::metadata(path).map_err(io)?;
        if !metadata.is_file() {
            return Err(Diagnostic::input("the artifact is no regular file").file(path));
        }
        // Protobuf's limit: a longer file is none, and is not read to find that out.
        if metadata.len() > i32::MAX as u64 {
            return Err(Diagnostic::input("an ONNX file has at most 2 GiB").file(path));
        }
        let bytes = fs::read(path).map_err(io)?;
        let at = |error: Box<Diagnostic>| error.file(path);
        let description = onnx::describe(&bytes).map_err(at)?;
        let record = description.get(key::NETWORK).map(|text| {
            serde_json::from_str::<NetworkRecord>(text).map_err(|error| {
                Diagnostic::input(format!("the metadata describes no network: {error}"))
                    .at(format!("metadata `{}`", key::NETWORK))
                    .file(path)
            })
        });
        Ok(Self {
            network: record.transpose()?,
            bytes,
            description,
        })
    }

    /// Whether the file begins like an ONNX file and not like a checkpoint.
    pub fn is_one(path: &Path) -> bool {
        let mut start = [0; 3];
        let read = fs::metadata(path).is_ok_and(|found| found.is_file())
            && fs::File::open(path)
                .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start))
                .is_ok();
        // `ir_version`, then one of the strings that may follow it, or the graph.
        read && matches!(start, [0x08, 1..=0x20, 0x12 | 0x1a | 0x3a])
    }

    /// The seed, if the weights are seeded.
    pub fn seed(&self) -> Option<u64> {
        let seeded = self.description.get(key::WEIGHTS) == Some("seeded");
        let seed = self.description.get(key::SEED).filter(|_| seeded)?;
        seed.parse().ok()
    }

    /// The flags that the artifact was compiled with, under those that are given now.
    ///
    /// # Errors
    /// Neither the metadata nor a flag says which weights.
    pub fn fill(&self, args: &ModelArgs, from_checkpoint: bool) -> Result<ModelArgs> {
        let mut filled = args.clone();
        let Some(record) = &self.network else {
            return Ok(filled);
        };
        filled.input_size.get_or_insert(record.input_size);
        filled.batch.get_or_insert(record.batch());
        if let Ok(window) = u16::try_from(record.window) {
            filled.window.get_or_insert(window);
        }
        if from_checkpoint {
            if self.description.get(key::WEIGHTS) == Some("ema") {
                filled.weights.get_or_insert(Weights::Ema);
            }
            let [.., third, fourth] = record.dim_heads;
            filled.dim_head.get_or_insert([third, fourth]);
            filled.attention.get_or_insert(match record.attention {
                AttentionRecord::Hybrid => AttentionArg::Hybrid,
                AttentionRecord::Remote => AttentionArg::Remote,
                AttentionRecord::Close => AttentionArg::Close,
            });
        } else {
            if filled.variant.is_none() && self.seed().is_none() {
                let message = "the artifact was compiled from a checkpoint, which is not given";
                return Err(Diagnostic::usage(message).help("add --checkpoint FILE"));
            }
            filled.variant = filled.variant.or_else(|| record.variant());
            filled.seed = filled.seed.or_else(|| self.seed());
        }
        Ok(filled)
    }
}
