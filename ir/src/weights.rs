//! Constant tensors by state_dict key: declared in the graph, read on demand.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use sha2::{Digest as _, Sha256};

use crate::{DType, Diagnostic, Result, Shape, TensorType, tensor_type::round};

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
    /// The unrounded elements of a weight that a pass computed.
    exact: Option<Arc<[f64]>>,
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
                exact: None,
                digest: OnceLock::new(),
            })),
        }
    }

    /// A weight that a pass computed. It is kept in float64, so that several folds into one
    /// weight round once, and is rounded to float32 when it is read or [`settled`](Self::settle).
    pub fn folded(shape: &[usize], values: Vec<f64>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        let exact: Arc<[f64]> = values.into();
        let rounded = exact.clone();
        Self {
            ty: TensorType::f32(Shape::fixed(shape)),
            data: Data::Stored(Arc::new(Stored {
                load: Box::new(move || Ok(rounded.iter().map(|&x| x as f32).collect())),
                values: OnceLock::new(),
                exact: Some(exact),
                digest: OnceLock::new(),
            })),
        }
    }

    /// The elements with all the precision there is.
    ///
    /// # Errors
    /// Those of [`Weight::values`].
    pub fn exact(&self) -> Result<Arc<[f64]>> {
        if let Data::Stored(stored) = &self.data
            && let Some(exact) = &stored.exact
        {
            return Ok(exact.clone());
        }
        Ok(self.values()?.iter().map(|&x| f64::from(x)).collect())
    }

    /// The weight as it will be emitted: a computed one is rounded and forgets its float64 form.
    ///
    /// # Errors
    /// Those of [`Weight::values`].
    pub fn settle(&self) -> Result<Self> {
        match &self.data {
            Data::Stored(stored) if stored.exact.is_some() => {
                Ok(Self::owned(&self.dims(), self.values()?.to_vec()))
            }
            Data::Stored(_) | Data::Declared(_) => Ok(self.clone()),
        }
    }

    /// A weight with these elements, in row-major order.
    ///
    /// # Panics
    /// If there are more or fewer elements than the shape has.
    pub fn owned(shape: &[usize], values: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), values.len());
        let weight = Self::lazy(shape, || unreachable!("the values are set below"));
        if let Data::Stored(stored) = &weight.data {
            stored.values.get_or_init(|| values.into());
        }
        weight
    }

    /// The weight in this element type, its elements rounded to the nearest: one too large for
    /// float16 becomes infinite.
    ///
    /// # Errors
    /// Those of [`Weight::values`].
    pub fn cast(&self, dtype: DType) -> Result<Self> {
        let values = self.values()?;
        let rounded = values.iter().map(|&x| round(dtype, f64::from(x)) as f32);
        let mut cast = Self::owned(&self.dims(), rounded.collect());
        cast.ty.dtype = dtype;
        Ok(cast)
    }

    /// Element type and shape.
    pub fn ty(&self) -> &TensorType {
        &self.ty
    }

    /// The sizes of the axes.
    pub fn dims(&self) -> Vec<usize> {
        self.ty.shape.resolve(1)
    }

    /// The elements in row-major order, read once and then shared. Those of a float16 weight are
    /// float32 numbers that float16 can hold.
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
}

/// Equal as far as the text form tells: the same data, or equal type and digest. Two weights
/// declared without a digest are equal too: no pass may take them for the same tensor. A weight
/// that cannot be read equals only itself.
impl PartialEq for Weight {
    fn eq(&self, other: &Self) -> bool {
        let shared = match (&self.data, &other.data) {
            (Data::Stored(a), Data::Stored(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        let digests = || (self.digest(), other.digest());
        self.ty == other.ty && (shared || matches!(digests(), (Ok(a), Ok(b)) if a == b))
    }
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.ty)
    }
}

/// The weights of a graph, ordered by key.
#[derive(Debug, Clone, Default, PartialEq)]
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

    /// Rounds every weight that a pass computed to float32, see [`Weight::settle`].
    ///
    /// # Errors
    /// A source that cannot be read.
    pub fn settle(&mut self) -> Result<()> {
        for (key, weight) in &mut self.0 {
            *weight = weight.settle().map_err(|e| e.key(key))?;
        }
        Ok(())
    }

    /// Adds or replaces a weight.
    pub fn insert(&mut self, key: impl Into<String>, weight: Weight) {
        self.0.insert(key.into(), weight);
    }

    /// Whether the key is present.
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Removes a weight.
    pub fn remove(&mut self, key: &str) -> Option<Weight> {
        self.0.remove(key)
    }

    /// All weights in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Weight)> {
        self.0.iter().map(|(key, weight)| (key.as_str(), weight))
    }
}
