//! The manifest: what an artifact is, where it came from and what it was checked with.
//!
//! The same input gives the same bytes, so it holds no time, no path and no measured difference.
//! The list of runtimes alone depends on the machine.

use std::{fs, path::Path};

use emoc_backends::onnx;
use emoc_ir::{Diagnostic, Dim, Graph, Result, Value};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    args::{Precision, WeightsDtype},
    json,
    network::{Network, Weights},
    precision::PrecisionRecord,
    record::NetworkRecord,
};

/// Changes when a reader of an older manifest would misread a newer one.
const SCHEMA: u32 = 1;
const PRODUCER: &str = "emoc";

/// Largest file that is read to see whether it is a manifest.
const MAX_BYTES: u64 = 16 << 20;

#[derive(Debug, Serialize)]
pub struct Manifest<'a> {
    schema: u32,
    producer: &'static str,
    producer_version: &'static str,
    target: &'static str,
    files: Vec<FileRecord>,
    network: NetworkRecord,
    window_by_default: bool,
    weights: &'a Weights,
    options: Options,
    passes: &'a [PassRecord],
    inputs: Vec<TensorRecord>,
    outputs: Vec<TensorRecord>,
    preprocessing: Preprocessing,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a [String]>,
    check: CheckRecord,
}

/// One file of the artifact.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its path from the manifest's folder, with `/`.
    pub file: String,
    pub bytes: u64,
    pub sha256: String,
}

impl FileRecord {
    pub fn of(file: &str, bytes: &[u8]) -> Self {
        Self {
            file: file.to_owned(),
            bytes: bytes.len() as u64,
            sha256: sha256(bytes),
        }
    }

    /// Whether the file at `path` is this one. Links are not followed.
    pub fn is_at(&self, path: &Path) -> bool {
        let size = |found: fs::Metadata| found.is_file() && found.len() == self.bytes;
        fs::symlink_metadata(path).is_ok_and(size)
            && fs::read(path).is_ok_and(|bytes| sha256(&bytes) == self.sha256)
    }
}

/// What the artifact was asked to be like.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Options {
    Onnx(OnnxOptions),
    Rust(CrateOptions),
}

impl Options {
    fn target(&self) -> &'static str {
        match self {
            Options::Onnx(_) => "onnx",
            Options::Rust(_) => CRATE,
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct OnnxOptions {
    pub opset: u32,
    pub max_rank: Option<usize>,
    /// None in float32.
    #[serde(flatten)]
    pub precision: Option<PrecisionRecord>,
}

impl Default for OnnxOptions {
    fn default() -> Self {
        Self {
            opset: 20,
            max_rank: None,
            precision: None,
        }
    }
}

impl OnnxOptions {
    /// What the file computes in.
    pub fn precision(&self) -> Precision {
        let record = self.precision.as_ref();
        record.map_or(Precision::F32, |record| record.precision)
    }
}

/// The target of a crate's manifest.
const CRATE: &str = "rust";

/// What a crate was asked to be like, and how large it became.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CrateOptions {
    pub crate_name: String,
    pub weights_dtype: WeightsDtype,
    /// Activations, in one arena.
    pub arena_bytes: usize,
    /// Weights as they are stored.
    pub weight_bytes: usize,
}

/// One pass that ran.
#[derive(Debug, Clone, Serialize)]
pub struct PassRecord {
    pub name: &'static str,
    /// How often it changed the graph.
    pub fired: usize,
}

#[derive(Debug, Serialize)]
struct TensorRecord {
    name: String,
    dtype: &'static str,
    shape: Vec<Axis>,
}

/// A size, or the name of a symbolic one.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Axis {
    Fixed(usize),
    Named(String),
}

/// What the check was and which runtimes passed it.
#[derive(Debug, Clone, Serialize)]
pub struct CheckRecord {
    pub reference: &'static str,
    pub input: &'static str,
    pub tolerance: String,
    pub agreed: Vec<RuntimeRecord>,
}

#[derive(Debug, Clone, Serialize)]
pub struct RuntimeRecord {
    pub runtime: &'static str,
    pub version: String,
}

