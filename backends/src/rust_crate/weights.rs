//! How weights are stored in `weights.bin`.

use emoc_ir::{Diagnostic, Graph, Result, Weight};
use half::f16;

use super::lower::Network;

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightsDtype {
    /// As they are.
    #[default]
    F32,
    /// Rounded to half precision, and widened when a model is made; those of the stem, which are
    /// few and whose rounding moves the outputs most, stay as they are.
    F16,
}

/// Where keys of weights start that are never rounded.
const STEM: &str = "stage0.";

impl Network {
    /// Weights of the stem; the packed weights start with them.
    fn stem_weights(&self) -> usize {
        let first = self.stages.first();
        first.map_or(self.weights.len(), |stage| stage.first.weights)
    }

    /// Weights that are stored in float32: these come first, the others follow.
    pub fn wide_weights(&self, dtype: WeightsDtype) -> usize {
        match dtype {
            WeightsDtype::F32 => self.weights.len(),
            WeightsDtype::F16 => self.stem_weights(),
        }
    }
}

/// The bytes of `weights.bin`.
///
/// # Errors
/// A weight that half precision cannot hold.
pub fn stored(network: &Network, dtype: WeightsDtype) -> Result<Vec<u8>> {
    let (wide, narrow) = network.weights.split_at(network.wide_weights(dtype));
    let mut bytes: Vec<u8> = wide.iter().flat_map(|x| x.to_le_bytes()).collect();
    bytes.reserve(2 * narrow.len());
    for &weight in narrow {
        let half = f16::from_f32(weight);
        if !half.is_finite() {
            return Err(too_large(weight));
        }
        bytes.extend(half.to_le_bytes());
    }
    Ok(bytes)
}

/// The graph with its weights as a crate with `dtype` has them.
///
/// # Errors
/// A weight that half precision cannot hold, by its key.
pub fn rounded(graph: &Graph, dtype: WeightsDtype) -> Result<Graph> {
    let mut rounded = graph.clone();
    if dtype == WeightsDtype::F32 {
        return Ok(rounded);
    }
    let weights = graph.weights.iter();
    for (key, weight) in weights.filter(|(key, _)| !key.starts_with(STEM)) {
        let mut values = weight.values()?.to_vec();
        for value in &mut values {
            let half = f16::from_f32(*value);
            if !half.is_finite() && value.is_finite() {
                return Err(too_large(*value).key(key));
            }
            *value = half.to_f32();
        }
        let dims = weight.dims();
        rounded.weights.insert(key, Weight::owned(&dims, values));
    }
    Ok(rounded)
}

fn too_large(weight: f32) -> Box<Diagnostic> {
    let message =
        format!("a folded weight is {weight}, beyond float16's range, which ends at 65504");
    Diagnostic::input(message).help("--weights-dtype f32 keeps it")
}
