//! Tests of `cpu/layer_norm.rs`.
