//! Weights and inputs that need no file: every element follows from its key and a seed.
//!
//! The rule is bit-exact in any language (FNV-1a of the key seeds splitmix64; all further
//! arithmetic is single float32 operations), so results can be compared with outputs that the
//! original PyTorch model computed from the same rule.

use crate::{DType, Graph, Weight};

/// The elements of the tensor `key` with this shape, in row-major order.
///
/// The kind of tensor, read off the key, sets mean and spread: a norm's weight is `1 ± 0.2`,
/// a running variance `1 ± 0.5`, a LayerScale gamma `0.3 ± 0.2`, the network's `input` `± 2`,
/// any other weight `± sqrt(3 / fan_in)`.
pub fn values(key: &str, shape: &[usize], seed: u64) -> Vec<f32> {
    let count = shape.iter().product();
    let (offset, spread) = statistics(key, shape);
    let mut state = fnv1a(key) ^ seed;
    (0..count)
        .map(|_| offset + spread * signed_unit(splitmix64(&mut state)))
        .collect()
}

/// Gives every weight of a graph its seeded values, for example after parsing.
pub fn fill(graph: &mut Graph, seed: u64) {
    let weights = graph.weights.iter();
    let declared: Vec<_> = weights
        .map(|(key, weight)| (key.to_string(), weight.ty().clone()))
        .collect();
    for (key, ty) in declared {
        let dims = ty.shape.resolve(1);
        let mut weight = Weight::owned(&dims, values(&key, &dims, seed));
        if ty.dtype != DType::F32 {
            weight = weight.cast(ty.dtype).expect("a weight with its elements");
        }
        graph.weights.insert(key, weight);
    }
}

/// Centre and half-width of the values of a tensor.
fn statistics(key: &str, shape: &[usize]) -> (f32, f32) {
    let is_norm = key.split('.').any(|element| element == "norm");
    if key == "input" {
        (0.0, 2.0)
    } else if key.ends_with("running_mean") {
        (0.0, 0.3)
    } else if key.ends_with("running_var") {
        (1.0, 0.5)
    } else if key.ends_with("num_batches_tracked") {
        (0.0, 0.0)
    } else if key.ends_with("ls.gamma") {
        (0.3, 0.2)
    } else if is_norm && key.ends_with(".weight") {
        (1.0, 0.2)
    } else if is_norm && key.ends_with(".bias") {
        (0.0, 0.2)
    } else if key.ends_with(".bias") {
        (0.0, 0.1)
    } else {
        let fan_in: usize = shape.iter().skip(1).product();
        (0.0, (3.0 / fan_in as f64).sqrt() as f32)
    }
}

fn fnv1a(key: &str) -> u64 {
    key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The upper 24 bits as a number in [-1, 1); every step is exact in float32.
fn signed_unit(bits: u64) -> f32 {
    let unit = (bits >> 40) as f32 * (1.0 / 16_777_216.0);
    2.0 * unit - 1.0
}

#[cfg(test)]
mod tests {
    use super::values;

    /// First values computed by the rule's description in another language.
    #[test]
    fn known_values() {
        let check = |key: &str, shape: &[usize], expected: [f32; 2]| {
            assert_eq!(values(key, shape, 0)[..2], expected, "{key}");
        };
        check("input", &[1, 3, 2, 2], KNOWN_INPUT);
        check("stage0.0.conv.weight", &[4, 3, 3, 3], KNOWN_CONV);
        check("stage0.0.norm.running_var", &[4], KNOWN_VAR);
    }

    const KNOWN_INPUT: [f32; 2] = [-1.608_726_7, 0.609_441_5];
    const KNOWN_CONV: [f32; 2] = [0.169_412_66, 0.017_386_239];
    const KNOWN_VAR: [f32; 2] = [1.163_197_3, 1.407_039_6];
}
