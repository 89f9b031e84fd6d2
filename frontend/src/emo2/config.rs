//! One row of data per published variant, and what a row or a state_dict's shapes determine.

use emoc_ir::ops::Attention;

/// Hyper-parameters of a published model function. Index 0 is stage 1.
#[derive(Debug, PartialEq)]
pub struct Variant {
    /// What `--variant` calls it.
    pub name: &'static str,
    /// The family's name in artifacts: `emov2` or `emov1`.
    pub family: &'static str,
    /// Blocks per stage.
    pub depths: [usize; 4],
    /// Channels per stage.
    pub dims: [usize; 4],
    /// Expansion of the blocks; doubled in the first of each stage.
    pub expansions: [f64; 4],
    /// Depthwise kernel size per stage.
    pub kernels: [usize; 4],
    /// Channels of one q or k head per stage; attention is in stages 3 and 4.
    pub dim_heads: [usize; 4],
    /// Which windows attend.
    pub attention: Attention,
    /// Multiply-accumulates at 224x224 as published, in millions, where they are.
    pub published_mmacs: Option<u32>,
}

const K5: [usize; 4] = [5, 5, 5, 5];
const K3: [usize; 4] = [3, 3, 5, 5];

/// Every published variant, smallest first within its family.
pub const VARIANTS: &[Variant] = &[
    row(
        "1M",
        "emov2",
        [2, 2, 8, 3],
        [32, 48, 80, 180],
        [2.0, 2.5, 3.0, 3.5],
        K5,
        [16, 16, 20, 20],
        Some(285),
    ),
    row(
        "2M",
        "emov2",
        [3, 3, 9, 3],
        [32, 48, 120, 200],
        [2.0, 2.5, 3.0, 3.5],
        K5,
        [16, 16, 20, 20],
        Some(487),
    ),
    row(
        "5M",
        "emov2",
        [3, 3, 9, 3],
        [48, 72, 160, 288],
        [2.0, 3.0, 4.0, 4.0],
        K5,
        [16, 24, 32, 32],
        Some(1035),
    ),
    row(
        "20M",
        "emov2",
        [3, 3, 13, 3],
        [64, 128, 320, 448],
        [2.0, 3.0, 4.0, 4.0],
        K5,
        [16, 32, 32, 32],
        None,
    ),
    row(
        "50M",
        "emov2",
        [5, 8, 20, 7],
        [64, 128, 384, 512],
        [2.0, 3.0, 4.0, 4.0],
        K5,
        [16, 32, 32, 32],
        None,
    ),
    row(
        "emo1-1M",
        "emov1",
        [2, 2, 8, 3],
        [32, 48, 80, 180],
        [2.0, 2.5, 3.0, 3.5],
        K3,
        [16, 16, 20, 20],
        None,
    ),
    row(
        "emo1-2M",
        "emov1",
        [3, 3, 9, 3],
        [32, 48, 120, 200],
        [2.0, 2.5, 3.0, 3.5],
        K3,
        [16, 16, 20, 20],
        None,
    ),
    row(
        "emo1-5M",
        "emov1",
        [3, 3, 9, 3],
        [48, 72, 160, 288],
        [2.0, 3.0, 4.0, 4.0],
        K3,
        [16, 24, 32, 32],
        None,
    ),
    row(
        "emo1-20M",
        "emov1",
        [3, 3, 13, 3],
        [64, 128, 320, 448],
        [2.0, 3.0, 4.0, 4.0],
        K3,
        [16, 32, 32, 32],
        None,
    ),
];

#[allow(
    clippy::too_many_arguments,
    reason = "a row of the table, in the order of its columns"
)]
const fn row(
    name: &'static str,
    family: &'static str,
    depths: [usize; 4],
    dims: [usize; 4],
    expansions: [f64; 4],
    kernels: [usize; 4],
    dim_heads: [usize; 4],
    published_mmacs: Option<u32>,
) -> Variant {
    // EMOv2's contribution is the second, contiguous attention beside EMOv1's dilated one.
    let attention = match kernels[0] {
        5 => Attention::Hybrid,
        _ => Attention::Remote,
    };
    Variant {
        name,
        family,
        depths,
        dims,
        expansions,
        kernels,
        dim_heads,
        attention,
        published_mmacs,
    }
}

/// The variant of this name, whatever the case.
pub fn variant(name: &str) -> Option<&'static Variant> {
    VARIANTS
        .iter()
        .find(|row| row.name.eq_ignore_ascii_case(name))
}

/// What follows the depthwise convolution of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalNorm {
    /// BatchNorm and SiLU: every published classifier.
    BatchNorm,
    /// LayerNorm and GELU: the segmentation backbone's present form.
    LayerNorm,
}

/// Everything about a network except input size and window. Index 0 is stage 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// The matching variant's name.
    pub variant: Option<&'static Variant>,
    /// Channels of the stem.
    pub stem: usize,
    /// Blocks per stage.
    pub depths: [usize; 4],
    /// Channels per stage.
    pub dims: [usize; 4],
    /// Expanded channels per stage, of the first block and of the others.
    pub mids: [[usize; 2]; 4],
    /// Depthwise kernel size per stage.
    pub kernels: [usize; 4],
    /// Channels of one q or k head per stage.
    pub dim_heads: [usize; 4],
    /// Which windows attend.
    pub attention: Attention,
    /// What follows the depthwise convolutions.
    pub local_norm: LocalNorm,
    /// Classes of the head; `None` for a backbone without norm and head.
    pub classes: Option<usize>,
}

impl Architecture {
    /// A published variant with this head.
    pub fn of(variant: &'static Variant, classes: Option<usize>, local_norm: LocalNorm) -> Self {
        let stem = variant.dims[0] / 2;
        let mids = std::array::from_fn(|stage| {
            let input = if stage == 0 {
                stem
            } else {
                variant.dims[stage - 1]
            };
            let expansion = variant.expansions[stage];
            // PyTorch truncates the product.
            let first = (input as f64 * (expansion * 2.0)) as usize;
            [first, (variant.dims[stage] as f64 * expansion) as usize]
        });
        Self {
            variant: Some(variant),
            stem,
            depths: variant.depths,
            dims: variant.dims,
            mids,
            kernels: variant.kernels,
            dim_heads: variant.dim_heads,
            attention: variant.attention,
            local_norm,
            classes,
        }
    }
}

/// The window of a map when none is given: 8 at 256x256 and 512x512, 7 everywhere else, as the
/// published models were trained.
pub fn default_window(input_size: [usize; 2]) -> usize {
    match input_size {
        [256, 256] | [512, 512] => 8,
        _ => 7,
    }
}
