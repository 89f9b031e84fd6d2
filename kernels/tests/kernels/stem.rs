//! Tests of `cpu/stem.rs`.
