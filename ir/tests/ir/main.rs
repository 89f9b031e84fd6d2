//! Tests of the graph: text form, shape rules, verifier, patches, reference evaluator, fused ops.

mod element_types;
mod evaluator;
mod fused;
mod generate;
mod operators;
mod patches;
mod shapes;
mod text;
mod verifier;
