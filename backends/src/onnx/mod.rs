//! ONNX: a verified graph as one `.onnx` file, weights inside.
//!
//! Only operators of ONNX's own domain are used, no tensor has more than [`MAX_RANK`] axes, and
//! equal graphs and options give equal bytes. Nodes and tensors are named after the PyTorch
//! modules, weights after their state_dict keys.
//!
//! | IR op | ONNX operators |
//! |---|---|
//! | `conv2d` | `Conv`, then its activation |
//! | `batch_norm` | `BatchNormalization` |
//! | `layer_norm` | `LayerNormalization` over the last axis, channels moved there by `Transpose` |
//! | `silu` | `Sigmoid`, `Mul` (there is no operator for it before opset 24) |
//! | `gelu` | `Gelu`; before opset 20 `Div`, `Erf`, `Add`, `Mul`, `Mul` |
//! | `layer_scale`, `scale` | `Mul` |
//! | `add`, `cast`, `softmax` | `Add`, `Cast`, `Softmax` |
//! | `pad`, `crop`, `split` | `Pad`, `Slice`, `Split` |
//! | `window_partition`, `window_merge` | `Gather` of pixels between `Reshape` and `Transpose` |
//! | `matmul` | `MatMul`, after a `Transpose` where the op asks for one |
//! | `global_avg_pool` | `GlobalAveragePool`, `Flatten`; channels last: `Reshape`, `ReduceMean` |
//! | `linear` | `Gemm`; in float16 `MatMul`, `Add` |
//! | `window_attention` | `Gemm` or `Conv`, `Gather`, `MatMul`, `Softmax`; see `lower/attention/` |
//! | `i2rmb` | `Conv` or, in windows, `Gemm` on rows; see `lower/block.rs` |

mod builder;
mod initializers;
mod lower;
mod operators;
pub(crate) mod outline;
mod proto;
mod read;
#[cfg(test)]
mod tests;

use emoc_ir::{DType, Diagnostic, Dim, Graph, Result, Shape, Value, Verified};
use prost::Message;

pub use initializers::{Initializer, initializers};
pub use read::{Description, describe, with_weights_of};

use lower::Lowering;
use proto::{
    DataType, Dimension, DimensionProto, GraphProto, ModelProto, OperatorSetIdProto,
    StringStringEntryProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};

/// Most axes of any tensor in an emitted file, constants included.
pub const MAX_RANK: usize = 4;

/// Protobuf's limit for one message, and thus for a file with its weights inside.
const MAX_BYTES: usize = i32::MAX as usize;

/// Operator sets that can be emitted, each with the IR version of the ONNX release that brought
/// it (ONNX's table of versions): a reader of that release accepts the file.
const OPSETS: [(u32, i64); 7] = [
    (17, 8),
    (18, 8),
    (19, 9),
    (20, 9),
    (21, 10),
    (22, 10),
    (23, 11),
];

/// What the file should be like.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Version of ONNX's operator set, 17 to 23.
    pub opset: u32,
    /// Refuse to emit a tensor with more axes than this.
    pub max_rank: Option<usize>,
    /// Whether the ends of blocks are outputs too, named after the blocks (`stage1.0`).
    pub block_outputs: bool,
    /// Metadata of the file, in this order.
    pub metadata: Vec<(String, String)>,
    /// Version of emoc, for the file's producer field.
    pub producer_version: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            opset: 20,
            max_rank: None,
            block_outputs: false,
            metadata: Vec::new(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

/// The bytes of an `.onnx` file that computes the graph. Its inputs and outputs have the names
/// and shapes of the graph's and are float32; a symbolic batch is the named dimension `N`.
///
/// # Errors
/// Options that cannot be met, a weight that cannot be read, or a file over 2 GiB.
pub fn emit(graph: &Verified, options: &Options) -> Result<Vec<u8>> {
    let ir_version = ir_version(options)?;
    let mut lowering = Lowering::of(graph, options.opset)?;
    let results = results(graph, options);
    let output = name_outputs(&mut lowering, &results)?;
    let builder = lowering.builder;
    let model = ModelProto {
        ir_version,
        producer_name: "emoc".into(),
        producer_version: options.producer_version.clone(),
        graph: Some(GraphProto {
            node: builder.nodes,
            name: graph.name.clone(),
            initializer: builder.initializers,
            input: graph
                .inputs()
                .iter()
                .map(|&id| value_info(graph, &graph.node(id).name, id.into()))
                .collect(),
            output,
        }),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: i64::from(options.opset),
        }],
        metadata_props: options
            .metadata
            .iter()
            .map(|(key, value)| StringStringEntryProto {
                key: key.clone(),
                value: value.clone(),
            })
            .collect(),
    };
    if model.encoded_len() > MAX_BYTES {
        return Err(Diagnostic::input(
            "the ONNX file would be larger than 2 GiB, the limit of its format",
        ));
    }
    Ok(model.encode_to_vec())
}

