//! Every kernel against the reference evaluator.

mod support;

mod attention;
mod depthwise;
mod expand;
mod head;
mod layer_norm;
mod math;
mod pointwise;
mod stem;
mod threads;
