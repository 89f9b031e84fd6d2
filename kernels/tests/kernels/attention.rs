//! Tests of `cpu/attention/`.

use emoc_ir::{Graph, Weight};
use emoc_kernels::{
    cpu::{Attention, Engine, Grouping, Isa, Shape, Threads},
    pack::Channels,
};

use crate::support;

/// Float32 against float64, through two products and an exponential; and the pixels that complete
/// a window are equal, so the sum over `tokens` of them is rounded in one direction.
fn tolerance(tokens: usize) -> f32 {
    3e-6 + tokens as f32 * f32::EPSILON / 2.0
}

const CLOSE: &[Grouping] = &[Grouping::Close];
const REMOTE: &[Grouping] = &[Grouping::Remote];
const HYBRID: &[Grouping] = &[Grouping::Remote, Grouping::Close];

/// The attentions by their names in the text form: groupings and factor.
const ATTENTIONS: [(&str, &[Grouping], f32); 4] = [
    ("close", CLOSE, 1.0),
    ("remote", REMOTE, 1.0),
    ("hybrid", HYBRID, 1.0),
    ("close_twice", CLOSE, 2.0),
];

/// A layer whose heads of v are not padded yet.
fn layer(attention: &str, [heads, dim_qk, dim_v]: [usize; 3], window: [usize; 2]) -> Attention {
    let row = ATTENTIONS.iter().find(|(name, ..)| *name == attention);
    let &(_, groupings, factor) = row.expect("an attention");
    Attention {
        heads,
        dim_qk,
        dim_v,
        window,
        groupings,
        factor,
    }
}

/// The attention as an op whose projections pick channels of the input and add biases: q and k
/// are its first channels, v the others.
fn graph(attention: &str, layer: &Attention, [height, width]: [usize; 2]) -> Graph {
    let (qk, v) = (2 * layer.heads * layer.dim_qk, layer.heads * layer.dim_v);
    let (inputs, heads, [wh, ww]) = (qk + v, layer.heads, layer.window);
    let mut graph = support::graph(&format!(
        "graph attention {{
  %input = input : f32[1, {inputs}, {height}, {width}]
  %a = window_attention(%input) [qk.weight, qk.bias, v.weight, v.bias] attention={attention} window={wh}x{ww} heads={heads} : f32[1, {v}, {height}, {width}]
  return out = %a
}}
weights {{
  @a.qk.weight : f32[{qk}, {inputs}, 1, 1]
  @a.qk.bias : f32[{qk}]
  @a.v.weight : f32[{v}, {inputs}, 1, 1]
  @a.v.bias : f32[{v}]
}}"
    ));
    for (key, first, outputs) in [("a.qk.weight", 0, qk), ("a.v.weight", qk, v)] {
        let mut pick = vec![0.0; outputs * inputs];
        for output in 0..outputs {
            pick[output * inputs + first + output] = 1.0;
        }
        let weight = Weight::owned(&[outputs, inputs, 1, 1], pick);
        graph.weights.insert(key, weight);
    }
    graph
}

/// Planes grown by zeros to the padded map, and biases added: what the projections give.
fn projected(planes: &[f32], biases: &[f32], shape: Shape, padded: Shape) -> Vec<f32> {
    let mut map = Vec::new();
    for (plane, bias) in planes.chunks_exact(shape.pixels()).zip(biases) {
        for pixel in 0..padded.pixels() {
            let (row, column) = (pixel / padded.width, pixel % padded.width);
            let inside = row < shape.height && column < shape.width;
            let index = row * shape.width + column;
            map.push(bias + if inside { plane[index] } else { 0.0 });
        }
    }
    map
}

/// Runs the layer on packed q, k and on v, whose heads it pads, and returns planes.
fn run(engine: &Engine, layer: &Attention, qk: &[f32], v: &[f32], shape: Shape) -> Vec<f32> {
    let channels = Channels::heads(layer.heads, layer.dim_v);
    let layer = Attention {
        dim_v: channels.padded,
        ..*layer
    };
    let qk = support::packed(qk, 2 * layer.heads * layer.dim_qk);
    let v = support::spread(v, channels);
    let mut output = vec![f32::NAN; shape.packed_len(channels.packed())];
    let mut scratch = vec![f32::NAN; engine.threads.count() * layer.scratch_len()];
    layer.run(engine, &qk, &v, shape, &mut output, &mut scratch);
    let planes = support::planes(&output, channels.packed(), shape);
    let planes = planes.chunks_exact(shape.pixels()).enumerate();
    let (kept, padding): (Vec<_>, _) =
        planes.partition(|(channel, _)| channel % channels.padded < channels.group);
    let padding: Vec<_> = padding;
    assert!(
        padding
            .iter()
            .all(|(_, plane)| plane.iter().all(|&x| x == 0.0)),
        "the padding of heads is zero"
    );
    kept.into_iter()
        .flat_map(|(_, plane)| plane.to_vec())
        .collect()
}

