//! Prints the mean and the largest value of each stage's result for a picture.
//!
//!     cargo run --release --example classify [PICTURE.ppm]
//!
//! PPM (binary, 8 bits) is read because it needs no library: `magick picture.jpg picture.ppm`.
//! Without an argument a grey gradient is taken.

use @{module} as network;

use std::{env, error::Error, fs};

use network::{Model, STAGE_SHAPES, preprocess};

@{ppm}
fn main() -> Result<(), Box<dyn Error>> {
    let (width, height, rgb) = picture()?;
    let stages = Model::new().infer(&*preprocess(width, height, &rgb)?);
    let mut values = stages.values();
    for (stage, shape) in STAGE_SHAPES.iter().enumerate() {
        let len = shape.iter().product();
        let planes: Vec<f32> = values.by_ref().take(len).collect();
        let mean = planes.iter().sum::<f32>() / len as f32;
        let largest = planes.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        println!(
            "stage{} {shape:?}: mean {mean:.4}, largest {largest:.4}",
            stage + 1
        );
    }
    Ok(())
}
