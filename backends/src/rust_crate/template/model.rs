//! @{title}: its blocks as tables, and one function for each kind of block.
//!
//! Maps are packed (see [`kernels`](crate::kernels)): `[ceil(C / 16)][H * W][16]`. All of them lie
//! in one arena, at offsets that were planned when this crate was emitted; weights lie in the
//! order in which they are used, so that one offset stands for all of a block.

use crate::{
    kernels::{
        Act, Attention, Depthwise, Engine, Expansion, Grouping, LANES, @{layer_norms}@{kernel_imports}panels@{kernel_imports_last},
    },
    output::Output,
};

/// The picture.
const INPUT: Shape = Shape::new(@{height}, @{width});

/// Length of the arena, in values.
pub(crate) const ARENA: usize = @{arena};

/// Scratch of one thread, in values.
pub(crate) const SCRATCH: usize = @{scratch};

/// Number of weights.
pub(crate) const WEIGHTS: usize = @{weights};

@{tables}

/// What the blocks of one kind have in common.
struct Form {
    /// Height and width before the block.
    map: Shape,
    /// Channels before, in the middle (padding of heads included), after.
    channels: [usize; 3],
    norm: Option<Norm>,
    mixer: Mixer,
    local: Local,@{local_norm_field}
    /// Whether the block's input is added to its result.
    residual: bool,
    memory: Memory,
}

/// A LayerNorm; its weight and bias may be folded into what follows.
struct Norm {
    eps: f32,
    weight: bool,
    bias: bool,
}

/// What stands between the norm and the depthwise convolution.
enum Mixer {
    /// A 1x1 expansion.
    Expand(Act),
    /// Attention in windows; the activation is v's.
    Attend(Attention, Act),
}

/// The depthwise convolution.
struct Local {
    kernel: usize,
    stride: usize,
    padding: usize,
    act: Act,
    /// Whether its input is added to its result.
    skip: bool,
}

impl Local {
    /// Height and width after it.
    fn output_shape(&self, map: Shape) -> Shape {
        let size = |side: usize| (side + 2 * self.padding - self.kernel) / self.stride + 1;
        Shape::new(size(map.height), size(map.width))
    }
}

/// Where a block's maps lie in the arena; 0 also stands for a map that the block has not.
struct Memory {
    x: usize,
    normed: usize,
    qk: usize,
    v: usize,
    mixed: usize,
    hidden: usize,
    y: usize,
}

