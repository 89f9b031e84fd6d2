//! The weights of any program's ONNX file, by name.

use std::collections::BTreeSet;

use emoc_ir::{DType, Diagnostic, Result};
use prost::{Message, bytes::Bytes};

use super::{
    outline::NodeOutline,
    read::{no_graph, not_onnx},
};

/// One weight. Its elements stay where they are in the file.
#[derive(Debug, Clone)]
pub struct Initializer {
    /// Its name.
    pub name: String,
    /// Element type; none for one that no tensor of emoc has, such as a string.
    pub dtype: Option<DType>,
    /// Sizes of the axes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Whether it is a matrix that a `Gemm` transposes: `[outputs, inputs]`, where it would be
    /// `[inputs, outputs]` in a `MatMul`.
    pub is_transposed: bool,
    /// Contiguous, row-major, little-endian.
    bytes: Bytes,
}

impl Initializer {
    /// Whether it is part of the graph, an index or a size, and no weight of the network.
    pub fn is_constant(&self) -> bool {
        let is_float = self.dtype.is_some_and(DType::is_float);
        !is_float || self.name.starts_with("const.")
    }

    /// The elements as numbers; none for types that [`DType::numbers`] does not take.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        self.dtype?.numbers(&self.bytes)
    }

    /// The elements as they are stored; nothing without a type.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The weights of a file, in its order.
///
/// # Errors
/// The bytes are no ONNX file; a weight is in another file, has not the elements that its shape
/// needs, or shares its name with another.
pub fn initializers(file: Vec<u8>) -> Result<Vec<Initializer>> {
    // Weights are slices of this, not copies.
    let model = ModelWeights::decode(Bytes::from(file)).map_err(|error| not_onnx(&error))?;
    let graph = model.graph.ok_or_else(no_graph)?;
    let gemms = graph.node.iter().filter(|node| node.op_type == "Gemm");
    let transposing = gemms.filter(|gemm| gemm.attribute("transB").is_some_and(|flag| flag.i != 0));
    let transposed: BTreeSet<&String> = transposing.filter_map(|gemm| gemm.input.get(1)).collect();
    let mut found = Vec::with_capacity(graph.initializer.len());
    for tensor in graph.initializer {
        let is_transposed = transposed.contains(&tensor.name);
        found.push(tensor.read(is_transposed)?);
    }
    let mut names: Vec<&str> = found.iter().map(|weight| &*weight.name).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Diagnostic::input("two initializers have the same name").key(pair[0]));
    }
    Ok(found)
}

#[derive(Clone, PartialEq, Message)]
struct ModelWeights {
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphWeights>,
}

#[derive(Clone, PartialEq, Message)]
struct GraphWeights {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeOutline>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorValues>,
}

/// `TensorProto`, with every field that may hold elements.
#[derive(Clone, PartialEq, Message)]
struct TensorValues {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "bytes", tag = "9")]
    raw_data: Bytes,
    #[prost(double, repeated, tag = "10")]
    double_data: Vec<f64>,
    #[prost(uint64, repeated, tag = "11")]
    uint64_data: Vec<u64>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

/// Types by their numbers in `TensorProto.DataType`.
const TYPES: [(i32, DType); 17] = [
    (1, DType::F32),
    (2, DType::U8),
    (3, DType::I8),
    (4, DType::U16),
    (5, DType::I16),
    (6, DType::I32),
    (7, DType::I64),
    (9, DType::Bool),
    (10, DType::F16),
    (11, DType::F64),
    (12, DType::U32),
    (13, DType::U64),
    (14, DType::C64),
    (15, DType::C128),
    (16, DType::BF16),
    (17, DType::F8E4M3),
    (19, DType::F8E5M2),
];

impl TensorValues {
    fn read(self, is_transposed: bool) -> Result<Initializer> {
        let Self { name, dims, .. } = &self;
        if self.data_location != 0 {
            let message = "the weights of this model are in another file, which is not read";
            return Err(Diagnostic::input(message)
                .key(name)
                .help("save the model as one file, its weights inside"));
        }
        let dtype = TYPES.iter().find(|(number, _)| *number == self.data_type);
        let dtype = dtype.map(|&(_, dtype)| dtype);
        let shape = dims.iter().map(|&size| usize::try_from(size).ok());
        let shape: Option<Vec<usize>> = shape.collect();
        let wrong = |what: &str| Diagnostic::input(format!("the initializer {what}")).key(name);
        let shape = shape.ok_or_else(|| wrong("has a negative size"))?;
        let bytes = match dtype {
            Some(dtype) if self.raw_data.is_empty() => Bytes::from(self.listed(dtype)),
            Some(_) => self.raw_data.clone(),
            None => Bytes::new(),
        };
        let sizes = shape.iter().copied().chain(dtype.map(DType::size));
        let needed = match shape.contains(&0) {
            true => Some(0),
            false => sizes.into_iter().try_fold(1, usize::checked_mul),
        };
        if dtype.is_some() && needed != Some(bytes.len()) {
            return Err(wrong("has not the elements that its shape needs"));
        }
        Ok(Initializer {
            name: self.name,
            dtype,
            is_transposed: is_transposed && shape.len() == 2,
            shape,
            bytes,
        })
    }

