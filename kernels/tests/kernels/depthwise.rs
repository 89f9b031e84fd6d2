//! Depthwise convolutions of every size and stride, near every edge.

use emoc_kernels::{
    cpu::{Act, Depthwise, Shape},
    pack,
};

use crate::support::{Blob, check, expected, graph, input, packed, planes, weight};

/// Channels, `[height, width]`, kernel, stride, padding, activation, skip.
type Case = (usize, [usize; 2], usize, usize, usize, Act, bool);

fn case((channels, [height, width], kernel, stride, padding, act, skip): Case) {
    let shape = Shape::new(height, width);
    let mut layer = Depthwise {
        channels,
        kernel,
        stride,
        padding,
        act,
        skip,
        weight: 0,
        bias: 0,
    };
    let result = layer.output_shape(shape);
    let ty = format!("f32[N, {channels}, {}, {}]", result.height, result.width);
    let act = match act {
        Act::None => "none",
        Act::Silu => "silu",
        Act::Gelu => "gelu",
    };
    let (sum, name) = match skip {
        true => (format!("%s = add(%c, %x) : {ty}"), "s"),
        false => (String::new(), "c"),
    };
    let graph = graph(&format!(
        "graph g {{
           %x = input : f32[N, {channels}, {height}, {width}]
           %c = conv2d(%x) [weight=@w, bias=@b] stride={stride} padding={padding} \
                  groups={channels} act={act} : {ty}
           {sum}
           return r = %{name}
         }}
         weights {{
           @b : f32[{channels}]
           @w : f32[{channels}, 1, {kernel}, {kernel}]
         }}"
    ));
    let dims = [1, channels, height, width];
    let x = input(dims);
    let mut blob = Blob::default();
    let plain = pack::Channels::plain(channels);
    layer.weight = blob.push(pack::filters(&weight(&graph, "w"), plain));
    layer.bias = blob.push(pack::vector(&weight(&graph, "b"), plain));
    let map = packed(&x, channels);
    check(
        &format!("{layer:?} on {shape:?}"),
        &blob.0,
        &expected(&graph, dims, &x),
        2e-6,
        |engine| {
            let mut output = vec![f32::NAN; result.packed_len(channels)];
            layer.run(engine, &map, shape, &mut output);
            let planes = planes(&output, channels, result);
            // Whatever the map holds besides its channels must be zeros.
            assert_eq!(packed(&planes, channels), output, "{layer:?}: padding");
            planes
        },
    );
}

#[test]
fn every_kernel_stride_and_padding() {
    for kernel in [3, 5, 7] {
        for stride in [1, 2] {
            for padding in 0..kernel {
                case((17, [9, 15], kernel, stride, padding, Act::None, false));
            }
        }
    }
}

#[test]
fn every_width_of_a_tile_and_its_neighbours() {
    for width in 1..=24 {
        for stride in [1, 2] {
            case((8, [3, width], 5, stride, 2, Act::None, false));
            case((8, [width, 2], 3, stride, 1, Act::None, false));
        }
    }
}

#[test]
fn maps_of_the_network() {
    for (channels, side, stride, act) in [
        (24, 33, 1, Act::Silu),
        (40, 28, 2, Act::Silu),
        (216, 28, 1, Act::Silu),
        (48, 14, 1, Act::Gelu),
        (32, 7, 1, Act::Silu),
    ] {
        let skip = stride == 1;
        case((channels, [side, side], 5, stride, 2, act, skip));
    }
}

#[test]
fn maps_smaller_than_the_filter() {
    case((16, [1, 1], 3, 1, 1, Act::Silu, true));
    case((16, [1, 1], 7, 2, 3, Act::None, false));
    case((5, [2, 1], 5, 1, 4, Act::None, false));
    case((5, [1, 2], 7, 1, 6, Act::Gelu, false));
}

#[test]
fn no_room_for_a_filter_is_an_empty_result() {
    let layer = Depthwise {
        channels: 1,
        kernel: 5,
        stride: 2,
        padding: 1,
        act: Act::None,
        skip: false,
        weight: 0,
        bias: 0,
    };
    assert_eq!(layer.output_shape(Shape::new(2, 3)), Shape::new(0, 1));
}
