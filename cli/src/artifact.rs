//! An artifact read back: what it says about itself, and the network it was compiled from.

use std::{
    fs,
    path::{Component, Path},
};

use emoc_backends::{
    onnx::{self, Description},
    tensorrt::{self, Plan},
};
use emoc_frontend::emo2::Model;
use emoc_ir::{Diagnostic, Result};
use serde::{Deserialize, Serialize};

use crate::{
    args::{AttentionArg, ModelArgs, Precision, Weights},
    manifest::{self, CrateManifest, FileRecord, OnnxOptions, key},
    network::Network,
    output::MANIFEST,
    pipeline, precision,
    record::{AttentionRecord, NetworkRecord},
    ui::Ui,
};

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    Checkpoint,
    Onnx,
    #[serde(rename = "rust_crate")]
    Crate,
    Bundle,
}

impl ModelKind {
    /// By what is there: a folder without a plan is taken for a crate, and a file that does not
    /// begin like ONNX for a checkpoint. Whoever opens it says whether it is one.
    pub fn of(path: &Path) -> Self {
        match path.is_dir() {
            true if path.join(tensorrt::PLAN).is_file() => ModelKind::Bundle,
            true => ModelKind::Crate,
            false if OnnxFile::is_one(path) => ModelKind::Onnx,
            false => ModelKind::Checkpoint,
        }
    }

    /// With its article.
    pub fn name(self) -> &'static str {
        match self {
            ModelKind::Checkpoint => "a checkpoint",
            ModelKind::Onnx => "an ONNX file",
            ModelKind::Bundle => "a TensorRT bundle",
            ModelKind::Crate => "a Rust crate",
        }
    }
}

/// An ONNX file.
pub struct OnnxFile {
    pub bytes: Vec<u8>,
    pub description: Description,
    /// What it was compiled from, if emoc wrote the file.
    pub origin: Option<Origin>,
}

impl OnnxFile {
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
        Self::parse(fs::read(path).map_err(io)?).map_err(|error| error.file(path))
    }

    /// The same for bytes that are no file yet.
    ///
    /// # Errors
    /// They are no ONNX file, or its metadata describes no network.
    pub fn parse(bytes: Vec<u8>) -> Result<Self> {
        let description = onnx::describe(&bytes)?;
        let record = description.get(key::NETWORK).map(|text| {
            serde_json::from_str::<NetworkRecord>(text).map_err(|error| {
                Diagnostic::input(format!("the metadata describes no network: {error}"))
                    .at(format!("metadata `{}`", key::NETWORK))
            })
        });
        let seeded = description.get(key::WEIGHTS) == Some("seeded");
        let seed = description.get(key::SEED).filter(|_| seeded);
        let origin = |network| Origin {
            network,
            seed: seed.and_then(|seed| seed.parse().ok()),
            ema: description.get(key::WEIGHTS) == Some("ema"),
            weights_sha256: description.get(key::WEIGHTS_SHA256).map(str::to_owned),
        };
        Ok(Self {
            origin: record.transpose()?.map(origin),
            bytes,
            description,
        })
    }

    /// The ONNX file of a network, emitted as this one was; with the ends of blocks as outputs
    /// too, if they are wanted.
    ///
    /// # Errors
    /// The metadata names passes, islands or an opset that there are not.
    pub fn emit_again(&self, model: &Model, block_outputs: bool) -> Result<Vec<u8>> {
        let passes = self.description.get(key::PASSES).unwrap_or("all");
        let optimised = pipeline::spelled(passes, &model.graph, &Ui::silent())?.graph;
        let emitted = precision::again(optimised, &self.description)?;
        let options = OnnxOptions {
            opset: u32::try_from(self.description.opset).unwrap_or(0),
            ..OnnxOptions::default()
        };
        let options = onnx::Options {
            block_outputs,
            ..manifest::onnx_options(&options, Vec::new())
        };
        onnx::emit(&emitted, &options)
    }

    /// The names of the classes in the metadata.
    ///
    /// # Errors
    /// They are no list of names, or not as many as the network has classes.
    pub fn labels(&self) -> Result<Option<Vec<String>>> {
        let Some(text) = self.description.get(key::LABELS) else {
            return Ok(None);
        };
        let at = |error: Box<Diagnostic>| error.at(format!("metadata `{}`", key::LABELS));
        let names: Vec<String> = serde_json::from_str(text).map_err(|error| {
            at(Diagnostic::input(format!(
                "the metadata lists no class names: {error}"
            )))
        })?;
        let classes = self
            .origin
            .as_ref()
            .and_then(|origin| origin.network.classes);
        check_labels(&names, classes).map_err(at)?;
        Ok(Some(names))
    }

    /// Whether the file begins like an ONNX file and not like a checkpoint.
    fn is_one(path: &Path) -> bool {
        let mut start = [0; 3];
        let read = fs::metadata(path).is_ok_and(|found| found.is_file())
            && fs::File::open(path)
                .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start))
                .is_ok();
        // `ir_version`, then one of the strings that may follow it, or the graph.
        read && matches!(start, [0x08, 1..=0x20, 0x12 | 0x1a | 0x3a])
    }
}

