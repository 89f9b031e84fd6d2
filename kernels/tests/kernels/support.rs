//! One way to test every kernel: a one-node graph evaluated by the reference, and the kernel on
//! every instruction set of this machine and on one and three threads.

use emoc_ir::{
    Graph, parse,
    reference::{Precision, Tensor, evaluate},
    seeded,
};
use emoc_kernels::{
    cpu::{Engine, Isa, LANES, Shape, Threads, panels},
    pack::Channels,
};

/// A graph with seeded weights.
pub fn graph(emir: &str) -> Graph {
    let mut graph = parse(emir).unwrap_or_else(|error| panic!("{error}\n{emir}"));
    seeded::fill(&mut graph, 0);
    graph
        .verify()
        .unwrap_or_else(|error| panic!("{error}\n{emir}"))
        .into_inner()
}

/// Weights of the graph by key.
pub fn weight(graph: &Graph, key: &str) -> Vec<f32> {
    graph.weights.values(key).expect("a weight").to_vec()
}

/// A seeded input of this shape, `[1, C, H, W]`.
pub fn input(dims: [usize; 4]) -> Vec<f32> {
    seeded::values("input", &dims, 1)
}

/// What the graph makes of the input, by the reference evaluator.
pub fn expected(graph: &Graph, dims: [usize; 4], input: &[f32]) -> Vec<f32> {
    let inputs = [Tensor::from_f32(&dims, input)];
    let outputs = evaluate(graph, &inputs, Precision::F64).expect("an evaluation");
    outputs[0].to_f32()
}

/// Planes `[C][pixels]` as a packed map.
pub fn packed(planes: &[f32], channels: usize) -> Vec<f32> {
    spread(planes, Channels::plain(channels))
}

/// Planes `[C][pixels]` as a packed map with the channels where `channels` puts them.
pub fn spread(planes: &[f32], channels: Channels) -> Vec<f32> {
    let pixels = planes.len() / channels.count();
    let mut map = vec![0.0; panels(channels.packed()) * pixels * LANES];
    for (index, plane) in planes.chunks_exact(pixels).enumerate() {
        let channel = channels.position(index);
        for (pixel, &value) in plane.iter().enumerate() {
            map[(channel / LANES * pixels + pixel) * LANES + channel % LANES] = value;
        }
    }
    map
}

/// The first `channels` channels of a packed map, as planes.
pub fn planes(map: &[f32], channels: usize, shape: Shape) -> Vec<f32> {
    let mut planes = vec![0.0; channels * shape.pixels()];
    emoc_kernels::cpu::unpack(map, channels, shape, &mut planes);
    planes
}

/// Packed weights of a test, and where each part starts.
#[derive(Default)]
pub struct Blob(pub Vec<f32>);

impl Blob {
    /// Appends a part and returns its offset.
    pub fn push(&mut self, part: Vec<f32>) -> usize {
        // An odd start proves that no kernel relies on alignment.
        self.0.push(f32::NAN);
        let offset = self.0.len();
        self.0.extend(part);
        offset
    }
}

/// Runs `kernel` on every instruction set, on one and three threads, and compares what it
/// returns with `expected` (within `tolerance` x the largest expected value) and between the
/// numbers of threads (in every bit).
pub fn check(
    name: &str,
    weights: &[f32],
    expected: &[f32],
    tolerance: f32,
    kernel: impl Fn(&Engine) -> Vec<f32>,
) {
    let largest = expected
        .iter()
        .fold(1.0_f32, |largest, x| largest.max(x.abs()));
    for &isa in Isa::available() {
        let mut first: Option<Vec<f32>> = None;
        for count in [1, 3] {
            let threads = Threads::new(count);
            let threads = &threads;
            let actual = kernel(&Engine {
                isa,
                threads,
                weights,
            });
            let name = format!("{name}, {}, {count} threads", isa.name());
            assert_eq!(actual.len(), expected.len(), "{name}: number of values");
            for (index, (actual, expected)) in actual.iter().zip(expected).enumerate() {
                let difference = (actual - expected).abs();
                assert!(
                    difference <= tolerance * largest,
                    "{name}: value {index} is {actual}, expected {expected}"
                );
            }
            if let Some(first) = &first {
                let differs = first
                    .iter()
                    .zip(&actual)
                    .any(|(a, b)| a.to_bits() != b.to_bits());
                assert!(!differs, "{name}: other bits than with one thread");
            }
            first.get_or_insert(actual);
        }
    }
}
