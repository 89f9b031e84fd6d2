//! A Rust crate that runs the network, without dependencies.
//!
//! | file | what |
//! |---|---|
//! | `lower.rs` | the graph as layers with packed weights |
//! | `memory.rs` | the static memory plan |
//! | `weights.rs` | how the weights are stored |
//! | `tables.rs` | the network as tables of `model.rs` |
//! | `sources.rs` | the kernels and the preprocessing, copied verbatim |
//! | `template/` | everything else, with `@{placeholders}` |

mod lower;
mod memory;
mod sources;
mod tables;
#[cfg(test)]
mod tests;
mod weights;

use emoc_ir::{Diagnostic, Result, Verified, seeded};

pub use weights::{WeightsDtype, rounded};

use crate::template::Template;
use lower::Network;

/// What the crate should be like.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The crate's name; by default the graph's, with dashes.
    pub crate_name: Option<String>,
    /// How the weights are stored.
    pub weights: WeightsDtype,
    /// Names of the classes.
    pub labels: Option<Vec<String>>,
    /// Where the network is from, for the README, in this order.
    pub provenance: Vec<(String, String)>,
    /// For the crate's own test: the seeded input `[1, 3, H, W]` (key `input`, seed 0), and the
    /// outputs that the reference gives for it.
    pub golden: Option<(Vec<f32>, Vec<Vec<f32>>)>,
}

/// An emitted crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emitted {
    /// Its name.
    pub name: String,
    /// Paths inside the crate and contents, in the order of the paths.
    pub files: Vec<(String, Vec<u8>)>,
    /// Bytes of activations in the static memory plan.
    pub arena_bytes: usize,
    /// Bytes of `weights.bin`.
    pub weight_bytes: usize,
}

/// Values of `tests/golden.bin` at most; of larger outputs a sample is kept.
const GOLDEN_VALUES: usize = 4096;

/// The files of a crate that computes the graph, an EMO network after the whole pipeline.
///
/// # Errors
/// A node that there is no kernel for, a symbolic or larger batch, a name that no crate can have,
/// a weight that half precision cannot hold.
pub fn emit(graph: &Verified, options: &Options) -> Result<Emitted> {
    let name = match &options.crate_name {
        Some(name) => name.clone(),
        None => graph.name.replace('_', "-"),
    };
    check_name(&name)?;
    let network = lower::lower(graph)?;
    check_labels(&network, options.labels.as_deref())?;
    let plan = memory::plan(&network);
    let weights = weights::stored(&network, options.weights)?;
    let weight_bytes = weights.len();
    let arena_bytes = 4 * plan.len;
    let mut template = Template::default();
    describe(&mut template, graph, &network, &name, options);
    template.set("arena_size", megabytes(arena_bytes));
    template.set("weight_size", megabytes(weight_bytes));
    template.set(
        "wide",
        tables::grouped(network.wide_weights(options.weights)),
    );
    tables::set(&mut template, &network, &plan);

    let mut files = text_files(&mut template, &network, options);
    files.extend(sources::kernels());
    files.extend(sources::preprocess(&template));
    files.push(("weights.bin".into(), weights));
    if let Some((input, outputs)) = &options.golden {
        files.extend(golden(&mut template, &network, input, outputs)?);
    }
    files.sort();
    Ok(Emitted {
        name,
        files,
        arena_bytes,
        weight_bytes,
    })
}

/// An example for emoc's own check, not a part of the crate: its path and contents.
///
/// `emoc_check INPUT OUTPUT --runs N` reads float32 little-endian pictures, writes all their
/// outputs, and prints `{"isa", "threads", "arena_bytes", "times_ms"}` of N more runs.
/// `emoc_check INPUT --serve` runs the picture once, prints `{"isa", "threads"}`, and then for
/// every line with a number the `{"times_ms"}` of that many runs.
pub fn check_example(emitted: &Emitted) -> (String, Vec<u8>) {
    let mut template = Template::default();
    template.set("module", module(&emitted.name));
    let text = template.fill(include_str!("template/check.rs"));
    ("examples/emoc_check.rs".into(), text.into_bytes())
}

/// The crate's name in Rust code.
fn module(name: &str) -> String {
    name.replace('-', "_")
}

/// Crates that every program sees.
const TAKEN: [&str; 5] = ["alloc", "core", "proc_macro", "std", "test"];

/// Words that Rust keeps for itself, in any edition.
const KEYWORDS: &str = "abstract as async await become box break const continue crate do dyn else \
                        enum extern false final fn for gen if impl in let loop macro match mod \
                        move mut override priv pub ref return self static struct super trait true \
                        try type typeof unsafe unsized use virtual where while yield";

