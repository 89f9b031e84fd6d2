//! Element types and shapes: [`DType`], [`Dim`], [`Shape`], [`TensorType`].

use std::{fmt, str::FromStr};

use half::{bf16, f16};

/// Element type of a tensor, spelt in text as safetensors spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum DType {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    BF16,
    F32,
    F64,
    C64,
    C128,
    F8E4M3,
    F8E5M2,
}

/// Name and size in bytes of every [`DType`].
const DTYPES: [(DType, &str, usize); 17] = [
    (DType::Bool, "BOOL", 1),
    (DType::U8, "U8", 1),
    (DType::I8, "I8", 1),
    (DType::U16, "U16", 2),
    (DType::I16, "I16", 2),
    (DType::U32, "U32", 4),
    (DType::I32, "I32", 4),
    (DType::U64, "U64", 8),
    (DType::I64, "I64", 8),
    (DType::F16, "F16", 2),
    (DType::BF16, "BF16", 2),
    (DType::F32, "F32", 4),
    (DType::F64, "F64", 8),
    (DType::C64, "C64", 8),
    (DType::C128, "C128", 16),
    (DType::F8E4M3, "F8_E4M3", 1),
    (DType::F8E5M2, "F8_E5M2", 1),
];

impl DType {
    fn row(self) -> &'static (DType, &'static str, usize) {
        DTYPES
            .iter()
            .find(|row| row.0 == self)
            .expect("DTYPES has a row for every DType")
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        self.row().2
    }

    /// The name safetensors uses, for example `BF16`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Whether the elements are floating-point numbers that convert to `f32`.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
    }

    /// Little-endian elements as numbers, integers beyond 2^53 rounded; none for complex numbers
    /// and floats of eight bits. Bytes that make no whole element are left out.
    pub fn numbers(self, bytes: &[u8]) -> Option<Vec<f64>> {
        fn read<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
            let (elements, _) = bytes.as_chunks::<N>();
            elements.iter().map(|&element| number(element)).collect()
        }
        Some(match self {
            DType::Bool | DType::U8 => read(bytes, |b| u8::from_le_bytes(b).into()),
            DType::I8 => read(bytes, |b| i8::from_le_bytes(b).into()),
            DType::U16 => read(bytes, |b| u16::from_le_bytes(b).into()),
            DType::I16 => read(bytes, |b| i16::from_le_bytes(b).into()),
            DType::U32 => read(bytes, |b| u32::from_le_bytes(b).into()),
            DType::I32 => read(bytes, |b| i32::from_le_bytes(b).into()),
            DType::U64 => read(bytes, |b| u64::from_le_bytes(b) as f64),
            DType::I64 => read(bytes, |b| i64::from_le_bytes(b) as f64),
            DType::F16 => read(bytes, |b| f16::from_le_bytes(b).into()),
            DType::BF16 => read(bytes, |b| bf16::from_le_bytes(b).into()),
            DType::F32 => read(bytes, |b| f32::from_le_bytes(b).into()),
            DType::F64 => read(bytes, f64::from_le_bytes),
            DType::C64 | DType::C128 | DType::F8E4M3 | DType::F8E5M2 => return None,
        })
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DType {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let row = DTYPES.iter().find(|row| row.1.eq_ignore_ascii_case(s));
        row.map(|row| row.0)
            .ok_or_else(|| format!("unknown element type `{s}`"))
    }
}

/// A number as elements of this type hold it: float16 and float32 are rounded to, once and to
/// the nearest; no other type is narrower than what the evaluator computes with.
pub(crate) fn round(dtype: DType, x: f64) -> f64 {
    match dtype {
        DType::F16 => f16::from_f64(x).to_f64(),
        DType::F32 => f64::from(x as f32),
        _ => x,
    }
}

/// Size of one axis: a number, or a multiple of the symbolic batch size `N`.
///
/// Window partition moves windows into the batch axis, so `4N` is as natural as `N`. Products
/// saturate: no value of a graph comes near `usize::MAX` (see [`Op::infer`](crate::ops::Op)),
/// sizes that do are about to be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dim {
    /// A known size.
    Fixed(usize),
    /// This many times the batch size.
    Batch(usize),
}

impl Dim {
    /// The size once the batch size is known.
    pub fn resolve(self, batch: usize) -> usize {
        match self {
            Dim::Fixed(n) => n,
            Dim::Batch(k) => k.saturating_mul(batch),
        }
    }

    /// The size if it does not depend on the batch.
    pub fn fixed(self) -> Option<usize> {
        match self {
            Dim::Fixed(n) => Some(n),
            Dim::Batch(_) => None,
        }
    }

    /// The axis repeated `k` times.
    #[must_use]
    pub fn times(self, k: usize) -> Self {
        match self {
            Dim::Fixed(n) => Dim::Fixed(n.saturating_mul(k)),
            Dim::Batch(n) => Dim::Batch(n.saturating_mul(k)),
        }
    }

    /// The axis divided into `k` equal parts, if it divides.
    pub fn divided(self, k: usize) -> Option<Self> {
        let part = |n: usize| (k != 0 && n.is_multiple_of(k)).then(|| n / k);
        match self {
            Dim::Fixed(n) => part(n).map(Dim::Fixed),
            Dim::Batch(n) => part(n).map(Dim::Batch),
        }
    }
}

impl From<usize> for Dim {
    fn from(n: usize) -> Self {
        Dim::Fixed(n)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(n) => write!(f, "{n}"),
            Dim::Batch(1) => f.write_str("N"),
            Dim::Batch(k) => write!(f, "{k}N"),
        }
    }
}

impl FromStr for Dim {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let bad = |_| format!("`{s}` is not a dimension");
        match s.strip_suffix('N') {
            Some("") => Ok(Dim::Batch(1)),
            Some(k) => k.parse().map(Dim::Batch).map_err(bad),
            None => s.parse().map(Dim::Fixed).map_err(bad),
        }
    }
}

/// The axes of a tensor, outermost first.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape(pub Vec<Dim>);

impl Shape {
    /// A shape without symbolic axes.
    pub fn fixed(dims: &[usize]) -> Self {
        Self(dims.iter().map(|&n| Dim::Fixed(n)).collect())
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The sizes once the batch size is known.
    pub fn resolve(&self, batch: usize) -> Vec<usize> {
        self.0.iter().map(|d| d.resolve(batch)).collect()
    }

    /// Number of elements for a batch of `batch` pictures.
    pub fn numel(&self, batch: usize) -> usize {
        let sizes = self.0.iter().map(|dim| dim.resolve(batch));
        sizes.fold(1, usize::saturating_mul)
    }
}

impl<const R: usize> From<[Dim; R]> for Shape {
    fn from(dims: [Dim; R]) -> Self {
        Self(dims.to_vec())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{dim}")?;
        }
        f.write_str("]")
    }
}

/// Element type and shape of a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Axes, outermost first.
    pub shape: Shape,
}

impl TensorType {
    /// A float32 tensor.
    pub fn f32(shape: impl Into<Shape>) -> Self {
        Self {
            dtype: DType::F32,
            shape: shape.into(),
        }
    }

    /// A tensor of the same shape with other elements.
    #[must_use]
    pub fn with_dtype(self, dtype: DType) -> Self {
        Self { dtype, ..self }
    }
}

/// Types as the text form lists them.
pub(crate) fn list(types: &[TensorType]) -> String {
    let types: Vec<_> = types.iter().map(ToString::to_string).collect();
    types.join(", ")
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype.name().to_lowercase(), self.shape)
    }
}
