//! The files of a bundle.

use std::collections::BTreeMap;

use emoc_ir::{Diagnostic, Result};
use sha2::{Digest, Sha256};

use super::{
    audit::{Audit, Edge, NEWEST_MAJOR, audit},
    bundle::{Batch, Bundle, Engine, Model, Precision},
    operators::Version,
    plan::{self, Axis, Plan},
    triton,
};
use crate::template::Template;

/// The plan's name in the bundle.
pub const PLAN: &str = "plan.json";

const TIMING_CACHE: &str = "timing.cache";

/// Inputs and outputs, the same of all models.
pub(super) struct Interface {
    pub(super) input: String,
    /// Without the batch: `[3, H, W]`.
    pub(super) input_shape: [u64; 3],
    /// Names and shapes without the batch.
    pub(super) outputs: Vec<(String, Vec<u64>)>,
    /// Whether the batch is symbolic.
    pub(super) symbolic: bool,
}

/// The files of a bundle: paths inside it, with `/`, and contents, in the order of the paths.
/// Equal bundles give equal bytes.
///
/// # Errors
/// TensorRT does not take a model (see [`audit`]); the models have different inputs and outputs, or
/// others than float32 pictures and float32 maps or logits; the batch, the labels or the golden
/// values do not fit them.
pub fn emit(bundle: &Bundle) -> Result<Vec<(String, Vec<u8>)>> {
    check_name("the network", &bundle.name)?;
    let audits = audits(bundle)?;
    let interface = Interface::of(&audits[0])?;
    for (model, audit) in bundle.models.iter().zip(&audits).skip(1) {
        if (&audit.inputs, &audit.outputs) != (&audits[0].inputs, &audits[0].outputs) {
            let message = format!("the {} model has other inputs or outputs", model.precision);
            return Err(Diagnostic::internal(message));
        }
    }
    check_batch(bundle.batch, &audits[0].inputs[0])?;
    check_labels(bundle.labels.as_deref(), &interface)?;
    let golden = golden(bundle, &interface)?;

    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for model in &bundle.models {
        files.push((model_file(model), model.onnx.clone()));
    }
    let repository = format!("triton/{}", bundle.name);
    files.push((
        format!("{repository}/1/model.onnx"),
        bundle.models[0].onnx.clone(),
    ));
    let built = bundle.engines.iter();
    files.extend(built.map(|engine| (engine_file(engine), engine.bytes.clone())));
    let labels = bundle.labels.as_ref().map(|names| {
        let path = format!("{repository}/labels.txt");
        files.push((path.clone(), lines(names)));
        path
    });
    files.extend(golden.files);
    let mut plan = Plan {
        schema: plan::SCHEMA,
        producer: plan::PRODUCER.into(),
        producer_version: bundle.producer_version.clone(),
        name: bundle.name.clone(),
        title: bundle.title.clone(),
        tensorrt: plan::Range {
            oldest: audits
                .iter()
                .map(|audit| audit.oldest)
                .max()
                .unwrap_or(super::OLDEST),
            newest_major: NEWEST_MAJOR,
        },
        opset: audits[0].opset,
        inputs: audits[0].inputs.iter().map(tensor).collect(),
        outputs: audits[0].outputs.iter().map(tensor).collect(),
        profiles: profiles(&interface, bundle.batch),
        builder: builder(),
        models: models(bundle, &audits, &golden.spreads)?,
        engines: engines(bundle, &interface)?,
        preprocessing: bundle.preprocessing.clone(),
        labels,
        macs: bundle.macs,
        golden: golden.plan,
        provenance: bundle
            .provenance
            .iter()
            .map(|(key, value)| plan::Row {
                key: key.clone(),
                value: value.clone(),
            })
            .collect(),
        files: Vec::new(),
    };
    files.extend(texts(bundle, &interface, &plan, &files));
    files.sort();
    plan.files = files.iter().map(file).collect();
    files.push((PLAN.into(), plan.to_bytes()?));
    files.sort();
    Ok(files)
}

fn audits(bundle: &Bundle) -> Result<Vec<Audit>> {
    let precisions: Vec<Precision> = bundle.models.iter().map(|model| model.precision).collect();
    if precisions.first() != Some(&Precision::F32) || !precisions.is_sorted_by(|a, b| a < b) {
        return Err(Diagnostic::internal(
            "a bundle has a float32 model first, and each precision once",
        ));
    }
    let audits = bundle.models.iter().map(|model| audit(&model.onnx));
    audits.collect()
}

