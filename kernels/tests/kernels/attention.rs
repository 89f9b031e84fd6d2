//! Tests of `cpu/attention.rs`.
