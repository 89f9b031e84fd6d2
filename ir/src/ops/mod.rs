//! The op table: every operation of the graph with its attributes, arity, weights, shape rule,
//! cost and, for fused ops, decomposition.
//!
//! A `match` on [`Op`] has no `_` arm anywhere, so the compiler leads whoever adds an op.
//!
//! | module | column of the table |
//! |---|---|
//! | this one | attributes, arity, weight slots |
//! | `shape.rs` | types of the outputs from types of inputs and weights |
//! | `cost.rs` | multiply-accumulates as fvcore counts them |
//! | `text.rs` | spelling of mnemonics and attributes in `.emir` |
//! | `decompose.rs` | what a fused op stands for |

mod cost;
mod decompose;
mod shape;
mod text;

pub use decompose::{decompose, decompose_all, expand_attention};
pub use shape::WeightTypes;
pub(crate) use shape::check_type;
pub(crate) use text::{AttributeValue, from_text, to_text};

use crate::DType;

/// One operation. Images are `[N, C, H, W]`; windows are `[N·windows, heads, tokens, channels]`.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// A graph input; its type is given, not inferred.
    Input,
    /// A weight used as a value.
    Constant,
    /// 2-D convolution with equal padding on all sides, then an activation.
    Conv2d(Conv2d),
    /// Inference-mode BatchNorm over channels: `(x - mean) / sqrt(var + eps) * weight + bias`.
    BatchNorm(Norm),
    /// LayerNorm over the channels of every pixel; weight and bias may have been folded away.
    /// Its statistics are float32 at least, whatever the type of the image.
    LayerNorm(Norm),
    /// An elementwise activation.
    Activation(Act),
    /// Per-channel factor (LayerScale's gamma).
    LayerScale,
    /// Elementwise sum of two values of one type.
    Add,
    /// The same values in another element type, each rounded to the nearest.
    Cast {
        /// The type.
        to: DType,
    },
    /// Product with a number.
    Scale {
        /// The number.
        factor: f64,
    },
    /// Zero padding at the bottom and right of an image.
    Pad {
        /// Rows added below.
        bottom: usize,
        /// Columns added on the right.
        right: usize,
    },
    /// The top left part of an image.
    Crop {
        /// Rows kept.
        height: usize,
        /// Columns kept.
        width: usize,
    },
    /// Consecutive parts of the channel axis, one output each.
    Split {
        /// Channels of each output.
        sizes: Vec<usize>,
    },
    /// Image to windows of tokens, channels split as `(heads, channels)`.
    WindowPartition(Windows),
    /// Windows back to an image of this height and width, inverse of the partition.
    WindowMerge {
        /// How the image was partitioned.
        windows: Windows,
        /// Height of the image, a multiple of the window's.
        height: usize,
        /// Width of the image, a multiple of the window's.
        width: usize,
    },
    /// Batched matrix product over the last two axes.
    MatMul {
        /// Whether the second operand's last two axes are swapped first.
        transpose_b: bool,
    },
    /// Softmax over the last axis.
    Softmax,
    /// Mean over height and width: `[N, C, H, W]` to `[N, C]`.
    GlobalAvgPool,
    /// Fully connected layer: `[N, C]` to `[N, classes]`.
    Linear,
    /// Fused: q, k, v projections of an image and attention inside windows.
    WindowAttention(WindowAttention),
    /// Fused: a whole inverted-residual block of EMO.
    I2Rmb(I2Rmb),
}