impl Interface {
    fn of(audit: &Audit) -> Result<Self> {
        let fault = |message: String| Err(Diagnostic::input(message));
        let [input] = &audit.inputs[..] else {
            return fault(format!(
                "a bundle has one input, and the model {}",
                audit.inputs.len()
            ));
        };
        let fixed = |edge: &Edge| -> Option<Vec<u64>> {
            let sizes = edge.shape.iter().skip(1);
            sizes
                .map(|size| u64::try_from(*size.as_ref().ok()?).ok())
                .collect()
        };
        let batch = input.shape.first();
        let mut outputs = Vec::new();
        for edge in audit.inputs.iter().chain(&audit.outputs) {
            check_name("an input or output", &edge.name)?;
            let Some(sizes) = fixed(edge).filter(|_| edge.shape.first() == batch) else {
                let message =
                    "has other symbolic sizes than the batch, or another batch than the input";
                return fault(format!("`{}` {message}", edge.name));
            };
            if edge.dtype != "FP32" {
                return fault(format!(
                    "`{}` is {} and must be float32",
                    edge.name, edge.dtype
                ));
            }
            outputs.push((edge.name.clone(), sizes));
        }
        let (_, input_shape) = outputs.remove(0);
        match <[u64; 3]>::try_from(input_shape) {
            Ok(input_shape @ [3, height, width]) if batch.is_some() && height.min(width) > 0 => {
                Ok(Self {
                    input: input.name.clone(),
                    input_shape,
                    outputs,
                    symbolic: batch.is_some_and(std::result::Result::is_err),
                })
            }
            _ => fault(format!(
                "`{}` is no batch of pictures [N, 3, H, W]",
                input.name
            )),
        }
    }

    /// Elements of an output or the input for one picture; saturating.
    fn len(shape: &[u64]) -> u64 {
        shape.iter().fold(1, |len, &size| len.saturating_mul(size))
    }
}

/// Names become paths and parts of commands.
fn check_name(what: &str, name: &str) -> Result<()> {
    let letter = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    match name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(letter)
        && name.len() <= 128
    {
        true => Ok(()),
        false => Err(Diagnostic::usage(format!(
            "{what} cannot be named `{}` in a bundle",
            name.escape_debug()
        ))
        .help("a name has letters, digits, `_`, `-` and `.`, and starts with a letter or digit")),
    }
}

fn check_batch(batch: Batch, input: &Edge) -> Result<()> {
    let Batch { min, opt, max } = batch;
    if min < 1 || min > opt || opt > max || max > i32::MAX as usize {
        return Err(Diagnostic::usage(format!(
            "{min} to {max} pictures, best {opt}, is no range of batches"
        )));
    }
    match input.shape.first() {
        Some(Ok(size)) if [min, opt, max].iter().any(|&n| n as i64 != *size) => {
            Err(Diagnostic::usage(format!(
                "the model takes {size} pictures at once, and the engine should take {min} to {max}"
            ))
            .help("emit it with a symbolic batch"))
        }
        _ => Ok(()),
    }
}

fn check_labels(labels: Option<&[String]>, interface: &Interface) -> Result<()> {
    let Some(labels) = labels else {
        return Ok(());
    };
    if !matches!(&interface.outputs[..], [(_, shape)] if shape[..] == [labels.len() as u64]) {
        let message = format!("{} class names do not fit the outputs", labels.len());
        return Err(Diagnostic::usage(message));
    }
    match labels.iter().find(|label| label.contains(['\n', '\r'])) {
        Some(label) => Err(Diagnostic::usage(format!(
            "the class name {label:?} has more than one line"
        ))),
        None => Ok(()),
    }
}

fn model_file(model: &Model) -> String {
    format!("model.{}.onnx", model.precision)
}

fn engine_file(engine: &Engine) -> String {
    let capability = engine.capability.to_lowercase();
    format!("engines/{}.{capability}.engine", engine.precision)
}

fn engines(bundle: &Bundle, interface: &Interface) -> Result<Vec<plan::Engine>> {
    let engine = |engine: &Engine| {
        check_name("a generation of GPUs", &engine.capability)?;
        Ok(plan::Engine {
            precision: engine.precision,
            capability: engine.capability.clone(),
            tensorrt_rtx: engine.tensorrt_rtx.clone(),
            file: engine_file(engine),
            reproducible: !interface.symbolic,
        })
    };
    bundle.engines.iter().map(engine).collect()
}

fn lines(names: &[String]) -> Vec<u8> {
    names
        .iter()
        .flat_map(|name| [name.as_str(), "\n"])
        .collect::<String>()
        .into_bytes()
}