/// How a picture becomes the network's input.
#[derive(Debug, Clone, Serialize)]
pub struct Preprocessing {
    pub color: &'static str,
    /// None for a backbone: detection and segmentation have rules of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<Resize>,
    pub scale: &'static str,
    pub mean: [f64; 3],
    pub std: [f64; 3],
    pub layout: &'static str,
}

#[derive(Debug, Clone, Serialize)]
pub struct Resize {
    /// The picture is scaled, keeping its ratio, until it just covers this height and width.
    pub cover: [usize; 2],
    pub filter: &'static str,
    /// Then this height and width are cut out of its centre.
    pub center_crop: [usize; 2],
}

impl Preprocessing {
    /// The rule that the published accuracy was measured with.
    pub fn of(network: &NetworkRecord) -> Self {
        let size = network.input_size;
        // int(size / 0.875), as the authors' test transform has it.
        let resize = Resize {
            cover: size.map(|side| side * 8 / 7),
            filter: "bicubic, antialiased, 8 bits (Pillow)",
            center_crop: size,
        };
        Self {
            color: "RGB",
            resize: network.classes.map(|_| resize),
            scale: "1/255",
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            layout: "NCHW",
        }
    }
}

/// Everything a manifest is made of, beyond the constants.
pub struct Content<'a> {
    pub files: Vec<FileRecord>,
    pub network: &'a Network,
    pub options: Options,
    pub passes: &'a [PassRecord],
    pub labels: Option<&'a [String]>,
    pub check: CheckRecord,
}

impl<'a> Manifest<'a> {
    pub fn new(content: Content<'a>) -> Self {
        let model = &content.network.model;
        let network = NetworkRecord::of(model);
        let graph = &model.graph;
        let inputs = graph.inputs().iter();
        Self {
            schema: SCHEMA,
            producer: PRODUCER,
            producer_version: env!("CARGO_PKG_VERSION"),
            target: content.options.target(),
            files: content.files,
            preprocessing: Preprocessing::of(&network),
            network,
            window_by_default: content.network.window_by_default,
            weights: &content.network.weights,
            options: content.options,
            passes: content.passes,
            inputs: inputs
                .map(|&id| TensorRecord::of(graph, &graph.node(id).name, id.into()))
                .collect(),
            outputs: graph
                .outputs()
                .iter()
                .map(|output| TensorRecord::of(graph, &output.name, output.value))
                .collect(),
            labels: content.labels,
            check: content.check,
        }
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        Ok(json::text(self)?.into_bytes())
    }
}

impl TensorRecord {
    fn of(graph: &Graph, name: &str, value: Value) -> Self {
        let ty = graph.ty(value);
        let axis = |dim: &Dim| match dim {
            Dim::Fixed(size) => Axis::Fixed(*size),
            Dim::Batch(_) => Axis::Named(dim.to_string()),
        };
        Self {
            name: name.to_owned(),
            dtype: ty.dtype.name(),
            shape: ty.shape.0.iter().map(axis).collect(),
        }
    }
}

/// The bytes of a file that may be a manifest.
pub fn read(path: &Path) -> Option<Vec<u8>> {
    let found = fs::metadata(path).ok().filter(|found| found.is_file())?;
    (found.len() <= MAX_BYTES).then(|| fs::read(path).ok())?
}

/// The files that a manifest of emoc lists; none if these bytes are no such manifest.
pub fn files(bytes: &[u8]) -> Option<Vec<FileRecord>> {
    listed(bytes).map(|listed| listed.files)
}

/// The files that the manifest of a crate or the plan of a bundle lists; none if there is nothing
/// of the kind at `path`.
pub fn folder_files(path: &Path) -> Option<Vec<FileRecord>> {
    let listed = listed(&read(path)?)?;
    // A plan says nothing of a target, and the manifest of an ONNX file that it is one.
    let is_folders = listed.target.is_none_or(|target| target == CRATE);
    is_folders.then_some(listed.files)
}

#[derive(Deserialize)]
struct Listed {
    producer: String,
    target: Option<String>,
    files: Vec<FileRecord>,
}

fn listed(bytes: &[u8]) -> Option<Listed> {
    let listed: Listed = serde_json::from_slice(bytes).ok()?;
    (listed.producer == PRODUCER).then_some(listed)
}