/// An elementwise activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Act {
    /// The identity.
    #[default]
    None,
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * (1 + erf(x / sqrt(2))) / 2`, the exact form.
    Gelu,
}

/// Attributes of [`Op::Conv2d`]; kernel size and channels are the weight's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conv2d {
    /// Step in both directions.
    pub stride: usize,
    /// Zeros on every side.
    pub padding: usize,
    /// Channel groups; equal to the channels for a depthwise convolution.
    pub groups: usize,
    /// Applied to the result.
    pub act: Act,
}

impl Conv2d {
    /// A pointwise (1x1) convolution.
    pub fn pointwise() -> Self {
        Self {
            stride: 1,
            padding: 0,
            groups: 1,
            act: Act::None,
        }
    }
}

/// Attributes of the normalisations.
#[derive(Debug, Clone, PartialEq)]
pub struct Norm {
    /// Added to the variance. PyTorch keeps it in code, not in the checkpoint.
    pub eps: f64,
}

/// How pixels are grouped into windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// Contiguous tiles: rows split as `(n h)`.
    Close,
    /// A dilated grid, pixels `n` apart: rows split as `(h n)`.
    Remote,
}

/// Attributes of [`Op::WindowPartition`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Which pixels share a window.
    pub grouping: Grouping,
    /// Height and width of a window in pixels.
    pub window: [usize; 2],
    /// Attention heads the channels are split into.
    pub heads: usize,
}

/// Which attentions [`Op::WindowAttention`] sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// Contiguous windows alone.
    Close,
    /// Dilated windows alone (EMOv1).
    Remote,
    /// The sum of both (EMOv2).
    Hybrid,
    /// Twice the contiguous one: what the hybrid is when one window covers the map.
    CloseTwice,
}

/// Attributes of [`Op::WindowAttention`].
///
/// The image is zero-padded at the bottom and right to whole windows *before* the projections,
/// without a mask, and the result is cropped. The q half of `qk` comes first; channels are
/// ordered `(heads, channels of a head)`.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowAttention {
    /// Which attentions are summed.
    pub attention: Attention,
    /// Attention heads.
    pub heads: usize,
    /// Height and width of a window in pixels.
    pub window: [usize; 2],
    /// Factor on the scores; 1 once it is folded into q's weights.
    pub scale: f64,
    /// Activation of v.
    pub act: Act,
    /// Whether the softmax is computed in the type of the scores where that is narrower than
    /// float32; it is float32 otherwise, between two casts.
    pub narrow_softmax: bool,
}

/// What an i2RMB block does between its norm and its depthwise convolution.
#[derive(Debug, Clone, PartialEq)]
pub enum Mixer {
    /// A 1x1 expansion and its activation.
    Expand(Act),
    /// Window attention, whose v is the expansion.
    Attention(WindowAttention),
}

/// Attributes of [`Op::I2Rmb`]:
/// `x -> norm -> mixer -> m -> act(norm(depthwise(m))) [+ m] -> 1x1 projection [+ x]`.
#[derive(Debug, Clone, PartialEq)]
pub struct I2Rmb {
    /// The LayerNorm in front, if it was not folded away.
    pub norm: Option<Norm>,
    /// Expansion or attention.
    pub mixer: Mixer,
    /// Step of the depthwise convolution.
    pub stride: usize,
    /// Zeros on every side of the depthwise convolution.
    pub padding: usize,
    /// The LayerNorm between the depthwise convolution and its activation, which only the
    /// segmentation backbone has: a BatchNorm is folded away.
    pub local_norm: Option<Norm>,
    /// Activation of the depthwise convolution.
    pub local_act: Act,
    /// Whether the depthwise convolution's input is added to its result.
    pub inner_skip: bool,
    /// Whether the block's input is added to its result.
    pub residual: bool,
}

/// One weight an op takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Its name, as in PyTorch: `weight`, `bias`, `running_mean`.
    pub name: &'static str,
    /// Whether the op cannot do without it.
    pub required: bool,
}

const fn required(name: &'static str) -> Slot {
    let required = true;
    Slot { name, required }
}

const fn optional(name: &'static str) -> Slot {
    let required = false;
    Slot { name, required }
}

const CONSTANT: &[Slot] = &[required("value")];
const LAYER_NORM: &[Slot] = &[optional("weight"), optional("bias")];
const LAYER_SCALE: &[Slot] = &[required("gamma")];
const WEIGHT_AND_BIAS: &[Slot] = &[required("weight"), optional("bias")];
const BATCH_NORM: &[Slot] = &[
    required("weight"),
    required("bias"),
    required("running_mean"),
    required("running_var"),
];
const ATTENTION: &[Slot] = &[
    required("qk.weight"),
    optional("qk.bias"),
    required("v.weight"),
    optional("v.bias"),
];
const BLOCK_EXPAND: &[Slot] = &[
    optional("norm.weight"),
    optional("norm.bias"),
    required("expand.weight"),
    optional("expand.bias"),
    required("local.weight"),
    optional("local.bias"),
    optional("local_norm.weight"),
    optional("local_norm.bias"),
    required("proj.weight"),
    optional("proj.bias"),
];
const BLOCK_ATTENTION: &[Slot] = &[
    optional("norm.weight"),
    optional("norm.bias"),
    required("qk.weight"),
    optional("qk.bias"),
    required("v.weight"),
    optional("v.bias"),
    required("local.weight"),
    optional("local.bias"),
    optional("local_norm.weight"),
    optional("local_norm.bias"),
    required("proj.weight"),
    optional("proj.bias"),
];

impl Op {
    /// Number of input values.
    pub fn arity(&self) -> usize {
        match self {
            Op::Input | Op::Constant => 0,
            Op::Add | Op::MatMul { .. } => 2,
            Op::Conv2d(_)
            | Op::BatchNorm(_)
            | Op::LayerNorm(_)
            | Op::Activation(_)
            | Op::LayerScale
            | Op::Cast { .. }
            | Op::Scale { .. }
            | Op::Pad { .. }
            | Op::Crop { .. }
            | Op::Split { .. }
            | Op::WindowPartition(_)
            | Op::WindowMerge { .. }
            | Op::Softmax
            | Op::GlobalAvgPool
            | Op::Linear
            | Op::WindowAttention(_)
            | Op::I2Rmb(_) => 1,
        }
    }

    /// The weights the op takes, in the order they are printed.
    pub fn slots(&self) -> &'static [Slot] {
        match self {
            Op::Constant => CONSTANT,
            Op::Conv2d(_) | Op::Linear => WEIGHT_AND_BIAS,
            Op::BatchNorm(_) => BATCH_NORM,
            Op::LayerNorm(_) => LAYER_NORM,
            Op::LayerScale => LAYER_SCALE,
            Op::WindowAttention(_) => ATTENTION,
            Op::I2Rmb(block) => match block.mixer {
                Mixer::Expand(_) => BLOCK_EXPAND,
                Mixer::Attention(_) => BLOCK_ATTENTION,
            },
            Op::Input
            | Op::Activation(_)
            | Op::Add
            | Op::Cast { .. }
            | Op::Scale { .. }
            | Op::Pad { .. }
            | Op::Crop { .. }
            | Op::Split { .. }
            | Op::WindowPartition(_)
            | Op::WindowMerge { .. }
            | Op::MatMul { .. }
            | Op::Softmax
            | Op::GlobalAvgPool => &[],
        }
    }

    /// Whether [`decompose`] has a rule for the op.
    pub fn is_fused(&self) -> bool {
        matches!(self, Op::WindowAttention(_) | Op::I2Rmb(_))
            || matches!(self, Op::Conv2d(conv) if conv.act != Act::None)
    }
}

impl WindowAttention {
    /// Rows and columns of zeros that complete the windows of a `height` x `width` map; none
    /// for an unusable window, which the shape rule refuses.
    pub fn padding(&self, height: usize, width: usize) -> [usize; 2] {
        let missing = |size: usize, window: usize| {
            let whole = size.checked_next_multiple_of(window);
            whole.map_or(0, |whole| whole - size)
        };
        [
            missing(height, self.window[0]),
            missing(width, self.window[1]),
        ]
    }
}
