//! What a report says, for people and for programs alike.

use emoc_ir::Result;
use serde::Serialize;

use super::{
    command,
    structure::{self, Stage},
    subject::Subject,
};
use crate::{
    agreement::{BlockTable, Row},
    args::Precision,
    artifact::OnnxFile,
    check::{Artifact, OTHER_WEIGHTS},
    inspect::cost::{Published, StageRow, published, published_table, stage_rows},
    manifest::{CrateOptions, FileRecord, PassRecord, Preprocessing},
    network::Weights,
    record::NetworkRecord,
};

#[derive(Serialize)]
pub struct Report<'a> {
    pub producer_version: &'static str,
    pub artifact: ArtifactRecord,
    pub commands: Commands,
    pub network: NetworkRecord,
    pub window_by_default: bool,
    pub weights: &'a Weights,
    pub parameters: u64,
    /// For one image, as fvcore counts them.
    pub macs: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Published>,
    #[serde(skip)]
    pub published_table: Vec<PublishedRow>,
    pub stages: Vec<StageRow>,
    pub graph: Vec<Stage>,
    pub passes: Vec<PassRow>,
    pub checks: &'a [Row],
    /// Differences at the ends of blocks.
    pub blocks: &'a [BlockTable],
    pub preprocessing: Preprocessing,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    pub warnings: Vec<String>,
}

/// What was run.
#[derive(Serialize)]
pub struct ArtifactRecord {
    pub target: &'static str,
    /// Its file or folder; none if it was compiled for the report and not kept.
    pub name: Option<String>,
    pub producer: String,
    pub bytes: u64,
    /// Its models; empty for a crate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<ModelRecord>,
    #[serde(rename = "crate", skip_serializing_if = "Option::is_none")]
    pub crate_options: Option<CrateOptions>,
    pub files: Vec<FileRecord>,
    /// Files that are not as emoc wrote them.
    pub changed: Vec<String>,
}

/// One ONNX file.
#[derive(Serialize)]
pub struct ModelRecord {
    pub precision: Precision,
    pub opset: i64,
    pub nodes: usize,
    /// What stays float32 in float16.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub islands: Vec<String>,
}

/// How to come to the same.
#[derive(Serialize)]
pub struct Commands {
    /// None where the artifact was compared with another network than its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compile: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
}

/// One pass that ran.
#[derive(Serialize)]
pub struct PassRow {
    pub name: &'static str,
    pub why: &'static str,
    /// How often it changed the graph.
    pub fired: usize,
    pub nodes_before: usize,
    pub nodes_after: usize,
}

/// Figures that the authors publish for a variant.
pub struct PublishedRow {
    pub variant: &'static str,
    pub figures: Vec<Published>,
}

impl<'a> Report<'a> {
    /// Everything that is known about the subject.
    ///
    /// # Errors
    /// A graph whose costs cannot be counted, or metadata that contradicts itself.
    pub fn of(subject: &'a Subject) -> Result<Self> {
        let checked = &subject.checked;
        let network = &checked.network;
        let model = &network.model;
        let record = NetworkRecord::of(model);
        let cost = model.graph.cost(1)?;
        let labels = labels(&checked.artifact)?;
        let table = published_table().into_iter();
        Ok(Self {
            producer_version: env!("CARGO_PKG_VERSION"),
            artifact: ArtifactRecord::of(subject),
            commands: Commands {
                compile: command::compile(subject, labels.is_some())?,
                check: command::check(subject),
            },
            preprocessing: Preprocessing::of(&record),
            network: record,
            window_by_default: network.window_by_default,
            weights: &network.weights,
            parameters: cost.total.parameters,
            macs: cost.total.macs,
            published: published(model),
            published_table: table
                .map(|(variant, figures)| PublishedRow {
                    variant: variant.name,
                    figures,
                })
                .collect(),
            stages: stage_rows(&cost),
            graph: structure::stages(&model.graph)?,
            passes: passes(subject),
            checks: &checked.rows,
            blocks: &checked.blocks,
            labels,
            warnings: warnings(subject),
        })
    }
}