/// Refuses names of another number of classes than the network has.
fn check_labels(names: &[String], classes: Option<usize>) -> Result<()> {
    let found = names.len();
    match classes {
        Some(classes) if classes != found => Err(Diagnostic::input(format!(
            "the artifact names {found} classes and has {classes}"
        ))),
        _ => Ok(()),
    }
}

/// Says which files of a folder are not as emoc wrote them.
pub fn say_changed(changed: &[String], ui: &Ui) {
    for file in changed {
        ui.warn(format_args!("{file} was changed since emoc wrote it"));
    }
}

/// The folder of a Rust crate.
pub struct CrateFolder {
    pub manifest: CrateManifest,
    /// The files that the manifest lists, and what is in them now.
    pub files: Vec<(String, Vec<u8>)>,
    /// Those that are not as the manifest says.
    pub changed: Vec<String>,
    pub origin: Origin,
}

impl CrateFolder {
    /// Reads a folder that emoc wrote.
    ///
    /// # Errors
    /// It has no manifest, or a file that the manifest lists cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let manifest = path.join(MANIFEST);
        let Some(bytes) = manifest::read(&manifest) else {
            let message = format!("the folder has no {MANIFEST}: it is no crate that emoc wrote");
            return Err(Diagnostic::input(message).file(path));
        };
        let manifest = CrateManifest::parse(&bytes).map_err(|error| error.file(&manifest))?;
        if let Some(labels) = &manifest.labels {
            check_labels(labels, manifest.network.classes)?;
        }
        let mut files = Vec::new();
        let mut changed = Vec::new();
        for record in &manifest.files {
            let file = path.join(&record.file);
            let inside = |part| matches!(part, Component::Normal(_));
            if !Path::new(&record.file).components().all(inside) {
                let message = "the manifest lists a file outside of the folder";
                return Err(Diagnostic::input(message).file(&file));
            }
            let io = |error| Diagnostic::io("read the crate", &file, &error);
            let found = fs::symlink_metadata(&file).map_err(io)?;
            if !found.is_file() || found.len() > MAX_FILE {
                let message = "a file of the crate is no regular file, or too large";
                return Err(Diagnostic::input(message).file(&file));
            }
            let bytes = fs::read(&file).map_err(io)?;
            if manifest::sha256(&bytes) != record.sha256 {
                changed.push(record.file.clone());
            }
            files.push((record.file.clone(), bytes));
        }
        let origin = Origin {
            network: manifest.network.clone(),
            seed: manifest.weights.seed,
            ema: manifest.weights.choice.as_deref() == Some("ema"),
            weights_sha256: Some(manifest.weights.sha256.clone()),
        };
        Ok(Self {
            manifest,
            files,
            changed,
            origin,
        })
    }
}

/// The folder of a TensorRT bundle.
pub struct BundleFolder {
    pub plan: Plan,
    /// Its models, each as an ONNX file of its own.
    pub models: Vec<(Precision, OnnxFile)>,
    /// Files that are not as the plan says.
    pub changed: Vec<String>,
}

