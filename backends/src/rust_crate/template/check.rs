//! For emoc's own check and measurements. With an output file: reads pictures (float32,
//! little-endian) from one file, writes all outputs to another, and prints how long `--runs` more
//! runs of the first picture took. With `--serve`: runs the picture as often as each line of the
//! standard input says, and answers with the times.

use @{module} as network;

use std::{env, fs, io, time::Instant};

use network::{ARENA_BYTES, INPUT_LEN, Input, Model, Workspace};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [input, output, "--runs", runs] => check(&read(input), output, number(runs)),
        [input, "--serve"] => serve(&read(input)),
        _ => panic!("usage: emoc_check INPUT (OUTPUT --runs N | --serve)"),
    }
}

fn read(file: &str) -> Vec<f32> {
    let bytes = fs::read(file).expect("an input");
    let values = bytes.chunks_exact(4);
    values
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

fn number(text: &str) -> usize {
    text.trim().parse().expect("a number")
}

fn picture(values: &[f32]) -> &Input {
    values.try_into().expect("a picture")
}

fn check(values: &[f32], output: &str, runs: usize) {
    let pictures: Vec<&Input> = values.chunks_exact(INPUT_LEN).map(picture).collect();
    let model = Model::new();
    let mut workspace = Workspace::new(&model);
    let mut outputs = Vec::new();
    for picture in &pictures {
        let result = model.infer_with(&mut workspace, picture);
        outputs.extend(result.values().flat_map(f32::to_le_bytes));
    }
    fs::write(output, outputs).expect("an output");
    let times = times(&model, &mut workspace, pictures[0], runs);
    println!(
        r#"{{"isa":"{}","threads":{},"arena_bytes":{ARENA_BYTES},"times_ms":[{times}]}}"#,
        model.isa(),
        model.threads(),
    );
}

fn serve(values: &[f32]) {
    let picture = picture(&values[..INPUT_LEN]);
    let model = Model::new();
    let mut workspace = Workspace::new(&model);
    model.infer_with(&mut workspace, picture);
    let (isa, threads) = (model.isa(), model.threads());
    println!(r#"{{"isa":"{isa}","threads":{threads}}}"#);
    for line in io::stdin().lines() {
        let runs = number(&line.expect("a line"));
        let times = times(&model, &mut workspace, picture, runs);
        println!(r#"{{"times_ms":[{times}]}}"#);
    }
}

/// Milliseconds, with commas between.
fn times(model: &Model, workspace: &mut Workspace, picture: &Input, runs: usize) -> String {
    let time = |_| {
        let start = Instant::now();
        model.infer_with(workspace, picture);
        (1e3 * start.elapsed().as_secs_f64()).to_string()
    };
    (0..runs).map(time).collect::<Vec<_>>().join(",")
}
