//! The EMO family: from weights and a few numbers to a graph.
//!
//! [`from_state_dict`] and [`seeded`] are the two ways to a [`Model`]; both build the same
//! modules (`build.rs`).

mod build;
mod config;
mod i2rmb;
mod infer;
mod numbers;

use std::collections::BTreeMap;

use emoc_ir::{Diagnostic, Dim, Graph, Result, Shape, TensorType, Weight};

pub use build::Geometry;
pub use config::{Architecture, LocalNorm, VARIANTS, Variant, default_window, variant};
pub use infer::{Hints, Shapes, expected};
pub use numbers::{Numbers, Problem, Unusable};

use crate::{StateDict, Tensor};
use build::WeightSource;

/// A network ready to compile.
#[derive(Debug)]
pub struct Model {
    /// The faithful graph.
    pub graph: Graph,
    /// What it was built from.
    pub architecture: Architecture,
    /// Input size, batch and window.
    pub geometry: Geometry,
    /// What is unusual about the weights without being wrong.
    pub warnings: Vec<String>,
}

/// The largest side of an input, in pixels, and the largest batch. Beyond it sizes are a typing
/// error or an attack, not a picture.
const MAX_SIDE: usize = 8192;
const MAX_BATCH: usize = 4096;

/// The architecture that a state_dict belongs to. Keys and shapes decide; no weight is read.
///
/// # Errors
/// Keys or shapes that fit no architecture, and a hint that is missing or contradicts the weights.
pub fn architecture(state_dict: &StateDict, hints: &Hints) -> Result<Architecture> {
    let shapes = state_dict
        .iter()
        .map(|(key, tensor)| (key.to_string(), tensor.shape().to_vec()));
    infer::recognise(&shapes.collect(), hints)
}

/// Builds a network whose weights are declared by type alone: enough for its text, its shapes
/// and its costs.
///
/// # Errors
/// An input too small for the network.
pub fn declared(architecture: Architecture, geometry: Geometry) -> Result<Model> {
    assemble(architecture, geometry, &mut Declared)
}

/// Builds the network that a state_dict belongs to.
///
/// # Errors
/// Keys or shapes that fit no architecture, a hint that is missing or contradicts the weights,
/// and, unless `allow_nonfinite`, weights with NaN or infinity or a negative variance.
pub fn from_state_dict(
    state_dict: &StateDict,
    hints: &Hints,
    geometry: Geometry,
    allow_nonfinite: bool,
) -> Result<Model> {
    let architecture = architecture(state_dict, hints)?;
    let tensors = state_dict
        .iter()
        .map(|(key, tensor)| (key.to_string(), tensor.clone()))
        .collect();
    let mut source = Stored { tensors };
    let mut model = assemble(architecture, geometry, &mut source)?;
    model.warnings = Numbers::of_graph(&model.graph)?.accept(allow_nonfinite)?;
    Ok(model)
}

/// Builds a published variant with weights that follow from their keys and a seed (see
/// [`emoc_ir::seeded`]); its classifier has 1000 classes.
///
/// # Errors
/// An input too small for the network.
pub fn seeded(variant: &'static Variant, geometry: Geometry, seed: u64) -> Result<Model> {
    let architecture = Architecture::of(variant, Some(1000), LocalNorm::BatchNorm);
    assemble(architecture, geometry, &mut Seeded { seed })
}

fn assemble(
    architecture: Architecture,
    geometry: Geometry,
    source: &mut dyn WeightSource,
) -> Result<Model> {
    let [height, width] = geometry.input_size;
    if !(1..=MAX_SIDE).contains(&height) || !(1..=MAX_SIDE).contains(&width) {
        return Err(Diagnostic::usage(format!(
            "an input of {height}x{width} pixels is not between 1 and {MAX_SIDE} on each side"
        )));
    }
    if let Dim::Fixed(n) = geometry.batch
        && !(1..=MAX_BATCH).contains(&n)
    {
        let message = format!("a batch of {n} is not between 1 and {MAX_BATCH}");
        return Err(Diagnostic::usage(message));
    }
    if geometry.window > MAX_SIDE {
        let message = format!("a window of {} is larger than any map", geometry.window);
        return Err(Diagnostic::usage(message));
    }
    let graph = build::build(
        &graph_name(&architecture, geometry),
        &architecture,
        geometry,
        source,
    )?;
    Ok(Model {
        graph,
        architecture,
        geometry,
        warnings: Vec::new(),
    })
}

/// For example `emov2_5m_224`, `emov1_1m_300x200`, `emo_custom_64`.
fn graph_name(architecture: &Architecture, geometry: Geometry) -> String {
    let [height, width] = geometry.input_size;
    let size = if height == width {
        height.to_string()
    } else {
        format!("{height}x{width}")
    };
    let model = match architecture.variant {
        Some(row) => {
            let size = row.name.rsplit('-').next().unwrap_or_default();
            format!("{}_{}", row.family, size.to_lowercase())
        }
        None => "emo_custom".into(),
    };
    format!("{model}_{size}")
}

/// Weights read from a checkpoint when they are first needed.
struct Stored {
    tensors: BTreeMap<String, Tensor>,
}

impl WeightSource for Stored {
    fn weight(&mut self, key: &str, shape: &[usize]) -> Weight {
        let tensor = self.tensors.remove(key);
        let key = key.to_string();
        Weight::lazy(shape, move || match &tensor {
            Some(tensor) => tensor.to_f32().map_err(|e| e.key(&key)),
            // `recognise` has compared all keys; this is a module that asks twice.
            None => Err(Diagnostic::internal("a weight is used by two modules").key(&key)),
        })
    }

    fn unused(&mut self, key: &str, _shape: &[usize]) {
        self.tensors.remove(key);
    }
}

/// Weights without elements.
struct Declared;

impl WeightSource for Declared {
    fn weight(&mut self, _key: &str, shape: &[usize]) -> Weight {
        Weight::declared(TensorType::f32(Shape::fixed(shape)), None)
    }

    fn unused(&mut self, _key: &str, _shape: &[usize]) {}
}

/// Weights that follow from their keys.
struct Seeded {
    seed: u64,
}

impl WeightSource for Seeded {
    fn weight(&mut self, key: &str, shape: &[usize]) -> Weight {
        let (key, dims, seed) = (key.to_string(), shape.to_vec(), self.seed);
        Weight::lazy(shape, move || {
            Ok(emoc_ir::seeded::values(&key, &dims, seed))
        })
    }

    fn unused(&mut self, _key: &str, _shape: &[usize]) {}
}
