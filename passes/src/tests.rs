//! Placeholder for the harness.