fn file((path, bytes): &(String, Vec<u8>)) -> plan::File {
    plan::File {
        file: path.clone(),
        bytes: bytes.len() as u64,
        sha256: sha256(bytes),
    }
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tensor(edge: &Edge) -> plan::Tensor {
    let axis = |size: &Result<i64, String>| match size {
        Ok(size) => Axis::Fixed(size.unsigned_abs()),
        Err(name) => Axis::Named(name.clone()),
    };
    plan::Tensor {
        name: edge.name.clone(),
        dtype: "float32".into(),
        shape: edge.shape.iter().map(axis).collect(),
    }
}

fn profiles(interface: &Interface, batch: Batch) -> Vec<plan::Profile> {
    if !interface.symbolic {
        return Vec::new();
    }
    let shape = |n: usize| [&[n as u64][..], &interface.input_shape].concat();
    vec![plan::Profile {
        input: interface.input.clone(),
        min: shape(batch.min),
        opt: shape(batch.opt),
        max: shape(batch.max),
    }]
}

fn builder() -> plan::Builder {
    plan::Builder {
        strongly_typed: true,
        tf32: false,
        profiling_verbosity: "detailed".into(),
        timing_cache: TIMING_CACHE.into(),
        version_compatible: false,
        hardware_compatibility: "none".into(),
    }
}

fn models(
    bundle: &Bundle,
    audits: &[Audit],
    spreads: &[(String, f64)],
) -> Result<Vec<plan::Model>> {
    let models = bundle.models.iter().zip(audits).map(|(model, audit)| {
        let of_spread = model.precision.tolerance();
        let absolute = spreads.iter().map(|(output, spread)| {
            let digits = format!("{:.2e}", of_spread * spread);
            let tolerance: f64 = digits.parse().unwrap_or(0.0);
            match tolerance.is_normal() {
                true => Ok((output.clone(), tolerance)),
                false => Err(Diagnostic::input(format!(
                    "the golden values of `{output}` are all the same, or no numbers"
                ))),
            }
        });
        Ok(plan::Model {
            precision: model.precision,
            file: model_file(model),
            engine: format!("engine.{}.plan", model.precision),
            islands: model.islands.clone(),
            activation_memory: model
                .activation_memory
                .iter()
                .map(|&(batch, bytes)| plan::Memory {
                    batch: batch as u64,
                    bytes,
                })
                .collect(),
            tolerance: plan::Tolerance {
                of_spread,
                absolute: absolute.collect::<Result<_>>()?,
            },
            audit: audit.nodes.iter().map(audited).collect(),
        })
    });
    models.collect()
}

fn audited(node: &super::AuditedNode) -> plan::Audited {
    plan::Audited {
        node: node.name.clone(),
        operator: node.operator.clone(),
        dtype: node.dtype.into(),
        supported: true,
        since: node.since,
        note: node.note.into(),
    }
}

/// The golden values as files and as the plan names them.
struct GoldenFiles {
    files: Vec<(String, Vec<u8>)>,
    plan: plan::Golden,
    /// By output.
    spreads: Vec<(String, f64)>,
}

fn golden(bundle: &Bundle, interface: &Interface) -> Result<GoldenFiles> {
    let fault = |message: String| Err(Diagnostic::internal(message));
    let golden = &bundle.golden;
    let picture = Interface::len(&interface.input_shape);
    let batch = golden.input.len() as u64 / picture.max(1);
    let Batch { min, max, .. } = bundle.batch;
    if batch * picture != golden.input.len() as u64 || !(min as u64..=max as u64).contains(&batch) {
        return fault(format!(
            "the golden input is no batch of {min} to {max} pictures"
        ));
    }
    if golden.outputs.len() != interface.outputs.len() {
        return fault("a golden output is missing".into());
    }
    let mut files = Vec::new();
    let mut add = |name: &str, stem: String, shape: &[u64], values: &[f32]| {
        let shape = [&[batch][..], shape].concat();
        let [f32, npy] = ["f32", "npy"].map(|end| format!("golden/{stem}.{end}"));
        let raw: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        files.push((npy.clone(), [npy_header(&shape), raw.clone()].concat()));
        files.push((f32.clone(), raw));
        plan::GoldenTensor {
            name: name.to_owned(),
            shape,
            f32,
            npy,
        }
    };
    let input = add(
        &interface.input,
        "input".into(),
        &interface.input_shape,
        &golden.input,
    );
    let mut outputs = Vec::new();
    let mut spreads = Vec::new();
    for ((name, shape), values) in interface.outputs.iter().zip(&golden.outputs) {
        if values.len() as u64 != Interface::len(shape).saturating_mul(batch) {
            return fault(format!(
                "the golden output `{name}` has {} values",
                values.len()
            ));
        }
        let stem = match interface.outputs.len() {
            1 => "output".to_owned(),
            _ => format!("output.{name}"),
        };
        outputs.push(add(name, stem, shape, values));
        spreads.push((name.clone(), spread(values)));
    }
    Ok(GoldenFiles {
        files,
        plan: plan::Golden {
            batch,
            input,
            outputs,
        },
        spreads,
    })
}

/// Population standard deviation.
fn spread(values: &[f32]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let squares = values.iter().map(|&x| (f64::from(x) - mean).powi(2));
    (squares.sum::<f64>() / n).sqrt()
}

/// What stands before the values in a `.npy` file of float32 (format 1.0).
fn npy_header(shape: &[u64]) -> Vec<u8> {
    let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
    // One axis is spelt `(3,)`, several `(1, 3)`.
    let sizes = match shape.len() {
        1 => sizes.trim_end(),
        _ => sizes.trim_end_matches(", "),
    };
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({sizes}), }}");
    // The values start at a multiple of 64 bytes.
    const PREFIX: usize = 10;
    while !(PREFIX + text.len() + 1).is_multiple_of(64) {
        text.push(' ');
    }
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((text.len() as u16).to_le_bytes());
    header.extend(text.into_bytes());
    header
}