fn ir_version(options: &Options) -> Result<i64> {
    let [(first, _), .., (last, _)] = OPSETS;
    let row = OPSETS.iter().find(|(opset, _)| *opset == options.opset);
    let (_, ir_version) = row.ok_or_else(|| {
        Diagnostic::usage(format!("opset {} cannot be emitted", options.opset))
            .help(format!("choose one from {first} to {last}"))
    })?;
    if let Some(limit) = options.max_rank
        && limit < MAX_RANK
    {
        return Err(Diagnostic::usage(format!(
            "tensors of at most {limit} axes cannot be kept to: images have {MAX_RANK}"
        ))
        .help(format!("allow at least {MAX_RANK}; no tensor has more")));
    }
    Ok(*ir_version)
}

/// Names and values of the file's outputs: the graph's, then the ends of blocks.
fn results(graph: &Graph, options: &Options) -> Vec<(String, Value)> {
    let outputs = graph.outputs().iter();
    let mut results: Vec<_> = outputs.map(|o| (o.name.clone(), o.value)).collect();
    if options.block_outputs {
        for (name, value) in graph.block_outputs() {
            if results.iter().all(|(known, _)| *known != name) {
                results.push((name, value));
            }
        }
    }
    results
}

/// Gives the tensors of the results their names; a tensor that cannot have its result's name,
/// because it is an input or already has another, is copied by `Identity`.
fn name_outputs(
    lowering: &mut Lowering,
    results: &[(String, Value)],
) -> Result<Vec<ValueInfoProto>> {
    let graph = lowering.graph;
    let mut renames: Vec<(String, String)> = Vec::new();
    for (name, value) in results {
        let is_input = |id: &emoc_ir::NodeId| graph.node(*id).name == *name;
        if graph.inputs().iter().any(is_input) {
            let message = format!("`{name}` names both an input and an output");
            return Err(Diagnostic::input(message));
        }
        let mut tensor = lowering.plain(*value)?;
        if graph.ty(*value).dtype != DType::F32 {
            tensor = lowering
                .builder
                .cast(&format!("{name}.f32"), &tensor, DType::F32);
        }
        let computed = lowering.builder.nodes.iter();
        let computed = computed.flat_map(|node| &node.output).any(|o| *o == tensor);
        if !computed || renames.iter().any(|(old, _)| *old == tensor) {
            let copy = format!("{name}.copy");
            tensor = lowering.builder.op("Identity", &copy, &[&tensor], vec![]);
        }
        renames.push((tensor, name.clone()));
    }
    lowering.builder.rename(&renames);
    let infos = results.iter();
    Ok(infos
        .map(|(name, value)| value_info(graph, name, *value))
        .collect())
}

fn value_info(graph: &Graph, name: &str, value: Value) -> ValueInfoProto {
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorTypeProto {
                elem_type: DataType::Float.into(),
                shape: Some(shape(&graph.ty(value).shape)),
            }),
        }),
    }
}

fn shape(shape: &Shape) -> TensorShapeProto {
    let dim = |dim: &Dim| DimensionProto {
        value: Some(match dim.fixed() {
            Some(size) => Dimension::Value(size as i64),
            None => Dimension::Param(dim.to_string()),
        }),
    };
    TensorShapeProto {
        dim: shape.0.iter().map(dim).collect(),
    }
}
