//! Tests of `cpu/layer_norm.rs`.

use emoc_kernels::{
    cpu::{Act, Engine, Isa, LANES, LayerNorm, LocalNorm, Shape, Threads, panels},
    pack::{self, Channels},
};

use crate::support::{self, Blob};

/// A few units in the last place.
const TOLERANCE: f32 = 5e-7;

const EPS: f32 = 1e-6;

/// What is normalised.
struct Case {
    channels: usize,
    size: [usize; 2],
    /// Rows and pixels of a row after it.
    padding: [usize; 2],
    /// With weight and bias.
    affine: bool,
    /// The input has this mean and about this deviation.
    mean: f32,
    deviation: f32,
}

const PLAIN: Case = Case {
    channels: 40,
    size: [7, 9],
    padding: [0, 0],
    affine: false,
    mean: 0.0,
    deviation: 1.0,
};

fn check(case: &Case) {
    let Case {
        channels,
        size: [height, width],
        padding: [bottom, right],
        ..
    } = *case;
    let (shape, padded) = (
        Shape::new(height, width),
        Shape::new(height + bottom, width + right),
    );
    let (weights, keys) = match case.affine {
        true => (
            " [weight, bias]",
            format!("  @norm.weight : f32[{channels}]\n  @norm.bias : f32[{channels}]\n"),
        ),
        false => ("", String::new()),
    };
    let (pad, result) = match [bottom, right] {
        [0, 0] => (String::new(), "norm"),
        _ => (
            format!(
                "  %pad = pad(%norm) bottom={bottom} right={right} : f32[1, {channels}, {}, {}]\n",
                padded.height, padded.width
            ),
            "pad",
        ),
    };
    let graph = support::graph(&format!(
        "graph layer_norm {{
  %input = input : f32[1, {channels}, {height}, {width}]
  %norm = layer_norm(%input){weights} eps=1e-6 : f32[1, {channels}, {height}, {width}]
{pad}  return out = %{result}
}}
weights {{
{keys}}}"
    ));
    let dims = [1, channels, height, width];
    let input: Vec<_> = support::input(dims)
        .iter()
        .map(|x| case.mean + case.deviation * x)
        .collect();
    let expected = support::expected(&graph, dims, &input);

    let mut blob = Blob::default();
    let mut parameter = |key: &str| {
        let values = support::weight(&graph, key);
        blob.push(pack::vector(&values, Channels::plain(channels)))
    };
    let layer = LayerNorm {
        channels,
        eps: EPS,
        weight: case.affine.then(|| parameter("norm.weight")),
        bias: case.affine.then(|| parameter("norm.bias")),
    };
    let map = support::packed(&input, channels);
    let name = format!(
        "{channels} channels, {height}x{width} + {bottom}x{right}, mean {}, deviation {}, affine {}",
        case.mean, case.deviation, case.affine
    );
    support::check(&name, &blob.0, &expected, TOLERANCE, |engine| {
        let mut output = vec![f32::NAN; padded.packed_len(channels)];
        layer.run(engine, &map, shape, &mut output, padded);
        let last = (panels(channels) - 1) * padded.pixels();
        for (index, pixel) in output.chunks_exact(LANES).enumerate().skip(last) {
            let unused = &pixel[channels - (panels(channels) - 1) * LANES..];
            assert!(
                unused.iter().all(|&x| x == 0.0),
                "{name}: lanes beyond the channels of pixel {}",
                index - last
            );
        }
        support::planes(&output, channels, padded)
    });
}

#[test]
fn channels_of_every_tail() {
    for channels in [1, 2, 15, 16, 17, 31, 32, 33, 72, 160, 288, 512] {
        for affine in [false, true] {
            check(&Case {
                channels,
                affine,
                ..PLAIN
            });
        }
    }
}

#[test]
fn pixels_of_every_tail() {
    for width in [1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 200] {
        check(&Case {
            size: [1, width],
            ..PLAIN
        });
    }
}

#[test]
fn padding_is_zero() {
    for padding in [[1, 0], [0, 1], [3, 2], [6, 20]] {
        for affine in [false, true] {
            check(&Case {
                padding,
                affine,
                ..PLAIN
            });
        }
    }
}