/// Every file that is made from a template.
fn texts(
    bundle: &Bundle,
    interface: &Interface,
    plan: &Plan,
    files: &[(String, Vec<u8>)],
) -> Vec<(String, Vec<u8>)> {
    let mut template = Template::default();
    let Version { major, minor } = plan.tensorrt.oldest;
    template.set("name", &bundle.name);
    template.set("title", line(&bundle.title));
    template.set("schema", plan::SCHEMA);
    template.set("producer_version", line(&bundle.producer_version));
    template.set("oldest", plan.tensorrt.oldest);
    template.set("oldest_major", major);
    template.set("oldest_minor", minor);
    template.set("newest_major", NEWEST_MAJOR);
    template.set("timing_cache", TIMING_CACHE);
    template.set("input", &interface.input);
    let precisions: Vec<String> = bundle
        .models
        .iter()
        .map(|m| m.precision.to_string())
        .collect();
    template.set("precisions", precisions.join("|"));
    template.set("shapes", shapes(plan));
    super::readme::describe(&mut template, bundle, interface, plan);

    let digests: BTreeMap<&str, String> = files
        .iter()
        .map(|(path, bytes)| (&**path, sha256(bytes)))
        .collect();
    let cases = |value: &dyn Fn(&plan::Model) -> String| {
        let cases = plan
            .models
            .iter()
            .map(|m| format!("    {}) {} ;;", m.precision, value(m)));
        cases.collect::<Vec<_>>().join("\n")
    };
    let mut filled = Vec::new();
    let mut fill = |template: &Template, path: &str, text: &str| {
        filled.push((path.to_owned(), template.fill(text).into_bytes()));
    };
    template.set(
        "cases",
        cases(&|model| format!("sha256={}", digests[&*model.file])),
    );
    fill(&template, "build.sh", include_str!("template/build.sh"));
    template.set(
        "cases",
        cases(&|model| format!("tolerances='{}'", tolerances(model))),
    );
    fill(&template, "verify.sh", include_str!("template/verify.sh"));
    fill(&template, "build.py", include_str!("template/build.py"));
    fill(
        &template,
        "golden/golden.py",
        include_str!("template/golden.py"),
    );
    fill(&template, "README.md", include_str!("template/README.md"));
    let labels = bundle.labels.is_some();
    filled.extend(triton::configs(
        &mut template,
        &bundle.name,
        interface,
        bundle.batch,
        labels,
    ));
    filled
}

/// As polygraphy takes them.
fn tolerances(model: &plan::Model) -> String {
    let rows = model.tolerance.absolute.iter();
    let rows = rows.map(|(output, tolerance)| format!("{output}:{tolerance:e}"));
    rows.collect::<Vec<_>>().join(" ")
}

/// The lines of build.sh that say which shapes an engine is for.
fn shapes(plan: &Plan) -> String {
    let Some(profile) = plan.profiles.first() else {
        return "# The batch is fixed: no shapes to choose.".into();
    };
    let spelt = |shape: &[u64]| {
        shape
            .iter()
            .map(u64::to_string)
            .collect::<Vec<_>>()
            .join("x")
    };
    let bounds = [
        ("min", &profile.min),
        ("opt", &profile.opt),
        ("max", &profile.max),
    ];
    let flags =
        bounds.map(|(bound, shape)| format!("--{bound}Shapes={}:{}", profile.input, spelt(shape)));
    format!("set -- \"$@\" {}", flags.join(" "))
}

/// Text for one line of a comment, a docstring or a paragraph.
pub(super) fn line(text: &str) -> String {
    let kept = text
        .chars()
        .filter(|c| !matches!(c, '"' | '\\' | '`' | '$'));
    kept.map(|c| if c.is_control() { ' ' } else { c }).collect()
}