fn check(attention: &str, heads: [usize; 3], [height, width]: [usize; 2], window: [usize; 2]) {
    let layer = layer(attention, heads, window);
    let graph = graph(attention, &layer, [height, width]);
    let qk = 2 * layer.heads * layer.dim_qk;
    let dims = [1, qk + layer.heads * layer.dim_v, height, width];
    let input = support::input(dims);
    let expected = support::expected(&graph, dims, &input);

    let shape = Shape::new(height, width);
    let padded = layer.padded(shape);
    let (for_qk, for_v) = input.split_at(qk * shape.pixels());
    let bias = |key| support::weight(&graph, key);
    let qk = projected(for_qk, &bias("a.qk.bias"), shape, padded);
    let v = projected(for_v, &bias("a.v.bias"), shape, padded);
    let name = format!("{attention}, heads {heads:?}, {height}x{width} in {window:?}");
    support::check(
        &name,
        &[],
        &expected,
        tolerance(window[0] * window[1]),
        |engine| run(engine, &layer, &qk, &v, shape),
    );
}

#[test]
fn groupings_of_every_variant() {
    for attention in ["close", "remote", "hybrid"] {
        check(attention, [1, 8, 16], [4, 6], [2, 3]);
        check(attention, [5, 32, 128], [14, 14], [7, 7]);
        check(attention, [3, 20, 60], [16, 16], [8, 8]);
    }
    check("close_twice", [9, 32, 128], [7, 7], [7, 7]);
}

#[test]
fn heads_across_panels() {
    for heads in [
        [1, 6, 12],
        [3, 6, 12],
        [1, 20, 16],
        [3, 8, 60],
        [4, 20, 70],
        [2, 33, 16],
        [9, 32, 128],
    ] {
        check("hybrid", heads, [6, 6], [3, 3]);
    }
}

#[test]
fn maps_that_are_padded() {
    for size in [[10, 9], [1, 1], [5, 8], [4, 13]] {
        check("hybrid", [3, 8, 12], size, [4, 4]);
    }
    check("remote", [2, 20, 16], [15, 13], [7, 7]);
    check("close_twice", [2, 20, 16], [9, 7], [10, 10]);
}

#[test]
fn windows_of_every_size() {
    for window in [
        [1, 1],
        [1, 3],
        [4, 4],
        [3, 11],
        [5, 13],
        [8, 8],
        [10, 10],
        [7, 19],
        [14, 14],
    ] {
        let [height, width] = window;
        check("close", [2, 20, 32], window, window);
        check("hybrid", [1, 8, 80], [2 * height, 2 * width], window);
        check("hybrid", [1, 6, 16], [height + 1, width], window);
    }
}

#[test]
fn one_large_window() {
    check("close_twice", [1, 8, 16], [33, 31], [33, 31]);
}

/// One window of nine pixels with two channels of q, two of k and sixteen of v, which are all 1
/// but for what is spoilt, on every instruction set.
fn small(qk: [f32; 4], spoilt: impl Fn(&mut [f32], &mut [f32])) -> Vec<Vec<f32>> {
    let layer = layer("close", [1, 2, 16], [3, 3]);
    let mut qk: Vec<_> = qk.iter().flat_map(|&x| [x; 9]).collect();
    let mut v = vec![1.0; 16 * 9];
    spoilt(&mut qk, &mut v);
    let threads = Threads::new(1);
    let engine = |&isa: &Isa| Engine {
        isa,
        threads: &threads,
        weights: &[],
    };
    let engines = Isa::available().iter().map(engine);
    engines
        .map(|engine| run(&engine, &layer, &qk, &v, Shape::new(3, 3)))
        .collect()
}

#[test]
fn scores_of_any_size() {
    // Scores of 4e6, but one key's are 8e6: it takes everything.
    let outputs = small([2e3, 0.0, 2e3, 0.0], |qk, v| {
        qk[2 * 9 + 4] = 4e3;
        v[4] = 5.0;
    });
    for output in outputs {
        assert_eq!(output[..9], [5.0; 9]);
        assert_eq!(output[9..], [1.0; 15 * 9]);
    }
    // All scores are -4e6: all keys weigh the same.
    for output in small([2e3, 0.0, -2e3, 0.0], |_, v| v[4] = 10.0) {
        assert_eq!(output[..9], [2.0; 9]);
        assert_eq!(output[9..], [1.0; 15 * 9]);
    }
}

#[test]
fn nan_stays() {
    // In one query: its pixel. In one key: every query. In one value: its channel.
    for (at, expected) in [(3, 16), (2 * 9 + 3, 16 * 9), (4 * 9 + 3, 9)] {
        let outputs = small([1.0; 4], |qk, v| {
            *qk.iter_mut().chain(v).nth(at).expect("a value") = f32::NAN;
        });
        for output in outputs {
            let spoilt = output.iter().filter(|x| x.is_nan()).count();
            assert_eq!(spoilt, expected, "NaN in value {at}: {output:?}");
        }
    }
}
