//! For emoc's own check: reads pictures (float32, little-endian) from one file, writes all
//! outputs to another, and prints how long `--runs` more runs of the first picture took.

use @{module} as network;

use std::{env, fs, time::Instant};

use network::{ARENA_BYTES, INPUT_LEN, Input, Model, Workspace};

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let [_, input, output, _, runs] = &arguments[..] else {
        panic!("usage: emoc_check INPUT OUTPUT --runs N");
    };
    let bytes = fs::read(input).expect("an input");
    let values: Vec<f32> = bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    let pictures: Vec<&Input> = values
        .chunks_exact(INPUT_LEN)
        .map(|picture| picture.try_into().expect("a picture"))
        .collect();
    let model = Model::new();
    let mut workspace = Workspace::new(&model);
    let mut outputs = Vec::new();
    for picture in &pictures {
        let result = model.infer_with(&mut workspace, picture);
        outputs.extend(result.values().flat_map(f32::to_le_bytes));
    }
    fs::write(output, outputs).expect("an output");
    let runs: usize = runs.parse().expect("a number");
    let time = |_| {
        let start = Instant::now();
        model.infer_with(&mut workspace, pictures[0]);
        (1e3 * start.elapsed().as_secs_f64()).to_string()
    };
    let times: Vec<String> = (0..runs).map(time).collect();
    println!(
        r#"{{"isa":"{}","threads":{},"arena_bytes":{ARENA_BYTES},"times_ms":[{}]}}"#,
        model.isa(),
        model.threads(),
        times.join(",")
    );
}
