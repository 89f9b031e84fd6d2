//! Where the time of an inference goes: every kernel at the shapes of the 5M variant at 224x224,
//! on one thread, beside the multiply-accumulates that the core could do in that time.
//!
//!     cargo run --release -p emoc-kernels --example profile [-- avx512|avx2|portable]

#![allow(clippy::print_stdout)]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use emoc_kernels::cpu::{
    Act, Attention, Depthwise, Engine, Expansion, Grouping, Isa, LANES, LayerNorm, Pointwise,
    Shape, Stem, Threads, average_pool, panels,
};

/// A stage of the network.
struct Stage {
    name: &'static str,
    /// Channels before and after, and of the expanded map: first block, other blocks.
    dims: [usize; 2],
    mids: [usize; 2],
    /// Side of the map before and after.
    sides: [usize; 2],
    /// Blocks after the first.
    blocks: usize,
    /// Heads, if the blocks attend.
    heads: usize,
}

const STAGES: [Stage; 4] = [
    stage("stage1", [24, 48], [96, 96], [112, 56], 2, 0),
    stage("stage2", [48, 72], [288, 216], [56, 28], 2, 0),
    stage("stage3", [72, 160], [576, 640], [28, 14], 8, 5),
    stage("stage4", [160, 288], [1280, 1152], [14, 7], 2, 9),
];

const fn stage(
    name: &'static str,
    dims: [usize; 2],
    mids: [usize; 2],
    sides: [usize; 2],
    blocks: usize,
    heads: usize,
) -> Stage {
    Stage {
        name,
        dims,
        mids,
        sides,
        blocks,
        heads,
    }
}

/// Times kernels and keeps the sums.
struct Profile<'a> {
    engine: Engine<'a>,
    /// Multiply-accumulates per second that the core can do.
    peak: f64,
    input: Vec<f32>,
    output: Vec<f32>,
    scratch: Vec<f32>,
    seconds: f64,
    macs: f64,
}

impl Profile<'_> {
    fn row(
        &mut self,
        name: String,
        count: usize,
        macs: usize,
        mut kernel: impl FnMut(&Engine, &[f32], &mut [f32], &mut [f32]),
    ) {
        let input = aligned(&mut self.input);
        let output = aligned(&mut self.output);
        let scratch = aligned(&mut self.scratch);
        let seconds = fastest(|| kernel(&self.engine, input, output, scratch));
        let share = 100.0 * macs as f64 / seconds / self.peak;
        let (us, total) = (1e6 * seconds, 1e3 * seconds * count as f64);
        println!("{name:24} {us:8.1} us x {count} = {total:6.3} ms {share:5.0} % of peak");
        self.seconds += seconds * count as f64;
        self.macs += (macs * count) as f64;
    }

    fn product(&mut self, name: String, count: usize, dims: [usize; 2], pixels: usize, act: Act) {
        let [inputs, outputs] = dims;
        let layer = Pointwise {
            inputs,
            outputs,
            act,
            weight: 0,
            bias: 0,
        };
        let (from, to) = (
            panels(inputs) * pixels * LANES,
            panels(outputs) * pixels * LANES,
        );
        let macs = inputs * outputs * pixels;
        self.row(name, count, macs, |engine, input, output, _| {
            layer.run(engine, &input[..from], pixels, &mut output[..to]);
        });
    }
}

/// The values from the first at a line of the cache on, as an emitted crate has its arena.
fn aligned(values: &mut [f32]) -> &mut [f32] {
    let start = values.as_ptr().align_offset(64);
    &mut values[start..]
}

/// The least time of many runs.
fn fastest(mut run: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut best = f64::INFINITY;
    while start.elapsed() < Duration::from_millis(100) {
        let turn = Instant::now();
        run();
        best = best.min(turn.elapsed().as_secs_f64());
    }
    best
}

/// Multiply-accumulates per second of one core, from a product that lives in the first-level
/// cache: what the kernels reach at best.
fn peak(engine: &Engine) -> f64 {
    let layer = Pointwise {
        inputs: 128,
        outputs: 32,
        act: Act::None,
        weight: 0,
        bias: 0,
    };
    let (input, mut output) = (vec![0.5; 8 * 42 * LANES], vec![0.0; 2 * 42 * LANES]);
    let seconds = fastest(|| {
        for _ in 0..100 {
            layer.run(engine, black_box(&input), 42, &mut output);
        }
    });
    (100 * 128 * 32 * 42) as f64 / seconds
}

fn first_block(profile: &mut Profile, stage: &Stage) {
    let Stage {
        name, dims, mids, ..
    } = *stage;
    let (shape, out) = (square(stage.sides[0]), square(stage.sides[1]));
    if stage.heads > 0 {
        layer_norm(profile, format!("{name}.0 norm"), 1, dims[0], shape);
    }
    expansion(
        profile,
        format!("{name}.0 expand, local"),
        1,
        [dims[0], mids[0]],
        shape,
        2,
    );
    let dims = [mids[0], dims[1]];
    profile.product(
        format!("{name}.0 project"),
        1,
        dims,
        out.pixels(),
        Act::None,
    );
}

