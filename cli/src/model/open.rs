//! From a path to a [`Model`].

use std::{fs, path::Path};

use emoc_backends::rust_crate::Emitted;
use emoc_frontend::emo2;
use emoc_ir::{Diagnostic, Dim, Graph, Result, Shape, Value};
use emoc_runtimes::{InputFact, OnnxModel};

use super::{Model, ModelFacts};
use crate::{
    args::{ModelArgs, Precision},
    artifact::{BundleFolder, CrateFolder, ModelKind, OnnxFile, Origin, say_changed},
    json,
    manifest::{self, Preprocessing, key},
    network::{self, Need, Network},
    output::MANIFEST,
    precision,
    record::NetworkRecord,
    ui::Ui,
};

/// What an engine is made of.
pub(super) enum Source {
    /// A checkpoint's network, which any engine can be made of.
    Network(Box<Network>),
    /// The bytes of an ONNX file.
    Onnx(Vec<u8>),
    /// The files of a crate, and what it gives for one image.
    Crate(Emitted, Vec<InputFact>),
}

impl Model {
    /// Opens several models. Flags are for the checkpoints among them; beside one, an artifact
    /// needs none.
    ///
    /// # Errors
    /// Those of [`Model::open`].
    pub fn open_all<'p>(
        paths: impl Iterator<Item = &'p Path> + Clone,
        args: &ModelArgs,
        ui: &Ui,
    ) -> Result<Vec<Self>> {
        let is_checkpoint = |path| ModelKind::of(path) == ModelKind::Checkpoint;
        let beside = paths.clone().any(is_checkpoint);
        let none = ModelArgs::default();
        let open = |path| match beside && !is_checkpoint(path) {
            true => Self::open(path, &none, ui),
            false => Self::open(path, args, ui),
        };
        paths.map(open).collect()
    }

    /// Opens what is at `path`.
    ///
    /// # Errors
    /// It is no model, or flags speak of what an artifact has settled.
    pub fn open(path: &Path, args: &ModelArgs, ui: &Ui) -> Result<Self> {
        let io = |error| Diagnostic::io("open the model", path, &error);
        fs::metadata(path).map_err(io)?;
        let opened = match ModelKind::of(path) {
            ModelKind::Checkpoint => checkpoint(path, args, ui),
            ModelKind::Onnx => onnx_file(path, args, ui),
            ModelKind::Crate => crate_folder(path, args, ui),
            ModelKind::Bundle => bundle(path, args, ui),
        };
        opened.map_err(|error| error.file(path))
    }
}

fn checkpoint(path: &Path, args: &ModelArgs, ui: &Ui) -> Result<Model> {
    args.refuse_range()?;
    let network = network::load(args, Some(path), Need::Everything, ui)?;
    let facts = ModelFacts {
        weights: Some(network.weights.choice().to_owned()),
        weights_sha256: Some(network.weights.sha256().to_owned()),
        ..facts(&NetworkRecord::of(&network.model), ModelKind::Checkpoint)
    };
    let (input, outputs) = interface(&network.model.graph)?;
    Ok(Model {
        facts,
        labels: None,
        output: outputs[0].name.clone(),
        input,
        source: Source::Network(Box::new(network)),
    })
}

fn onnx_file(path: &Path, args: &ModelArgs, ui: &Ui) -> Result<Model> {
    settled(args, ModelKind::Onnx)?;
    ui.step("reading the ONNX file");
    let file = OnnxFile::open(path)?;
    match file.origin {
        Some(_) => own(file, ModelKind::Onnx),
        None => foreign(path, file, ui),
    }
}

/// The float32 model of a bundle, which every runtime runs.
fn bundle(path: &Path, args: &ModelArgs, ui: &Ui) -> Result<Model> {
    settled(args, ModelKind::Bundle)?;
    ui.step("reading the bundle");
    let folder = BundleFolder::open(path)?;
    say_changed(&folder.changed, ui);
    let first = folder.models.into_iter().next();
    let (precision, file) = first.ok_or_else(|| Diagnostic::input("the bundle has no model"))?;
    ui.detail(format_args!("the bundle's {} model", precision.name()));
    match file.origin {
        Some(_) => own(file, ModelKind::Bundle),
        None => Err(Diagnostic::input(
            "the bundle's model has no metadata of emoc",
        )),
    }
}

fn crate_folder(path: &Path, args: &ModelArgs, ui: &Ui) -> Result<Model> {
    settled(args, ModelKind::Crate)?;
    ui.step("reading the crate");
    if !path.join(MANIFEST).exists() {
        let message = "the folder is neither a crate nor a bundle that emoc wrote";
        return Err(Diagnostic::input(message)
            .help("a model is a checkpoint, an ONNX file, or a folder that emoc wrote"));
    }
    let folder = CrateFolder::open(path)?;
    say_changed(&folder.changed, ui);
    let record = &folder.manifest.network;
    let declared = emo2::declared(record.architecture()?, record.geometry())?;
    let (input, outputs) = interface(&declared.graph)?;
    let options = &folder.manifest.options;
    let emitted = Emitted {
        name: options.crate_name.clone(),
        files: folder.files,
        arena_bytes: options.arena_bytes,
        weight_bytes: options.weight_bytes,
    };
    Ok(Model {
        facts: ModelFacts {
            weights_dtype: Some(options.weights_dtype),
            ..of_origin(&folder.origin, ModelKind::Crate)
        },
        labels: folder.manifest.labels,
        output: outputs[0].name.clone(),
        input,
        source: Source::Crate(emitted, outputs),
    })
}

