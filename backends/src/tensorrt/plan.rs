//! `plan.json`: everything that is known of a bundle, for programs.
//!
//! `plan.schema.json` is its JSON schema. Both change together, and [`SCHEMA`] with them when a
//! reader of an older plan would misread a newer one. Paths are relative to the bundle, with `/`.

use std::{collections::BTreeMap, fmt::Write};

use emoc_ir::{Diagnostic, Result};
use serde::{Deserialize, Serialize};

use super::{Precision, operators::Version};

/// The version of the format.
pub const SCHEMA: u32 = 1;

/// The JSON schema of the format (draft 2020-12).
pub const JSON_SCHEMA: &str = include_str!("plan.schema.json");

pub(super) const PRODUCER: &str = "emoc";

/// What a bundle holds, and how an engine is built from it and judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `emoc`.
    pub producer: String,
    /// Its version.
    pub producer_version: String,
    /// Name of the network, such as `emov2_5m_224`.
    pub name: String,
    /// The same for people.
    pub title: String,
    /// Versions of TensorRT that take every model of the bundle.
    pub tensorrt: Range,
    /// Version of ONNX's operator set.
    pub opset: i64,
    /// Inputs of every model.
    pub inputs: Vec<Tensor>,
    /// Outputs of every model.
    pub outputs: Vec<Tensor>,
    /// Optimisation profiles; none if the batch is fixed.
    pub profiles: Vec<Profile>,
    /// How an engine is built.
    pub builder: Builder,
    /// The models, float32 first: one network in several precisions.
    pub models: Vec<Model>,
    /// Engines for TensorRT-RTX.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub engines: Vec<Engine>,
    /// How a picture becomes the input.
    pub preprocessing: Preprocessing,
    /// File with the names of the classes, one a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// Multiply-accumulates for one picture.
    pub macs: u64,
    /// Known outputs for a known input.
    pub golden: Golden,
    /// Where the network comes from.
    pub provenance: Vec<Row>,
    /// Every other file of the bundle.
    pub files: Vec<File>,
}

/// A range of versions of TensorRT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The oldest.
    pub oldest: Version,
    /// The newest major version that was known when the bundle was made.
    pub newest_major: u32,
}

/// An input or output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Element type as numpy spells it.
    pub dtype: String,
    /// Sizes of its axes.
    pub shape: Vec<Axis>,
}

/// A size, or the name of a symbolic one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum Axis {
    Fixed(u64),
    Named(String),
}

/// The shapes that an engine is built for, of every input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// The input.
    pub input: String,
    /// The smallest shape.
    pub min: Vec<u64>,
    /// The shape it should be fastest for.
    pub opt: Vec<u64>,
    /// The largest shape.
    pub max: Vec<u64>,
}

/// What the builder is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Builder {
    /// The types are those of the model; TensorRT chooses none. Always, from TensorRT 11.
    pub strongly_typed: bool,
    /// Whether float32 convolutions may round their operands to 10 bits.
    pub tf32: bool,
    /// `detailed`: layers keep their names.
    pub profiling_verbosity: String,
    /// File that remembers measured kernels, to build again faster.
    pub timing_cache: String,
    /// Whether the engine runs on later versions of TensorRT too.
    pub version_compatible: bool,
    /// `none`, or the level up to which the engine runs on other GPUs too.
    pub hardware_compatibility: String,
}

/// The network in one precision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// `f32` or `f16`.
    pub precision: Precision,
    /// The ONNX file.
    pub file: String,
    /// Where the engine goes.
    pub engine: String,
    /// Parts that compute in float32 although the model does not, by name.
    pub islands: Vec<String>,
    /// Activations that live at once, at most, by batch: an estimate, before TensorRT fuses.
    pub activation_memory: Vec<Memory>,
    /// How far an engine's outputs may be from the reference.
    pub tolerance: Tolerance,
    /// The operator audit, a row for each node.
    pub audit: Vec<Audited>,
}

/// An engine that TensorRT-RTX built where the bundle was made. It is no plan for TensorRT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// The model it was built from.
    pub precision: Precision,
    /// The generation of GPUs that it serves, such as `SM86`.
    pub capability: String,
    /// The version of TensorRT-RTX that built it, and that it needs.
    pub tensorrt_rtx: String,
    /// The engine.
    pub file: String,
    /// Whether building it again gives the same bytes; not with a symbolic batch.
    pub reproducible: bool,
}

/// Memory for one batch size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Pictures at once.
    pub batch: u64,
    /// Bytes.
    pub bytes: u64,
}

/// How far outputs may be from the reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// In terms of the spread, the standard deviation of the golden output.
    pub of_spread: f64,
    /// The same by output, absolute.
    pub absolute: BTreeMap<String, f64>,
}

/// A row of the operator audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audited {
    /// The node.
    pub node: String,
    /// What it computes.
    pub operator: String,
    /// Element type of its data.
    pub dtype: String,
    /// Whether TensorRT takes it: always, or there would be no bundle.
    pub supported: bool,
    /// The first version that does.
    pub since: Version,
    /// The operator's restrictions, which the node meets.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// How a picture becomes the network's input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// Order of the channels.
    pub color: String,
    /// None for a backbone: detection and segmentation have rules of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<Resize>,
    /// What values from 0 to 255 are multiplied with.
    pub scale: String,
    /// What is subtracted then, by channel.
    pub mean: [f64; 3],
    /// What is divided by then, by channel.
    pub std: [f64; 3],
    /// Order of the axes.
    pub layout: String,
}

/// How a picture comes to the network's size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    /// The picture is scaled, keeping its ratio, until it just covers this height and width.
    pub cover: [usize; 2],
    /// How it is interpolated.
    pub filter: String,
    /// Then this height and width are cut out of its centre.
    pub center_crop: [usize; 2],
}

