//! One side of a comparison.

use std::{collections::BTreeMap, fs, path::Path};

use emoc_backends::onnx;
use emoc_frontend::{Checkpoint, Choice, StateDict, emo2};
use emoc_ir::{DType, Diagnostic, Result};
use serde::{Serialize, Serializer};

use super::{
    weights::Store,
    words::{Setting, of_bundle, of_crate, of_network, of_onnx},
};
use crate::{
    args::{ModelArgs, Precision, WeightsDtype},
    artifact::{BundleFolder, CrateFolder, ModelKind, OnnxFile, Origin, say_changed},
    manifest::key,
    network, precision,
    record::NetworkRecord,
    ui::{Ui, printable},
};

/// What is known of it.
#[derive(Serialize)]
pub struct Facts {
    pub path: String,
    #[serde(serialize_with = "word")]
    pub kind: ModelKind,
    /// The same for people, with what is special about it.
    pub description: String,
    /// Of the file, or of all files of the folder.
    pub bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkRecord>,
    /// Of the network, before folding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<u64>,
    /// For one image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub macs: Option<u64>,
    /// Of an ONNX file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<usize>,
    /// How many nodes of an ONNX file each operator has.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub operators: BTreeMap<String, usize>,
    /// Class names.
    #[serde(skip)]
    pub labels: Option<Vec<String>>,
}

fn word<S: Serializer>(kind: &ModelKind, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(match kind {
        ModelKind::Checkpoint => "checkpoint",
        ModelKind::Onnx => "onnx",
        ModelKind::Crate => "crate",
        ModelKind::Bundle => "bundle",
    })
}

pub struct Subject {
    pub facts: Facts,
    /// What can be said of it in words, in the order of the report.
    pub settings: Vec<Setting>,
    pub weights: Store,
}

impl Subject {
    /// A checkpoint by the keys of its state_dict. If its network is not recognised, its weights
    /// are compared all the same.
    pub fn checkpoint(path: &Path, args: &ModelArgs, ui: &Ui) -> Result<Self> {
        ui.step("reading the checkpoint");
        let checkpoint = Checkpoint::open(path)?;
        let choice = args.weights.map_or(Choice::Net, Choice::from);
        let state_dict = StateDict::choose(&checkpoint, choice)?;
        let (geometry, _) = network::geometry(args);
        let model = emo2::architecture(&state_dict, &network::hints(args))
            .and_then(|architecture| emo2::declared(architecture, geometry));
        let record = match &model {
            Ok(model) => Some(NetworkRecord::of(model)),
            Err(error) => {
                let (name, why) = (path.display(), &error.message);
                let help = error
                    .help
                    .iter()
                    .map(|help| format!("; to know more, {help}"));
                ui.note(format_args!(
                    "{name}: its weights alone are compared, because {why}{}",
                    help.collect::<String>()
                ));
                None
            }
        };
        let mut facts = Facts {
            path: path.display().to_string(),
            kind: ModelKind::Checkpoint,
            description: format!(
                "{}, {}",
                checkpoint.format(),
                place(choice, &state_dict.origin().root)
            ),
            bytes: checkpoint.file_len(),
            network: None,
            parameters: None,
            macs: None,
            nodes: None,
            operators: BTreeMap::new(),
            labels: None,
        };
        let settings = record.as_ref().map(of_network).unwrap_or_default();
        facts.know(record)?;
        Ok(Self {
            facts,
            settings,
            weights: Store::StateDict(state_dict),
        })
    }
}

/// Which weights of a checkpoint, and where they are.
fn place(choice: Choice, root: &str) -> String {
    let choice = match choice {
        Choice::Net => "net",
        Choice::Ema => "ema",
    };
    match root {
        "" => choice.to_owned(),
        root => format!("{choice} in `{}`", printable(root)),
    }
}

impl Facts {
    /// What follows from the network.
    fn know(&mut self, network: Option<NetworkRecord>) -> Result<()> {
        if let Some(record) = &network {
            let model = emo2::declared(record.architecture()?, record.geometry())?;
            let cost = model.graph.cost(1)?;
            self.parameters = Some(cost.total.parameters);
            self.macs = Some(cost.total.macs);
        }
        self.network = network;
        Ok(())
    }
}

/// An artifact that was opened.
pub struct Artifact {
    path: String,
    pub content: Content,
}

#[allow(clippy::large_enum_variant, reason = "there are two at most")]
pub enum Content {
    Onnx(OnnxFile),
    Crate(CrateFolder),
    /// A bundle, and which of its models stands for it.
    Bundle(BundleFolder, usize),
}

impl Artifact {
    /// # Errors
    /// It cannot be read, or is not what it should be.
    pub fn open(kind: ModelKind, path: &Path, ui: &Ui) -> Result<Self> {
        ui.step("reading the artifact");
        let content = match kind {
            ModelKind::Crate => Content::Crate(CrateFolder::open(path)?),
            ModelKind::Bundle => {
                let folder = BundleFolder::open(path)?;
                if folder.models.is_empty() {
                    return Err(Diagnostic::input("the bundle has no model").file(path));
                }
                Content::Bundle(folder, 0)
            }
            ModelKind::Onnx | ModelKind::Checkpoint => Content::Onnx(OnnxFile::open(path)?),
        };
        let changed = match &content {
            Content::Onnx(_) => &[][..],
            Content::Crate(folder) => &folder.changed,
            Content::Bundle(folder, _) => &folder.changed,
        };
        say_changed(changed, ui);
        Ok(Self {
            path: path.display().to_string(),
            content,
        })
    }

