//! The command that makes an artifact again.

use std::{borrow::Cow, path::Path};

use emoc_ir::{Dim, Result, ops::Attention};
use emoc_passes::precision as passes;

use super::subject::Subject;
use crate::{
    args::{Precision, WeightsDtype},
    artifact::{CrateFolder, OnnxFile, Origin},
    check::Artifact,
    manifest::{OnnxOptions, key},
    network::Weights,
    record::NetworkRecord,
};

/// Words of a command line.
struct Line(Vec<String>);

impl Line {
    fn flag(&mut self, name: &str, value: impl ToString) {
        self.0.push(name.to_owned());
        self.0.push(value.to_string());
    }

    /// As a shell reads it.
    fn spelt(&self) -> String {
        let quoted = self.0.iter().map(|word| {
            // Only NUL cannot be quoted, and no path has one.
            shlex::try_quote(word).unwrap_or(Cow::Borrowed("?"))
        });
        quoted.collect::<Vec<_>>().join(" ")
    }
}

/// The `emoc compile` that gives the artifact, in the folder of the checkpoint; none where it was
/// compared with another network than its own.
///
/// # Errors
/// The metadata of a float16 artifact lists no islands.
pub fn compile(subject: &Subject, labels: bool) -> Result<Option<String>> {
    let network = &subject.checked.network;
    let record = NetworkRecord::of(&network.model);
    let origin = subject.checked.artifact.origin();
    let is_its = |origin: &Origin| origin.network == record && !origin.has_other_weights(network);
    if !origin.is_some_and(is_its) {
        return Ok(None);
    }
    let mut line = Line(vec!["emoc".into(), "compile".into()]);
    weights(&mut line, subject, &record);
    match &subject.checked.artifact {
        Artifact::Onnx(file, precision) => {
            line.flag("--target", "onnx");
            geometry(&mut line, &record);
            batch(&mut line, record.batch());
            onnx(&mut line, file, subject, *precision)?;
        }
        Artifact::Crate(folder) => {
            line.flag("--target", "rust");
            geometry(&mut line, &record);
            crate_flags(&mut line, folder, &record);
        }
        Artifact::Bundle(folder) => {
            let with_engines = !folder.plan.engines.is_empty();
            let target = if with_engines {
                "tensorrt-rtx"
            } else {
                "tensorrt"
            };
            line.flag("--target", target);
            geometry(&mut line, &record);
            match folder.plan.profiles.first() {
                Some(profile) => {
                    let shapes = [&profile.min, &profile.max, &profile.opt];
                    let [min, max, opt] = shapes.map(|shape| shape.first().copied().unwrap_or(1));
                    line.flag("--batch", format!("{min}..{max}:{opt}"));
                }
                None => batch(&mut line, record.batch()),
            }
            if let Some((precision, file)) = folder.models.last() {
                onnx(&mut line, file, subject, *precision)?;
            }
        }
    }
    match &*subject.passes {
        "all" => {}
        "none" => line.flag("--passes", "none"),
        last => {
            let whole = emoc_passes::PIPELINE.last().map(|pass| pass.name);
            if whole != Some(last) {
                line.flag("--stop-after", last);
            }
        }
    }
    if subject.flags.allow_nonfinite {
        line.0.push("--allow-nonfinite".into());
    }
    if labels {
        line.flag("--labels", "names.txt");
    }
    if let Some(name) = name(subject).filter(|name| *name != default_name(subject, &record)) {
        line.flag("--output", name);
    }
    Ok(Some(line.spelt()))
}

/// The `emoc check` that looks at it again; none if it was not kept.
pub fn check(subject: &Subject) -> Option<String> {
    let mut line = Line(vec!["emoc".into(), "check".into(), name(subject)?]);
    if let Some(path) = &subject.checkpoint {
        line.flag("--checkpoint", file_name(path));
    }
    Some(line.spelt())
}

/// The artifact's file or folder, without the folders around it.
pub fn name(subject: &Subject) -> Option<String> {
    subject.path.as_deref().map(file_name)
}