/// A block: its name in the checkpoint, and where its weights start.
type Block = (&'static str, usize);

/// A stage: its first block changes the map, the others do not.
struct Stage {
    first: (&'static Form, Block),
    rest: (&'static Form, &'static [Block]),
}

/// One inference. `picture` is `[3, @{height}, @{width}]`.
pub(crate) fn infer(
    engine: &Engine,
    picture: &[f32],
    arena: &mut [f32],
    scratch: &mut [f32],
    output: &mut Output,
) {
    stem(engine, picture, arena);
    @{stage_loop} {
        let (form, block) = stage.first;
        run_block(engine, form, block, arena, scratch);
        let (form, blocks) = stage.rest;
        for &block in blocks {
            run_block(engine, form, block, arena, scratch);
        }@{after_stage}
    }@{after_stages}
}

/// Stage 0: a 3x3 convolution of stride 2, then a depthwise one.
fn stem(engine: &Engine, picture: &[f32], arena: &mut [f32]) {
    let map = Stem::output_shape(INPUT);
    let places = STEM_AT.map(|at| (at, map, STEM.outputs));
    let [first, second] = maps(arena, places);
    STEM.run(engine, picture, INPUT, first);
    STEM_LOCAL.run(engine, first, map, second);
}

fn run_block(
    engine: &Engine,
    form: &Form,
    (_, weights): Block,
    arena: &mut [f32],
    scratch: &mut [f32],
) {
    let layers = Layers { next: weights };
    match form.mixer {
        Mixer::Expand(act) => expand_block(engine, form, act, layers, arena, scratch),
        Mixer::Attend(attention, act) => {
            attention_block(engine, form, &attention, act, layers, arena, scratch);
        }
    }
}

/// norm -> 1x1 expansion -> depthwise convolution -> 1x1 projection.
fn expand_block(
    engine: &Engine,
    form: &Form,
    act: Act,
    mut layers: Layers,
    arena: &mut [f32],
    scratch: &mut [f32],
) {
    let [inputs, mid, outputs] = form.channels;
    let memory = &form.memory;
    let norm = layers.norm(form);
    let expansion = Expansion {
        expand: layers.pointwise(inputs, mid, act),
        local: layers.depthwise(form),
    };@{local_norm_layer}
    let project = layers.pointwise(mid, outputs, Act::None);
    let out = form.local.output_shape(form.map);

    let mut from = (memory.x, form.map, inputs);
    if let Some(norm) = norm {
        let normed_at = (memory.normed, form.map, inputs);
        let [x, normed] = maps(arena, [from, normed_at]);
        norm.run(engine, x, form.map, normed, form.map);
        from = normed_at;
    }
    @{expand}
    finish(engine, form, &project, out, arena);
}

/// norm -> q, k, v -> attention in windows -> depthwise convolution -> 1x1 projection.
fn attention_block(
    engine: &Engine,
    form: &Form,
    attention: &Attention,
    act: Act,
    mut layers: Layers,
    arena: &mut [f32],
    scratch: &mut [f32],
) {
    let [inputs, mid, outputs] = form.channels;
    let both = 2 * attention.heads * attention.dim_qk;
    let memory = &form.memory;
    let norm = layers.norm(form);
    let qk = layers.pointwise(inputs, both, Act::None);
    let v = layers.pointwise(inputs, mid, act);
    let local = layers.depthwise(form);@{local_norm_layer}
    let project = layers.pointwise(mid, outputs, Act::None);
    let map = form.map;
    let padded = attention.padded(map);
    let out = form.local.output_shape(map);

    let mut from = (memory.x, map, inputs);
    if let Some(norm) = norm {
        let normed_at = (memory.normed, padded, inputs);
        let [x, normed] = maps(arena, [from, normed_at]);
        norm.run(engine, x, map, normed, padded);
        from = normed_at;
    }
    let places = [
        from,
        (memory.qk, padded, both),
        (memory.v, padded, mid),
        (memory.mixed, map, mid),
        (memory.hidden, out, mid),
    ];
    let [x, qk_map, v_map, mixed, hidden] = maps(arena, places);
    qk.run(engine, x, padded.pixels(), qk_map);
    v.run(engine, x, padded.pixels(), v_map);
    attention.run(engine, qk_map, v_map, map, mixed, scratch);
    local.run(engine, mixed, map, hidden);@{local_norm_run}
    finish(engine, form, &project, out, arena);
}

/// The projection, added to the block's input where that is as large.
fn finish(engine: &Engine, form: &Form, project: &Pointwise, out: Shape, arena: &mut [f32]) {
    let [_, mid, outputs] = form.channels;
    let memory = &form.memory;
    let [hidden, y] = maps(arena, [(memory.hidden, out, mid), (memory.y, out, outputs)]);
    match form.residual {
        true => project.add(engine, hidden, out.pixels(), y),
        false => project.run(engine, hidden, out.pixels(), y),
    }
}
@{local_norm}@{head_function}
/// The packed maps at these places of the arena: offset, height and width, channels.
fn maps<const N: usize>(arena: &mut [f32], places: [(usize, Shape, usize); N]) -> [&mut [f32]; N] {
    let ranges = places.map(|(at, shape, channels)| at..at + shape.packed_len(channels));
    match arena.get_disjoint_mut(ranges) {
        Ok(maps) => maps,
        Err(_) => unreachable!("the plan gives maps that live together places of their own"),
    }
}

/// Hands out the layers of a block in the order in which their weights lie.
struct Layers {
    next: usize,
}

impl Layers {
    fn take(&mut self, len: usize) -> usize {
        let start = self.next;
        self.next += len;
        start
    }

    fn norm(&mut self, form: &Form) -> Option<LayerNorm> {
        let channels = form.channels[0];
        let len = panels(channels) * LANES;
        form.norm.as_ref().map(|norm| LayerNorm {
            channels,
            eps: norm.eps,
            weight: norm.weight.then(|| self.take(len)),
            bias: norm.bias.then(|| self.take(len)),
        })
    }

    fn pointwise(&mut self, inputs: usize, outputs: usize, act: Act) -> Pointwise {
        Pointwise {
            inputs,
            outputs,
            act,
            weight: self.take(panels(outputs) * inputs * LANES),
            bias: self.take(panels(outputs) * LANES),
        }
    }

    fn depthwise(&mut self, form: &Form) -> Depthwise {
        let channels = form.channels[1];
        let Local {
            kernel,
            stride,
            padding,
            act,
            skip,
        } = form.local;
        Depthwise {
            channels,
            kernel,
            stride,
            padding,
            act,
            skip,
            weight: self.take(panels(channels) * kernel * kernel * LANES),
            bias: self.take(panels(channels) * LANES),
        }
    }
}
