//! The i2RMB block: norm, expansion or window attention, depthwise convolution with a skip of
//! its own, projection, LayerScale, residual.

use emoc_ir::{
    Result, Value,
    ops::{Act, WindowAttention, expand_attention},
};

use super::{
    build::{ConvSpec, Modules},
    config::{Architecture, LocalNorm},
};

/// Constructor arguments of one block.
pub(super) struct Block {
    path: String,
    input: usize,
    mid: usize,
    output: usize,
    kernel: usize,
    /// Stages 1 and 2 use BatchNorm and SiLU, stages 3 and 4 LayerNorm and GELU.
    convolutional: bool,
    local_norm: LocalNorm,
    /// The first block of a stage halves the map and has neither skips nor attention.
    first: bool,
    dim_head: usize,
    attention: emoc_ir::ops::Attention,
    window: usize,
}

impl Block {
    /// Block number `block` of the stage with index `stage` (0 is stage 1).
    pub(super) fn of(
        architecture: &Architecture,
        window: usize,
        stage: usize,
        block: usize,
    ) -> Self {
        let first = block == 0;
        let input = match (first, stage) {
            (false, _) => architecture.dims[stage],
            (true, 0) => architecture.stem,
            (true, _) => architecture.dims[stage - 1],
        };
        Self {
            path: format!("stage{}.{block}", stage + 1),
            input,
            mid: architecture.mids[stage][usize::from(!first)],
            output: architecture.dims[stage],
            kernel: architecture.kernels[stage],
            convolutional: stage < 2,
            local_norm: architecture.local_norm,
            first,
            dim_head: architecture.dim_heads[stage],
            attention: architecture.attention,
            window,
        }
    }

    fn act(&self) -> Act {
        if self.convolutional {
            Act::Silu
        } else {
            Act::Gelu
        }
    }
}

/// Adds a block to the graph.
pub(super) fn build(m: &mut Modules, block: &Block, x: Value) -> Result<Value> {
    let path = |part: &str| format!("{}.{part}", block.path);
    let normed = if block.convolutional {
        m.batch_norm(&path("norm"), block.input, x)?
    } else {
        m.layer_norm(&path("norm.norm"), block.input, x)?
    };
    let wide = if block.convolutional || block.first {
        let expand = ConvSpec::new(block.input, block.mid, 1).bias();
        let wide = m.conv(&path("eops.0.net.conv"), expand, normed)?;
        m.activation(&path("eops.0.net.act"), block.act(), wide)?
    } else {
        attention(m, block, normed)?
    };
    let stride = if block.first { 2 } else { 1 };
    let depthwise = ConvSpec::new(block.mid, block.mid, block.kernel).depthwise();
    let local = m.conv(&path("conv_local.conv"), depthwise.stride(stride), wide)?;
    let mut local = m.local_norm(&path("conv_local"), block.local_norm, block.mid, local)?;
    if !block.first {
        local = m.add(&path("inner_skip"), wide, local)?;
    }
    let out = m.conv(
        &path("proj.conv"),
        ConvSpec::new(block.mid, block.output, 1),
        local,
    )?;
    let out = m.layer_scale(&path("ls"), block.output, out)?;
    if block.first {
        return Ok(out);
    }
    m.add(&path("skip"), x, out)
}

/// Window attention: q and k from one 1x1 convolution, v from another that is also the expansion.
fn attention(m: &mut Modules, block: &Block, x: Value) -> Result<Value> {
    let path = format!("{}.eops.0", block.path);
    let shapes = [("qk", 2 * block.input), ("v", block.mid)];
    for (projection, output) in shapes {
        m.parameter(
            &format!("{path}.{projection}.conv.weight"),
            &[output, block.input, 1, 1],
        );
        m.parameter(&format!("{path}.{projection}.conv.bias"), &[output]);
    }
    let window = match block.window {
        0 => [2, 3].map(|axis| m.graph.ty(x).shape.0[axis].resolve(1)),
        side => [side, side],
    };
    let op = WindowAttention {
        attention: block.attention,
        heads: block.input / block.dim_head.max(1),
        window,
        scale: (block.dim_head as f64).powf(-0.5),
        act: block.act(),
        narrow_softmax: false,
    };
    let key = |slot: &str| {
        let (projection, part) = slot.split_once('.')?;
        Some(format!("{path}.{projection}.conv.{part}"))
    };
    expand_attention(&mut m.graph, &path, &op, x, key)
}
