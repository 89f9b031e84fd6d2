//! Tests of `cpu/head.rs`.
