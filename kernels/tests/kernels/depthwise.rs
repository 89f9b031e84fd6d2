//! Tests of `cpu/depthwise.rs`.
