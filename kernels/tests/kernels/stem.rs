//! The first convolution on pictures of every size near its tiles.

use emoc_kernels::{
    cpu::{Act, Shape, Stem},
    pack,
};

use crate::support::{Blob, check, expected, graph, input, packed, planes, weight};

fn case(outputs: usize, [height, width]: [usize; 2], act: Act) {
    let shape = Shape::new(height, width);
    let result = Stem::output_shape(shape);
    let name = match act {
        Act::None => "none",
        Act::Silu => "silu",
        Act::Gelu => "gelu",
    };
    let graph = graph(&format!(
        "graph g {{
           %x = input : f32[N, 3, {height}, {width}]
           %c = conv2d(%x) [weight=@w, bias=@b] stride=2 padding=1 act={name} \
                  : f32[N, {outputs}, {}, {}]
           return r = %c
         }}
         weights {{
           @b : f32[{outputs}]
           @w : f32[{outputs}, 3, 3, 3]
         }}",
        result.height, result.width
    ));
    let dims = [1, 3, height, width];
    let x = input(dims);
    let plain = pack::Channels::plain(outputs);
    let mut blob = Blob::default();
    let layer = Stem {
        outputs,
        act,
        weight: blob.push(pack::filters(&weight(&graph, "w"), plain)),
        bias: blob.push(pack::vector(&weight(&graph, "b"), plain)),
    };
    let name = format!("{outputs} channels of {height}x{width}");
    let expected = expected(&graph, dims, &x);
    check(&name, &blob.0, &expected, 2e-6, |engine| {
        let mut output = vec![f32::NAN; result.packed_len(outputs)];
        layer.run(engine, &x, shape, &mut output);
        let planes = planes(&output, outputs, result);
        // Whatever the map holds besides its channels must be zeros.
        assert_eq!(packed(&planes, outputs), output, "{name}: padding");
        planes
    });
}

#[test]
fn every_width_of_a_tile_and_its_neighbours() {
    for width in 1..=64 {
        case(8, [3, width], Act::None);
    }
}

#[test]
fn every_height_of_a_task_and_its_neighbours() {
    for height in 1..=36 {
        case(20, [height, 5], Act::None);
    }
}

#[test]
fn channels_and_activations() {
    for outputs in [1, 12, 16, 24, 33] {
        case(outputs, [32, 33], Act::Silu);
    }
    case(24, [9, 70], Act::Gelu);
}
