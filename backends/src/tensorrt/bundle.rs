//! What a bundle is made of: [`Bundle`].

use std::fmt;

use serde::{Deserialize, Serialize};

use super::plan;

/// A network on its way into a bundle.
///
/// What the ONNX files say is not said again: names, types and shapes of inputs and outputs,
/// whether the batch is symbolic, the operator set.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Name of the network, such as `emov2_5m_224`: letters, digits, `_`, `-` and `.`.
    pub name: String,
    /// The same for people, such as `EMOv2 5M at 224x224`.
    pub title: String,
    /// Version of emoc.
    pub producer_version: String,
    /// The network in float32, then in other precisions.
    pub models: Vec<Model>,
    /// How many pictures an engine takes at once.
    pub batch: Batch,
    /// How a picture becomes the input.
    pub preprocessing: plan::Preprocessing,
    /// Names of the classes, in their order.
    pub labels: Option<Vec<String>>,
    /// Multiply-accumulates for one picture.
    pub macs: u64,
    /// Known outputs.
    pub golden: Golden,
    /// Engines that TensorRT-RTX built ahead of time, if the bundle should hold some.
    pub engines: Vec<Engine>,
    /// Where the network is from, in this order.
    pub provenance: Vec<(String, String)>,
}

/// An engine for TensorRT-RTX: no plan for TensorRT, which cannot build without a GPU.
#[derive(Debug, Clone)]
pub struct Engine {
    /// The model it was built from.
    pub precision: Precision,
    /// The generation of GPUs that it serves, as NVIDIA names it: `SM86`.
    pub capability: String,
    /// The version of TensorRT-RTX that built it, and that it needs.
    pub tensorrt_rtx: String,
    /// The engine.
    pub bytes: Vec<u8>,
}

/// The network in one precision.
#[derive(Debug, Clone)]
pub struct Model {
    /// Which one.
    pub precision: Precision,
    /// An ONNX file as [`crate::onnx::emit`] gives it, its inputs and outputs in float32.
    pub onnx: Vec<u8>,
    /// Parts that compute in float32 although the model does not, by name.
    pub islands: Vec<String>,
    /// Bytes of activations by batch, see [`super::activation_memory`].
    pub activation_memory: Vec<(usize, u64)>,
}

/// The type a network mostly computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// float32.
    F32,
    /// float16.
    F16,
}

impl Precision {
    /// How far an engine's outputs may be from the reference, in terms of their spread.
    pub fn tolerance(self) -> f64 {
        match self {
            Precision::F32 => 1e-4,
            Precision::F16 => 5e-3,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
        })
    }
}

/// How many pictures an engine takes at once. A fixed number is all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// The fewest.
    pub min: usize,
    /// How many it should be fastest for.
    pub opt: usize,
    /// The most.
    pub max: usize,
}

/// Known outputs for a known input.
#[derive(Debug, Clone)]
pub struct Golden {
    /// One or more pictures, `[N, 3, H, W]`; N is within the batch.
    pub input: Vec<f32>,
    /// What the reference evaluator gives, in the order of the outputs, each `[N, ..]`.
    pub outputs: Vec<Vec<f32>>,
}