impl ArtifactRecord {
    fn of(subject: &Subject) -> Self {
        let name = command::name(subject);
        match &subject.checked.artifact {
            Artifact::Onnx(file, precision) => {
                let file_name = match &name {
                    Some(name) => name.clone(),
                    None => format!("{}.onnx", subject.name()),
                };
                Self {
                    target: "onnx",
                    name,
                    producer: producer(file),
                    bytes: file.bytes.len() as u64,
                    models: vec![ModelRecord::of(*precision, file)],
                    crate_options: None,
                    files: vec![FileRecord::of(&file_name, &file.bytes)],
                    changed: Vec::new(),
                }
            }
            Artifact::Crate(folder) => Self {
                target: "rust",
                name,
                producer: format!("emoc {}", folder.manifest.producer_version),
                bytes: folder.files.iter().map(|(_, b)| b.len() as u64).sum(),
                models: Vec::new(),
                crate_options: Some(folder.manifest.options.clone()),
                files: folder.manifest.files.clone(),
                changed: folder.changed.clone(),
            },
            Artifact::Bundle(folder) => {
                let models = folder.models.iter();
                let files = folder.plan.files.iter().map(|file| FileRecord {
                    file: file.file.clone(),
                    bytes: file.bytes,
                    sha256: file.sha256.clone(),
                });
                let files: Vec<_> = files.collect();
                Self {
                    target: match folder.plan.engines.is_empty() {
                        true => "tensorrt",
                        false => "tensorrt-rtx",
                    },
                    name,
                    producer: format!("emoc {}", folder.plan.producer_version),
                    bytes: files
                        .iter()
                        .fold(0, |sum: u64, file| sum.saturating_add(file.bytes)),
                    models: models.map(|(p, file)| ModelRecord::of(*p, file)).collect(),
                    crate_options: None,
                    files,
                    changed: folder.changed.clone(),
                }
            }
        }
    }
}

impl ModelRecord {
    fn of(precision: Precision, file: &OnnxFile) -> Self {
        Self {
            precision,
            opset: file.description.opset,
            nodes: file.description.nodes,
            islands: command::islands(file),
        }
    }
}

fn producer(file: &OnnxFile) -> String {
    let (name, version) = (
        &file.description.producer,
        &file.description.producer_version,
    );
    format!("{name} {version}").trim().to_owned()
}

/// The names of the classes that an artifact carries.
fn labels(artifact: &Artifact) -> Result<Option<Vec<String>>> {
    match artifact {
        Artifact::Onnx(file, _) => file.labels(),
        Artifact::Bundle(folder) => match folder.models.first() {
            Some((_, file)) => file.labels(),
            None => Ok(None),
        },
        Artifact::Crate(folder) => Ok(folder.manifest.labels.clone()),
    }
}

fn passes(subject: &Subject) -> Vec<PassRow> {
    let optimised = &subject.optimised;
    let rows = optimised.passes.iter().zip(optimised.nodes.windows(2));
    let row = |(pass, nodes): (&PassRecord, &[usize])| PassRow {
        name: pass.name,
        why: emoc_passes::find(pass.name).map_or("", |pass| pass.why),
        fired: pass.fired,
        nodes_before: nodes[0],
        nodes_after: nodes[1],
    };
    rows.map(row).collect()
}

/// What a reader must know before the numbers.
fn warnings(subject: &Subject) -> Vec<String> {
    let checked = &subject.checked;
    let mut warnings = checked.network.model.warnings.clone();
    if let Weights::Seeded { seed, .. } = checked.network.weights {
        warnings.push(format!(
            "the weights are made from seed {seed}: they prove the compiler and classify nothing"
        ));
    }
    if let Some(origin) = checked.artifact.origin() {
        if origin.has_other_weights(&checked.network) {
            warnings.push(OTHER_WEIGHTS.into());
        }
        if origin.network != NetworkRecord::of(&checked.network.model) {
            let message = "the flags ask for another network than the artifact was compiled from";
            warnings.push(message.into());
        }
    }
    let changed: &[String] = match &checked.artifact {
        Artifact::Onnx(..) => &[],
        Artifact::Crate(folder) => &folder.changed,
        Artifact::Bundle(folder) => &folder.changed,
    };
    let changed = changed.iter();
    warnings.extend(changed.map(|file| format!("{file} was changed since emoc wrote it")));
    warnings
}
