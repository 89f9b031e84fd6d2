//! Tests of `cpu/expand.rs`.

use emoc_kernels::{
    cpu::{Act, Depthwise, Expansion, Pointwise, Shape},
    pack::{self, Channels},
};

use crate::support::{self, Blob};

/// Float32 against float64 over at most 72 products, then 25.
const TOLERANCE: f32 = 3e-6;

/// A map of `inputs` channels, expanded to `mid` with SiLU and filtered.
fn check([inputs, mid]: [usize; 2], [height, width]: [usize; 2], kernel: usize, stride: usize) {
    let skip = stride == 1;
    let padding = (kernel - stride).div_ceil(2);
    let (h, w) = (
        (height + 2 * padding - kernel) / stride + 1,
        (width + 2 * padding - kernel) / stride + 1,
    );
    let sum = match skip {
        true => {
            format!("  %sum = add(%local, %expand) : f32[1, {mid}, {h}, {w}]\n  return out = %sum")
        }
        false => "  return out = %local".to_owned(),
    };
    let graph = support::graph(&format!(
        "graph expansion {{
  %input = input : f32[1, {inputs}, {height}, {width}]
  %expand = conv2d(%input) [weight, bias] act=silu : f32[1, {mid}, {height}, {width}]
  %local = conv2d(%expand) [weight, bias] stride={stride} padding={padding} groups={mid} act=silu : f32[1, {mid}, {h}, {w}]
{sum}
}}
weights {{
  @expand.weight : f32[{mid}, {inputs}, 1, 1]
  @expand.bias : f32[{mid}]
  @local.weight : f32[{mid}, 1, {kernel}, {kernel}]
  @local.bias : f32[{mid}]
}}"
    ));
    let shape = Shape::new(height, width);
    let dims = [1, inputs, height, width];
    let input = support::input(dims);
    let expected = support::expected(&graph, dims, &input);

    let mut blob = Blob::default();
    let channels = Channels::plain(mid);
    let weight = |key: &str| support::weight(&graph, key);
    let layer = Expansion {
        expand: Pointwise {
            inputs,
            outputs: mid,
            act: Act::Silu,
            weight: blob.push(pack::pointwise(
                &weight("expand.weight"),
                channels,
                Channels::plain(inputs),
            )),
            bias: blob.push(pack::vector(&weight("expand.bias"), channels)),
        },
        local: Depthwise {
            channels: mid,
            kernel,
            stride,
            padding,
            act: Act::Silu,
            skip,
            weight: blob.push(pack::filters(&weight("local.weight"), channels)),
            bias: blob.push(pack::vector(&weight("local.bias"), channels)),
        },
    };
    let map = support::packed(&input, inputs);
    let name =
        format!("{inputs} -> {mid} channels, {height}x{width}, {kernel}x{kernel} by {stride}");
    support::check(&name, &blob.0, &expected, TOLERANCE, |engine| {
        let out = layer.local.output_shape(shape);
        assert_eq!(out, Shape::new(h, w), "{name}");
        let mut output = vec![f32::NAN; out.packed_len(mid)];
        let mut scratch = vec![f32::NAN; engine.threads.count() * layer.scratch_len(shape)];
        layer.run(engine, &map, shape, &mut output, &mut scratch);
        support::planes(&output, mid, out)
    });
}

#[test]
fn strides_and_kernels() {
    for (kernel, stride) in [(3, 1), (3, 2), (5, 1), (5, 2)] {
        check([8, 20], [9, 13], kernel, stride);
        check([20, 48], [14, 14], kernel, stride);
    }
}

#[test]
fn maps_smaller_than_the_filter() {
    for size in [[1, 1], [2, 1], [1, 3], [4, 2]] {
        check([5, 17], size, 5, 1);
        check([5, 17], size, 5, 2);
    }
}

#[test]
fn maps_larger_than_the_buffer() {
    check([8, 33], [60, 57], 5, 1);
    check([8, 33], [61, 112], 5, 2);
    check([3, 16], [20, 700], 5, 1);
    check([3, 16], [9, 1500], 3, 2);
}

#[test]
fn maps_shared_out_by_rows() {
    for (kernel, stride) in [(3, 2), (5, 1), (5, 2), (7, 1)] {
        check([6, 50], [37 * stride + 1, 11], kernel, stride);
    }
}