fn other_blocks(profile: &mut Profile, stage: &Stage) {
    let Stage {
        name,
        dims: [_, dim],
        mids: [_, mid],
        blocks,
        heads,
        ..
    } = *stage;
    let shape = square(stage.sides[1]);
    let pixels = shape.pixels();
    if heads == 0 {
        expansion(
            profile,
            format!("{name}.n expand, local"),
            blocks,
            [dim, mid],
            shape,
            1,
        );
    } else {
        layer_norm(profile, format!("{name}.n norm"), blocks, dim, shape);
        profile.product(
            format!("{name}.n qk"),
            blocks,
            [dim, 2 * dim],
            pixels,
            Act::None,
        );
        profile.product(format!("{name}.n v"), blocks, [dim, mid], pixels, Act::Gelu);
        attention(
            profile,
            format!("{name}.n attention"),
            blocks,
            [dim, mid],
            shape,
            heads,
        );
        let local = depthwise(mid, 1);
        let macs = 25 * mid * pixels;
        let len = shape.packed_len(mid);
        profile.row(
            format!("{name}.n local"),
            blocks,
            macs,
            |engine, input, output, _| {
                local.run(engine, &input[..len], shape, &mut output[..len]);
            },
        );
    }
    profile.product(
        format!("{name}.n project"),
        blocks,
        [mid, dim],
        pixels,
        Act::None,
    );
}

fn square(side: usize) -> Shape {
    Shape::new(side, side)
}

fn depthwise(channels: usize, stride: usize) -> Depthwise {
    Depthwise {
        channels,
        kernel: 5,
        stride,
        padding: 2,
        act: Act::Silu,
        skip: stride == 1,
        weight: 0,
        bias: 0,
    }
}

fn layer_norm(profile: &mut Profile, name: String, count: usize, channels: usize, shape: Shape) {
    let norm = LayerNorm {
        channels,
        eps: 1e-6,
        weight: None,
        bias: None,
    };
    let len = shape.packed_len(channels);
    profile.row(name, count, 0, |engine, input, output, _| {
        norm.run(engine, &input[..len], shape, &mut output[..len], shape);
    });
}

fn expansion(
    profile: &mut Profile,
    name: String,
    count: usize,
    [inputs, outputs]: [usize; 2],
    shape: Shape,
    stride: usize,
) {
    let expand = Pointwise {
        inputs,
        outputs,
        act: Act::Silu,
        weight: 0,
        bias: 0,
    };
    let local = depthwise(outputs, stride);
    let layer = Expansion { expand, local };
    let out = local.output_shape(shape);
    let macs = inputs * outputs * shape.pixels() + 25 * outputs * out.pixels();
    let (from, to) = (shape.packed_len(inputs), out.packed_len(outputs));
    profile.row(name, count, macs, |engine, input, output, scratch| {
        layer.run(engine, &input[..from], shape, &mut output[..to], scratch);
    });
}

fn attention(
    profile: &mut Profile,
    name: String,
    count: usize,
    [dim, mid]: [usize; 2],
    shape: Shape,
    heads: usize,
) {
    let both: &[Grouping] = &[Grouping::Close, Grouping::Remote];
    let one_window = shape.height <= 7;
    let layer = Attention {
        heads,
        dim_qk: dim / heads,
        dim_v: mid / heads,
        window: [7, 7],
        groupings: if one_window { &both[..1] } else { both },
        factor: 1.0,
    };
    let macs = 49 * shape.pixels() * (dim + mid) * layer.groupings.len();
    let (qk, v) = (shape.packed_len(2 * dim), shape.packed_len(mid));
    profile.row(name, count, macs, |engine, input, output, scratch| {
        layer.run(
            engine,
            &input[..qk],
            &input[..v],
            shape,
            &mut output[..v],
            scratch,
        );
    });
}

fn main() {
    let wanted = std::env::args().nth(1);
    let isa = wanted.map_or(Some(Isa::best()), |name| Isa::named(&name));
    let isa = isa.expect("an instruction set of this CPU");
    let threads = Threads::new(1);
    let weights = vec![0.01; 2_000_000];
    let engine = Engine {
        isa,
        threads: &threads,
        weights: &weights,
    };
    let mut profile = Profile {
        engine,
        peak: peak(&engine),
        input: vec![0.5; 2_000_000],
        output: vec![0.5; 2_000_000],
        scratch: vec![0.0; 1_000_000],
        seconds: 0.0,
        macs: 0.0,
    };
    println!("{}, {:.1} GMAC/s", isa.name(), profile.peak / 1e9);
    let picture = square(224);
    let (act, weight, bias) = (Act::Silu, 0, 0);
    let stem = Stem {
        outputs: 24,
        act,
        weight,
        bias,
    };
    let half = Stem::output_shape(picture);
    let macs = half.pixels() * 24 * 27;
    profile.row("stage0.0".into(), 1, macs, |engine, input, output, _| {
        let (from, to) = (3 * picture.pixels(), half.packed_len(24));
        stem.run(engine, &input[..from], picture, &mut output[..to]);
    });
    let local = Depthwise {
        kernel: 3,
        padding: 1,
        skip: false,
        ..depthwise(24, 1)
    };
    profile.row(
        "stage0.1".into(),
        1,
        half.pixels() * 24 * 9,
        |engine, input, output, _| {
            let len = half.packed_len(24);
            local.run(engine, &input[..len], half, &mut output[..len]);
        },
    );
    for stage in &STAGES {
        first_block(&mut profile, stage);
        other_blocks(&mut profile, stage);
    }
    layer_norm(&mut profile, "norm".into(), 1, 288, square(7));
    profile.row("pool".into(), 1, 0, |engine, input, output, _| {
        let len = square(7).packed_len(288);
        average_pool(engine, &input[..len], square(7), &mut output[..288]);
    });
    profile.product("head".into(), 1, [288, 1000], 1, Act::None);
    println!(
        "{:.2} ms, {:.0} % of peak",
        1e3 * profile.seconds,
        100.0 * profile.macs / profile.seconds / profile.peak
    );
}