/// Where the mean is much larger than the deviations, float32 alone would leave few digits.
#[test]
fn large_means_and_small_variances() {
    for mean in [-1e4, -30.0, 0.0, 7.0, 1e6] {
        for deviation in [0.0, 1e-6, 1e-3, 0.03, 100.0] {
            check(&Case {
                mean,
                deviation,
                ..PLAIN
            });
        }
    }
}

/// Not a number stays in its pixel.
#[test]
fn nan_stays_in_its_pixel() {
    let shape = Shape::new(3, 5);
    let mut map = vec![1.0; shape.packed_len(16)];
    map[7 * LANES + 3] = f32::NAN;
    let layer = LayerNorm {
        channels: 16,
        eps: EPS,
        weight: None,
        bias: None,
    };
    for &isa in Isa::available() {
        let engine = Engine {
            isa,
            threads: &Threads::new(1),
            weights: &[],
        };
        let mut output = vec![2.0; map.len()];
        layer.run(&engine, &map, shape, &mut output, shape);
        for (pixel, values) in output.chunks_exact(LANES).enumerate() {
            let right = |x: &f32| if pixel == 7 { x.is_nan() } else { *x == 0.0 };
            assert!(
                values.iter().all(right),
                "{}: pixel {pixel} is {values:?}",
                isa.name()
            );
        }
    }
}

/// `heads` heads of `size` channels each, normalised together, activated, and added to the input
/// if they `skip`.
fn check_local(heads: usize, size: usize, [height, width]: [usize; 2], act: Act, skip: bool) {
    let count = heads * size;
    let ty = format!("f32[1, {count}, {height}, {width}]");
    let (activated, act_node) = match act {
        Act::None => ("norm", String::new()),
        Act::Silu => ("act", format!("  %act = silu(%norm) : {ty}\n")),
        Act::Gelu => ("act", format!("  %act = gelu(%norm) : {ty}\n")),
    };
    let (result, sum) = match skip {
        true => (
            "sum",
            format!("  %sum = add(%{activated}, %input) : {ty}\n"),
        ),
        false => (activated, String::new()),
    };
    let graph = support::graph(&format!(
        "graph local_norm {{
  %input = input : {ty}
  %norm = layer_norm(%input) [weight, bias] eps=1e-6 : {ty}
{act_node}{sum}  return out = %{result}
}}
weights {{
  @norm.weight : f32[{count}]
  @norm.bias : f32[{count}]
}}"
    ));
    let dims = [1, count, height, width];
    let input = support::input(dims);
    let expected = support::expected(&graph, dims, &input);

    let channels = match heads {
        1 => Channels::plain(size),
        _ => Channels::heads(heads, size),
    };
    let mut blob = Blob::default();
    let mut parameter = |key: &str| {
        let values = support::weight(&graph, key);
        Some(blob.push(pack::vector(&values, channels)))
    };
    let layer = LocalNorm {
        norm: LayerNorm {
            channels: size,
            eps: EPS,
            weight: parameter("norm.weight"),
            bias: parameter("norm.bias"),
        },
        heads,
        act,
    };
    let map = support::spread(&input, channels);
    let expected = support::spread(&expected, channels);
    let name = format!("{heads} heads of {size}, {height}x{width}, {act:?}, skip {skip}");
    // Lanes between the heads are compared too: they must stay zero.
    support::check(&name, &blob.0, &expected, TOLERANCE, |engine| {
        let mut output = map.clone();
        let skip = skip.then_some(&*map);
        layer.run(engine, &mut output, Shape::new(height, width), skip);
        output
    });
}

#[test]
fn norms_inside_of_blocks() {
    for (heads, size) in [
        (1, 5),
        (1, 16),
        (1, 216),
        (2, 16),
        (3, 12),
        (4, 21),
        (5, 60),
    ] {
        for skip in [false, true] {
            check_local(heads, size, [5, 13], Act::Gelu, skip);
        }
    }
    for width in [1, 15, 16, 17, 200] {
        check_local(2, 20, [1, width], Act::Silu, true);
    }
    check_local(2, 20, [3, 3], Act::None, false);
}
