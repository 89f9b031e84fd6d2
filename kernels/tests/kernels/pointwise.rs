//! Tests of `cpu/pointwise.rs`.
