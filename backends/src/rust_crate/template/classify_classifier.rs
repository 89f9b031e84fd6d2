//! Prints the most likely classes of a picture.
//!
//!     cargo run --release --example classify [PICTURE.ppm]
//!
//! PPM (binary, 8 bits) is read because it needs no library: `magick picture.jpg picture.ppm`.
//! Without an argument a grey gradient is classified.

use @{module} as network;

use std::{env, error::Error, fs, time::Instant};

use network::{LABELS, Model, Workspace, preprocess};

@{ppm}
fn main() -> Result<(), Box<dyn Error>> {
    let (width, height, rgb) = picture()?;
    let model = Model::new();
    let mut workspace = Workspace::new(&model);
    let start = Instant::now();
    let input = preprocess(width, height, &rgb)?;
    let ready = start.elapsed();
    let logits = model.infer_with(&mut workspace, &input);
    let done = start.elapsed();
    let probabilities = logits.softmax();
    for (class, logit) in logits.top(5) {
        let label = LABELS.get(class).copied().unwrap_or_default();
        println!(
            "{class:5} {:6.2} % {logit:8.3} {label}",
            100.0 * probabilities[class]
        );
    }
    println!(
        "preprocessing {ready:.1?}, network {:.1?}, {} on {} threads",
        done - ready,
        model.isa(),
        model.threads()
    );
    Ok(())
}
