//! Tests of `cpu/head.rs`.

use emoc_kernels::cpu::{LANES, Shape, average_pool, panels, unpack};

use crate::support;

/// Float32 against float64 over at most 3600 values.
const TOLERANCE: f32 = 5e-7;

/// The means of a map.
fn check(channels: usize, [height, width]: [usize; 2]) {
    let graph = support::graph(&format!(
        "graph pool {{
  %input = input : f32[1, {channels}, {height}, {width}]
  %pool = global_avg_pool(%input) : f32[1, {channels}]
  return out = %pool
}}
weights {{
}}"
    ));
    let dims = [1, channels, height, width];
    let input = support::input(dims);
    let expected = support::expected(&graph, dims, &input);
    let map = support::packed(&input, channels);
    let name = format!("{channels} channels, {height}x{width}");
    support::check(&name, &[], &expected, TOLERANCE, |engine| {
        let mut output = vec![f32::NAN; panels(channels) * LANES];
        average_pool(engine, &map, Shape::new(height, width), &mut output);
        let unused = output.split_off(channels);
        assert!(
            unused.iter().all(|&x| x == 0.0),
            "{name}: lanes beyond the channels"
        );
        output
    });
}

#[test]
fn means_of_every_size() {
    for size in [
        [1, 1],
        [1, 7],
        [2, 4],
        [3, 3],
        [7, 7],
        [8, 8],
        [10, 13],
        [60, 60],
    ] {
        check(33, size);
    }
    for channels in [1, 15, 16, 17, 64, 65, 288, 512] {
        check(channels, [7, 7]);
    }
}

/// Planes of packed maps, whose values say where they belong.
#[test]
fn planes_of_every_size() {
    for (channels, height, width) in [
        (1, 1, 1),
        (15, 3, 5),
        (16, 4, 4),
        (17, 1, 17),
        (40, 7, 9),
        (32, 0, 3),
        (0, 2, 2),
    ] {
        let pixels = height * width;
        let mut map = vec![f32::NAN; panels(channels) * pixels * LANES];
        for channel in 0..channels {
            for pixel in 0..pixels {
                map[(channel / LANES * pixels + pixel) * LANES + channel % LANES] =
                    (channel * pixels + pixel) as f32;
            }
        }
        let mut planes = vec![f32::NAN; channels * pixels];
        unpack(&map, channels, Shape::new(height, width), &mut planes);
        let expected: Vec<_> = (0..channels * pixels).map(|x| x as f32).collect();
        assert_eq!(planes, expected, "{channels} channels, {height}x{width}");
    }
}