    /// Of a bundle, chooses the model that computes in what the other artifact computes in.
    ///
    /// # Errors
    /// The other one's metadata names no precision that there is.
    pub fn suit(&mut self, other: &Self) -> Result<()> {
        if let (Content::Bundle(folder, chosen), Content::Onnx(file)) =
            (&mut self.content, &other.content)
        {
            let wanted = precision::of(&file.description);
            let wanted = wanted.map_err(|error| error.file(Path::new(&other.path)))?;
            let mut models = folder.models.iter();
            *chosen = models.position(|(found, _)| *found == wanted).unwrap_or(0);
        }
        Ok(())
    }

    /// What it was compiled from, if emoc wrote it.
    pub fn origin(&self) -> Option<&Origin> {
        match &self.content {
            Content::Crate(folder) => Some(&folder.origin),
            Content::Onnx(_) | Content::Bundle(..) => {
                self.onnx().and_then(|file| file.origin.as_ref())
            }
        }
    }

    /// The ONNX file, or the one that stands for a bundle.
    pub fn onnx(&self) -> Option<&OnnxFile> {
        match &self.content {
            Content::Onnx(file) => Some(file),
            Content::Bundle(folder, chosen) => folder.models.get(*chosen).map(|(_, file)| file),
            Content::Crate(_) => None,
        }
    }

    pub fn path(&self) -> &Path {
        Path::new(&self.path)
    }

    pub fn subject(self) -> Result<Subject> {
        let Self { path, content } = self;
        let file = path.clone();
        let subject = match content {
            Content::Onnx(file) => {
                let opset = file.description.opset;
                let subject = onnx_subject(path, file, format!("ONNX, opset {opset}"));
                subject.map(|(subject, _)| subject)
            }
            Content::Crate(folder) => crate_subject(path, folder),
            Content::Bundle(folder, chosen) => bundle_subject(path, folder, chosen),
        };
        subject.map_err(|error| error.file(Path::new(&file)))
    }
}

/// The subject, and the precision of the file.
fn onnx_subject(path: String, file: OnnxFile, description: String) -> Result<(Subject, Precision)> {
    let settings = of_onnx(&file)?;
    let precision = precision::of(&file.description)?;
    let labels = match file.description.get(key::LABELS) {
        Some(text) => Some(serde_json::from_str(text).map_err(|error| {
            Diagnostic::input(format!("the metadata lists no class names: {error}"))
                .at(format!("metadata `{}`", key::LABELS))
        })?),
        None => None,
    };
    let OnnxFile {
        bytes,
        description: found,
        origin,
    } = file;
    let mut facts = Facts {
        path,
        kind: ModelKind::Onnx,
        description,
        bytes: bytes.len() as u64,
        network: None,
        parameters: None,
        macs: None,
        nodes: Some(found.nodes),
        operators: found.operators,
        labels,
    };
    facts.know(origin.map(|origin| origin.network))?;
    let subject = Subject {
        facts,
        settings,
        weights: Store::initializers(onnx::initializers(bytes)?),
    };
    Ok((subject, precision))
}

fn bundle_subject(path: String, mut folder: BundleFolder, chosen: usize) -> Result<Subject> {
    let settings = of_bundle(&folder);
    let files = folder.plan.files.iter().map(|file| file.bytes);
    let plan = fs::metadata(Path::new(&path).join(emoc_backends::tensorrt::PLAN));
    let bytes = files.fold(plan.map_or(0, |plan| plan.len()), u64::saturating_add);
    let (_, file) = folder.models.swap_remove(chosen);
    let (mut subject, precision) = onnx_subject(path, file, String::new())?;
    subject.facts.kind = ModelKind::Bundle;
    subject.facts.description = format!("TensorRT bundle, its {} model", precision.name());
    subject.facts.bytes = bytes;
    subject.settings.extend(settings);
    Ok(subject)
}

fn crate_subject(path: String, folder: CrateFolder) -> Result<Subject> {
    let settings = of_crate(&folder);
    let CrateFolder {
        manifest, files, ..
    } = folder;
    let sizes = files.iter().map(|(_, bytes)| bytes.len() as u64);
    let mut facts = Facts {
        path,
        kind: ModelKind::Crate,
        description: format!("Rust crate `{}`", printable(&manifest.options.crate_name)),
        bytes: sizes.sum(),
        network: None,
        parameters: None,
        macs: None,
        nodes: None,
        operators: BTreeMap::new(),
        labels: manifest.labels,
    };
    facts.know(Some(manifest.network))?;
    Ok(Subject {
        facts,
        settings,
        weights: packed(files, manifest.options.weights_dtype)?,
    })
}

/// The packed weights among the files of a crate.
///
/// # Errors
/// There are none.
pub fn packed(files: Vec<(String, Vec<u8>)>, stored: WeightsDtype) -> Result<Store> {
    let mut files = files.into_iter();
    let Some((_, bytes)) = files.find(|(name, _)| name == "weights.bin") else {
        return Err(Diagnostic::input("the crate has no weights.bin"));
    };
    // The stem stays float32 where the others are float16: no single type, so only bytes.
    let dtype = match stored {
        WeightsDtype::F32 => Some(DType::F32),
        WeightsDtype::F16 => None,
    };
    Ok(Store::Packed(dtype, bytes))
}
