//! What comes out of the network.

use alloc::vec::Vec;

/// Number of classes.
pub const CLASSES: usize = @{classes};

/// The names of the classes; empty where the compiler was given none.
#[rustfmt::skip]
pub const LABELS: &[&str] = &[@{labels}];

/// What [`Model::infer`](crate::Model::infer) returns.
pub type Output = Logits;

/// One value for each class, before the softmax.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Logits(pub(crate) [f32; CLASSES]);

impl Default for Logits {
    fn default() -> Self {
        Self([0.0; CLASSES])
    }
}

impl AsRef<[f32]> for Logits {
    fn as_ref(&self) -> &[f32] {
        &self.0
    }
}

impl Logits {
    /// The values, by class.
    pub fn as_slice(&self) -> &[f32; CLASSES] {
        &self.0
    }

    /// The `count` largest, as (class, logit), the largest first and lower classes before higher
    /// ones of equal logits. NaN counts as the smallest.
    pub fn top(&self, count: usize) -> Vec<(usize, f32)> {
        let mut classes: Vec<_> = self.0.iter().copied().enumerate().collect();
        let rank = |x: f32| if x.is_nan() { f32::NEG_INFINITY } else { x };
        classes.sort_by(|a, b| rank(b.1).total_cmp(&rank(a.1)));
        classes.truncate(count);
        classes
    }

    /// The probabilities, by class.
    #[cfg(feature = "std")]
    pub fn softmax(&self) -> [f32; CLASSES] {
        let largest = self.0.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut probabilities = self.0.map(|logit| (logit - largest).exp());
        let sum: f32 = probabilities.iter().sum();
        probabilities.iter_mut().for_each(|p| *p /= sum);
        probabilities
    }

    /// Every value, for programs that treat classifiers and backbones alike.
    #[doc(hidden)]
    pub fn values(&self) -> impl Iterator<Item = f32> + '_ {
        self.0.iter().copied()
    }
}