/// An ONNX file of emoc.
fn own(file: OnnxFile, kind: ModelKind) -> Result<Model> {
    let origin = file.origin.as_ref();
    let origin = origin.ok_or_else(|| Diagnostic::internal("metadata went missing"))?;
    let record = &origin.network;
    let declared = emo2::declared(record.architecture()?, record.geometry())?;
    if record.classes.is_some() {
        check_preprocessing(&file, record)?;
    }
    let labels = file.labels()?;
    let (input, outputs) = interface(&declared.graph)?;
    Ok(Model {
        facts: ModelFacts {
            sha256: Some(manifest::sha256(&file.bytes)),
            precision: precision::of(&file.description)?,
            ..of_origin(origin, kind)
        },
        labels,
        output: outputs[0].name.clone(),
        input,
        source: Source::Onnx(file.bytes),
    })
}

/// Pictures are made into inputs in one way only: a file that asks for another is not guessed at.
fn check_preprocessing(file: &OnnxFile, record: &NetworkRecord) -> Result<()> {
    let Some(text) = file.description.get(key::PREPROCESSING) else {
        return Ok(());
    };
    let expected = json::line(&Preprocessing::of(record))?;
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    match parse(text) == parse(&expected) {
        true => Ok(()),
        false => {
            let message = "the file asks for another preprocessing than this emoc knows";
            Err(Diagnostic::input(message)
                .at(format!("metadata `{}`", key::PREPROCESSING))
                .help("compile the model again with this version of emoc"))
        }
    }
}

/// An ONNX file of another program, if it takes pictures and gives logits.
fn foreign(path: &Path, file: OnnxFile, ui: &Ui) -> Result<Model> {
    let model = OnnxModel::read(&file.bytes)?;
    let refuse = |why: &str| {
        let message = format!("the file has no metadata of emoc, and {why}");
        Diagnostic::input(message).help("an image classifier has one input [N, 3, H, W] of float32")
    };
    let [input] = model.inputs() else {
        return Err(refuse("not one input"));
    };
    let shape = input.shape.as_deref();
    let Some(&[batch, Some(3), Some(height), Some(width)]) = shape else {
        return Err(refuse("its input is no picture of a fixed size"));
    };
    let output = model.outputs().first();
    let output = output.ok_or_else(|| refuse("no output"))?;
    let classes = match output.shape.as_deref() {
        Some(&[_, Some(0)]) => return Err(refuse("its output has no classes")),
        Some(&[_, classes]) => classes,
        _ => None,
    };
    ui.warn(
        "the file has no metadata of emoc: its input is taken to be what the official test \
         transform makes",
    );
    let name = path.file_name().unwrap_or(path.as_os_str());
    let (input, output) = (input.name.clone(), output.name.clone());
    Ok(Model {
        facts: ModelFacts {
            title: format!("{} at {height}x{width}", name.to_string_lossy()),
            kind: ModelKind::Onnx,
            weights: None,
            weights_sha256: None,
            sha256: Some(manifest::sha256(&file.bytes)),
            precision: Precision::F32,
            weights_dtype: None,
            input_size: [height, width],
            window: None,
            classes,
        },
        labels: None,
        input: InputFact {
            name: input,
            shape: vec![batch.unwrap_or(1).max(1), 3, height, width],
        },
        output,
        source: Source::Onnx(file.bytes),
    })
}

fn facts(record: &NetworkRecord, kind: ModelKind) -> ModelFacts {
    ModelFacts {
        title: record.title(),
        kind,
        weights: None,
        weights_sha256: None,
        sha256: None,
        precision: Precision::F32,
        weights_dtype: None,
        input_size: record.input_size,
        window: Some(record.window),
        classes: record.classes,
    }
}

fn of_origin(origin: &Origin, kind: ModelKind) -> ModelFacts {
    let weights = match (origin.seed, origin.ema) {
        (Some(_), _) => "seeded",
        (None, true) => "ema",
        (None, false) => "net",
    };
    ModelFacts {
        weights: Some(weights.to_owned()),
        weights_sha256: origin.weights_sha256.clone(),
        ..facts(&origin.network, kind)
    }
}

/// Input and outputs of one run, of one image where the batch is open.
pub(super) fn interface(graph: &Graph) -> Result<(InputFact, Vec<InputFact>)> {
    let [input] = graph.inputs() else {
        return Err(Diagnostic::internal("a network has one input"));
    };
    let fact = |name: &str, shape: &Shape| {
        let sizes = shape.0.iter().map(|dim| match dim {
            Dim::Fixed(size) => *size,
            Dim::Batch(multiple) => *multiple,
        });
        InputFact {
            name: name.to_owned(),
            shape: sizes.collect(),
        }
    };
    let outputs = graph.outputs().iter();
    let outputs: Vec<_> = outputs
        .map(|output| fact(&output.name, &graph.ty(output.value).shape))
        .collect();
    if outputs.is_empty() {
        return Err(Diagnostic::internal("a network has an output"));
    }
    let (name, value) = (&graph.node(*input).name, Value::from(*input));
    let input = fact(name, &graph.ty(value).shape);
    Ok((input, outputs))
}

/// A flag that would do nothing is a mistake.
fn settled(args: &ModelArgs, kind: ModelKind) -> Result<()> {
    match args.first_given() {
        None => Ok(()),
        Some(flag) => {
            let message = format!("{flag} is for checkpoints; the model is {}", kind.name());
            Err(Diagnostic::usage(message).help("leave it out: the artifact knows"))
        }
    }
}
