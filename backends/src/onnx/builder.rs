//! Puts a file together: nodes, initializers, unique names.

use std::collections::{BTreeMap, BTreeSet};

use emoc_ir::DType;
use half::f16;
use prost::Message;

use super::proto::{AttributeProto, AttributeType, DataType, NodeProto, TensorProto};

/// The value of an attribute.
pub(super) enum Attr {
    Int(i64),
    Ints(Vec<i64>),
    Float(f32),
}

/// Operator, inputs and encoded attributes of a node.
type Computation = (String, Vec<String>, Vec<Vec<u8>>);

/// Nodes and initializers of a graph under construction.
///
/// A tensor is known by its name. A node has the name of its first output.
pub(super) struct Builder {
    /// Version of the operator set.
    pub(super) opset: u32,
    /// What the node that is lowered computes in: float32 or float16.
    pub(super) dtype: DType,
    pub(super) nodes: Vec<NodeProto>,
    pub(super) initializers: Vec<TensorProto>,
    names: BTreeSet<String>,
    /// Indices of initializers by the name they were asked for with.
    known: BTreeMap<String, Vec<usize>>,
    /// Outputs by what computes them.
    computed: BTreeMap<Computation, Vec<String>>,
}

impl Builder {
    pub(super) fn new(opset: u32) -> Self {
        Self {
            opset,
            dtype: DType::F32,
            nodes: Vec::new(),
            initializers: Vec::new(),
            names: BTreeSet::new(),
            known: BTreeMap::new(),
            computed: BTreeMap::new(),
        }
    }

    /// `name`, or a longer one if it is taken; taken from now on.
    pub(super) fn unique(&mut self, name: &str) -> String {
        let mut name = name.to_string();
        while !self.names.insert(name.clone()) {
            name.push('_');
        }
        name
    }

    /// Adds a node with one output and returns that output. Asking for the same computation
    /// again gives the same output, so that lowerings convert their operands without a thought
    /// for who else does.
    pub(super) fn op(
        &mut self,
        kind: &str,
        name: &str,
        inputs: &[&str],
        attributes: Vec<(&str, Attr)>,
    ) -> String {
        self.op_many(kind, inputs, &[name], attributes).remove(0)
    }

    /// Adds a node with as many outputs as names.
    pub(super) fn op_many(
        &mut self,
        kind: &str,
        inputs: &[&str],
        names: &[&str],
        attributes: Vec<(&str, Attr)>,
    ) -> Vec<String> {
        let input: Vec<String> = inputs.iter().map(ToString::to_string).collect();
        let attribute: Vec<_> = attributes.into_iter().map(attribute).collect();
        let encoded = attribute
            .iter()
            .map(AttributeProto::encode_to_vec)
            .collect();
        let computation = (kind.to_string(), input.clone(), encoded);
        if let Some(outputs) = self.computed.get(&computation) {
            return outputs.clone();
        }
        let outputs: Vec<String> = names.iter().map(|name| self.unique(name)).collect();
        self.computed.insert(computation, outputs.clone());
        self.nodes.push(NodeProto {
            input,
            name: outputs[0].clone(),
            output: outputs.clone(),
            op_type: kind.to_string(),
            attribute,
        });
        outputs
    }

    /// An initializer of the type that is computed in. The same name with the same contents is
    /// stored once.
    pub(super) fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        debug_assert_eq!(dims.iter().product::<usize>(), values.len());
        let bytes = match self.dtype {
            DType::F16 => {
                let halves = values.iter().map(|&v| f16::from_f32(v));
                halves.flat_map(f16::to_le_bytes).collect()
            }
            _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        self.initializer(name, dims, data_type(self.dtype), bytes)
    }

    /// An int64 initializer of rank 1.
    pub(super) fn ints(&mut self, name: &str, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.initializer(name, &[values.len()], DataType::Int64, bytes)
    }

    /// Indices for a `Gather`. 32 bits: half the size, and what runtimes read fastest.
    pub(super) fn indices(&mut self, name: &str, dims: &[usize], values: &[usize]) -> String {
        debug_assert_eq!(dims.iter().product::<usize>(), values.len());
        let bytes = values.iter().flat_map(|&v| (v as i32).to_le_bytes());
        self.initializer(name, dims, DataType::Int32, bytes.collect())
    }

    /// A number of the type that is computed in.
    pub(super) fn number(&mut self, value: f32) -> String {
        self.floats(&format!("const.{value}"), &[], &[value])
    }

    fn initializer(
        &mut self,
        name: &str,
        dims: &[usize],
        data_type: DataType,
        raw_data: Vec<u8>,
    ) -> String {
        let mut tensor = TensorProto {
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            data_type: data_type.into(),
            name: String::new(),
            raw_data,
        };
        let same_name = self.known.get(name).map_or(&[][..], Vec::as_slice);
        for &index in same_name {
            let other = &self.initializers[index];
            if (&other.dims, other.data_type, &other.raw_data)
                == (&tensor.dims, tensor.data_type, &tensor.raw_data)
            {
                return other.name.clone();
            }
        }
        tensor.name = self.unique(name);
        let unique = tensor.name.clone();
        let index = self.initializers.len();
        self.known.entry(name.to_string()).or_default().push(index);
        self.initializers.push(tensor);
        unique
    }

    /// Gives tensors new names: `(old, new)` pairs. Whatever else has a new name moves away.
    pub(super) fn rename(&mut self, pairs: &[(String, String)]) {
        let mut names: BTreeMap<String, String> = pairs.iter().cloned().collect();
        for (_, new) in pairs {
            if self.names.contains(new) && !names.contains_key(new) {
                let moved = self.unique(&format!("{new}_"));
                names.insert(new.clone(), moved);
            }
        }
        let renamed = |name: &mut String| {
            if let Some(new) = names.get(name) {
                name.clone_from(new);
            }
        };
        for node in &mut self.nodes {
            node.input.iter_mut().for_each(renamed);
            node.output.iter_mut().for_each(renamed);
        }
        let tensors = self.initializers.iter_mut();
        tensors.for_each(|tensor| renamed(&mut tensor.name));
    }
}

/// ONNX's number for a type that is computed in.
pub(super) fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::F16 => DataType::Float16,
        _ => DataType::Float,
    }
}

fn attribute((name, value): (&str, Attr)) -> AttributeProto {
    let mut proto = AttributeProto {
        name: name.to_string(),
        ..AttributeProto::default()
    };
    let kind = match value {
        Attr::Int(i) => {
            proto.i = Some(i);
            AttributeType::Int
        }
        Attr::Ints(ints) => {
            proto.ints = ints;
            AttributeType::Ints
        }
        Attr::Float(f) => {
            proto.f = Some(f);
            AttributeType::Float
        }
    };
    proto.set_type(kind);
    proto
}
