#![allow(missing_docs, clippy::print_stdout)]
use emoc_backends::onnx::{Options, emit};
use emoc_frontend::emo2::{self, Geometry};
use emoc_ir::Dim;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let size: usize = a[2].parse().unwrap();
    let batch = if a[4] == "N" { Dim::Batch(1) } else { Dim::Fixed(a[4].parse().unwrap()) };
    let g = Geometry { input_size: [size, size], window: a[3].parse().unwrap(), batch };
    let m = emo2::seeded(emo2::variant(&a[1]).unwrap(), g, 0).unwrap();
    let t = std::time::Instant::now();
    let mut v = m.graph.verify().unwrap();
    if a.len() < 7 { v = emoc_passes::optimise(v, None, &mut |_, _, _| {}).unwrap(); }
    println!("passes {:?}", t.elapsed());
    let t = std::time::Instant::now();
    let b = emit(&v, &Options::default()).unwrap();
    println!("emit {:?}", t.elapsed());
    std::fs::write(&a[5], b).unwrap();
    std::fs::write(format!("{}.emir", a[5]), v.to_string()).unwrap();
}