/// Refuses what cargo refuses, and what rustc warns of: crates have names in snake case.
///
/// # Errors
/// Such a name.
pub fn check_name(name: &str) -> Result<()> {
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
    let words = name.split(['-', '_']);
    let words = words.clone().all(|word| {
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        !word.is_empty() && word.chars().all(letter)
    });
    let taken = TAKEN.contains(&&*module(name)) || KEYWORDS.split(' ').any(|word| word == name);
    if starts && words && name.len() <= 64 && !taken {
        return Ok(());
    }
    let message = format!("`{}` cannot be the name of a crate", name.escape_debug());
    Err(Diagnostic::usage(message).help(
        "a name has small letters and digits, with single `-` or `_` between them, starts with a \
         letter, and is no word of Rust: choose one with --crate-name",
    ))
}

/// Names of classes are for all of them.
fn check_labels(network: &Network, labels: Option<&[String]>) -> Result<()> {
    let Some(labels) = labels else {
        return Ok(());
    };
    let classes = network.head.as_ref().map_or(0, |head| head.classes);
    match labels.len() == classes {
        true => Ok(()),
        false => Err(Diagnostic::usage(format!(
            "{} class names for a network with {classes} classes",
            labels.len()
        ))),
    }
}

/// The placeholders that say what the network is.
fn describe(
    template: &mut Template,
    graph: &Verified,
    network: &Network,
    name: &str,
    options: &Options,
) {
    let (height, width) = (network.input.height, network.input.width);
    template.set("name", name);
    template.set("module", module(name));
    template.set("height", height);
    template.set("width", width);
    let mut words = graph.name.split('_');
    let family = words.next().unwrap_or_default().replace("emo", "EMO");
    let variant = words.next().unwrap_or_default().to_uppercase();
    template.set("title", format!("{family} {variant} at {height}x{width}"));
    let summary = match &network.head {
        Some(head) => format!("It gives one logit for each of {} classes.", head.classes),
        None => "It gives the feature maps of its stages.".to_owned(),
    };
    template.set("summary", summary);
    let dtype = match options.weights {
        WeightsDtype::F32 => "float32",
        WeightsDtype::F16 => "half precision, the stem's in float32",
    };
    template.set("dtype", dtype);
    let rows = options.provenance.iter();
    let rows: Vec<_> = rows
        .map(|(key, value)| format!("| {key} | {} |", cell(value)))
        .collect();
    template.set("provenance", rows.join("\n"));
}

/// Text in a cell of a Markdown table.
fn cell(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    text.replace('|', "\\|").replace('<', "&lt;")
}

fn megabytes(bytes: usize) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Every file that is made from a template.
fn text_files(
    template: &mut Template,
    network: &Network,
    options: &Options,
) -> Vec<(String, Vec<u8>)> {
    let output = match &network.head {
        Some(_) => {
            let labels = options.labels.iter().flatten();
            let labels: Vec<_> = labels.map(|label| format!("\n    {label:?},")).collect();
            let end = if labels.is_empty() { "" } else { "\n" };
            template.set("labels", labels.concat() + end);
            include_str!("template/output_classifier.rs")
        }
        None => include_str!("template/output_backbone.rs"),
    };
    let example = match &network.head {
        Some(_) => include_str!("template/classify_classifier.rs"),
        None => include_str!("template/classify_backbone.rs"),
    };
    let stored = match options.weights {
        WeightsDtype::F32 => include_str!("template/weights_f32.rs"),
        WeightsDtype::F16 => include_str!("template/weights_f16.rs"),
    };
    template.set("ppm", include_str!("template/ppm.rs").trim_end());
    let files = [
        ("Cargo.toml", include_str!("template/Cargo.toml")),
        ("README.md", include_str!("template/README.md")),
        ("examples/classify.rs", example),
        ("src/lib.rs", include_str!("template/lib.rs")),
        ("src/model.rs", include_str!("template/model.rs")),
        ("src/output.rs", output),
        ("src/weights.rs", stored),
    ];
    let fill = |(path, text): (&str, &str)| (path.to_owned(), template.fill(text).into_bytes());
    files.map(fill).into()
}

/// The crate's own test and what it expects.
fn golden(
    template: &mut Template,
    network: &Network,
    input: &[f32],
    outputs: &[Vec<f32>],
) -> Result<[(String, Vec<u8>); 2]> {
    let dims = [1, 3, network.input.height, network.input.width];
    if input != seeded::values("input", &dims, 0) {
        return Err(Diagnostic::internal(
            "the golden input is not the seeded one",
        ));
    }
    let values: Vec<f32> = outputs.concat();
    let stride = values.len().div_ceil(GOLDEN_VALUES).max(1);
    template.set("stride", stride);
    let sample = values.iter().step_by(stride).flat_map(|x| x.to_le_bytes());
    let text = template.fill(include_str!("template/golden.rs"));
    Ok([
        ("tests/golden.bin".into(), sample.collect()),
        ("tests/golden.rs".into(), text.into_bytes()),
    ])
}
