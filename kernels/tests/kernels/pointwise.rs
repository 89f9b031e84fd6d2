//! Tests of `cpu/pointwise.rs`.

use emoc_kernels::{
    cpu::{Act, LANES, Pointwise, Shape, panels},
    pack::{self, Channels},
};

use crate::support::{self, Blob};

/// Float32 against float64 over at most 300 products.
const TOLERANCE: f32 = 2e-6;

/// A 1x1 convolution of a `height x width` map from `inputs` to `outputs` channels, written and
/// added.
fn check(inputs: Channels, outputs: usize, height: usize, width: usize, act: Act) {
    let depth = inputs.count();
    let name = match act {
        Act::None => "none",
        Act::Silu => "silu",
        Act::Gelu => "gelu",
    };
    let attribute = if act == Act::None {
        String::new()
    } else {
        format!(" act={name}")
    };
    let graph = support::graph(&format!(
        "graph pointwise {{
  %input = input : f32[1, {depth}, {height}, {width}]
  %conv = conv2d(%input) [weight, bias]{attribute} : f32[1, {outputs}, {height}, {width}]
  return out = %conv
}}
weights {{
  @conv.weight : f32[{outputs}, {depth}, 1, 1]
  @conv.bias : f32[{outputs}]
}}"
    ));
    let shape = Shape::new(height, width);
    let dims = [1, depth, height, width];
    let input = support::input(dims);
    let expected = support::expected(&graph, dims, &input);

    let mut blob = Blob::default();
    let weight = support::weight(&graph, "conv.weight");
    let layer = Pointwise {
        inputs: inputs.packed(),
        outputs,
        act,
        weight: blob.push(pack::pointwise(&weight, Channels::plain(outputs), inputs)),
        bias: blob.push(pack::vector(
            &support::weight(&graph, "conv.bias"),
            Channels::plain(outputs),
        )),
    };
    let map = support::spread(&input, inputs);
    let name = format!("{depth} -> {outputs} channels, {height}x{width}, {name}");
    support::check(&name, &blob.0, &expected, TOLERANCE, |engine| {
        let mut output = vec![f32::NAN; panels(outputs) * shape.pixels() * LANES];
        layer.run(engine, &map, shape.pixels(), &mut output);
        let tail = output
            .iter()
            .skip(panels(outputs).saturating_sub(1) * shape.pixels() * LANES);
        let unused = tail
            .enumerate()
            .filter(|(i, _)| (panels(outputs) - 1) * LANES + i % LANES >= outputs);
        assert!(
            unused.map(|(_, x)| x).all(|&x| x == 0.0),
            "{name}: lanes beyond the channels"
        );
        support::planes(&output, outputs, shape)
    });
    if act == Act::None {
        let expected: Vec<_> = expected.iter().map(|x| x + 2.5).collect();
        support::check(
            &format!("{name}, added"),
            &blob.0,
            &expected,
            TOLERANCE,
            |engine| {
                let mut output = vec![2.5; panels(outputs) * shape.pixels() * LANES];
                layer.add(engine, &map, shape.pixels(), &mut output);
                support::planes(&output, outputs, shape)
            },
        );
    }
}

#[test]
fn every_tile_and_tail() {
    for pixels in [
        1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 27, 28, 49, 113, 226,
    ] {
        check(Channels::plain(20), 33, 1, pixels, Act::None);
    }
}

#[test]
fn depths_and_panels() {
    for (inputs, outputs) in [
        (1, 1),
        (15, 16),
        (16, 17),
        (17, 48),
        (24, 96),
        (72, 216),
        (300, 8),
    ] {
        check(Channels::plain(inputs), outputs, 3, 5, Act::Silu);
    }
}

#[test]
fn weights_that_leave_the_cache_are_walked_once() {
    check(Channels::plain(200), 300, 12, 20, Act::Gelu);
}

#[test]
fn few_tasks_are_cut_into_even_ones() {
    // Two panels a task: one to five tasks before.
    for (outputs, height) in [(32, 7), (64, 7), (144, 7), (144, 16), (16, 1)] {
        check(Channels::plain(640), outputs, height, 7, Act::None);
    }
}

#[test]
fn heads_are_padded() {
    check(Channels::heads(3, 12), 20, 4, 4, Act::None);
    check(Channels::heads(2, 20), 20, 4, 4, Act::Gelu);
}
