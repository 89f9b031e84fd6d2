//! What the end-to-end tests share: fixtures, golden cases, comparison.

#![allow(clippy::print_stdout, reason = "tests say visibly what they skip")]

pub mod cases;

use std::path::{Path, PathBuf};

use emoc_frontend::Checkpoint;
use emoc_ir::reference::Tensor;

/// The folder of the fixtures that are committed with the tests.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// The folder of the large reference files, or `None` after saying that `what` is skipped.
pub fn reference_dir(what: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("EMOC_REFERENCE_DIR").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: {what}: EMOC_REFERENCE_DIR is not set");
    }
    folder
}

/// Whether every variant is tested, not a representative subset.
pub fn full() -> bool {
    std::env::var_os("EMOC_TEST_FULL").is_some()
}

/// Golden tensors of one file, by name.
pub struct Goldens(Checkpoint);

impl Goldens {
    /// Opens a safetensors file.
    pub fn open(path: &Path) -> Self {
        Self(Checkpoint::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Tensor {
        self.find(name)
            .unwrap_or_else(|| panic!("no golden tensor `{name}`"))
    }

    /// The tensor of this name, if there is one.
    pub fn find(&self, name: &str) -> Option<Tensor> {
        let tensor = self.0.tensors().iter().find(|t| t.name() == name)?;
        let values = tensor.to_f32().expect("golden tensors are float32");
        Some(Tensor::from_f32(tensor.shape(), &values))
    }
}

/// Population standard deviation.
pub fn spread(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt()
}

/// Largest absolute difference; infinite where shapes differ or a value is not finite.
pub fn max_abs_difference(expected: &Tensor, actual: &Tensor) -> f64 {
    if expected.shape != actual.shape {
        return f64::INFINITY;
    }
    let pairs = expected.data.iter().zip(&actual.data);
    let difference = |(e, a): (&f64, &f64)| {
        let d = (e - a).abs();
        if d.is_finite() { d } else { f64::INFINITY }
    };
    pairs.map(difference).fold(0.0, f64::max)
}

/// The difference that counts as agreement: `1e-4 x max(1, spread)`.
pub fn tolerance(expected: &Tensor) -> f64 {
    1e-4 * spread(&expected.data).max(1.0)
}

/// Panics, saying where, unless `actual` agrees with `expected` within the tolerance.
#[track_caller]
pub fn assert_agrees(what: &str, expected: &Tensor, actual: &Tensor, tolerance: f64) {
    let difference = max_abs_difference(expected, actual);
    assert!(
        difference <= tolerance,
        "{what}: {:?} against the expected {:?} differs by {difference:.3e}, allowed {tolerance:.3e}",
        actual.shape,
        expected.shape,
    );
}

/// How far float16 may move outputs, in units of their spread.
pub const FLOAT16_TOLERANCE: f64 = 5e-3;

/// How far float16 moves an output, in units of its spread.
pub fn float16_moves(what: &str, golden: &Tensor, actual: &Tensor) -> f64 {
    let share = max_abs_difference(golden, actual) / spread(&golden.data);
    println!("{what}: float16 moves the output by {share:.1e} x spread");
    share
}

/// Float16 moves an output a little, and never the best class.
pub fn assert_float16_agrees(what: &str, golden: &Tensor, actual: &Tensor) {
    let share = float16_moves(what, golden, actual);
    assert!(
        share <= FLOAT16_TOLERANCE,
        "{what}: moved by {share:.1e} x spread"
    );
    let &[_, classes] = &golden.shape[..] else {
        return;
    };
    let best = |row: &[f64]| (0..classes).max_by(|&a, &b| row[a].total_cmp(&row[b]));
    let rows = golden.data.chunks(classes).zip(actual.data.chunks(classes));
    for (image, (golden, actual)) in rows.enumerate() {
        let (golden, actual) = (best(golden), best(actual));
        assert_eq!(golden, actual, "{what}: best class of image {image}");
    }
}
