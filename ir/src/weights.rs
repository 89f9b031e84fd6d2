//! Constant tensors by state_dict key: declared in the graph, read on demand.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use sha2::{Digest as _, Sha256};

use crate::{Diagnostic, Result, Shape, TensorType};

/// Reads one weight: its elements in row-major order, as float32.
pub type Load = dyn Fn() -> Result<Vec<f32>> + Send + Sync;

/// The first six bytes of the SHA-256 of a weight's little-endian float32 bytes.
///
/// Enough to tell two weights apart in a printed graph; manifests carry full digests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 6]);

impl Digest {
    fn of(values: &[f32]) -> Self {
        let mut hash = Sha256::new();
        let mut bytes = Vec::with_capacity(4 * values.len().min(16 * 1024));
        for chunk in values.chunks(16 * 1024) {
            bytes.clear();
            bytes.extend(chunk.iter().flat_map(|v| v.to_le_bytes()));
            hash.update(&bytes);
        }
        let full = hash.finalize();
        Self(std::array::from_fn(|i| full[i]))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One constant tensor. Cloning shares the data.
#[derive(Clone)]
pub struct Weight {
    ty: TensorType,
    data: Data,
}

#[derive(Clone)]
enum Data {
    /// Parsed from text: the type and perhaps a digest, no elements.
    Declared(Option<Digest>),
    Stored(Arc<Stored>),
}

struct Stored {
    load: Box<Load>,
    values: OnceLock<Arc<[f32]>>,
    digest: OnceLock<Digest>,
}

impl Weight {
    /// A weight known by type alone, as parsed from `.emir` text.
    pub fn declared(ty: TensorType, digest: Option<Digest>) -> Self {
        let data = Data::Declared(digest);
        Self { ty, data }
    }

    /// A weight whose elements are read when first asked for.
    pub fn lazy(
        shape: &[usize],
        load: impl Fn() -> Result<Vec<f32>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            ty: TensorType::f32(Shape::fixed(shape)),
            data: Data::Stored(Arc::new(Stored {
                load: Box::new(load),
                values: OnceLock::new(),
                digest: OnceLock::new(),
            })),
        }
    }

    /// A weight with these elements, in row-major order.
    pub fn owned(shape: &[usize], values: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        let weight = Self::lazy(shape, || unreachable!("the values are set below"));
        if let Data::Stored(stored) = &weight.data {
            stored.values.get_or_init(|| values.into());
        }
        weight
    }

    /// Element type and shape.
    pub fn ty(&self) -> &TensorType {
        &self.ty
    }

    /// The sizes of the axes.
    pub fn dims(&self) -> Vec<usize> {
        self.ty.shape.resolve(1)
    }

    /// The elements in row-major order, read once and then shared.
    ///
    /// # Errors
    /// The source's own error, or a declared weight without elements.
    pub fn values(&self) -> Result<Arc<[f32]>> {
        let Data::Stored(stored) = &self.data else {
            return Err(
                Diagnostic::input("the graph declares this weight without its elements").help(
                    "parsed text carries types only: attach weights before evaluating or emitting",
                ),
            );
        };
        if let Some(values) = stored.values.get() {
            return Ok(values.clone());
        }
        let values = (stored.load)()?;
        if values.len() != self.ty.shape.numel(1) {
            return Err(Diagnostic::internal(format!(
                "a weight of shape {} was read as {} elements",
                self.ty.shape,
                values.len()
            )));
        }
        Ok(stored.values.get_or_init(|| values.into()).clone())
    }

    /// The digest, computed from the elements or as declared.
    ///
    /// # Errors
    /// The source's own error.
    pub fn digest(&self) -> Result<Option<Digest>> {
        match &self.data {
            Data::Declared(digest) => Ok(*digest),
            Data::Stored(stored) => {
                let values = self.values()?;
                Ok(Some(*stored.digest.get_or_init(|| Digest::of(&values))))
            }
        }
    }

    /// Whether both are certainly the same tensor: shared data, or equal type and digest.
    pub fn same(&self, other: &Self) -> bool {
        if let (Data::Stored(a), Data::Stored(b)) = (&self.data, &other.data)
            && Arc::ptr_eq(a, b)
        {
            return true;
        }
        self.ty == other.ty && matches!((self.digest(), other.digest()), (Ok(a), Ok(b)) if a == b)
    }
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ty)
    }
}

/// The weights of a graph, ordered by key.
#[derive(Debug, Clone, Default)]
pub struct Weights(BTreeMap<String, Weight>);

impl Weights {
    /// The weight with this key.
    ///
    /// # Errors
    /// No such key.
    pub fn get(&self, key: &str) -> Result<&Weight> {
        self.0
            .get(key)
            .ok_or_else(|| Diagnostic::internal("the graph has no weight of this name").key(key))
    }

    /// The elements of the weight with this key, in row-major order.
    ///
    /// # Errors
    /// No such key, or its source cannot be read.
    pub fn values(&self, key: &str) -> Result<Arc<[f32]>> {
        self.get(key)?.values().map_err(|e| e.key(key))
    }

    /// Adds or replaces a weight.
    pub fn insert(&mut self, key: impl Into<String>, weight: Weight) {
        self.0.insert(key.into(), weight);
    }

    /// Whether the key is present.
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Keeps only the keys for which `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.0.retain(|key, _| keep(key));
    }

    /// All weights in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Weight)> {
        self.0.iter().map(|(key, weight)| (key.as_str(), weight))
    }
}