/// The last part of a path: where a file lies is nobody's business but its owner's.
pub fn file_name(path: &Path) -> String {
    let full = path.canonicalize().ok();
    let name = path
        .file_name()
        .or(full.as_deref().and_then(Path::file_name));
    let name = name.unwrap_or(path.as_os_str()).to_string_lossy();
    match name.starts_with('-') {
        true => format!("./{name}"),
        false => name.into_owned(),
    }
}

fn default_name(subject: &Subject, record: &NetworkRecord) -> String {
    match &subject.checked.artifact {
        Artifact::Onnx(..) => format!("{}.onnx", record.name),
        Artifact::Crate(folder) => folder.manifest.options.crate_name.clone(),
        Artifact::Bundle(_) => format!("{}_tensorrt", record.name),
    }
}

fn weights(line: &mut Line, subject: &Subject, record: &NetworkRecord) {
    match &subject.checked.network.weights {
        Weights::Checkpoint { choice, sha256, .. } | Weights::Artifact { choice, sha256 } => {
            let path = subject.checkpoint.as_deref();
            line.flag("--checkpoint", path.map_or("FILE".into(), file_name));
            line.flag("--expect-sha256", sha256);
            if *choice == "ema" {
                line.flag("--weights", "ema");
            }
            if record.variant.is_none() {
                let [.., third, fourth] = record.dim_heads;
                line.flag("--dim-head", format!("{third},{fourth}"));
                let attention = match record.attention() {
                    Attention::Hybrid | Attention::CloseTwice => "hybrid",
                    Attention::Remote => "remote",
                    Attention::Close => "close",
                };
                line.flag("--attention", attention);
            }
        }
        Weights::Seeded { seed, .. } => {
            if let Some(variant) = &record.variant {
                line.flag("--variant", variant);
            }
            if *seed != 0 {
                line.flag("--seed", seed);
            }
        }
    }
}

fn geometry(line: &mut Line, record: &NetworkRecord) {
    let [height, width] = record.input_size;
    match (height, width) {
        (224, 224) => {}
        (height, width) if height == width => line.flag("--input-size", height),
        (height, width) => line.flag("--input-size", format!("{height}x{width}")),
    }
    // Said even where it is the default: it decides what the network computes.
    line.flag("--window", record.window);
}

fn onnx(line: &mut Line, file: &OnnxFile, subject: &Subject, precision: Precision) -> Result<()> {
    let opset = file.description.opset;
    if opset != i64::from(OnnxOptions::default().opset) {
        line.flag("--opset", opset);
    }
    if precision == Precision::F32 {
        return Ok(());
    }
    line.flag("--precision", "f16");
    let graph = &subject.optimised.graph;
    let standard = passes::to_f16(graph, &passes::standard(graph))?.islands;
    let standard: Vec<_> = standard.iter().map(ToString::to_string).collect();
    if islands(file) != standard {
        line.flag("--islands", "auto");
    }
    Ok(())
}

/// What of a float16 model stays float32.
pub fn islands(file: &OnnxFile) -> Vec<String> {
    let listed = file.description.get(key::ISLANDS).unwrap_or_default();
    serde_json::from_str(listed).unwrap_or_default()
}

fn crate_flags(line: &mut Line, folder: &CrateFolder, record: &NetworkRecord) {
    let options = &folder.manifest.options;
    if options.weights_dtype == WeightsDtype::F16 {
        line.flag("--weights-dtype", "f16");
    }
    if options.crate_name != record.name.replace('_', "-") {
        line.flag("--crate-name", &options.crate_name);
    }
}

/// The flag for the images per inference of an ONNX file.
fn batch(line: &mut Line, batch: Dim) {
    match batch {
        Dim::Fixed(1) => {}
        Dim::Fixed(images) => line.flag("--batch", images),
        Dim::Batch(_) => line.flag("--batch", "dynamic"),
    }
}
