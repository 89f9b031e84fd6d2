//! TensorRT: a folder from which an engine is built on the GPU that runs it, without a question.
//!
//! TensorRT builds engines (plans) only where they run. A bundle is everything up to that moment:
//! the network as ONNX files of which every node was looked up in the parser's own operator table
//! ([`audit`]), the scripts that build and verify, known outputs, a model repository for the Triton
//! Inference Server, and [`Plan`], which says it all to programs.
//!
//! | file | what |
//! |---|---|
//! | `bundle.rs` | what a bundle is made of |
//! | `audit.rs` | the operator audit |
//! | `operators.rs`, `operators.tsv` | what TensorRT takes, and since when |
//! | `plan.rs`, `plan.schema.json` | `plan.json` |
//! | `memory.rs` | how much activations need |
//! | `emit.rs` | the bundle's files |
//! | `readme.rs` | what its README says |
//! | `triton.rs` | the model repository |
//! | `schema.rs` | reads the schema, in tests |
//! | `template/` | texts with `@{placeholders}` |

mod audit;
mod bundle;
mod emit;
mod memory;
mod operators;
pub mod plan;
mod readme;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod tests;
mod triton;

pub use audit::{Audit, AuditedNode, Edge, NEWEST_MAJOR, OLDEST, audit};
pub use bundle::{Batch, Bundle, Engine, Golden, Model, Precision};
pub use emit::{PLAN, emit};
pub use memory::activation_memory;
pub use operators::Version;
pub use plan::Plan;
