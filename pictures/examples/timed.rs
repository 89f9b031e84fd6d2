//! The worker of `scripts/bench-preprocess`: reads a picture, then for every line `WORK TIMES` on
//! its input does the work that many times and answers. The script reads its CPU time meanwhile.

#![allow(clippy::print_stdout, reason = "the answers")]

use std::{hint::black_box, io::BufRead, path::Path};

use emoc_preprocess::Transform;

fn main() {
    let path = std::env::args().nth(1).expect("a picture");
    let bytes = std::fs::read(Path::new(&path)).expect("a file");
    let decoded = emoc_pictures::decode(&bytes).expect("a picture");
    let picture = decoded.picture().expect("a picture");
    let transform = Transform::new(224, 224).expect("a size");
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line");
        let (work, times) = line.split_once(' ').expect("work and times");
        for _ in 0..times.parse().expect("a number") {
            match work {
                "crop" => drop(black_box(transform.crop(black_box(&picture)))),
                "apply" => drop(black_box(transform.apply(black_box(&picture)))),
                "decode" => drop(black_box(emoc_pictures::decode(black_box(&bytes)))),
                other => panic!("{other}: no such work"),
            }
        }
        println!("done");
    }
}
