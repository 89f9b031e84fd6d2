//! What the README says of this bundle.

use super::{
    bundle::{Bundle, Precision},
    emit::{Interface, line},
    plan::{Plan, Preprocessing},
};
use crate::template::Template;

/// Sets the placeholders of `README.md`.
pub(super) fn describe(
    template: &mut Template,
    bundle: &Bundle,
    interface: &Interface,
    plan: &Plan,
) {
    let [_, height, width] = interface.input_shape;
    template.set(
        "summary",
        match &interface.outputs[..] {
            [(_, shape)] if shape.len() == 1 => {
                format!("one logit for each of {} classes.", shape[0])
            }
            _ => "the feature maps of its stages.".to_owned(),
        },
    );
    let batch = if interface.symbolic {
        "N"
    } else {
        &bundle.batch.max.to_string()
    };
    template.set(
        "input_shape",
        format!("[{batch}, 3, {height}, {width}], RGB"),
    );
    let outputs = interface.outputs.iter().map(|(name, shape)| {
        let sizes: String = shape.iter().map(|size| format!(", {size}")).collect();
        format!("| output | `{name}`, float32, [{batch}{sizes}] |")
    });
    template.set("output_rows", outputs.collect::<Vec<_>>().join("\n"));
    let (min, opt, max) = (bundle.batch.min, bundle.batch.opt, bundle.batch.max);
    template.set(
        "batch_words",
        match interface.symbolic {
            true => format!("{min} to {max}, fastest for {opt}"),
            false => format!("{max}, fixed"),
        },
    );
    template.set("gmacs", format!("{:.3}", bundle.macs as f64 / 1e9));
    template.set("model_rows", model_rows(plan));
    template.set("more_precisions", more_precisions(plan));
    template.set("preprocessing", preprocessing(&plan.preprocessing, plan));
    template.set("engines", engines(plan));
    template.set("triton_note", triton_note(bundle, interface));
    template.set("file_rows", file_rows(bundle));
    let rows = bundle.provenance.iter();
    let rows = rows.map(|(key, value)| format!("| {} | {} |", cell(key), cell(value)));
    template.set("provenance", rows.collect::<Vec<_>>().join("\n"));
}

fn model_rows(plan: &Plan) -> String {
    let mut rows = Vec::new();
    for model in &plan.models {
        let precision = model.precision;
        let tolerances = model.tolerance.absolute.iter();
        let tolerances: Vec<_> = tolerances
            .map(|(output, t)| format!("`{output}` {t:.2e}"))
            .collect();
        rows.push(format!(
            "| tolerance of {precision} | {} |",
            tolerances.join(", ")
        ));
        let memory = model.activation_memory.iter();
        let memory = memory.map(|m| format!("{:.1} MB at batch {}", m.bytes as f64 / 1e6, m.batch));
        let memory: Vec<_> = memory.collect();
        if !memory.is_empty() {
            rows.push(format!(
                "| activations in {precision}, estimated | {} |",
                memory.join(", ")
            ));
        }
    }
    rows.join("\n")
}

fn more_precisions(plan: &Plan) -> String {
    let half = plan
        .models
        .iter()
        .find(|model| model.precision == Precision::F16);
    let Some(half) = half else {
        return String::new();
    };
    let islands = match &half.islands[..] {
        [] => "throughout".to_owned(),
        islands => format!(
            "with {} parts kept in float32 (listed in plan.json)",
            islands.len()
        ),
    };
    format!(
        "\nThe same with `--precision f16` builds and verifies `model.f16.onnx`, in half precision\n\
         {islands}: less memory, faster where the GPU has tensor cores, and a wider tolerance.\n"
    )
}

fn engines(plan: &Plan) -> String {
    let Some(first) = plan.engines.first() else {
        return String::new();
    };
    let rows = plan.engines.iter();
    let rows = rows.map(|engine| {
        format!(
            "| `{}` | {} | {} |",
            engine.file, engine.precision, engine.capability
        )
    });
    let rows = rows.collect::<Vec<_>>().join("\n");
    let again = match first.reproducible {
        true => "Building them again gives the same bytes.",
        false => "Building them again gives other bytes: the batch is not fixed.",
    };
    format!(
        "\n## Engines for TensorRT-RTX\n\nBuilt ahead of time by TensorRT-RTX {}, for this version \
         of it and GPUs of one generation. They are\nno plans for TensorRT, and were not run where \
         they were built. {again}\n\n| engine | precision | GPUs |\n|---|---|---|\n{rows}\n",
        line(&first.tensorrt_rtx)
    )
}

fn preprocessing(rule: &Preprocessing, plan: &Plan) -> String {
    let mut steps = Vec::new();
    if let Some(resize) = &rule.resize {
        let [[height, width], crop] = [resize.cover, resize.center_crop];
        steps.push(format!(
            "scale it, keeping its ratio, until it just covers {height}x{width} (height x width);\n  {}",
            line(&resize.filter)
        ));
        steps.push(format!("cut {}x{} out of its centre", crop[0], crop[1]));
    }
    steps.push(format!(
        "multiply its values by {}, as {}",
        line(&rule.scale),
        line(&rule.color)
    ));
    steps.push(format!(
        "subtract {:?} by channel, and divide by {:?}",
        rule.mean, rule.std
    ));
    let steps: String = steps.iter().map(|step| format!("- {step}\n")).collect();
    let labels = match &plan.labels {
        Some(path) => format!("\nThe names of the classes are in `{path}`.\n"),
        None => String::new(),
    };
    format!("A picture becomes the input so:\n\n{steps}{labels}")
}

fn triton_note(bundle: &Bundle, interface: &Interface) -> String {
    let mut note =
        "\nIt serves the float32 model; `sh build.sh --triton --precision f16` puts the half \
                    precision engine there,\nwhose inputs and outputs are the same.\n"
            .to_owned();
    if bundle.models.len() == 1 {
        note.clear();
    }
    if interface.symbolic && bundle.batch.min > 1 {
        let min = bundle.batch.min;
        note += &format!(
            "\nThe engine takes no fewer than {min} pictures at once: send as many in each request.\n"
        );
    }
    note
}

fn file_rows(bundle: &Bundle) -> String {
    let name = &bundle.name;
    let mut rows: Vec<(String, &str)> = Vec::new();
    for model in &bundle.models {
        let what = match model.precision {
            Precision::F32 => "the network in float32",
            Precision::F16 => "the network in half precision",
        };
        rows.push((format!("model.{}.onnx", model.precision), what));
    }
    rows.extend([
        ("plan.json".into(), "everything, for programs"),
        ("build.sh".into(), "builds an engine with trtexec"),
        (
            "build.py".into(),
            "builds an engine with the Python package tensorrt",
        ),
        (
            "verify.sh".into(),
            "compares the engine with ONNX Runtime and golden/, with polygraphy",
        ),
        (
            "golden/".into(),
            "known outputs for a known input: raw float32 (little-endian) and .npy",
        ),
        (
            format!("triton/{name}/"),
            "a model for the Triton Inference Server; 1/model.onnx is model.f32.onnx",
        ),
    ]);
    if !bundle.engines.is_empty() {
        rows.push(("engines/".into(), "engines for TensorRT-RTX"));
    }
    let rows = rows
        .iter()
        .map(|(path, what)| format!("| `{path}` | {what} |"));
    rows.collect::<Vec<_>>().join("\n")
}

/// Text in a cell of a Markdown table.
fn cell(text: &str) -> String {
    line(text).replace('|', "\\|").replace('<', "&lt;")
}
