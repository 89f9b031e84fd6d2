//! The weights, as the compiler packed them.

use crate::model::WEIGHTS;

/// Bytes at the alignment of a line of the cache.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

static BYTES: &Aligned<[u8]> = &Aligned(*include_bytes!("../weights.bin"));

/// The weights of the network.
#[derive(Debug)]
pub(crate) struct Weights(());

impl Weights {
    /// Nothing is read or copied: the weights are a part of the program.
    pub fn load() -> Self {
        Self(())
    }

    /// All of them.
    pub fn as_slice(&self) -> &'static [f32] {
        let bytes = &BYTES.0;
        assert_eq!(bytes.len(), 4 * WEIGHTS);
        // SAFETY: that many values, aligned by the type; any bits are a float.
        unsafe { core::slice::from_raw_parts(bytes.as_ptr().cast(), WEIGHTS) }
    }
}