/// What is read back of a crate's manifest.
#[derive(Deserialize)]
pub struct CrateManifest {
    schema: u32,
    producer: String,
    target: String,
    pub producer_version: String,
    pub files: Vec<FileRecord>,
    pub network: NetworkRecord,
    pub weights: WeightsRecord,
    pub options: CrateOptions,
    /// Names of the classes, if the crate has them.
    pub labels: Option<Vec<String>>,
    passes: Vec<PassName>,
}

#[derive(Deserialize)]
struct PassName {
    name: String,
}

/// Which weights an artifact has.
#[derive(Deserialize)]
pub struct WeightsRecord {
    /// `net` or `ema`, of a checkpoint.
    pub choice: Option<String>,
    pub seed: Option<u64>,
    pub sha256: String,
}

impl CrateManifest {
    /// Reads the manifest of a crate.
    ///
    /// # Errors
    /// These bytes are no such manifest, or one of a newer emoc.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let refuse =
            |why: &str| Diagnostic::input(format!("this is no manifest of a crate: {why}"));
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| refuse(&error.to_string()))?;
        match (&*manifest.producer, &*manifest.target) {
            (PRODUCER, CRATE) if manifest.schema <= SCHEMA => Ok(manifest),
            (PRODUCER, CRATE) => Err(refuse("a newer emoc wrote it")),
            (PRODUCER, _) => Err(refuse("it describes another kind of artifact")),
            _ => Err(refuse("emoc did not write it")),
        }
    }

    /// The passes that ran, as [`crate::pipeline::spelled`] takes them.
    pub fn passes(&self) -> &str {
        self.passes.last().map_or("none", |pass| &pass.name)
    }
}

/// SHA-256 in lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Keys of an artifact's metadata that emoc reads back.
pub mod key {
    pub const NETWORK: &str = "network";
    pub const WEIGHTS: &str = "weights";
    pub const SEED: &str = "seed";
    pub const WEIGHTS_SHA256: &str = "weights_sha256";
    pub const PASSES: &str = "passes";
    pub const PRECISION: &str = "precision";
    pub const ISLANDS: &str = "islands";
    pub const LABELS: &str = "labels";
    pub const PREPROCESSING: &str = "preprocessing";
}

/// The metadata inside the artifact: enough to use it without the manifest and to check it again.
/// It speaks of the weights' content and not of the file they came in, so that the same weights
/// give the same artifact.
pub fn metadata(
    network: &Network,
    passes: &str,
    labels: Option<&[String]>,
) -> Result<Vec<(String, String)>> {
    let record = NetworkRecord::of(&network.model);
    let [height, width] = record.input_size;
    let mut rows = vec![
        ("variant", record.variant.clone().unwrap_or("custom".into())),
        ("input_size", format!("{height}x{width}")),
        ("window", record.window.to_string()),
    ];
    if let Some(classes) = record.classes {
        rows.push(("classes", classes.to_string()));
    }
    match &network.weights {
        Weights::Checkpoint { choice, .. } | Weights::Artifact { choice, .. } => {
            rows.push((key::WEIGHTS, (*choice).into()));
        }
        Weights::Seeded { seed, .. } => {
            rows.push((key::WEIGHTS, "seeded".into()));
            rows.push((key::SEED, seed.to_string()));
        }
    }
    rows.push((key::WEIGHTS_SHA256, network.weights.sha256().to_owned()));
    let preprocessing = Preprocessing::of(&record);
    rows.push((key::PREPROCESSING, json::line(&preprocessing)?));
    if let Some(labels) = labels {
        rows.push((key::LABELS, json::line(labels)?));
    }
    rows.push((key::PASSES, passes.to_owned()));
    rows.push((key::NETWORK, json::line(&record)?));
    let owned = |(key, value): (&str, String)| (key.to_owned(), value);
    Ok(rows.into_iter().map(owned).collect())
}

/// What the ONNX backend is told.
pub fn onnx_options(options: &OnnxOptions, metadata: Vec<(String, String)>) -> onnx::Options {
    onnx::Options {
        opset: options.opset,
        max_rank: options.max_rank,
        block_outputs: false,
        metadata,
        producer_version: env!("CARGO_PKG_VERSION").into(),
    }
}
