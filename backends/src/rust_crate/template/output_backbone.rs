//! What comes out of the network.

use alloc::{vec, vec::Vec};

/// What [`Model::infer`](crate::Model::infer) returns.
pub type Output = Stages;

/// Channels, height and width of each stage's result.
#[rustfmt::skip]
pub const STAGE_SHAPES: [[usize; 3]; @{count}] = [@{shapes}];

/// The results of the stages, planes `[channels, height, width]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Stages(pub(crate) [Vec<f32>; @{count}]);

impl Default for Stages {
    fn default() -> Self {
        Self(STAGE_SHAPES.map(|shape| vec![0.0; shape.iter().product()]))
    }
}

impl Stages {
@{accessors}
    /// Every value, for programs that treat classifiers and backbones alike.
    #[doc(hidden)]
    pub fn values(&self) -> impl Iterator<Item = f32> + '_ {
        self.0.iter().flatten().copied()
    }
}
