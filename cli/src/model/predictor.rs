//! Pictures in, logits out.

use std::{path::Path, sync::Once};

use emoc_ir::{Diagnostic, Result};
use emoc_pictures::Decoded;
use emoc_runtimes::{InputFact, NamedTensor, Session};

use super::{Engine, Model, Take};
use crate::ui::Ui;

/// A session of a classifier.
pub struct Predictor<'a> {
    session: Box<dyn Session + 'a>,
    take: Take,
    input: InputFact,
    output: &'a str,
    classes: usize,
}

impl<'a> Predictor<'a> {
    /// A session of `engine`, which runs `model`.
    ///
    /// # Errors
    /// The runtime refuses the model, or it is no classifier.
    pub fn new(model: &'a Model, engine: &'a Engine<'a>) -> Result<Self> {
        Ok(Self {
            session: engine.session()?,
            take: engine.take(),
            input: model.input.clone(),
            output: &model.output,
            classes: model.classes()?,
        })
    }

    /// Threads of the session.
    pub fn threads(&self) -> usize {
        self.session.threads()
    }

    /// The logits of pictures, each given as planes `[3, H, W]`, in their order. A picture may
    /// have none: values that are not finite.
    ///
    /// # Errors
    /// The runtime fails, or gives what are no logits.
    pub fn logits(&mut self, pictures: &[Vec<f32>]) -> Result<Vec<Result<Vec<f32>>>> {
        let (Take::Exactly(step) | Take::UpTo(step)) = self.take;
        let mut logits = Vec::with_capacity(pictures.len());
        for group in pictures.chunks(step) {
            let mut data = group.concat();
            let mut shape = self.input.shape.clone();
            match self.take {
                // What fills up the batch is not looked at.
                Take::Exactly(batch) => {
                    let image = data.len() / group.len();
                    data.resize(image * batch, 0.0);
                }
                Take::UpTo(_) => shape[0] = group.len(),
            }
            let input = NamedTensor::new(&self.input.name, shape, data)?;
            let outputs = self.session.run(&[input])?;
            let rows = self.rows(&outputs)?;
            logits.extend(rows.into_iter().take(group.len()));
        }
        Ok(logits)
    }

    /// The rows of the logits.
    fn rows(&self, outputs: &[NamedTensor]) -> Result<Vec<Result<Vec<f32>>>> {
        let named = outputs.iter().find(|output| output.name == self.output);
        let output = named.ok_or_else(|| Diagnostic::internal("the logits are missing"))?;
        if !matches!(&output.shape[..], &[_, classes] if classes == self.classes) {
            let (name, shape) = (&output.name, &output.shape);
            let message = format!("output `{name}` has shape {shape:?} and is no row of logits");
            return Err(Diagnostic::input(message));
        }
        let rows = output.data.chunks_exact(self.classes.max(1));
        Ok(rows.map(finite).collect())
    }
}

fn finite(row: &[f32]) -> Result<Vec<f32>> {
    match row.iter().all(|value| value.is_finite()) {
        true => Ok(row.to_vec()),
        false => {
            let message = "the network answers with values that are not finite";
            Err(Diagnostic::input(message)
                .help("`emoc check` shows where they come from, `emoc inspect` bad weights"))
        }
    }
}

/// Decodes a picture. Many viewers turn one with an EXIF orientation; the official loader does not,
/// and so nor does emoc. That is said once: a folder may be full of them.
///
/// # Errors
/// It cannot be read, or is no picture.
pub fn open_picture(path: &Path, ui: &Ui) -> Result<Decoded> {
    static SAID: Once = Once::new();
    let picture = emoc_pictures::open(path)?;
    if picture.orientation.is_some() {
        SAID.call_once(|| {
            let path = path.display();
            ui.detail(format_args!(
                "EXIF orientations are ignored, as the official loader does: of {path} for one"
            ));
        });
    }
    Ok(picture)
}

/// Probabilities of the classes, which sum up to 1.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers = logits
        .iter()
        .map(|&x| (f64::from(x) - f64::from(most)).exp());
    let powers: Vec<_> = powers.collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// The `count` classes with the largest logits, the largest first; of equal ones the first class.
pub fn top(logits: &[f32], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    order.truncate(count);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_probabilities() {
        for (logits, expected, first) in [
            (&[1.0, 3.0, 2.0][..], &[1, 2][..], 0.665_240_955_774_821_8),
            (&[2.0, 2.0], &[0, 1], 0.5),
            (&[-0.0, 0.0, -1e30], &[1, 0], 0.5),
            (&[1e30], &[0], 1.0),
        ] {
            assert_eq!(top(logits, 2), expected, "{logits:?}");
            let probability = softmax(logits)[expected[0]];
            assert!(
                (probability - first).abs() < 1e-15,
                "{logits:?}: {probability}"
            );
        }
    }
}
