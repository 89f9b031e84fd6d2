//! A model repository for the Triton Inference Server: `triton/<name>/`.
//!
//! `config.pbtxt` serves `1/model.onnx` with ONNX Runtime; `configs/tensorrt.pbtxt`, chosen by
//! `tritonserver --model-config-name=tensorrt`, serves `1/model.plan`, once it is built.

use super::{bundle::Batch, emit::Interface};
use crate::template::Template;

/// Longest time that a request waits for others to share its batch with.
const QUEUE_DELAY_MICROSECONDS: u32 = 500;

/// The two configurations: path in the bundle and text.
pub(super) fn configs(
    template: &mut Template,
    name: &str,
    interface: &Interface,
    batch: Batch,
    labels: bool,
) -> [(String, Vec<u8>); 2] {
    // With a batch that Triton may choose, it adds that axis itself.
    let dims = |shape: &[u64]| {
        let fixed = (!interface.symbolic).then_some(batch.max as u64);
        let sizes = fixed.iter().chain(shape).map(u64::to_string);
        sizes.collect::<Vec<_>>().join(", ")
    };
    template.set(
        "max_batch_size",
        if interface.symbolic { batch.max } else { 0 },
    );
    template.set("input_dims", dims(&interface.input_shape));
    let label = if labels {
        "\n    label_filename: \"labels.txt\""
    } else {
        ""
    };
    let outputs = interface.outputs.iter().map(|(output, shape)| {
        let dims = dims(shape);
        format!("  {{\n    name: \"{output}\"\n    data_type: TYPE_FP32\n    dims: [ {dims} ]{label}\n  }}")
    });
    template.set("triton_outputs", outputs.collect::<Vec<_>>().join(",\n"));
    let batching = format!(
        "dynamic_batching {{\n  preferred_batch_size: [ {} ]\n  max_queue_delay_microseconds: \
         {QUEUE_DELAY_MICROSECONDS}\n}}\n",
        batch.opt
    );
    template.set("batching", if interface.symbolic { &batching } else { "" });
    let mut config = |path: &str, remark: &str, runtime: &str, kind: &str| {
        template.set("remark", remark);
        template.set("runtime", runtime);
        template.set("kind", kind);
        let text = template.fill(include_str!("template/config.pbtxt"));
        (format!("triton/{name}/{path}"), text.into_bytes())
    };
    [
        config(
            "config.pbtxt",
            "# Serves 1/model.onnx with ONNX Runtime, on a GPU or without.",
            "backend: \"onnxruntime\"\ndefault_model_filename: \"model.onnx\"",
            "KIND_AUTO",
        ),
        config(
            "configs/tensorrt.pbtxt",
            "# Serves 1/model.plan, which `sh build.sh --triton` builds: --model-config-name=tensorrt.",
            "backend: \"tensorrt\"\ndefault_model_filename: \"model.plan\"",
            "KIND_GPU",
        ),
    ]
}