/// Known outputs for a known input, as `.f32` (float32, little-endian) and `.npy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// Pictures in it.
    pub batch: u64,
    /// The input.
    pub input: GoldenTensor,
    /// What emoc's reference evaluator gives for it, in the order of the outputs.
    pub outputs: Vec<GoldenTensor>,
}

/// A tensor of known values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenTensor {
    /// The input or output.
    pub name: String,
    /// Sizes of its axes.
    pub shape: Vec<u64>,
    /// Raw values.
    pub f32: String,
    /// The same for numpy.
    pub npy: String,
}

/// A fact and its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Its name.
    pub key: String,
    /// The fact.
    pub value: String,
}

/// A file of the bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its path.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}

impl Plan {
    /// Reads a `plan.json`.
    ///
    /// # Errors
    /// These bytes are no such file, or one of a newer emoc.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            schema: u32,
            producer: String,
        }
        let refuse = |why: String| Diagnostic::input(format!("this is no plan of a bundle: {why}"));
        // What a newer emoc writes may have fields that are unknown here.
        let head: Head =
            serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))?;
        if head.producer != PRODUCER {
            return Err(refuse("emoc did not write it".into()));
        }
        if head.schema > SCHEMA {
            return Err(refuse("a newer emoc wrote it".into()));
        }
        serde_json::from_slice(bytes).map_err(|error| refuse(error.to_string()))
    }

    /// The file's bytes.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let compact = serde_json::to_string(self);
        let compact =
            compact.map_err(|e| Diagnostic::internal(format!("a plan is no JSON: {e}")))?;
        let mut text = String::with_capacity(2 * compact.len());
        lay_out(&compact, 0, &mut text);
        text.push('\n');
        Ok(text.into_bytes())
    }
}

/// What fits into this many columns stands in one line.
const WIDTH: usize = 140;

/// Writes compact JSON for people: what is short in one line, anything else an item a line.
fn lay_out(json: &str, indent: usize, text: &mut String) {
    let flat = flat(json);
    let items = items(json);
    if items.is_empty() || indent > 0 && indent + flat.len() <= WIDTH {
        text.push_str(&flat);
        return;
    }
    let inner = " ".repeat(indent + 2);
    text.push_str(&json[..1]);
    for (index, item) in items.iter().enumerate() {
        let end = if index == 0 { "" } else { "," };
        let value = if json.starts_with('{') {
            key_len(item)
        } else {
            0
        };
        let (key, value) = item.split_at(value);
        let space = if key.is_empty() { "" } else { " " };
        let _ = write!(text, "{end}\n{inner}{key}{space}");
        lay_out(value, indent + 2, text);
    }
    let _ = write!(text, "\n{}{}", " ".repeat(indent), &json[json.len() - 1..]);
}

/// Compact JSON with spaces behind commas and colons.
fn flat(json: &str) -> String {
    let mut text = String::with_capacity(json.len() + json.len() / 4);
    for (c, in_string) in scan(json) {
        text.push(c);
        if !in_string && matches!(c, ',' | ':') {
            text.push(' ');
        }
    }
    text
}

/// The items of an array or the members of an object; none of anything else.
fn items(json: &str) -> Vec<&str> {
    if json.len() <= 2 || !json.starts_with(['{', '[']) {
        return Vec::new();
    }
    let inner = &json[1..json.len() - 1];
    let (mut items, mut start, mut end, mut depth) = (Vec::new(), 0, 0, 0);
    for (c, in_string) in scan(inner) {
        match c {
            _ if in_string => {}
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&inner[start..end]);
                start = end + 1;
            }
            _ => {}
        }
        end += c.len_utf8();
    }
    items.push(&inner[start..]);
    items
}

/// Length of a member's key with its colon.
fn key_len(member: &str) -> usize {
    let colon = scan(member).position(|(c, in_string)| c == ':' && !in_string);
    let chars = member.chars().take(colon.map_or(0, |at| at + 1));
    chars.map(char::len_utf8).sum()
}

/// The characters of JSON, and whether each is part of a string, its quotes included.
fn scan(json: &str) -> impl Iterator<Item = (char, bool)> {
    let (mut in_string, mut escaped) = (false, false);
    json.chars().map(move |c| {
        let was = in_string;
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
        (c, was || in_string)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn layout_changes_nothing() {
        let rows: Vec<Value> = (0..9)
            .map(|n| json!({"n": n, "é": "a:b,{\"]", "e": [], "o": {}}))
            .collect();
        let value =
            json!({"a": rows, "long": vec!["word"; 40], "nested": [[1, 2], [3]], "n": 1e-5});
        let mut text = String::new();
        lay_out(&value.to_string(), 0, &mut text);
        assert_eq!(
            serde_json::from_str::<Value>(&text).expect("JSON"),
            value,
            "{text}"
        );
        assert!(text.contains("\n  \"nested\": [[1, 2], [3]]"), "{text}");
        assert!(
            text.contains("\n    {\"e\": [], \"n\": 0, \"o\": {}, \"é\": \"a:b,{\\\"]\"},\n"),
            "{text}"
        );
    }

    #[test]
    fn other_json_is_no_plan() {
        for (text, why) in [
            ("", "EOF"),
            ("{}", "missing field"),
            (r#"{"schema": 1, "producer": "x"}"#, "emoc did not write it"),
            (
                r#"{"schema": 2, "producer": "emoc", "new": 1}"#,
                "a newer emoc wrote it",
            ),
            (
                r#"{"schema": 1, "producer": "emoc", "new": 1}"#,
                "unknown field",
            ),
        ] {
            let fault = Plan::parse(text.as_bytes()).expect_err(why);
            assert!(fault.to_string().contains(why), "{fault}");
        }
    }
}
