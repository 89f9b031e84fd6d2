//! Differences of networks and artifacts in words.

use std::collections::{BTreeMap, BTreeSet};

use emoc_ir::{Dim, Result};
use emoc_passes::PIPELINE;
use serde::Serialize;

use super::subject::Subject;
use crate::{
    artifact::{BundleFolder, CrateFolder, OnnxFile, Origin},
    manifest::key,
    precision,
    record::{AttentionRecord, LocalNormRecord, NetworkRecord},
    table::bytes,
};

/// Something that can be said of one side, such as `window` and `7`.
pub type Setting = (String, String);

/// Something that is not the same on both sides.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub what: String,
    pub a: String,
    pub b: String,
}

/// Hexadecimal digits of a digest that a person compares.
const DIGITS: usize = 12;

/// What both sides speak of and do not say alike.
pub fn changes(a: &Subject, b: &Subject) -> Vec<Change> {
    let mut changes = Vec::new();
    for (what, said) in &a.settings {
        let other = b.settings.iter().find(|(found, _)| found == what);
        if let Some((_, other)) = other.filter(|(_, other)| other != said) {
            changes.push(Change {
                what: what.clone(),
                a: said.clone(),
                b: other.clone(),
            });
        }
    }
    if a.facts.nodes.is_some() && b.facts.nodes.is_some() {
        operators(a, b, &mut changes);
    }
    let have_labels = |side: &Subject| side.facts.kind != super::ModelKind::Checkpoint;
    if have_labels(a) && have_labels(b) {
        labels(
            a.facts.labels.as_deref(),
            b.facts.labels.as_deref(),
            &mut changes,
        );
    }
    changes
}

fn operators(a: &Subject, b: &Subject, changes: &mut Vec<Change>) {
    let (a, b) = (&a.facts.operators, &b.facts.operators);
    let names: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    for name in names {
        let count = |side: &BTreeMap<String, usize>| side.get(name).copied().unwrap_or(0);
        let (a, b) = (count(a), count(b));
        if a != b {
            changes.push(Change {
                what: format!("{name} nodes"),
                a: a.to_string(),
                b: b.to_string(),
            });
        }
    }
}

fn labels(a: Option<&[String]>, b: Option<&[String]>, changes: &mut Vec<Change>) {
    let count = |labels: Option<&[String]>| match labels {
        None => "none".to_owned(),
        Some(labels) => labels.len().to_string(),
    };
    if count(a) != count(b) {
        changes.push(Change {
            what: "class names".into(),
            a: count(a),
            b: count(b),
        });
        return;
    }
    let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
    let differ: Vec<_> = (0..a.len()).filter(|&class| a[class] != b[class]).collect();
    if let Some(&first) = differ.first() {
        let more = match differ.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        changes.push(Change {
            what: format!("name of class {first}{more}"),
            a: a[first].clone(),
            b: b[first].clone(),
        });
    }
}

fn setting(what: &str, value: impl ToString) -> Setting {
    (what.to_owned(), value.to_string())
}

/// The form of a network.
pub fn of_network(record: &NetworkRecord) -> Vec<Setting> {
    let [height, width] = record.input_size;
    let classes = record.classes.map(|classes| classes.to_string());
    let mut settings = vec![
        setting("variant", record.variant.as_deref().unwrap_or("custom")),
        setting("input", format!("{height}x{width}")),
        setting(
            "batch",
            match record.batch() {
                Dim::Fixed(images) => images.to_string(),
                Dim::Batch(_) => "any".into(),
            },
        ),
        setting(
            "window",
            match record.window {
                0 => "the whole map".into(),
                window => window.to_string(),
            },
        ),
        setting("classes", classes.as_deref().unwrap_or("none, a backbone")),
        setting("stem channels", record.stem),
    ];
    for stage in 0..4 {
        let mut of_stage = |what: &str, value: String| {
            settings.push((format!("stage {} {what}", stage + 1), value));
        };
        let [first, rest] = record.mids[stage];
        of_stage("blocks", record.depths[stage].to_string());
        of_stage("channels", record.dims[stage].to_string());
        of_stage("inner channels", format!("{first}, then {rest}"));
        of_stage("kernel", format!("{0}x{0}", record.kernels[stage]));
        of_stage("head channels", record.dim_heads[stage].to_string());
    }
    settings.push(setting(
        "attention",
        match record.attention {
            AttentionRecord::Hybrid => "hybrid",
            AttentionRecord::Remote => "remote",
            AttentionRecord::Close => "close",
        },
    ));
    settings.push(setting(
        "norm after the depthwise convolution",
        match record.local_norm {
            LocalNormRecord::BatchNorm => "BatchNorm",
            LocalNormRecord::LayerNorm => "LayerNorm",
        },
    ));
    settings
}

