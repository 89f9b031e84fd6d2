//! Any program's ONNX file as far as its operators' forms show: for judging it, not for running it.

use emoc_ir::Result;
use prost::Message;

use super::{
    proto::{Dimension, OperatorSetIdProto, ValueInfoProto},
    read::{no_graph, not_onnx, own_opset},
};

/// A file, decoded as far as it says which operators it uses and how.
pub(crate) struct Outline {
    /// Version of ONNX's own operator set; 0 if the file does not say.
    pub(crate) opset: i64,
    pub(crate) graph: GraphOutline,
}

impl Outline {
    /// # Errors
    /// The bytes are no ONNX file, or hold no graph.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self> {
        let model = ModelOutline::decode(bytes).map_err(|error| not_onnx(&error))?;
        Ok(Self {
            opset: own_opset(&model.opset_import),
            graph: model.graph.ok_or_else(no_graph)?,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
struct ModelOutline {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphOutline>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetIdProto>,
}

/// `GraphProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct GraphOutline {
    #[prost(message, repeated, tag = "1")]
    pub(crate) node: Vec<NodeOutline>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) initializer: Vec<TensorOutline>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) output: Vec<ValueInfoProto>,
}

/// `NodeProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct NodeOutline {
    #[prost(string, repeated, tag = "1")]
    pub(crate) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) output: Vec<String>,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(string, tag = "4")]
    pub(crate) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) attribute: Vec<AttributeOutline>,
    #[prost(string, tag = "7")]
    pub(crate) domain: String,
}

impl NodeOutline {
    pub(crate) fn attribute(&self, name: &str) -> Option<&AttributeOutline> {
        self.attribute.iter().find(|found| found.name == name)
    }
}

/// `AttributeProto`. Of the graph of a branch it is only seen that there is one.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AttributeOutline {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(int64, tag = "3")]
    pub(crate) i: i64,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) s: Vec<u8>,
    #[prost(message, optional, tag = "5")]
    pub(crate) t: Option<TensorOutline>,
    #[prost(message, optional, tag = "6")]
    pub(crate) g: Option<Unread>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub(crate) ints: Vec<i64>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) graphs: Vec<Unread>,
    #[prost(int32, tag = "20")]
    pub(crate) r#type: i32,
}

/// A message that is passed over.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Unread {}

/// `TensorProto`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorOutline {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub(crate) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(crate) data_type: i32,
    #[prost(int32, repeated, tag = "5")]
    pub(crate) int32_data: Vec<i32>,
    #[prost(string, tag = "8")]
    pub(crate) name: String,
    #[prost(bytes = "vec", tag = "9")]
    pub(crate) raw_data: Vec<u8>,
    /// 1 if the values are in another file.
    #[prost(int32, tag = "14")]
    pub(crate) data_location: i32,
}

impl TensorOutline {
    /// Whether all values are zero. What holds no values is not.
    pub(crate) fn is_zero(&self) -> bool {
        let raw = !self.raw_data.is_empty() && self.raw_data.iter().all(|&byte| byte == 0);
        let ints = !self.int32_data.is_empty() && self.int32_data.iter().all(|&value| value == 0);
        self.data_location == 0 && (raw || ints)
    }
}

/// Element type and sizes of an input or output of the graph; a symbolic size is a name.
pub(crate) fn edge(info: &ValueInfoProto) -> Option<(i32, Vec<Result<i64, String>>)> {
    let tensor = info.r#type.as_ref()?.tensor_type.as_ref()?;
    let dims = tensor.shape.as_ref()?.dim.iter();
    let sizes = dims.map(|dim| match dim.value.clone() {
        Some(Dimension::Value(size)) => Ok(size),
        Some(Dimension::Param(name)) => Err(name),
        None => Err(String::new()),
    });
    Some((tensor.elem_type, sizes.collect()))
}
