//! From a checkpoint file to a graph.
//!
//! The journey, in reading order: [`Checkpoint::open`] decides the format by content and lists
//! every tensor; [`StateDict::choose`] picks the weights of one network.
//!
//! A checkpoint is untrusted. Nothing in it is executed or constructed, every length is checked
//! before it is believed, and a file that breaks a rule is refused as a whole.

#![warn(missing_docs)]

mod checkpoint;
pub mod emo2;
mod pth;
mod safetensors;
mod source;
mod state_dict;
mod tensor;

pub use checkpoint::{Checkpoint, Entry, Format};
pub use state_dict::{Choice, ContentDigest, Origin, StateDict};
pub use tensor::Tensor;