impl BundleFolder {
    /// Reads a folder that emoc wrote.
    ///
    /// # Errors
    /// Its plan, or a model that the plan lists, cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let file = path.join(tensorrt::PLAN);
        let bytes = manifest::read(&file)
            .ok_or_else(|| Diagnostic::input("the plan is no regular file").file(&file))?;
        let plan = Plan::parse(&bytes).map_err(|error| error.file(&file))?;
        let inside = |name: &str| {
            let mut parts = Path::new(name).components();
            match parts.all(|part| matches!(part, Component::Normal(_))) {
                true => Ok(path.join(name)),
                false => {
                    let message = "the plan lists a file outside of the folder";
                    Err(Diagnostic::input(message).file(&path.join(name)))
                }
            }
        };
        let mut changed = Vec::new();
        for record in &plan.files {
            let record = FileRecord {
                file: record.file.clone(),
                bytes: record.bytes,
                sha256: record.sha256.clone(),
            };
            let path = inside(&record.file)?;
            if fs::symlink_metadata(&path).is_err() {
                let message = "the bundle is incomplete: this file of its plan is missing";
                return Err(Diagnostic::input(message).file(&path));
            }
            if !record.is_at(&path) {
                changed.push(record.file);
            }
        }
        if plan.golden.batch == 0 {
            let message = "the plan's golden.batch is no number of images";
            return Err(Diagnostic::input(message).file(&file));
        }
        let model = |model: &tensorrt::plan::Model| {
            let precision = match model.precision {
                tensorrt::Precision::F32 => Precision::F32,
                tensorrt::Precision::F16 => Precision::F16,
            };
            let path = inside(&model.file)?;
            let artifact = OnnxFile::open(&path)?;
            // It decides what the model is held to.
            let found = precision::of(&artifact.description).map_err(|error| error.file(&path))?;
            match found == precision {
                true => Ok((precision, artifact)),
                false => {
                    let name = found.name();
                    let message = format!("the model computes in {name}, and the plan disagrees");
                    Err(Diagnostic::input(message).file(&path))
                }
            }
        };
        Ok(Self {
            models: plan.models.iter().map(model).collect::<Result<_>>()?,
            plan,
            changed,
        })
    }

    /// Images that the check runs where the batch is open.
    pub fn images(&self) -> usize {
        usize::try_from(self.plan.golden.batch).unwrap_or(usize::MAX)
    }
}

/// The largest file of a crate that is read: the weights of the largest variant have 200 MB.
const MAX_FILE: u64 = 1 << 31;

/// What an artifact was compiled from.
pub struct Origin {
    pub network: NetworkRecord,
    /// If the weights are seeded.
    pub seed: Option<u64>,
    /// Whether the weights are a trainer's moving average.
    pub ema: bool,
    pub weights_sha256: Option<String>,
}

impl Origin {
    /// Whether the network is known to have other weights.
    pub fn has_other_weights(&self, network: &Network) -> bool {
        let expected = self.weights_sha256.as_deref();
        expected.is_some_and(|expected| expected != network.weights.sha256())
    }

    /// The flags that the artifact was compiled with, under those that are given now.
    ///
    /// # Errors
    /// Neither the metadata nor a flag says which weights.
    pub fn fill(&self, args: &ModelArgs, from_checkpoint: bool) -> Result<ModelArgs> {
        let mut filled = args.clone();
        let record = &self.network;
        filled.input_size.get_or_insert(record.input_size);
        filled.batch.get_or_insert(record.batch().into());
        if let Ok(window) = u16::try_from(record.window) {
            filled.window.get_or_insert(window);
        }
        if from_checkpoint {
            if self.ema {
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
            if filled.variant.is_none() && self.seed.is_none() {
                let message = "the artifact was compiled from a checkpoint, which is not given";
                return Err(Diagnostic::usage(message).help("add --checkpoint FILE"));
            }
            filled.variant = filled.variant.or_else(|| record.variant());
            filled.seed = filled.seed.or(self.seed);
        }
        Ok(filled)
    }
}