    /// The elements of a tensor without raw data, from the list that its type goes into.
    fn listed(&self, dtype: DType) -> Vec<u8> {
        fn bytes<T, const N: usize>(list: &[T], element: impl Fn(&T) -> [u8; N]) -> Vec<u8> {
            list.iter().flat_map(element).collect()
        }
        // Whatever is narrower than 32 bits, floats by their bits too, is in the low bits of these.
        let narrow = &self.int32_data;
        match dtype {
            DType::F32 | DType::C64 => bytes(&self.float_data, |x| x.to_le_bytes()),
            DType::F64 | DType::C128 => bytes(&self.double_data, |x| x.to_le_bytes()),
            DType::I64 => bytes(&self.int64_data, |x| x.to_le_bytes()),
            DType::U64 => bytes(&self.uint64_data, |x| x.to_le_bytes()),
            DType::U32 => bytes(&self.uint64_data, |&x| (x as u32).to_le_bytes()),
            DType::I32 => bytes(narrow, |x| x.to_le_bytes()),
            DType::I16 | DType::U16 | DType::F16 | DType::BF16 => {
                bytes(narrow, |&x| (x as u16).to_le_bytes())
            }
            DType::Bool | DType::I8 | DType::U8 | DType::F8E4M3 | DType::F8E5M2 => {
                bytes(narrow, |&x| [x as u8])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tensors: &[TensorValues]) -> Vec<u8> {
        let initializer = tensors.to_vec();
        let graph = Some(GraphWeights {
            initializer,
            ..GraphWeights::default()
        });
        ModelWeights { graph }.encode_to_vec()
    }

    fn tensor(data_type: i32, dims: &[i64]) -> TensorValues {
        TensorValues {
            name: "w".into(),
            data_type,
            dims: dims.to_vec(),
            ..TensorValues::default()
        }
    }

    #[test]
    fn elements_in_every_field() {
        let raw = |bytes: &'static [u8], tensor| TensorValues {
            raw_data: Bytes::from_static(bytes),
            ..tensor
        };
        let check = |what: &str, tensor: TensorValues, expected: Option<&[f64]>| {
            let found = initializers(file(&[tensor]));
            let found = found.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(found[0].to_f64().as_deref(), expected, "{what}");
        };
        check(
            "raw f32",
            raw(&[0, 0, 128, 63], tensor(1, &[1])),
            Some(&[1.0]),
        );
        check(
            "raw f16",
            raw(&[0, 60, 0, 188], tensor(10, &[2])),
            Some(&[1.0, -1.0]),
        );
        let mut listed = tensor(1, &[2]);
        listed.float_data = vec![0.5, -2.0];
        check("f32", listed, Some(&[0.5, -2.0]));
        let mut listed = tensor(10, &[1]);
        listed.int32_data = vec![0x3c00];
        check("f16", listed, Some(&[1.0]));
        let mut listed = tensor(7, &[]);
        listed.int64_data = vec![-3];
        check("i64", listed, Some(&[-3.0]));
        let mut listed = tensor(3, &[2]);
        listed.int32_data = vec![-1, 5];
        check("i8", listed, Some(&[-1.0, 5.0]));
        check("no elements", tensor(1, &[3, 0]), Some(&[]));
        check("strings", tensor(8, &[3]), None);
    }

    #[test]
    fn nonsense_is_refused() {
        let check = |tensors: &[TensorValues], expected: &str| {
            let fault = initializers(file(tensors)).expect_err(expected);
            assert!(fault.message.contains(expected), "{fault}");
        };
        check(&[tensor(1, &[2])], "has not the elements");
        check(&[tensor(1, &[-1])], "negative size");
        check(&[tensor(1, &[i64::MAX, i64::MAX])], "has not the elements");
        let mut elsewhere = tensor(1, &[2]);
        elsewhere.data_location = 1;
        check(&[elsewhere], "in another file");
        check(&[tensor(8, &[]), tensor(8, &[])], "the same name");
    }
}