/// An ONNX file, and the network in it.
pub fn of_onnx(file: &OnnxFile) -> Result<Vec<Setting>> {
    let description = &file.description;
    let origin = file.origin.as_ref();
    let mut settings = origin
        .map(|origin| of_network(&origin.network))
        .unwrap_or_default();
    let (producer, version) = (&description.producer, &description.producer_version);
    settings.push(setting("producer", format!("{producer} {version}").trim()));
    settings.push(setting("opset", description.opset));
    if let Some(origin) = origin {
        settings.push(setting("precision", precision::of(description)?.name()));
        let islands = description.get(key::ISLANDS).unwrap_or("[]");
        let islands = serde_json::from_str::<Vec<String>>(islands).unwrap_or_default();
        settings.push(setting("islands of float32", listed(&islands)));
        let passes = description.get(key::PASSES).unwrap_or("all");
        settings.push(setting("passes", passes));
        settings.extend(of_origin(origin));
    }
    Ok(settings)
}

fn listed(items: &[impl AsRef<str>]) -> String {
    let items: Vec<_> = items.iter().map(AsRef::as_ref).collect();
    match items.is_empty() {
        true => "none".into(),
        false => items.join(", "),
    }
}

/// Which weights an artifact was compiled from.
fn of_origin(origin: &Origin) -> Vec<Setting> {
    let weights = match (origin.seed, origin.ema) {
        (Some(seed), _) => format!("seeded, seed {seed}"),
        (None, true) => "ema".into(),
        (None, false) => "net".into(),
    };
    let digest = origin.weights_sha256.as_deref().unwrap_or("unknown");
    let digest: String = digest.chars().take(DIGITS).collect();
    vec![
        setting("compiled from", weights),
        setting("digest of what it was compiled from", digest),
    ]
}

/// A bundle, beyond the model that stands for it.
pub fn of_bundle(folder: &BundleFolder) -> Vec<Setting> {
    let plan = &folder.plan;
    let models = folder.models.iter();
    let precisions: Vec<_> = models.map(|(precision, _)| precision.name()).collect();
    let images = |shape: &[u64]| shape.first().copied().unwrap_or_default();
    let profiles = plan.profiles.iter().map(|profile| {
        let (min, opt, max) = (&profile.min, &profile.opt, &profile.max);
        format!("{}..{}:{}", images(min), images(max), images(opt))
    });
    let profiles: Vec<_> = profiles.collect();
    let engines: Vec<_> = plan.engines.iter().map(|engine| &*engine.file).collect();
    vec![
        setting("models", listed(&precisions)),
        setting("batches of the engine", listed(&profiles)),
        setting(
            "TensorRT",
            format!("{} to {}", plan.tensorrt.oldest, plan.tensorrt.newest_major),
        ),
        setting("engines", listed(&engines)),
    ]
}

/// A crate, and the network in it.
pub fn of_crate(folder: &CrateFolder) -> Vec<Setting> {
    let manifest = &folder.manifest;
    let options = &manifest.options;
    let mut settings = of_network(&manifest.network);
    let last = PIPELINE.last().map(|pass| pass.name);
    let passes = match manifest.passes() {
        found if Some(found) == last => "all",
        found => found,
    };
    settings.extend([
        setting("producer", format!("emoc {}", manifest.producer_version)),
        setting("passes", passes),
        setting("weights stored as", options.weights_dtype.name()),
        setting("activations", bytes(options.arena_bytes as u64)),
    ]);
    settings.extend(of_origin(&folder.origin));
    settings
}
